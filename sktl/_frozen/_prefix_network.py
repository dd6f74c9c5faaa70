"""Network of a frozen prefix: uint8 images in, one pooled array per layer out.

Both engines run this module, so normalization and pooling are defined once.
"""

import copy
import operator
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sktl.backbones import Backbone, Preprocessing
from sktl.exceptions import BackboneError, InputError

# Exact types, because a subclass may do more (timm's BatchNormAct2d holds an
# activation).
_FRESH = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)  # return a new tensor, not a view
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.Hardsigmoid, nn.ELU)

POOLINGS = ("avg", "max", "gem", "flatten", "cls", "none")


class Normalization(nn.Module):
    """Normalize uint8 images, channels last, to floats around 0, channels first.

    Parameters
    ----------
    preprocessing : Preprocessing
        Mean and standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        # Mean and standard deviation are defined for values of 0-1; images have 0-255.
        self.register_buffer("mean", 255.0 * torch.tensor(preprocessing.mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(preprocessing.std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Convert uint8 images (n, height, width, channels) to normalized floats."""
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class PrefixNetwork(nn.Module):
    """Normalize images, run the graph up to the named layers and pool their outputs.

    Parameters
    ----------
    backbone : Backbone
        The network. It is copied, not changed.
    layers : sequence of str
        Names of the layers.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}
        Pooling of the layers, see `pool`.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str], pooling: str):
        super().__init__()
        self.normalization = Normalization(backbone.preprocessing)
        # Not named "graph", which exported programs use.
        self.features = backbone.feature_graph(layers)
        self.pooling = pooling
        self.channel_axes = [backbone.channel_axis(layer) for layer in layers]
        self.cls_tokens = [backbone.has_cls_token(layer) for layer in layers]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return pooled activations of each layer for uint8 images, channels last."""
        activations = self.features(self.normalization(images))
        return tuple(
            pool(activation, self.pooling, axis, cls_token)
            for activation, axis, cls_token in zip(activations, self.channel_axes, self.cls_tokens, strict=True)
        )


def pool(activation: Tensor, pooling: str, channel_axis: int = 1, cls_token: bool = False) -> Tensor:
    """Pool the activation of a layer.

    Parameters
    ----------
    activation : Tensor of shape (n, channels, height, width), (n, height, width, channels), (n, tokens, d) or (n, d)
        Output of the layer.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}
        Mean, maximum or generalized mean (p = 3) over all positions; all values
        flattened; the class token; or no pooling.
    channel_axis : int, default=1
        Axis of the channels: 1 or -1.
    cls_token : bool, default=False
        Whether the first token is the class token, which means and maximum leave out.

    Returns
    -------
    Tensor of shape (n, channels)
        One vector for each image; for ``"none"`` the unchanged activation.

    References
    ----------
    Radenović, Tolias, Chum: "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2019, equation 3 (gem).
    """
    if pooling == "none" or activation.ndim == 2:
        return activation
    if pooling == "flatten":
        return activation.flatten(1)
    if pooling == "cls":
        return activation[:, 0]
    axes = tuple(axis for axis in range(1, activation.ndim) if axis != channel_axis % activation.ndim)
    if cls_token:
        activation = activation[:, 1:]
    if pooling == "avg":
        return activation.mean(axes)
    if pooling == "max":
        return activation.amax(axes)
    if pooling == "gem":
        return activation.clamp(min=1e-6).pow(3).mean(axes).pow(1 / 3)
    raise InputError(f"pooling must be one of {POOLINGS}. Got {pooling!r} instead.")


def check_pooling(backbone: Backbone, layer: str, pooling: str) -> None:
    """Check that a layer has a class token if ``pooling="cls"``.

    Raises
    ------
    BackboneError
        If the layer has no class token.
    """
    if pooling == "cls" and len(backbone.output_shape(layer)) > 1 and not backbone.has_cls_token(layer):
        raise BackboneError(
            f"pooling='cls' needs a class token, but layer {layer!r} of {backbone.name!r} has none. Use pooling='avg'."
        )


def pooled_shape(shape: Sequence[int], pooling: str, channel_axis: int = 1) -> tuple[int, ...]:
    """Return the shape of one image's activation of ``shape`` after `pool`."""
    if pooling == "none" or len(shape) == 1:
        return tuple(shape)
    if pooling == "flatten":
        return (int(torch.Size(shape).numel()),)
    return (shape[channel_axis if channel_axis < 0 else channel_axis - 1],)


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """Make a frozen graph faster without changing its function, in place.

    * Batch normalization that is the only consumer of a convolution is folded into it,
      since both are linear in eval mode.
    * An activation function overwrites its input if nothing else reads it. This saves
      allocating tens of megabytes per batch.

    A convolution whose output is also returned has a second consumer and is not
    changed; neither is a module that is called twice. Blocks that torchvision's tracer
    keeps as one node (``Conv2dNormActivation``) are sequences and are fused inside.
    Other such blocks are not changed, because the order of their parts is unknown.
    """
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")

    def called_once(node: object) -> nn.Module | None:
        """Return the submodule that ``node`` calls, if nothing else calls it."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or calls[node.target] > 1:
            return None
        return module.get_submodule(str(node.target))

    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        folded = _fold(called_once(source), called_once(node))
        if folded is not None and len(source.users) == 1:
            module.set_submodule(source.target, folded[0])
            module.set_submodule(node.target, folded[1])
            if isinstance(folded[1], nn.Identity):
                node.replace_all_uses_with(source)
                module.graph.erase_node(node)
    for node in module.graph.nodes:
        source = node.args[0] if node.args else None
        called, previous = called_once(node), called_once(source)
        is_alone = isinstance(source, fx.Node) and len(source.users) == 1
        if called is not None and type(called) in _ACTIVATIONS and is_alone:
            if type(previous) in _FRESH or source.target in (operator.add, torch.add):
                module.set_submodule(node.target, _in_place(called))
        elif node.op == "call_module" and _is_sequence(module.get_submodule(node.target)):
            _fuse_sequence(module.get_submodule(node.target), previous if called is not None and is_alone else None)
    module.graph.lint()
    module.recompile()
    return module


def _fuse_sequence(sequence: nn.Module, previous: nn.Module | None) -> None:
    """Fuse modules that run in sequence after ``previous``, if that is known."""
    names = list(dict(sequence.named_children()))
    for first, second in pairwise(names):
        folded = _fold(sequence.get_submodule(first), sequence.get_submodule(second))
        if folded is not None:
            sequence.set_submodule(first, folded[0])
            sequence.set_submodule(second, folded[1])
    for name in names:
        module = sequence.get_submodule(name)
        if type(module) in _ACTIVATIONS and type(previous) in _FRESH:
            sequence.set_submodule(name, _in_place(module))
        elif _is_sequence(module):
            _fuse_sequence(module, previous)
        if not isinstance(module, nn.Identity):
            previous = module


def _is_sequence(module: nn.Module) -> bool:
    """Check whether the module only runs its children in sequence."""
    return type(module).forward is nn.Sequential.forward


def _in_place(activation: nn.Module) -> nn.Module:
    """Return a copy that overwrites its input; other uses of the module may not."""
    activation = copy.copy(activation)
    activation.inplace = True  # type: ignore[assignment]
    return activation


def _fold(convolution: nn.Module | None, norm: nn.Module | None) -> tuple[nn.Module, nn.Module] | None:
    """Fold batch normalization into a convolution.

    Return the new convolution and the rest of the normalization layer, or None if the
    modules cannot be folded.
    """
    if type(convolution) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return None
    if type(norm) is nn.BatchNorm2d:
        return fuse_conv_bn_eval(convolution, norm), nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm."):
        # The layer of timm includes the dropout and the activation after it.
        left: Any = norm
        return fuse_conv_bn_eval(convolution, norm), nn.Sequential(left.drop, left.act)
    return None
