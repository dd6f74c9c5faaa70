"""Pairs of teacher and student layers, and their activations as maps of one size."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional

from sktl.backbones import Backbone
from sktl.distillation._distillation_losses import attention_map
from sktl.exceptions import InputError


class LayerPair(NamedTuple):
    """Pair of layers to compare at the student's resolution."""

    teacher: str
    student: str
    n_teacher: int  # channels
    n_student: int
    size: tuple[int, int]  # height and width of the student's map


def pair_layers(layers: Any, teacher: Backbone, student: Backbone, depth: int) -> list[LayerPair]:
    """Return the pairs of layers that the ``layers`` parameter selects.

    Parameters
    ----------
    layers : "auto", or sequence of (teacher layer, student layer)
        ``"auto"`` pairs the last stages of each resolution, from the smallest
        resolution up.
    teacher, student : Backbone
        The networks.
    depth : int
        Number of frozen stages of the student, which ``"auto"`` ignores.

    Raises
    ------
    InputError
        If ``layers`` is invalid.
    BackboneError
        If a layer does not exist.
    """
    if isinstance(layers, str):
        if layers != "auto":
            raise InputError(
                "The 'layers' parameter must be 'auto' or a list of pairs (teacher layer, student layer). Got "
                f"{layers!r} instead."
            )
        names = list(zip(_ends(teacher, 0), _ends(student, depth), strict=False))
    else:
        names = list(layers)
        is_pair = [isinstance(x, list | tuple) and len(x) == 2 and all(isinstance(y, str) for y in x) for x in names]
        if not names or not all(is_pair):
            raise InputError(
                "The 'layers' parameter must be 'auto' or a list of one or more pairs (teacher layer, student layer). "
                f"Got {layers!r} instead."
            )
    return [
        LayerPair(source, layer, channels(teacher, source), channels(student, layer), resolution(student, layer))
        for source, layer in names
    ]


def _ends(backbone: Backbone, depth: int) -> list[str]:
    """Return the last stage of each resolution after ``depth``, smallest first."""
    by_size = {int(np.prod(resolution(backbone, stage.name))): stage.name for stage in backbone.stages[depth:]}
    return [by_size[size] for size in sorted(by_size)]


def channels(backbone: Backbone, layer: str) -> int:
    """Return the number of channels of a layer."""
    shape = backbone.output_shape(layer)
    axis = backbone.channel_axis(layer)
    return shape[axis if axis < 0 else axis - 1]


def resolution(backbone: Backbone, layer: str) -> tuple[int, int]:
    """Return the height and width of a layer's output; (1, 1) for a vector.

    Raises
    ------
    InputError
        If the number of tokens is not a square.
    """
    shape = backbone.output_shape(layer)
    if len(shape) == 3:
        height, width = shape[1:] if backbone.channel_axis(layer) == 1 else shape[:2]
        return height, width
    n_positions = 1 if len(shape) == 1 else shape[0] - backbone.has_cls_token(layer)
    side = int(np.sqrt(n_positions))
    if side * side != n_positions:
        raise InputError(
            f"Layer {layer!r} of {backbone.name!r} has {n_positions} tokens, which do not form a square map. Choose "
            "another layer."
        )
    return side, side


def as_map(activation: Tensor, channel_axis: int, has_cls_token: bool) -> Tensor:
    """Return a layer's output as (n, channels, height, width), without class token."""
    if activation.ndim == 2:
        return activation[:, :, None, None]
    if activation.ndim == 3:
        tokens = activation[:, int(has_cls_token) :]
        side = int(np.sqrt(tokens.shape[1]))
        return tokens.transpose(1, 2).unflatten(2, (side, side))
    return activation if channel_axis == 1 else activation.movedim(-1, 1)


def teacher_map(kind: str, activation: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an activation or its attention map at the student's resolution."""
    if kind == "attention":
        height, width = activation.shape[2:]
        attention = attention_map(activation).unflatten(1, (1, height, width))
        return functional.adaptive_avg_pool2d(attention, size).flatten(1)
    return functional.adaptive_avg_pool2d(activation, size)
