"""Whole convolution filters are removed, so that a network is smaller and faster and not only emptier.

A filter cannot go alone: its batch norm, the depthwise convolution behind it, what it is added to or multiplied with
lose the same channel, and all that reads that channel loses an input. Such a *group* is found by torch-pruning (Fang et
al. 2023), on a copy of the network. Here it is decided which groups may be cut and how much of each, and a cut is
proven on the copy before the network itself is touched.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from sktl._locks import Lock
from sktl._optional import import_optional
from sktl._training._rest_network import RestNetwork
from sktl.exceptions import CompressionError

Score = Callable[[Any], Tensor]

# torch-pruning notes along which axis it is about to cut in objects that all threads share.
_LOCK = Lock()

# What stays of each group where all groups are ranked together: a group without filters would cut the network in two.
_SMALLEST_SHARE = 0.1

# How far the outputs of the cut network may be from those of the network whose filters are silenced, as a share of the
# largest of them: sums in another order differ by a millionth, a wrong channel by about the whole.
_TOLERANCE = 1e-2

# Operations, by torch-pruning's names, of which it has to guess what becomes of a channel.
_MOVING = ("RESHAPE", "SPLIT", "UNBIND", "SLICE", "EXPAND")

_WAY_OUT = "granularity='weight' works on every network: it sets single weights to zero and removes no filter."


class _Member(NamedTuple):
    """What one layer loses with the filters of a group.

    Attributes
    ----------
    path : str
        Of a module of the network, or of a parameter outside of its layers.
    cut : callable
        torch-pruning's function, ``cut(module, positions)``.
    axis : int
        What torch-pruning calls the pruning dimension.
    is_output : bool
        Whether these are outputs of the layer; inputs otherwise.
    positions : Tensor of shape (n,), dtype int64
        Channels of the layer.
    filters : Tensor of shape (n,), dtype int64
        The filter of the group to which each of them belongs.
    """

    path: str
    cut: Callable[[Any, Sequence[int]], Any]
    axis: int
    is_output: bool
    positions: Tensor
    filters: Tensor


class _Group(NamedTuple):
    """Filters that can only be removed with all channels that depend on them.

    Attributes
    ----------
    members : tuple of _Member
    n_filters : int
    n_blocks : int
        Grouped convolutions need as many channels in each of their blocks, so the filters go in units: the i-th filter
        of every block, or of none.
    is_plain : bool
        Whether none of its channels is moved between places or other channels, which torch-pruning may misread.
    """

    members: tuple[_Member, ...]
    n_filters: int
    n_blocks: int
    is_plain: bool

    @property
    def n_units(self) -> int:
        return self.n_filters // self.n_blocks


class Unpruned(NamedTuple):
    """What shares are of, where a network is cut in several steps: else what is rounded off would add up.

    Attributes
    ----------
    n_filters : dict of str to int
        Outputs of each layer.
    macs : int
        Multiply-accumulates per row.
    """

    n_filters: dict[str, int]
    macs: int


def measure_unpruned(network: RestNetwork, example: Tensor) -> Unpruned:
    """How large a network is before the first step; ``network`` and ``example`` as in `prune_filters`."""
    with torch.inference_mode(False), torch.no_grad():
        layers = _layer_macs(_trial_copy(network), example[:2].detach().cpu().clone())
    n_filters = {path: n_outputs for path, (_, _, n_outputs) in layers.items()}
    return Unpruned(n_filters, sum(macs for macs, _, _ in layers.values()))


def import_torch_pruning() -> Any:
    """The package, or the error that says how to install it."""
    return import_optional("torch_pruning", extra="compress", purpose="granularity='filter'")


def prune_filters(
    network: RestNetwork,
    example: Tensor,
    *,
    amount: float,
    unit: str = "count",
    scope: str = "layer",
    score: Score | None = None,
    round_to: int | None = None,
    unpruned: Unpruned | None = None,
) -> None:
    """Remove convolution filters and all that depends on them, in place.

    Parameters
    ----------
    network : RestNetwork
        Its stages are cut, and the inputs of its head. The layers of the head, what does not learn, and the channels
        that come from the frozen stages stay. A network that has been cut may be cut again.
    example : Tensor of shape (n, channels, height, width), dtype float
        What the stages take: the output of the frozen stages, or normalised pictures where no stage is frozen. The
        first two are looked at.
    amount : float
        The share to remove, between 0 and 1. Of each group one filter stays in any case.
    unit : {"count", "macs"}, default="count"
        What the share is of: the filters, or the multiply-accumulates of ``network``. For the latter, the
        smallest share of the filters is removed that saves as much.
    scope : {"layer", "global"}, default="layer"
        Whether each group loses the same share, or the least important filters go, wherever they are; a tenth of each
        group stays then.
    score : callable, default=None
        ``score(layer)`` gives the importance of each weight, a tensor of the weight's shape, of a convolution or a
        linear layer of ``network``; by default the squares. A filter matters as much as all weights that go with it,
        those that write its channel and those that read it; each layer of a group has the same say.
    round_to : int, default=None
        What stays of a group is the nearest multiple of it, unless that is none, or more than there was. None is 8 for
        ``unit="macs"``, since processors work on channels by the eight and time is what is to be saved; and 1 for
        ``unit="count"``, which is exact.
    unpruned : Unpruned, default=None
        Of what ``amount`` is a share, what is gone already counted in; None takes the network as it is.

    Raises
    ------
    CompressionError
        Where the network cannot be followed, no convolution in it may be cut, or so much cannot be saved. The
        network is as it was.
    MissingDependencyError
        Where torch-pruning is not installed.

    References
    ----------
    Fang, Ma, Song, Mi, Wang: "DepGraph: Towards Any Structural Pruning", CVPR 2023.
    Molchanov, Mallya, Tyree, Frosio, Kautz: "Importance Estimation for Neural Network Pruning", CVPR 2019 (importance
    of a filter: the sum over its weights).
    """
    step = round_to or (8 if unit == "macs" else 1)
    # What inference mode makes cannot be trained, and torch-pruning reads the network from autograd's graph.
    with torch.inference_mode(False), torch.enable_grad():
        example = example[:2].detach().cpu().clone().requires_grad_()
        groups = _read_groups(network, example)

    unpruned = unpruned or measure_unpruned(network, example)

    def proven_cuts(groups: Sequence[_Group]) -> list[_Member]:
        importances = [_importance(group, network, score or _squares) for group in groups]

        def cuts_of(share: float) -> list[_Member]:
            return _cuts(groups, importances, _n_kept(groups, importances, share, scope, step, unpruned))

        trial = _trial_copy(network)
        share = amount
        if unit == "macs":
            share = _share_that_saves(amount, _layer_macs(trial, example), unpruned.macs, cuts_of)
        cuts = cuts_of(share)
        _prove(trial, example, cuts)
        return cuts

    with torch.inference_mode(False), torch.no_grad():
        try:
            cuts = proven_cuts(groups)
        except CompressionError:
            plain = [group for group in groups if group.is_plain]
            if len(plain) in (0, len(groups)):
                raise
            cuts = proven_cuts(plain)
        _apply(network, cuts)


class _Entry(nn.Module):
    """Where the output of the frozen stages comes in, whose channels nobody here may cut.

    Without it an input that is added to the output of a convolution would be no part of the graph that is read, and
    that convolution would seem to be free.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class _EntryPruner:
    """What torch-pruning asks about a layer. It is never told to cut this one."""

    def __init__(self, n_channels: int):
        self.n_channels = n_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return self.n_channels

    def prune_out_channels(self, layer: nn.Module, positions: Sequence[int]) -> nn.Module:
        return layer

    get_in_channels = get_out_channels
    prune_in_channels = prune_out_channels


def _trial_copy(network: RestNetwork) -> RestNetwork:
    """A copy to read and to try the cut on, so that nothing has to be put back in the network itself."""
    trial = copy.deepcopy(network).cpu().eval()
    trial.normalization = _Entry()  # type: ignore[assignment]
    if isinstance(trial.stages, fx.GraphModule):
        # torch.fx prints where a network fails that is no longer consistent. That class is this one object's.
        type(trial.stages).__call__ = nn.Module.__call__  # type: ignore[method-assign]
    for parameter in trial.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # what does not learn is part of the graph too
    return trial


def _read_groups(network: RestNetwork, example: Tensor) -> list[_Group]:
    """The groups of filters that may be cut, in the order in which torch-pruning finds them.

    Raises
    ------
    CompressionError
        Where it cannot follow the network, or there is no such group.
    """
    torch_pruning = import_torch_pruning()
    graph, trial = torch_pruning.DependencyGraph(), _trial_copy(network)
    entry = _EntryPruner(example.shape[1] if example.ndim == 4 else example.shape[-1])
    try:
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(trial, example, customized_pruners={_Entry: entry}, verbose=False)
            found = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CompressionError(
            f"No filters can be removed: torch-pruning cannot follow this network ({type(error).__name__}: {reason}). "
            f"{_WAY_OUT}"
        ) from error
    names: dict[Any, str] = {part: path for path, part in [*trial.named_modules(), *trial.named_parameters()]}
    learning = {path for path, module in network.named_modules() if module in network.learning}
    learning |= {path for path, parameter in network.named_parameters() if parameter.requires_grad}
    learning |= {path for path in names.values() if path.startswith("head")}
    groups = [group for each in found if (group := _group(each, graph, names, learning)) and group.n_units > 1]
    if not groups:
        raise CompressionError(
            "No filters can be removed: every convolution behind the frozen stages is tied to what has to stay, or "
            f"there is none. Freeze less, or leave it at that: {_WAY_OUT}"
        )
    return groups


def _group(found: Any, graph: Any, names: dict[Any, str], learning: set[str]) -> _Group | None:
    """What torch-pruning found, in our words; None where something in it may not be cut."""
    members, blocks, is_plain = [], [1], True
    for item in found:
        node, cut = item.dep.target, item.dep.handler
        module, path = node.module, names.get(node.module)
        is_output = graph.is_out_channel_pruning_fn(cut)
        if is_output and not node.outputs:  # what the network gives
            return None
        if path is None:  # an operation between the layers
            is_plain &= node.type.name not in _MOVING
            continue
        is_of_head = path.startswith("head") and is_output and isinstance(module, nn.Linear | _ConvNd)
        # The entry, whose channels come from the frozen stages, does not learn either.
        if is_of_head or path not in learning or any(root is None for root in item.root_idxs):
            return None
        if isinstance(module, nn.LayerNorm):  # torch-pruning 1.6 may cut it in another order than the others
            return None
        if isinstance(module, nn.GroupNorm):
            blocks.append(module.num_groups)
        elif isinstance(module, _ConvNd) and module.groups != module.out_channels:  # depthwise ones are free
            blocks.append(module.groups)
        members.append(
            _Member(path, cut, node.pruning_dim, is_output, torch.tensor(item.idxs), torch.tensor(item.root_idxs))
        )
    n_filters = len(found[0].idxs)
    n_blocks = math.lcm(*blocks)
    return _Group(tuple(members), n_filters, n_blocks, is_plain) if n_filters % n_blocks == 0 else None


def _squares(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return layer.weight.square()


def _importance(group: _Group, network: nn.Module, score: Score) -> Tensor:
    """Importance (n_units,) of a group's filters: the mean over its layers and blocks, 1 on the average.

    What reads a channel says as much about it as what writes it: a batch norm behind a convolution makes up for its
    small weights, so that these alone say nothing.
    """
    total, n_layers = torch.zeros(group.n_filters), 0
    for member in group.members:
        layer = _get(network, member.path)
        if type(layer) in (nn.Conv2d, nn.Linear):
            weights = score(layer).detach().cpu().float()
            # Outputs, inputs of each block, places; a block of a grouped convolution has inputs of its own.
            blocks = weights.reshape(getattr(layer, "groups", 1), -1, weights.shape[1], weights[0, 0].numel())
            channels = weights.flatten(1).sum(1) if member.is_output else blocks.sum((1, 3)).flatten()
            own = torch.zeros(group.n_filters).index_add_(0, member.filters, channels[member.positions])
            total += own / own.mean().clamp(min=torch.finfo(own.dtype).tiny)
            n_layers += 1
    return (total / max(n_layers, 1)).reshape(group.n_blocks, group.n_units).mean(0)


def _n_kept(
    groups: Sequence[_Group], importances: Sequence[Tensor], share: float, scope: str, step: int, unpruned: Unpruned
) -> list[int]:
    """How many units of each group stay where ``share`` of the filters of the whole network goes."""
    sizes = [group.n_units for group in groups]
    totals = [unpruned.n_filters.get(group.members[0].path, group.n_filters) // group.n_blocks for group in groups]
    if scope == "layer":
        kept = [min(size, max(1, n - _share_of(n, share))) for size, n in zip(sizes, totals, strict=True)]
    else:
        # The most important ones of each group are not asked: a tenth of it stays.
        smallest = [max(1, math.ceil(_SMALLEST_SHARE * n)) for n in totals]
        free = [max(0, size - n) for size, n in zip(sizes, smallest, strict=True)]
        n_gone = max(0, _share_of(sum(totals), share) - (sum(totals) - sum(sizes)))
        ranked = torch.cat([importance.sort()[0][:n] for importance, n in zip(importances, free, strict=True)])
        owners = torch.repeat_interleave(torch.tensor(free))
        gone = owners[ranked.argsort(stable=True)[:n_gone]].bincount(minlength=len(groups))
        kept = [size - n for size, n in zip(sizes, gone.tolist(), strict=True)]
    for number, group in enumerate(groups):
        units = step // math.gcd(step, group.n_blocks)
        rounded = int(kept[number] / units + 0.5) * units
        kept[number] = rounded if 0 < rounded <= group.n_units else kept[number]
    return kept


def _share_of(n: int, share: float) -> int:
    """At most ``share`` of ``n``, where 0.29 * 100 is 29."""
    return math.floor(n * share + 1e-6)


def _cuts(groups: Sequence[_Group], importances: Sequence[Tensor], n_kept: Sequence[int]) -> list[_Member]:
    """What each layer loses, all groups together, so that each layer is cut once and nothing has to be counted anew."""
    cuts: dict[tuple[str, bool], _Member] = {}
    for group, importance, n in zip(groups, importances, n_kept, strict=True):
        is_gone = torch.zeros(group.n_units, dtype=torch.bool)
        is_gone[importance.argsort(stable=True)[: group.n_units - n]] = True
        is_gone = is_gone.repeat(group.n_blocks)
        for member in group.members:
            lost = is_gone[member.filters]
            key = member.path, member.is_output
            if key in cuts:
                positions = torch.cat([cuts[key].positions, member.positions[lost]])
                filters = torch.cat([cuts[key].filters, member.filters[lost]])
            else:
                positions, filters = member.positions[lost], member.filters[lost]
            cuts[key] = member._replace(positions=positions, filters=filters)
    return [cut for cut in cuts.values() if len(cut.positions)]


def _layer_macs(trial: RestNetwork, example: Tensor) -> dict[str, tuple[int, int, int]]:
    """(multiply-accumulates per row, inputs, outputs) of each convolution and linear layer."""
    macs: dict[str, tuple[int, int, int]] = {}

    def count(path: str, layer: Any, output: Tensor) -> None:
        n_out, n_in = layer.weight.shape[:2]
        earlier = macs[path][0] if path in macs else 0  # a layer may run several times
        n = output.numel() // len(output) * layer.weight[0].numel()
        macs[path] = (earlier + n, n_in * getattr(layer, "groups", 1), n_out)

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, path=path: count(path, layer, output))
        for path, layer in trial.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    trial(example)
    for hook in hooks:
        hook.remove()
    return macs


def _share_that_saves(
    amount: float, layers: dict[str, tuple[int, int, int]], whole: int, cuts_of: Callable[[float], list[_Member]]
) -> float:
    """The smallest share of the filters that saves ``amount`` of the multiply-accumulates, by bisection.

    Nothing has to be cut for that: what a layer computes is proportional to its inputs and to its outputs.
    """

    def saved(share: float) -> float:
        left = {path: float(macs) for path, (macs, _, _) in layers.items()}
        for cut in cuts_of(share):
            if cut.path in left:
                n = layers[cut.path][2 if cut.is_output else 1]
                left[cut.path] *= 1 - len(cut.positions) / n
        return 1 - sum(left.values()) / whole

    low, high = 0.0, 1.0
    if saved(high) < amount:
        raise CompressionError(
            f"amount={amount} of the multiply-accumulates cannot be saved: one filter in each group stays, and what is "
            f"tied to other layers; the most is {saved(high):.2f}. Ask for less."
        )
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if saved(middle) >= amount else (middle, high)
    return high


def _prove(trial: RestNetwork, example: Tensor, cuts: Sequence[_Member]) -> None:
    """Cut the copy and see that it computes what the whole network does when the same filters are silent.

    Raises
    ------
    CompressionError
        Where it does not: torch-pruning guesses what an operation does with channels, and may be wrong.
    """
    layers = [_get(trial, cut.path) for cut in cuts]
    for layer, cut in zip(layers, cuts, strict=True):
        _silence(layer, cut)
    expected = _outputs(trial, example)
    try:
        _apply(trial, cuts)
        given = _outputs(trial, example)
        # A group norm takes the mean over the channels that there are, so that it sees a silent one.
        is_comparable = not any(isinstance(layer, nn.GroupNorm) for layer in layers)
        difference = (given - expected).abs().max() if is_comparable else given.new_zeros(())
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CompressionError(
            f"No filters can be removed: the network would not run ({reason}). {_WAY_OUT}"
        ) from error
    if not difference <= _TOLERANCE * expected.abs().max():
        raise CompressionError(
            "No filters can be removed: torch-pruning misreads an operation of this network, which would compute "
            f"something else. {_WAY_OUT}"
        )


def _outputs(trial: RestNetwork, example: Tensor) -> Tensor:
    outputs = trial(example)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _silence(layer: Any, cut: _Member) -> None:
    """Let nobody hear what is going to be removed: neither are the channels written, nor are they read."""
    if cut.is_output and isinstance(layer, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm):
        for tensor in (layer.weight, layer.bias):
            if tensor is not None:
                tensor[cut.positions] = 0
    elif isinstance(layer, nn.Conv2d | nn.Linear):
        layer.weight[:, cut.positions % layer.weight.shape[1]] = 0


def _apply(network: nn.Module, cuts: Sequence[_Member]) -> None:
    """Remove the channels; what learns goes on to learn, and what does not does not."""
    for cut in cuts:
        part = _get(network, cut.path)
        is_layer = isinstance(part, nn.Module)
        learns = {name: p.requires_grad for name, p in part.named_parameters(recurse=False)} if is_layer else {}
        with _LOCK:
            cut.cut.__self__.pruning_dim = cut.axis  # type: ignore[attr-defined]
            new = cut.cut(part, cut.positions.tolist())
        for name, requires_grad in learns.items():
            getattr(part, name).requires_grad_(requires_grad)
        if not is_layer:
            owner, _, name = cut.path.rpartition(".")
            setattr(network.get_submodule(owner), name, new.requires_grad_(part.requires_grad))


def _get(network: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(network.get_submodule(owner), name)
