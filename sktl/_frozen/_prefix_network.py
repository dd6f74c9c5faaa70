"""The frozen prefix as one module: uint8 images in, one pooled array per layer out.

Both engines run this same module, so normalisation and pooling stand in one place.
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

# Types are compared, not asked for by isinstance: a subclass may do more (timm's BatchNormAct2d holds an activation).
_FRESH = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)  # they make a tensor of their own, no view
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.Hardsigmoid, nn.ELU)

POOLINGS = ("avg", "max", "gem", "flatten", "cls", "none")


class Normalization(nn.Module):
    """Images as the weights want them: from uint8 0-255, channels last, to floats around 0, channels first.

    Parameters
    ----------
    preprocessing : Preprocessing
        Mean and standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        # Images are 0-255: the weights' mean and standard deviation are stated for 0-1.
        self.register_buffer("mean", 255.0 * torch.tensor(preprocessing.mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(preprocessing.std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Floats (n, channels, height, width) of uint8 ``images`` (n, height, width, channels)."""
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class PrefixNetwork(nn.Module):
    """Normalise images, run the graph up to the named layers, pool each of them.

    Parameters
    ----------
    backbone : Backbone
        The network; it is copied, not changed.
    layers : sequence of str
        Layers to read.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}
        What becomes of each layer's output, see `pool`.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str], pooling: str):
        super().__init__()
        self.normalization = Normalization(backbone.preprocessing)
        # Not "graph": in an exported program that name is taken.
        self.features = backbone.feature_graph(layers)
        self.pooling = pooling
        self.channel_axes = [backbone.channel_axis(layer) for layer in layers]
        self.cls_tokens = [backbone.has_cls_token(layer) for layer in layers]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Pooled activations, one per layer, of uint8 ``images`` of shape (n, height, width, channels)."""
        activations = self.features(self.normalization(images))
        return tuple(
            pool(activation, self.pooling, axis, cls_token)
            for activation, axis, cls_token in zip(activations, self.channel_axes, self.cls_tokens, strict=True)
        )


def pool(activation: Tensor, pooling: str, channel_axis: int = 1, cls_token: bool = False) -> Tensor:
    """Turn one layer's activation into what is kept of it.

    Parameters
    ----------
    activation : Tensor of shape (n, channels, height, width), (n, height, width, channels), (n, tokens, d) or (n, d)
        The layer's output.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}
        Mean, maximum or generalised mean (p = 3) over all places; all values in a row; the class token; or as it is.
    channel_axis : int, default=1
        The axis that holds the channels: 1, or -1.
    cls_token : bool, default=False
        Whether the first of the tokens is the class token, which the means and the maximum leave out.

    Returns
    -------
    Tensor of shape (n, channels), or as the activation for ``"none"``
        One vector for each image.

    References
    ----------
    Radenović, Tolias, Chum: "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019, equation 3 (gem).
    """
    if pooling == "none" or activation.ndim == 2:
        return activation
    if pooling == "flatten":
        return activation.flatten(1)
    if pooling == "cls":
        return activation[:, 0]
    places = tuple(axis for axis in range(1, activation.ndim) if axis != channel_axis % activation.ndim)
    if cls_token:
        activation = activation[:, 1:]
    if pooling == "avg":
        return activation.mean(places)
    if pooling == "max":
        return activation.amax(places)
    if pooling == "gem":
        return activation.clamp(min=1e-6).pow(3).mean(places).pow(1 / 3)
    raise InputError(f"pooling={pooling!r} is unknown. Use one of {POOLINGS}.")


def check_pooling(backbone: Backbone, layer: str, pooling: str) -> None:
    """Refuse a class token where there is none.

    Raises
    ------
    BackboneError
        Where ``pooling="cls"`` is asked of a layer without one.
    """
    if pooling == "cls" and len(backbone.output_shape(layer)) > 1 and not backbone.has_cls_token(layer):
        raise BackboneError(
            f"pooling='cls' needs a class token, which layer {layer!r} of {backbone.name!r} does not have. "
            "Use pooling='avg'."
        )


def pooled_shape(shape: Sequence[int], pooling: str, channel_axis: int = 1) -> tuple[int, ...]:
    """The shape, without the images' axis, of what `pool` makes of one image's activation of ``shape``."""
    if pooling == "none" or len(shape) == 1:
        return tuple(shape)
    if pooling == "flatten":
        return (int(torch.Size(shape).numel()),)
    return (shape[channel_axis if channel_axis < 0 else channel_axis - 1],)


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """Make a frozen graph faster without changing its function, in place.

    * A batch norm that directly and only follows one convolution is folded into it: in eval mode both are linear.
    * An activation overwrites its input where nobody else reads it. A map of a batch is tens of megabytes; a second
      one for each activation would be fetched from the system and given back every time.

    A convolution whose own output is asked for has a second reader and stays as it is; so does a module that is called
    twice. What torchvision's tracer keeps as one node (``Conv2dNormActivation``) is a sequence, and is fused inside;
    any other block that is one node stays as it is, since nobody knows how it runs its parts.
    """
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")

    def called_once(node: object) -> nn.Module | None:
        """The submodule that ``node`` calls, if it is called nowhere else."""
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
    """Fold and overwrite within modules that run one after the other, ``previous`` before the first, if it is known."""
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
    """Whether the module runs its children one after the other and does nothing else."""
    return type(module).forward is nn.Sequential.forward


def _in_place(activation: nn.Module) -> nn.Module:
    """A copy that overwrites its input: the module itself may be used elsewhere, where that is not allowed."""
    activation = copy.copy(activation)
    activation.inplace = True  # type: ignore[assignment]
    return activation


def _fold(convolution: nn.Module | None, norm: nn.Module | None) -> tuple[nn.Module, nn.Module] | None:
    """The convolution with the batch norm in it, and what is left of the norm; None where they are no such pair."""
    if type(convolution) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return None
    if type(norm) is nn.BatchNorm2d:
        return fuse_conv_bn_eval(convolution, norm), nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm."):
        left: Any = norm  # timm's batch norm holds the dropout and the activation behind it
        return fuse_conv_bn_eval(convolution, norm), nn.Sequential(left.drop, left.act)
    return None
