"""Distance from the pretraining images, by batch normalization statistics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sktl._device import resolve_device
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import Normalization
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images
from sktl._threads import bounded_threads
from sktl.backbones import Backbone
from sktl.backbones._weights_digest import weights_digest

_AT_ONCE = 32  # images per batch
_IGNORED = 0.4  # share of the layers to ignore, counted from the input

# Largest distance of similar images, by the digest of the weights. It lies between the
# distances of photographs and paintings and those of cartoons, sketches and digits. It
# was measured for these weights; fine-tuned or other weights have other distances.
_LINES = {
    "39616784eab889049ecd692cd9bd5892": 0.42,  # sktl_mini
    "d10dfe3f97a7124be86887b4f4d553dc": 0.32,  # mobilenet_v3_small, with the weights listed in benchmarks/README.md
    "ed6b6348de1cb5ecf82014e8286b3ae4": 0.25,  # mobilenet_v2, with the weights listed there
}


def near_line(backbone: Backbone) -> "float | None":
    """Return the distance below which images are similar to the pretraining images.

    Parameters
    ----------
    backbone : Backbone
        The network, which is recognized by its weights. The result for other weights is
        ``None``.
    """
    return _LINES.get(weights_digest(backbone))


class NormShift(NamedTuple):
    """Shift of the inputs of batch normalization layers since training.

    Parameters
    ----------
    norms : list of str
        Paths of the layers in the network, in execution order.
    shifts : ndarray of shape (n_norms,)
        Squared difference of the channel means, divided by the variance and averaged
        over the channels.
    """

    norms: list[str]
    shifts: np.ndarray

    @property
    def distance(self) -> float:
        """Root mean square over all layers but the first ones, in standard deviations.

        The first layers detect edges and colors, whose frequency differs between kinds
        of images that the network handles equally well. Besides, their published
        statistics often belong to another way of decoding images.
        """
        return float(np.sqrt(self.shifts[int(_IGNORED * len(self.shifts)) :].mean()))


def source_distance(owner: Any, images: Images) -> "float | None":
    """Measure the distance of images from the pretraining images, see `norm_shift`.

    Parameters
    ----------
    owner : estimator
        Estimator with a pretrained network, ``backbone_``, and runtime parameters.
    images : Images
        At least two images.
    """
    (pixels,) = FrozenPrefix(PrefixSpec(owner.backbone_, ()), Runtime.of(owner)).run(images)
    with bounded_threads():
        shift = norm_shift(owner.backbone_, pixels, owner.device)
    return None if shift is None else shift.distance


@torch.no_grad()
def norm_shift(backbone: Backbone, images: np.ndarray, device: "str | torch.device" = "cpu") -> "NormShift | None":
    """Compare channel means with the running means of batch normalization layers.

    Parameters
    ----------
    backbone : Backbone
        Network with pretrained weights.
    images : ndarray of shape (n, height, width, n_channels), uint8
        At least two preprocessed images.
    device : str or torch.device, default="cpu"
        Device that runs the network.

    Returns
    -------
    NormShift or None
        None if the network has no batch normalization layers with trained statistics
        that run once per image.

    Notes
    -----
    The expected squared difference between the mean over a few images and the mean over
    all of them is the variance divided by the number of images. It is subtracted, so
    that a few images of the same kind have a small distance; negative shifts are set to
    0. Channels that were constant in training have no standard deviation and are
    omitted.

    The engine is always torch, because a batch normalization layer may be inside a
    module that is one node of the graph (torchvision's ``Conv2dNormActivation``), so
    that only a hook gets its input.

    References
    ----------
    Li, Wang, Shi, Hou, Liu, "Adaptive Batch Normalization for practical domain
    adaptation", Pattern Recognition 2018: batch normalization statistics represent the
    domain.
    """
    device = resolve_device(device)
    graph = backbone.feature_graph(backbone.stages[-1].name).eval().to(device)
    seen: dict[str, list[Tensor]] = {}
    norms = {path: module for path, module in graph.named_modules() if _has_statistics(module)}
    if not norms:
        return None

    def note(path: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, args: seen.setdefault(path, []).append(_channel_means(args[0]))

    hooks = [norm.register_forward_pre_hook(note(path)) for path, norm in norms.items()]
    normalization = Normalization(backbone.preprocessing).to(device)
    try:
        for start in range(0, len(images), _AT_ONCE):
            graph(normalization(torch.from_numpy(images[start : start + _AT_ONCE]).to(device)))
    finally:
        for hook in hooks:
            hook.remove()
    # A layer that runs several times, or over tokens, does not have one mean per image.
    means = {path: torch.cat(parts) for path, parts in seen.items() if sum(map(len, parts)) == len(images)}
    if not means:
        return None
    return NormShift(list(means), np.array([_shift(norms[path], parts) for path, parts in means.items()]))


def _has_statistics(module: nn.Module) -> bool:
    """Check whether a module is a batch normalization layer with trained statistics."""
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    return is_norm and bool(module.get_buffer("running_mean").any())  # zeros before training


def _channel_means(x: Tensor) -> Tensor:
    """Return the mean of each channel of each image, (n, n_channels)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def _shift(norm: Any, means: Tensor) -> float:
    """Return the squared shift of one layer, corrected for the number of images."""
    variance = norm.get_buffer("running_var")
    squared = (means.mean(0) - norm.get_buffer("running_mean")).square()
    by_chance = means.var(0) / len(means)
    shifts = ((squared - by_chance) / (variance + norm.eps))[variance > 0]
    return float(shifts.mean().clamp(min=0)) if len(shifts) else 0.0
