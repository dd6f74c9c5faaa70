"""Pictures with another number of channels than the network was made for."""

import contextlib
import copy
import operator
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sktl.backbones._preprocessing import Preprocessing
from sktl.exceptions import BackboneError


def check_in_channels(in_channels: Any) -> int:
    """``in_channels`` as an int, whoever's integer it is.

    Raises
    ------
    BackboneError
        Where it is none, or less than 1.
    """
    with contextlib.suppress(TypeError):
        if operator.index(in_channels) >= 1:
            return operator.index(in_channels)
    raise BackboneError(f"in_channels={in_channels!r} is no number of channels. Use 1 (grey), 3 (RGB) or another.")


def adapt_input(
    module: nn.Module, in_channels: int, preprocessing: Preprocessing, source: Preprocessing
) -> Preprocessing:
    """Change ``module`` in place so that it takes ``in_channels``, and say how pictures are normalised for it.

    One channel
        is turned into the source's three by a 1 x 1 convolution in front of the first layer, which also undoes the
        grey normalisation and applies the source's own: a grey picture gives exactly what it gives as RGB. (Summing
        the kernels over RGB would be nearly the same and differ wherever the means of the channels do.)
    Any other number
        repeats the kernels of the first convolution in turn, rescaled so that the sum over the channels keeps its size.

    A network whose first convolution takes ``in_channels`` already, or that has none, is left alone.

    Parameters
    ----------
    module : nn.Module
        The network, ours to change.
    in_channels : int
        Channels of the pictures to come.
    preprocessing : Preprocessing
        What the user asked for, or what belongs to the weights.
    source : Preprocessing
        What belongs to the weights.

    Raises
    ------
    BackboneError
        Where the first convolution cannot be adapted.
    """
    if in_channels == len(source.mean):
        return preprocessing.for_channels(in_channels)
    path = _first_convolution(module)
    convolution = module.get_submodule(path) if path is not None else None
    if convolution is None or (isinstance(convolution, nn.Conv2d) and convolution.in_channels == in_channels):
        return preprocessing.for_channels(in_channels)
    if not isinstance(convolution, nn.Conv2d) or convolution.groups != 1 or convolution.in_channels != len(source.mean):
        raise BackboneError(
            f"in_channels={in_channels}: this network has no plain first convolution of {len(source.mean)} channels "
            f"that could be adapted. Use in_channels={len(source.mean)}."
        )
    if getattr(module, "transform_input", False):
        # GoogLeNet and Inception renormalise the picture channel by channel, from ImageNet's values to these.
        module.transform_input = False  # type: ignore[assignment]
        ours = replace(source, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        preprocessing = ours if preprocessing == source else preprocessing
        source = ours
    if len(preprocessing.mean) == convolution.in_channels:
        source = preprocessing
    target = preprocessing.for_channels(in_channels)
    adapted = (
        nn.Sequential(OrderedDict(grey_to_rgb=_grey_to_rgb(target, source), conv=convolution))
        if in_channels == 1
        else _repeat_kernels(convolution, in_channels)
    )
    owner, _, attribute = str(path).rpartition(".")
    setattr(module.get_submodule(owner), attribute, adapted.eval().requires_grad_(False))
    return target


def _first_convolution(module: nn.Module) -> str | None:
    """Path of the convolution that is computed first."""
    from sktl.backbones import _tracing  # loads torchvision

    for node in _tracing.trace(module).nodes:
        if node.op == "call_module":
            for path, layer in module.get_submodule(str(node.target)).named_modules(prefix=str(node.target)):
                if isinstance(layer, nn.Conv2d):
                    return path
    return None


def _grey_to_rgb(grey: Preprocessing, rgb: Preprocessing) -> nn.Conv2d:
    """Normalised grey to normalised RGB: ``(x * grey_std + grey_mean - rgb_mean) / rgb_std`` for each channel."""
    layer = nn.Conv2d(1, len(rgb.mean), kernel_size=1)
    mean, std = torch.tensor(rgb.mean), torch.tensor(rgb.std)
    layer.weight = nn.Parameter((grey.std[0] / std).reshape(-1, 1, 1, 1))
    layer.bias = nn.Parameter((grey.mean[0] - mean) / std)
    return layer


def _repeat_kernels(convolution: nn.Conv2d, n_channels: int) -> nn.Conv2d:
    adapted = copy.deepcopy(convolution)
    n_before = convolution.in_channels
    repeated = convolution.weight.detach()[:, [channel % n_before for channel in range(n_channels)]]
    adapted.weight = nn.Parameter(repeated * (n_before / n_channels))
    adapted.in_channels = n_channels
    return adapted
