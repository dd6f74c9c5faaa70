"""Channel axes and class tokens of the outputs of layers."""

from math import prod
from typing import Any

import torch
from torch import fx, nn

from sktl.backbones import _graph

_CHANNELS_SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention)
_CHANNELS_SECOND_FUNCTIONS = {"conv2d", "batch_norm", "group_norm", "instance_norm"}
_CHANNELS_LAST_FUNCTIONS = {"linear", "layer_norm", "rms_norm", "multi_head_attention_forward"}


def channel_axes(graph: fx.Graph, root: nn.Module) -> dict[fx.Node, int]:
    """Return the channel axis of every measured node.

    It is -1 if it is the last of three or more axes, and 1 in most other cases.
    Convolutions and batch normalization have their channels on axis 1, linear layers
    and layer normalization on the last axis. Permutations move the axis, reshapes are
    followed by the number of channels, and all other operations keep it.
    """
    axes: dict[fx.Node, int] = {}
    for node in graph.nodes:
        sources = [argument for argument in node.all_input_nodes if argument in axes]
        if node.op != "placeholder" and not sources:
            continue  # it does not depend on the image
        # The largest of several inputs carries the image. A class token is smaller than
        # the tokens that it is joined with, and comes before them.
        source = max(reversed(sources), key=_size, default=None)
        shape = node.meta.get("shape")
        if shape is not None and len(shape) > 1:
            axes[node] = _axis(node, root, source, axes)
        elif source is not None:  # a tuple of tensors (output and weights of attention)
            axes[node] = axes[source]
    return {node: -1 if _is_last(node, axis) else axis for node, axis in axes.items()}


def _size(node: fx.Node) -> int:
    return prod(node.meta.get("shape") or (0,))


def _is_last(node: fx.Node, axis: int) -> bool:
    shape = node.meta.get("shape")
    return shape is not None and len(shape) > 2 and axis % len(shape) == len(shape) - 1


def _axis(node: fx.Node, root: nn.Module, source: fx.Node | None, axes: dict[fx.Node, int]) -> int:
    shape = node.meta["shape"]
    rank = len(shape)
    known = _axis_by_kind(node, root, rank)
    if known is not None:
        return known
    if source is None:
        return 1
    before = source.meta.get("shape")
    if before is None:
        return axes[source] % rank
    order = _permutation(node, root, len(before))
    if order is not None:
        return order.index(axes[source] % len(before))
    return _follow(before, axes[source] % len(before), shape)


def _axis_by_kind(node: fx.Node, root: nn.Module, rank: int) -> int | None:
    """Return the channel axis that the kind of layer implies, or None.

    A module that is not traced counts as a convolution if it contains one.
    """
    if node.op == "placeholder":
        return 1
    if node.op == "call_module":
        layers = list(root.get_submodule(str(node.target)).modules())
        if any(isinstance(layer, _CHANNELS_SECOND) for layer in layers):
            return 1
        if any(isinstance(layer, _CHANNELS_LAST) for layer in layers):
            return rank - 1
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        if name in _CHANNELS_SECOND_FUNCTIONS:
            return 1
        if name in _CHANNELS_LAST_FUNCTIONS:
            return rank - 1
    return None


def _permutation(node: fx.Node, root: nn.Module, rank: int) -> list[int] | None:
    """Return the input axis of each output axis if ``node`` is a permutation."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        dims: Any = (
            module.dims if type(module).__name__ == "Permute" else None
        )  # of torchvision, which is slow to import
        return None if dims is None else [axis % rank for axis in dims]
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    arguments: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
    if name == "permute":
        dims = arguments[0] if isinstance(arguments[0], (tuple, list)) else arguments
        return [axis % rank for axis in dims]
    if name in ("transpose", "swapaxes", "swapdims"):
        first, second = arguments
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        return order
    return None


def _follow(before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> int:
    """Follow an axis through an operation that keeps the order, such as a reshape.

    The sizes before and after the axis do not change. A split axis is followed by one
    of its parts.
    """
    if len(before) == len(after):
        return axis
    around, inside = prod(before[:axis]), prod(before[axis + 1 :])
    fitting = [i for i in range(1, len(after)) if prod(after[:i]) == around or prod(after[i + 1 :]) == inside]
    whole = [i for i in fitting if after[i] == before[axis]]
    return (whole or fitting or [1 if len(after) in (2, 4) else len(after) - 1])[0]


def has_class_token(node: fx.Node, root: nn.Module) -> bool:
    """Check whether the first token of ``node`` is a learned class token.

    This requires an output of shape (n_samples, n_tokens, channels), a learned token
    prepended to the tokens of the image, and no token removed afterwards.
    """
    shape = node.meta["shape"]
    if shape is None or len(shape) != 3:
        return False
    past = _graph.ancestors([node])
    return any(
        getattr(joined.target, "__name__", "") in ("cat", "concat", "concatenate")
        and joined.meta["shape"] is not None
        and joined.meta["shape"][1] == shape[1]
        and _is_learned_token(joined.args[0], root)
        for joined in past
    )


def _is_learned_token(parts: Any, root: nn.Module) -> bool:
    """Check whether the first of ``parts`` is a parameter of shape (1, 1, channels)."""
    if not isinstance(parts, (tuple, list)) or not isinstance(parts[0], fx.Node):
        return False
    node = parts[0]
    if node.op in ("call_function", "call_method") and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.op != "get_attr":
        return False
    token = _graph.attribute(str(node.target), root)
    return isinstance(token, torch.Tensor) and token.ndim == 3 and token.shape[:2] == (1, 1)
