"""Removal of whole convolution filters, which makes a network smaller and faster.

A filter cannot be removed alone: the same channel is removed from its batch
normalization layer, from a depthwise convolution after it and from everything that it
is added to or multiplied with, and all layers that read the channel lose an input.
torch-pruning (Fang et al. 2023) finds such a *group* on a copy of the network. This
module decides which groups may be pruned and how much of each, and checks the result on
the copy before the network itself is changed.
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

# torch-pruning keeps the pruning dimension in objects shared by all threads.
_LOCK = Lock()

# Share of each group to keep if all are ranked together.
_SMALLEST_SHARE = 0.1

# Relative tolerance between the outputs of the pruned network and those of the network
# with these filters set to zero. Rounding errors are near 1e-6, wrong channels near 1.
_TOLERANCE = 1e-2

# Operations, by torch-pruning's names, for which it guesses how channels are moved.
_MOVING = ("RESHAPE", "SPLIT", "UNBIND", "SLICE", "EXPAND")

_WAY_OUT = "Use granularity='weight', which works with every network."


class _Member(NamedTuple):
    """Channels that one layer loses with the filters of a group.

    Attributes
    ----------
    path : str
        Path of a module, or of a parameter that is not part of a layer.
    cut : callable
        Function of torch-pruning, called as ``cut(module, positions)``.
    axis : int
        Pruning dimension in torch-pruning.
    is_output : bool
        Whether the channels are outputs of the layer rather than inputs.
    positions : Tensor of shape (n,), dtype int64
        Channels of the layer.
    filters : Tensor of shape (n,), dtype int64
        Filter of the group to which each channel belongs.
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
        Number of blocks. Grouped convolutions need equally many channels in each block,
        so a unit is the i-th filter of every block.
    is_plain : bool
        Whether no channel is moved by an operation that torch-pruning may misinterpret.
    """

    members: tuple[_Member, ...]
    n_filters: int
    n_blocks: int
    is_plain: bool

    @property
    def n_units(self) -> int:
        return self.n_filters // self.n_blocks


class Unpruned(NamedTuple):
    """Size of a network before the first of several steps, to which shares refer.

    Attributes
    ----------
    n_filters : dict of str to int
        Number of outputs of each layer.
    macs : int
        Number of multiply-accumulates per row.
    """

    n_filters: dict[str, int]
    macs: int


def measure_unpruned(network: RestNetwork, example: Tensor) -> Unpruned:
    """Measure a network before the first step; parameters as in `prune_filters`."""
    with torch.inference_mode(False), torch.no_grad():
        layers = _layer_macs(_trial_copy(network), example[:2].detach().cpu().clone())
    n_filters = {path: n_outputs for path, (_, _, n_outputs) in layers.items()}
    return Unpruned(n_filters, sum(macs for macs, _, _ in layers.values()))


def import_torch_pruning() -> Any:
    """Import torch-pruning, or raise an error that tells how to install it."""
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
    """Remove convolution filters and all channels that depend on them, in place.

    Parameters
    ----------
    network : RestNetwork
        Network whose stages are pruned, and the inputs of its head. The layers of the
        head, untrained layers and channels from the frozen stages are not pruned. A
        pruned network can be pruned again.
    example : Tensor of shape (n, channels, height, width), dtype float
        Output of the frozen stages, or normalized images if no stage is frozen. Only
        the first two rows are used.
    amount : float
        Share to remove, between 0 and 1. Each group keeps at least one filter.
    unit : {"count", "macs"}, default="count"
        Whether ``amount`` is a share of the filters or of the multiply-accumulates. For
        the latter, the smallest sufficient share of the filters is removed.
    scope : {"layer", "global"}, default="layer"
        Whether to remove the same share of each group, or the least important filters
        of all groups, which keep a tenth of their filters.
    score : callable, default=None
        Function ``score(layer)`` that returns the importance of each weight of a
        convolution or linear layer, in the shape of the weight. None uses the squares.
        The importance of a filter is that of all weights that write or read its
        channel; all layers of a group count alike.
    round_to : int, default=None
        Multiple to which the number of filters left in a group is rounded, if possible.
        None means 8 for ``unit="macs"``, since processors work on eight channels at a
        time, and 1 for ``unit="count"``.
    unpruned : Unpruned, default=None
        Size of the network to which ``amount`` refers. None uses the current size.

    Raises
    ------
    CompressionError
        If the network cannot be traced, has no convolution to prune, or cannot save as
        much. The network is not changed.
    MissingDependencyError
        If torch-pruning is not installed.

    References
    ----------
    Fang, Ma, Song, Mi, Wang: "DepGraph: Towards Any Structural Pruning", CVPR 2023.
    Molchanov, Mallya, Tyree, Frosio, Kautz: "Importance Estimation for Neural Network
    Pruning", CVPR 2019 (importance of a filter: the sum over its weights).
    """
    step = round_to or (8 if unit == "macs" else 1)
    # Inference tensors cannot be trained, and torch-pruning traces the autograd graph.
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
    """Identity at the input, whose channels come from the frozen stages and stay.

    Without it, an input that is added to the output of a convolution would be missing
    from the traced graph, and the convolution would seem free to be pruned.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class _EntryPruner:
    """Interface to torch-pruning for a layer that is never pruned."""

    def __init__(self, n_channels: int):
        self.n_channels = n_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return self.n_channels

    def prune_out_channels(self, layer: nn.Module, positions: Sequence[int]) -> nn.Module:
        return layer

    get_in_channels = get_out_channels
    prune_in_channels = prune_out_channels


def _trial_copy(network: RestNetwork) -> RestNetwork:
    """Return a copy on which to trace the network and to try the pruning."""
    trial = copy.deepcopy(network).cpu().eval()
    trial.normalization = _Entry()
    if isinstance(trial.stages, fx.GraphModule):
        # Do not print failing lines as torch.fx does. Each graph has a separate class.
        type(trial.stages).__call__ = nn.Module.__call__  # type: ignore[method-assign]
    for parameter in trial.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # untrained parameters are part of the graph too
    return trial


def _read_groups(network: RestNetwork, example: Tensor) -> list[_Group]:
    """Return the groups of filters that may be pruned, as torch-pruning orders them."""
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
            f"Filters cannot be pruned: torch-pruning failed to trace this network ({type(error).__name__}: {reason}). "
            f"{_WAY_OUT}"
        ) from error
    names: dict[Any, str] = {part: path for path, part in [*trial.named_modules(), *trial.named_parameters()]}
    learning = {path for path, module in network.named_modules() if module in network.learning}
    learning |= {path for path, parameter in network.named_parameters() if parameter.requires_grad}
    learning |= {path for path in names.values() if path.startswith("head")}
    groups = [group for each in found if (group := _group(each, graph, names, learning)) and group.n_units > 1]
    if not groups:
        raise CompressionError(
            "Filters cannot be pruned: the network does not have convolutions after the frozen stages, or all of them "
            f"are connected to layers that must not change. Freeze fewer stages. {_WAY_OUT}"
        )
    return groups


def _group(found: Any, graph: Any, names: dict[Any, str], learning: set[str]) -> _Group | None:
    """Convert a group of torch-pruning, or return None if it must not be pruned."""
    members, blocks, is_plain = [], [1], True
    for item in found:
        node, cut = item.dep.target, item.dep.handler
        module, path = node.module, names.get(node.module)
        is_output = graph.is_out_channel_pruning_fn(cut)
        if is_output and not node.outputs:  # output of the network
            return None
        if path is None:  # an operation between the layers
            is_plain &= node.type.name not in _MOVING
            continue
        is_of_head = path.startswith("head") and is_output and isinstance(module, nn.Linear | _ConvNd)
        # `_Entry`, whose channels come from the frozen stages, is not trained either.
        if is_of_head or path not in learning or any(root is None for root in item.root_idxs):
            return None
        if isinstance(module, nn.LayerNorm):  # torch-pruning 1.6 may cut other channels of it
            return None
        if isinstance(module, nn.GroupNorm):
            blocks.append(module.num_groups)
        elif isinstance(module, _ConvNd) and module.groups != module.out_channels:  # depthwise ones have no blocks
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
    """Return the importance (n_units,) of the filters, averaged over layers and blocks.

    It is 1 on average. Layers that read a channel count like those that write it: the
    weights of a convolution alone are not meaningful, since batch normalization can
    make up for their size.
    """
    total, n_layers = torch.zeros(group.n_filters), 0
    for member in group.members:
        layer = _get(network, member.path)
        if type(layer) in (nn.Conv2d, nn.Linear):
            weights = score(layer).detach().cpu().float()
            # (blocks, outputs, inputs, pixels): each block has separate inputs.
            blocks = weights.reshape(getattr(layer, "groups", 1), -1, weights.shape[1], weights[0, 0].numel())
            channels = weights.flatten(1).sum(1) if member.is_output else blocks.sum((1, 3)).flatten()
            own = torch.zeros(group.n_filters).index_add_(0, member.filters, channels[member.positions])
            total += own / own.mean().clamp(min=torch.finfo(own.dtype).tiny)
            n_layers += 1
    return (total / max(n_layers, 1)).reshape(group.n_blocks, group.n_units).mean(0)


def _n_kept(
    groups: Sequence[_Group], importances: Sequence[Tensor], share: float, scope: str, step: int, unpruned: Unpruned
) -> list[int]:
    """Return the number of units to keep in each group after removing ``share``."""
    sizes = [group.n_units for group in groups]
    totals = [unpruned.n_filters.get(group.members[0].path, group.n_filters) // group.n_blocks for group in groups]
    if scope == "layer":
        kept = [min(size, max(1, n - _share_of(n, share))) for size, n in zip(sizes, totals, strict=True)]
    else:
        # Each group keeps its most important filters, a tenth of them.
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
    """Return ``share`` of ``n``, rounded down, such that 0.29 * 100 is 29."""
    return math.floor(n * share + 1e-6)


def _cuts(groups: Sequence[_Group], importances: Sequence[Tensor], n_kept: Sequence[int]) -> list[_Member]:
    """Merge the channels to remove from all groups, one cut per layer."""
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
    """Return (multiply-accumulates per row, inputs, outputs) of each layer by path."""
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
    """Find the smallest share of filters that saves ``amount`` of the MACs.

    No filter is removed in this bisection: the MACs of a layer are proportional to its
    inputs and outputs.
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
            f"amount={amount} of the multiply-accumulates is too much: at most {saved(high):.2f} can be saved, because "
            "some layers must not change and each group keeps one filter. Use a smaller amount."
        )
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if saved(middle) >= amount else (middle, high)
    return high


def _prove(trial: RestNetwork, example: Tensor, cuts: Sequence[_Member]) -> None:
    """Prune the copy and compare its outputs with those for filters set to zero.

    torch-pruning guesses how an operation moves channels, and may be wrong.
    """
    layers = [_get(trial, cut.path) for cut in cuts]
    for layer, cut in zip(layers, cuts, strict=True):
        _silence(layer, cut)
    expected = _outputs(trial, example)
    try:
        _apply(trial, cuts)
        given = _outputs(trial, example)
        # Group normalization averages over channels, so a channel of zeros changes it.
        is_comparable = not any(isinstance(layer, nn.GroupNorm) for layer in layers)
        difference = (given - expected).abs().max() if is_comparable else given.new_zeros(())
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CompressionError(
            f"Filters cannot be pruned: the pruned network would fail ({reason}). {_WAY_OUT}"
        ) from error
    if not difference <= _TOLERANCE * expected.abs().max():
        raise CompressionError(
            "Filters cannot be pruned: torch-pruning misinterprets an operation of this network, whose outputs would "
            f"change. {_WAY_OUT}"
        )


def _outputs(trial: RestNetwork, example: Tensor) -> Tensor:
    outputs = trial(example)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _silence(layer: Any, cut: _Member) -> None:
    """Set the weights of the channels that will be removed to zero."""
    if cut.is_output and isinstance(layer, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm):
        for tensor in (layer.weight, layer.bias):
            if tensor is not None:
                tensor[cut.positions] = 0
    elif isinstance(layer, nn.Conv2d | nn.Linear):
        layer.weight[:, cut.positions % layer.weight.shape[1]] = 0


def _apply(network: nn.Module, cuts: Sequence[_Member]) -> None:
    """Remove the channels, keeping ``requires_grad`` of each parameter."""
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
