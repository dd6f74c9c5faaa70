"""Adaptation of networks to images with another number of channels."""

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
    """Return ``in_channels`` as an int.

    Raises
    ------
    BackboneError
        If it is not an integer of at least 1.
    """
    with contextlib.suppress(TypeError):
        if operator.index(in_channels) >= 1:
            return operator.index(in_channels)
    raise BackboneError(f"The 'in_channels' parameter must be an integer of at least 1. Got {in_channels!r} instead.")


def adapt_input(
    module: nn.Module, in_channels: int, preprocessing: Preprocessing, source: Preprocessing
) -> Preprocessing:
    """Adapt ``module`` to ``in_channels`` in place and return the preprocessing to use.

    One channel
        A 1 x 1 convolution before the first layer turns it into the original three
        channels. It also undoes the grayscale normalization and applies the original
        one, so that a grayscale image gives exactly the same output as its RGB version.
        (Summing the kernels over RGB would differ if the channels have different
        means.)
    Any other number
        The kernels of the first convolution are repeated in turn and rescaled, so that
        the sum over the channels keeps its magnitude.

    A network without convolutions, or whose first convolution already takes
    ``in_channels``, is not changed.

    Parameters
    ----------
    module : nn.Module
        The network, modified in place.
    in_channels : int
        Number of channels of the images.
    preprocessing : Preprocessing
        Preprocessing to use: chosen by the user or that of the weights.
    source : Preprocessing
        Preprocessing of the weights.

    Raises
    ------
    BackboneError
        If the first convolution cannot be adapted.
    """
    if in_channels == len(source.mean):
        return preprocessing.for_channels(in_channels)
    path = _first_convolution(module)
    convolution = module.get_submodule(path) if path is not None else None
    if convolution is None or (isinstance(convolution, nn.Conv2d) and convolution.in_channels == in_channels):
        return preprocessing.for_channels(in_channels)
    if not isinstance(convolution, nn.Conv2d) or convolution.groups != 1 or convolution.in_channels != len(source.mean):
        raise BackboneError(
            f"in_channels={in_channels} is not supported by this network, because its first convolution is grouped or "
            f"does not have {len(source.mean)} input channels. Use in_channels={len(source.mean)}."
        )
    if getattr(module, "transform_input", False):
        # GoogLeNet and Inception renormalize each channel from ImageNet's values to these.
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
    """Return the path of the convolution that is computed first."""
    from sktl.backbones import _tracing  # loads torchvision

    for node in _tracing.trace(module).nodes:
        if node.op == "call_module":
            for path, layer in module.get_submodule(str(node.target)).named_modules(prefix=str(node.target)):
                if isinstance(layer, nn.Conv2d):
                    return path
    return None


def _grey_to_rgb(grey: Preprocessing, rgb: Preprocessing) -> nn.Conv2d:
    """Return a layer from normalized grayscale to normalized RGB.

    It computes ``(x * grey_std + grey_mean - rgb_mean) / rgb_std`` for each channel.
    """
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
