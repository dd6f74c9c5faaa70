"""How far pictures are from those that a network was trained on, by what its batch norms remember of them."""

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

_AT_ONCE = 32  # pictures
_IGNORED = 0.4  # of the norms, from the input on

# The greatest distance of images of a known kind, by the digest of the weights that it was measured for: between the
# photos and paintings, and the cartoons, sketches and digits. Scale and line are each network's own: after
# fine-tuning, or with other published weights, nobody has measured it.
_LINES = {
    "39616784eab889049ecd692cd9bd5892": 0.42,  # sktl_mini
    "d10dfe3f97a7124be86887b4f4d553dc": 0.32,  # mobilenet_v3_small, the weights that benchmarks/README.md names
    "ed6b6348de1cb5ecf82014e8286b3ae4": 0.25,  # mobilenet_v2, likewise
}


def near_line(backbone: Backbone) -> "float | None":
    """The distance below which images are of a kind that a network knows; None if nobody has measured it.

    Parameters
    ----------
    backbone : Backbone
        The network, known by its weights and not by its name.
    """
    return _LINES.get(weights_digest(backbone))


class NormShift(NamedTuple):
    """How far the inputs of batch norms are from those that they were trained with.

    Parameters
    ----------
    norms : list of str
        Their paths in the network, in the order in which they run.
    shifts : ndarray of shape (n_norms,)
        Mean over the channels of the squared difference of the means, in units of the variance.
    """

    norms: list[str]
    shifts: np.ndarray

    @property
    def distance(self) -> float:
        """The root mean square over all norms but the first ones, in standard deviations.

        The first layers see edges and colours, of which some kinds of pictures have more than others though the
        network can do with them; and in published weights their statistics are often not those of the pictures as
        they are read here.
        """
        return float(np.sqrt(self.shifts[int(_IGNORED * len(self.shifts)) :].mean()))


def source_distance(owner: Any, images: Images) -> "float | None":
    """How far pictures are from those that a network learnt from, in standard deviations; see `norm_shift`.

    Parameters
    ----------
    owner : estimator
        With the network, ``backbone_``, whose weights were trained, and how it runs.
    images : Images
        Two at least.
    """
    (pictures,) = FrozenPrefix(PrefixSpec(owner.backbone_, ()), Runtime.of(owner)).run(images)
    with bounded_threads():
        shift = norm_shift(owner.backbone_, pictures, owner.device)
    return None if shift is None else shift.distance


@torch.no_grad()
def norm_shift(backbone: Backbone, pictures: np.ndarray, device: "str | torch.device" = "cpu") -> "NormShift | None":
    """Compare the channels' means with those that the batch norms have kept from the training of the network.

    Parameters
    ----------
    backbone : Backbone
        With weights that were trained.
    pictures : ndarray of shape (n, height, width, n_channels), uint8
        As the network sees them, two at least.
    device : str or torch.device, default="cpu"
        Where the network runs.

    Returns
    -------
    NormShift or None
        None where the network has no batch norms with learnt statistics, each of which runs in one place.

    Notes
    -----
    The mean of a channel over a few pictures differs from that over all of them by chance, by its variance divided by
    their number on average. That is subtracted, so that few pictures of the same kind are not far away; a norm whose
    shift is less than chance has 0. A channel that was constant in training has no standard deviation to measure by,
    and is left out.

    Torch runs the network here, whatever the engine: a norm may be inside a module that is one layer to the graph
    (torchvision's ``Conv2dNormActivation``), where only a hook sees what it is given.

    References
    ----------
    Li, Wang, Shi, Hou, Liu, "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 2018:
    batch norms hold what is particular to a domain.
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
        for start in range(0, len(pictures), _AT_ONCE):
            graph(normalization(torch.from_numpy(pictures[start : start + _AT_ONCE]).to(device)))
    finally:
        for hook in hooks:
            hook.remove()
    # One that runs in several places, or over tokens, has no mean for each picture.
    means = {path: torch.cat(parts) for path, parts in seen.items() if sum(map(len, parts)) == len(pictures)}
    if not means:
        return None
    return NormShift(list(means), np.array([_shift(norms[path], parts) for path, parts in means.items()]))


def _has_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm that has kept what it was trained with."""
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    return is_norm and bool(module.get_buffer("running_mean").any())  # they begin as zeros


def _channel_means(x: Tensor) -> Tensor:
    """The mean of each channel of each picture, (n, n_channels)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def _shift(norm: Any, means: Tensor) -> float:
    """The squared distance of one norm's means, without what is chance."""
    variance = norm.get_buffer("running_var")
    squared = (means.mean(0) - norm.get_buffer("running_mean")).square()
    by_chance = means.var(0) / len(means)
    shifts = ((squared - by_chance) / (variance + norm.eps))[variance > 0]
    return float(shifts.mean().clamp(min=0)) if len(shifts) else 0.0
