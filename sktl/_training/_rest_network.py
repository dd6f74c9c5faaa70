"""The trainable rest of a network: the stages behind the cut, pooling, and a new head."""

import copy
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from sktl._frozen._prefix_network import Normalization, fuse, pool
from sktl._part import without_tracing
from sktl.backbones import Backbone
from sktl.backbones._graph import shadow
from sktl.exceptions import InputError

Head = str | Sequence[int] | nn.Module


class RestNetwork(nn.Module):
    """What is trained: it maps the output of the frozen stages to the outputs of the head.

    Whoever calls `train`, what is frozen stays in eval mode: its statistics do not move and its dropout is off.

    Parameters
    ----------
    backbone : Backbone
        The network, whose stages behind the cut are copied.
    depth : int
        How many stages are frozen for good, and so are not in here.
    head : nn.Module
        Maps pooled features (n, n_features) to outputs (n, n_outputs).
    pooling : str, default="avg"
        What becomes of the last stage's output, see `pool`.
    freeze_bn : bool, default=True
        Whether batch norms keep the statistics that they were pretrained with.
    taps : sequence of str or None, default=None
        Layers behind the cut whose output `forward` gives as well.

    Attributes
    ----------
    n_stages : int
        Stages of the whole backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        depth: int,
        head: nn.Module,
        *,
        pooling: str = "avg",
        freeze_bn: bool = True,
        taps: "Sequence[str] | None" = None,
    ):
        super().__init__()
        last = backbone.stages[-1].name
        names = [stage.name for stage in backbone.stages[depth:]]
        self.normalization = Normalization(backbone.preprocessing) if depth == 0 else nn.Identity()
        self.stages: nn.Module = backbone.cut(depth, head=False, taps=taps or ())[1] if names else nn.Identity()
        self._has_taps = taps is not None
        self.head = head
        # With all stages frozen, what comes in has been pooled by the prefix.
        self._pooling = (pooling, backbone.channel_axis(last), backbone.has_cls_token(last)) if names else ("none",)
        self._parts = {name: backbone.stage_parts[name] for name in names}
        self.n_stages = len(backbone.stages)
        self._freeze_bn = freeze_bn
        self.freeze(depth)

    def forward(self, x: Tensor) -> Any:
        """Outputs (n, n_outputs) of the frozen stages' output; of uint8 pictures (n, height, width, channels).

        With taps, however few, a tuple: the outputs, what reaches the head (n, n_features), and what each tap gave.
        """
        features, seen = self._run(x)
        outputs = self.head(features)
        return (outputs, features, *seen) if self._has_taps else outputs

    def features(self, x: Tensor) -> Tensor:
        """What reaches the head, (n, n_features)."""
        return self._run(x)[0]

    def fused(self) -> "RestNetwork":
        """The same function in eval mode, faster: batch norms folded, channels last; what is not folded is shared."""
        other = object.__new__(type(self))
        other.__dict__.update({**self.__dict__, "_modules": dict(self._modules)})
        if isinstance(self.stages, torch.fx.GraphModule):
            stages = fuse(shadow(self.stages, torch.Tensor.detach)).to(memory_format=torch.channels_last)
            other._modules["stages"] = stages
        return other

    @property
    def learning(self) -> "dict[nn.Module, None]":
        """The modules of the stages that learn now, in the network's order."""
        return self._learning

    @property
    def freeze_bn(self) -> bool:
        """Whether batch norms keep the statistics that they were pretrained with; from the next `train` on if set."""
        return self._freeze_bn

    @freeze_bn.setter
    def freeze_bn(self, value: bool) -> None:
        self._freeze_bn = value

    def _run(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        outputs = self.stages(self.normalization(x))
        *seen, last = outputs if isinstance(outputs, tuple) else (outputs,)
        return pool(last, *self._pooling), tuple(seen)

    def train(self, mode: bool = True) -> "RestNetwork":
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for module in self.stages.modules():
            is_kept = self._freeze_bn and isinstance(module, nn.modules.batchnorm._BatchNorm)
            module.training &= module in self._learning and not is_kept
        return self

    def freeze(self, n_stages: int) -> None:
        """Freeze the first ``n_stages`` of the backbone, those in front of the cut counted in, and no others."""
        # What no stage behind the cut is the first to use (a layer that a frozen stage runs as well) does not learn.
        self.stages.requires_grad_(False)
        # In the network's order and not by address, so that a pickle of it is the same everywhere.
        self._learning: dict[nn.Module, None] = {}
        n_before = self.n_stages - len(self._parts)
        for number, (name, named) in enumerate(self.parameters_by_stage(), start=n_before):
            if n_stages <= number < self.n_stages:
                parts = (_get(self.stages, path) for path in self._parts[name])
                found = (module for part in parts if isinstance(part, nn.Module) for module in part.modules())
                self._learning.update(dict.fromkeys(found))
                for _, parameter in named:
                    parameter.requires_grad_(parameter.is_floating_point())
        self.train(self.training)

    def parameters_by_stage(self) -> Iterator[tuple[str, list[tuple[str, nn.Parameter]]]]:
        """(stage, its named parameters) of each stage behind the cut, the first one first, and of the head.

        A parameter that several stages share is the first one's.
        """
        seen: set[nn.Parameter] = set()
        for name in self._parts:
            own = []
            for path, parameter in self._named_parameters_of(name):
                if parameter not in seen:
                    seen.add(parameter)
                    own.append((path, parameter))
            yield name, own
        yield "head", list(self.head.named_parameters())

    def _named_parameters_of(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        for path in self._parts[name]:
            part = _get(self.stages, path)
            if isinstance(part, nn.Parameter):
                yield path, part
            elif isinstance(part, nn.Module):
                yield from part.named_parameters(path)


def adopt_statistics_quickly(network: nn.Module) -> None:
    """Let batch norms that begin with nothing learn their statistics as fast as is usual, in place.

    Some networks (MobileNetV3, EfficientNet) average them over hundreds of steps, which a training of millions of
    pictures has: a short one would end with statistics of its first steps, and predict by chance.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)  # torch's default


def norm_parameters(module: nn.Module) -> set[nn.Parameter]:
    """The parameters of all norms in ``module``: scales and shifts, which weight decay would only distort."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return {
        parameter
        for norm in module.modules()
        if isinstance(norm, kinds) or "norm" in type(norm).__name__.lower()
        for parameter in norm.parameters(recurse=False)
    }


def make_head(head: Head, n_features: int, n_outputs: int, *, dropout: float, generator_seed: int) -> nn.Module:
    """The head that the parameter ``head=`` means, newly initialised.

    Parameters
    ----------
    head : "linear", sequence of int, or nn.Module
        One linear layer; hidden layers of these widths with ReLU in front of it; or a network of the user's, which
        is copied.
    n_features : int
        What it takes.
    n_outputs : int
        What it has to give.
    dropout : float
        Probability with which a feature is left out, in front of each linear layer.
    generator_seed : int
        Seed of its weights; a copied network keeps those it has.

    Raises
    ------
    InputError
        Where it is something else, does not fit, or is frozen.
    """
    if isinstance(head, nn.Module):
        head = without_tracing(copy.deepcopy(head)).cpu()  # where the features of the check are; the net moves it
        _check_head(head, n_features, n_outputs)
        return head
    widths = [] if isinstance(head, str) and head == "linear" else head
    is_widths = isinstance(widths, list | tuple) and all(isinstance(x, Integral) and int(x) > 0 for x in widths)
    if not is_widths:
        raise InputError(
            f"head={head!r} is no head. Use 'linear', the widths of hidden layers such as (256,), or an nn.Module that "
            "maps features to outputs."
        )
    layers: list[nn.Module] = []
    generator = torch.Generator().manual_seed(generator_seed)
    for n_in, n_out in zip([n_features, *widths], [*widths, n_outputs], strict=True):
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [linear_layer(int(n_in), int(n_out), generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def last_linear(head: nn.Module) -> nn.Linear | None:
    """The linear layer that gives the head's outputs, where the head is one or a sequence that ends with one."""
    while isinstance(head, nn.Sequential) and len(head):
        head = head[-1]
    return head if isinstance(head, nn.Linear) else None


def linear_layer(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's own initial distribution, drawn from ``generator`` and from nothing global."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    bound = n_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _check_head(head: nn.Module, n_features: int, n_outputs: int) -> None:
    """Refuse a head of the user's that cannot work."""
    frozen = [name for name, parameter in head.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise InputError(
            f"head={type(head).__name__} has frozen parameters {frozen[:3]}. The head cannot be frozen: the rest would "
            "have to adapt to what it happens to hold. Call head.requires_grad_(True)."
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in head.parameters()):
        raise InputError(f"head={type(head).__name__} has lazy layers. Give them their number of inputs: {n_features}.")
    modes = {module: module.training for module in head.modules()}
    try:
        with torch.no_grad():
            outputs: Any = head.eval()(torch.zeros(2, n_features))
    except Exception as error:
        raise InputError(
            f"head={type(head).__name__} cannot take features of shape (n, {n_features}): {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(outputs, Tensor) or outputs.shape != (2, n_outputs):
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"head={type(head).__name__} gives {shape} for features of shape (2, {n_features}). It has to give "
            f"(2, {n_outputs}): one output per class or target."
        )


def _get(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
