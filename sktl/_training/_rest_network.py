"""Trainable rest of a network: the stages after the frozen ones, pooling and a head."""

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
    """Network that maps the output of the frozen stages to the outputs of the head.

    Frozen stages stay in eval mode after any call of `train`: batch normalization
    statistics do not change and dropout is off.

    Parameters
    ----------
    backbone : Backbone or None
        The network. Its stages from ``depth`` on are copied. None for a network that
        consists of the head alone.
    depth : int
        Number of stages that are frozen throughout and not part of this network.
    head : nn.Module
        Maps pooled features (n, n_features) to outputs (n, n_outputs).
    pooling : str, default="avg"
        Pooling of the output of the last stage, see `pool`.
    freeze_bn : bool, default=True
        Whether batch normalization layers keep their pretrained statistics.
    taps : sequence of str or None, default=None
        Layers after the frozen stages whose outputs `forward` returns as well.

    Attributes
    ----------
    n_stages : int
        Number of stages of the whole backbone.
    """

    def __init__(
        self,
        backbone: "Backbone | None",
        depth: int,
        head: nn.Module,
        *,
        pooling: str = "avg",
        freeze_bn: bool = True,
        taps: "Sequence[str] | None" = None,
    ):
        super().__init__()
        self.normalization: nn.Module = nn.Identity()
        self.stages: nn.Module = nn.Identity()
        self._has_taps = taps is not None
        self.head = head
        self.n_stages = 0 if backbone is None else len(backbone.stages)
        # If all stages are frozen, the prefix has pooled the input already.
        self._pooling: tuple[Any, ...] = ("none",)
        self._parts: dict[str, tuple[str, ...]] = {}
        if backbone is not None and depth == 0:
            self.normalization = Normalization(backbone.preprocessing)
        if backbone is not None and depth < self.n_stages:
            last = backbone.stages[-1].name
            self.stages = backbone.cut(depth, head=False, taps=taps or ())[1]
            self._pooling = (pooling, backbone.channel_axis(last), backbone.has_cls_token(last))
            self._parts = {stage.name: backbone.stage_parts[stage.name] for stage in backbone.stages[depth:]}
        self._freeze_bn = freeze_bn
        self.freeze(depth)

    def forward(self, x: Tensor) -> Any:
        """Return the outputs (n, n_outputs).

        With taps, even an empty list of them, return a tuple: the outputs, the input of
        the head (n, n_features), and the output of each tap. If no stage is frozen,
        ``x`` holds uint8 images (n, height, width, channels).
        """
        features, seen = self._run(x)
        outputs = self.head(features)
        return (outputs, features, *seen) if self._has_taps else outputs

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the head, (n, n_features)."""
        return self._run(x)[0]

    def fused(self) -> "RestNetwork":
        """Return an equivalent network that is faster in eval mode.

        Batch normalization is folded into convolutions and the memory format is
        channels last. All other weights are shared with this network.
        """
        other = object.__new__(type(self))
        other.__dict__.update({**self.__dict__, "_modules": dict(self._modules)})
        if isinstance(self.stages, torch.fx.GraphModule):
            stages = fuse(shadow(self.stages, torch.Tensor.detach)).to(memory_format=torch.channels_last)
            other._modules["stages"] = stages
        return other

    @property
    def learning(self) -> "dict[nn.Module, None]":
        """Modules of the stages that are currently trained, in network order."""
        return self._learning

    @property
    def freeze_bn(self) -> bool:
        """True if batch normalization layers keep their pretrained statistics.

        A new value takes effect at the next call of `train`.
        """
        return self._freeze_bn

    @freeze_bn.setter
    def freeze_bn(self, value: bool) -> None:
        self._freeze_bn = value

    def _run(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        outputs = self.stages(self.normalization(x))
        *seen, last = outputs if isinstance(outputs, tuple) else (outputs,)
        return pool(last, *self._pooling), tuple(seen)

    def train(self, mode: bool = True) -> "RestNetwork":
        """Set the mode of all modules that are not frozen."""
        super().train(mode)
        for module in self.stages.modules():
            is_kept = self._freeze_bn and isinstance(module, nn.modules.batchnorm._BatchNorm)
            module.training &= module in self._learning and not is_kept
        return self

    def freeze(self, n_stages: int) -> None:
        """Freeze the first ``n_stages`` of the backbone and unfreeze the others."""
        # A layer that a frozen stage uses as well belongs to that stage and is not
        # trained.
        self.stages.requires_grad_(False)
        # In the order of the network, not by address, so that pickles are reproducible.
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
        """Yield each stage, and last the head, with its named parameters.

        A parameter shared by several stages belongs to the first of them.
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
    """Raise the momentum of batch normalization layers to torch's default, in place.

    Some networks (MobileNetV3, EfficientNet) average their statistics over hundreds of
    steps, which suits training on millions of images. A short training from random
    weights would end with the statistics of its first steps and predict at chance
    level.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)  # torch's default


def norm_parameters(module: nn.Module) -> set[nn.Parameter]:
    """Return the scales and shifts of all normalization layers in ``module``."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return {
        parameter
        for norm in module.modules()
        if isinstance(norm, kinds) or "norm" in type(norm).__name__.lower()
        for parameter in norm.parameters(recurse=False)
    }


def make_head(head: Head, n_features: int, n_outputs: int, *, dropout: float, generator_seed: int) -> nn.Module:
    """Build the head defined by the parameter ``head``, with new weights.

    Parameters
    ----------
    head : "linear", sequence of int, or nn.Module
        A linear layer, optionally after hidden layers of these widths with ReLU; or a
        module of the user, which is copied.
    n_features : int
        Number of inputs.
    n_outputs : int
        Number of outputs.
    dropout : float
        Dropout probability before each linear layer.
    generator_seed : int
        Seed of the weights. A copied module keeps its weights.

    Raises
    ------
    InputError
        If ``head`` is of another type, does not fit, or has frozen parameters.
    """
    if isinstance(head, nn.Module):
        # `_check_head` runs on the CPU; the net moves the head later.
        head = without_tracing(copy.deepcopy(head)).cpu()
        _check_head(head, n_features, n_outputs)
        return head
    widths = [] if isinstance(head, str) and head == "linear" else head
    is_widths = isinstance(widths, list | tuple) and all(isinstance(x, Integral) and int(x) > 0 for x in widths)
    if not is_widths:
        raise InputError(
            f"head must be 'linear', a tuple of widths of hidden layers such as (256,), or an nn.Module that maps "
            f"features to outputs. Got {head!r} instead."
        )
    layers: list[nn.Module] = []
    generator = torch.Generator().manual_seed(generator_seed)
    for n_in, n_out in zip([n_features, *widths], [*widths, n_outputs], strict=True):
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [linear_layer(int(n_in), int(n_out), generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def last_linear(head: nn.Module) -> nn.Linear | None:
    """Return the final linear layer of the head, or None if it has another end."""
    while isinstance(head, nn.Sequential) and len(head):
        head = head[-1]
    return head if isinstance(head, nn.Linear) else None


def linear_layer(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with torch's default initialization from ``generator``."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    bound = n_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _check_head(head: nn.Module, n_features: int, n_outputs: int) -> None:
    """Raise an error if a module passed as ``head`` cannot work."""
    frozen = [name for name, parameter in head.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise InputError(
            f"head={type(head).__name__} has frozen parameters: {frozen[:3]}. The head must be trainable, because the "
            "other layers cannot compensate for a fixed classifier. Call head.requires_grad_(True)."
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in head.parameters()):
        raise InputError(
            f"head={type(head).__name__} has lazy layers. Use layers with a fixed number of inputs, {n_features}."
        )
    modes = {module: module.training for module in head.modules()}
    try:
        with torch.no_grad():
            outputs: Any = head.eval()(torch.zeros(2, n_features))
    except Exception as error:
        raise InputError(f"head={type(head).__name__} fails on features of shape (n, {n_features}): {error}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(outputs, Tensor) or outputs.shape != (2, n_outputs):
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"head={type(head).__name__} must map features of shape (2, {n_features}) to outputs of shape "
            f"(2, {n_outputs}), one per class or target. Got {shape} instead."
        )


def _get(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
