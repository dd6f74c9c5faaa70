"""Which layers of teacher and student are compared, and what makes them comparable: maps of one size."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional

from sktl.backbones import Backbone
from sktl.distillation._distillation_losses import attention_map
from sktl.exceptions import InputError


class LayerPair(NamedTuple):
    """A layer of the teacher and one of the student that are compared, at the student's resolution."""

    teacher: str
    student: str
    n_teacher: int  # channels
    n_student: int
    size: tuple[int, int]  # height and width of the student's map


def pair_layers(layers: Any, teacher: Backbone, student: Backbone, depth: int) -> list[LayerPair]:
    """The pairs of layers that ``layers=`` means.

    Parameters
    ----------
    layers : "auto", or sequence of (teacher layer, student layer)
        ``"auto"`` pairs the last stages of each resolution, from the smallest one on.
    teacher, student : Backbone
        The networks.
    depth : int
        How many stages of the student are frozen: what lies in them cannot learn.

    Raises
    ------
    InputError
        Where ``layers`` is no such thing.
    BackboneError
        Where a layer is unknown.
    """
    if isinstance(layers, str):
        if layers != "auto":
            raise InputError(f"layers={layers!r} is neither 'auto' nor pairs of layers, [(teacher's, student's), ...].")
        names = list(zip(_ends(teacher, 0), _ends(student, depth), strict=False))
    else:
        names = list(layers)
        is_pair = [isinstance(x, list | tuple) and len(x) == 2 and all(isinstance(y, str) for y in x) for x in names]
        if not names or not all(is_pair):
            raise InputError(f"layers={layers!r} has to be pairs of layers: [(teacher's, student's), ...].")
    return [
        LayerPair(taught, learnt, channels(teacher, taught), channels(student, learnt), resolution(student, learnt))
        for taught, learnt in names
    ]


def _ends(backbone: Backbone, depth: int) -> list[str]:
    """The last stage of each resolution behind ``depth``, the smallest resolution first."""
    by_size = {int(np.prod(resolution(backbone, stage.name))): stage.name for stage in backbone.stages[depth:]}
    return [by_size[size] for size in sorted(by_size)]


def channels(backbone: Backbone, layer: str) -> int:
    """Channels of a layer's output."""
    shape = backbone.output_shape(layer)
    axis = backbone.channel_axis(layer)
    return shape[axis if axis < 0 else axis - 1]


def resolution(backbone: Backbone, layer: str) -> tuple[int, int]:
    """Height and width of a layer's map; (1, 1) for a vector.

    Raises
    ------
    InputError
        Where tokens form no square.
    """
    shape = backbone.output_shape(layer)
    if len(shape) == 3:
        height, width = shape[1:] if backbone.channel_axis(layer) == 1 else shape[:2]
        return height, width
    n_places = 1 if len(shape) == 1 else shape[0] - backbone.has_cls_token(layer)
    side = int(np.sqrt(n_places))
    if side * side != n_places:
        raise InputError(f"Layer {layer!r} of {backbone.name!r} has {n_places} tokens, which form no square map.")
    return side, side


def as_map(activation: Tensor, channel_axis: int, has_cls_token: bool) -> Tensor:
    """Any layer's output as a map (n, channels, height, width); a class token is left out."""
    if activation.ndim == 2:
        return activation[:, :, None, None]
    if activation.ndim == 3:
        tokens = activation[:, int(has_cls_token) :]
        side = int(np.sqrt(tokens.shape[1]))
        return tokens.transpose(1, 2).unflatten(2, (side, side))
    return activation if channel_axis == 1 else activation.movedim(-1, 1)


def teacher_map(kind: str, activation: Tensor, size: tuple[int, int]) -> Tensor:
    """What is kept of a teacher's map (n, channels, height, width), at the student's resolution."""
    if kind == "attention":
        height, width = activation.shape[2:]
        attention = attention_map(activation).unflatten(1, (1, height, width))
        return functional.adaptive_avg_pool2d(attention, size).flatten(1)
    return functional.adaptive_avg_pool2d(activation, size)
