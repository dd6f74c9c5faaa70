"""Where in a picture the evidence for a class lies: by the gradient of its logit, and by covering places up."""

import copy
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import is_regressor
from torch import Tensor, fx, nn

from sktl._device import resolve_device
from sktl._estimators._find_fitted import require_fitted
from sktl._estimators._layer_features import name_layers
from sktl._estimators._network_classifier import NetworkClassifier
from sktl._estimators._network_estimator import fitted_pooling, frozen_prefix
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import Normalization, pool
from sktl._frozen._runners import get_runner, resolve_batch_size
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._threads import bounded_threads
from sktl.backbones import Backbone
from sktl.exceptions import InputError

_AT_ONCE = 256  # copies of a picture, each with another place covered: for a small stride there are tens of thousands
_CELLS = 7  # the sides of a picture in squares that cover it, by default: as many as a usual network's last stage has


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Where a layer holds evidence for a class: Grad-CAM's map.

    Each channel is weighted by the mean of its gradient over all places; the map is the weighted sum over the channels,
    and 0 where that is negative: such places speak for other classes.

    Parameters
    ----------
    activations : Tensor of shape (n, channels, height, width)
        What the layer gives for each picture.
    gradients : Tensor of shape (n, channels, height, width)
        The gradient of each picture's logit (the output in front of the softmax) of one class with respect to that.

    Returns
    -------
    Tensor of shape (n, height, width)
        Zero or more. Only the places of one picture can be compared: there is no unit.

    Raises
    ------
    InputError
        Where the two differ in shape, or are no maps.

    See Also
    --------
    GradCAMDisplay : The maps of a fitted classifier, over its pictures.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
       ICCV 2017, equations 1 and 2.

    Examples
    --------
    >>> import torch
    >>> from sktl.inspection import grad_cam
    >>> activations = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])  # two channels, one row of two places
    >>> gradients = torch.tensor([[[[0.5, 1.5]], [[-1.0, -1.0]]]])
    >>> grad_cam(activations, gradients)  # weights 1 and -1
    tensor([[[1., 0.]]])
    """
    if activations.ndim != 4 or activations.shape != gradients.shape:
        raise InputError(
            f"activations has the shape {tuple(activations.shape)} and gradients {tuple(gradients.shape)}. Both have "
            "to be (n, channels, height, width)."
        )
    weights = gradients.mean((2, 3), keepdim=True)  # equation 1
    return (weights * activations).sum(1).relu()  # equation 2


def find_network(estimator: Any, X: Any, what: str) -> tuple[NetworkClassifier, Any]:
    """The fitted classifier with a network inside an estimator, and what reaches it of ``X``.

    Raises
    ------
    NotFittedError
        Where the estimator is not fitted.
    InputError
        Where there is none in it, or a regressor.
    """
    found = require_fitted(estimator, "net_", "it has no network of its own that ends in classes")
    fitted = found.estimator
    if not isinstance(fitted, NetworkClassifier):
        kind = "a regressor" if is_regressor(fitted) else "no classifier"
        raise InputError(
            f"{what} shows the evidence for a class, and {type(fitted).__name__} is {kind}: no place speaks for a "
            "number rather than for another one. Give a FineTunedClassifier, a DistilledClassifier or a compressor."
        )
    return fitted, found.reached_by(X)


def read_pictures(fitted: NetworkClassifier, X: Any, n_pictures: int) -> tuple[np.ndarray, int]:
    """The first pictures of a table as the network sees them, (n, height, width, channels), uint8; and how many it has.

    Raises
    ------
    ImageError
        Where ``X`` is no table of pictures, or one cannot be read.
    """
    images = check_images(fitted, X, reset=False)
    some = images.take(range(min(n_pictures, len(images))))
    prefix = FrozenPrefix(PrefixSpec(fitted.backbone_, ()), Runtime.of(fitted, cache=None))
    return prefix.run(some)[0], len(images)


def class_probabilities(fitted: NetworkClassifier, pictures: np.ndarray) -> np.ndarray:
    """Probabilities (n, n_classes) of pictures as the network sees them, by the numerics with which it predicts."""
    prefix = frozen_prefix(fitted, fitted.freeze_depth_, None)
    # ONNX Runtime would round otherwise, and take seconds to start.
    run = get_runner(prefix.spec, prefix.runtime, "torch")
    size = _batch_size(fitted.backbone_, prefix.runtime.device)
    parts = [fitted.net_.outputs(run(batch)[0]) for (batch,) in _batches(size, pictures)]
    return softmax(np.concatenate(parts), axis=1)


def gradient_maps(
    fitted: NetworkClassifier, pictures: np.ndarray, classes: np.ndarray, layer: "int | str | None" = None
) -> tuple[np.ndarray, str]:
    """Grad-CAM's map of each picture, as large as the picture, and the layer that it is of.

    Parameters
    ----------
    fitted : NetworkClassifier
        It stays as it is, to the bit: no parameter gets a gradient, and nothing leaves eval mode.
    pictures : ndarray of shape (n, height, width, channels), dtype uint8
        As the network sees them.
    classes : ndarray of shape (n,)
        The number of the class that evidence is looked for, of each picture.
    layer : int or str, default=None
        A stage or layer; None takes the last stage with more than one place that the logits depend on.

    Returns
    -------
    maps : ndarray of shape (n, height, width), float32
    layer : str

    Raises
    ------
    InputError
        Where there is no such map: the network is one of integers, or the layer has no places, or no part in the
        logits.
    BackboneError
        Where there is no such layer.
    """
    if not fitted.net_.is_trainable:
        raise InputError(
            "method='gradcam' needs gradients, which a network of integers does not have. Use method='occlusion', or "
            "the estimator that was quantized."
        )
    for name in _candidates(fitted.backbone_, layer):
        # A user's inference mode would leave no gradients at all.
        with bounded_threads(), torch.inference_mode(False):
            network = _WatchedNetwork(fitted, name)
            size = _batch_size(fitted.backbone_, network.device)
            parts = [network.gradients(*batch) for batch in _batches(size, pictures, classes)]
        if any(bool(gradients.any()) for _, gradients in parts):
            maps = torch.cat([grad_cam(*part) for part in parts])[:, None]
            return _enlarged(maps, pictures.shape[1:3]), name
    asked = f"layer={layer!r}" if layer is not None else "no stage"
    raise InputError(
        f"method='gradcam' needs a layer whose places the logits depend on, and {asked} of {fitted.backbone_.name!r} "
        "is one (of the last stage of a transformer with pooling='cls', for example, only the class token is used). "
        "Name an earlier layer, or use method='occlusion'."
    )


def _enlarged(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Maps (n, 1, rows, columns) as large as the images, (n, height, width): smooth, the middles of places in place.

    Bilinear interpolation has edges at the middles of places, which are seen as crosses. A cubic one runs below zero
    beside a peak, where there is no less evidence than none.
    """
    enlarged = nn.functional.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    return enlarged[:, 0].relu().numpy()


def occlusion_maps(
    fitted: NetworkClassifier,
    pictures: np.ndarray,
    classes: np.ndarray,
    patch_size: "int | None",
    stride: "int | None",
) -> np.ndarray:
    """How much of a class's probability is lost where a square of the weights' mean colour covers the picture.

    Parameters
    ----------
    fitted : NetworkClassifier
        Of any precision.
    pictures : ndarray of shape (n, height, width, channels), dtype uint8
        As the network sees them.
    classes : ndarray of shape (n,)
        The number of the class, of each picture.
    patch_size : int or None
        Side of the square in pixels; None takes a seventh of the picture's shorter side.
    stride : int or None
        Pixels from one square to the next; None takes half of a square's side.

    Returns
    -------
    ndarray of shape (n, height, width), float32
        For each pixel the mean over all squares that cover it, the nearer its middle the more. Negative where the class
        gains.

    Raises
    ------
    InputError
        Where the square does not fit into the picture, or the stride leaves gaps.
    """
    height, width = pictures.shape[1:3]
    patch_size = _check_pixels("patch_size", patch_size, max(1, min(height, width) // _CELLS), min(height, width))
    stride = _check_pixels("stride", stride, max(1, patch_size // 2), patch_size)
    places = [
        (slice(row, row + patch_size), slice(column, column + patch_size))
        for row in _starts(height, patch_size, stride)
        for column in _starts(width, patch_size, stride)
    ]
    gray = np.clip(np.rint(255 * np.array(fitted.backbone_.preprocessing.mean)), 0, 255).astype(np.uint8)
    # Equal weights would give blocks with edges, which no square has anything to do with.
    window = np.sin(np.pi * (np.arange(patch_size) + 0.5) / patch_size).astype(np.float32) ** 2
    window = np.outer(window, window)
    covers = np.zeros((height, width), np.float32)
    for place in places:
        covers[place] += window
    maps = np.zeros(pictures.shape[:3], np.float32)
    with bounded_threads():
        before = class_probabilities(fitted, pictures)
        for picture, index, whole, total in zip(pictures, classes, before, maps, strict=True):
            for (some,) in _batches(_AT_ONCE, places):
                covered = np.repeat(picture[None], len(some), axis=0)
                for copied, place in zip(covered, some, strict=True):
                    copied[place] = gray
                lost = whole[index] - class_probabilities(fitted, covered)[:, index]
                for place, drop in zip(some, lost, strict=True):
                    total[place] += drop * window
    return maps / covers


class _WatchedNetwork:
    """The whole network of a classifier, of which the gradient at one layer can be asked.

    It is put together of `backbone_`, which holds what was trained too, and the head: where all stages are frozen, what
    is trained begins behind their pooled output and has no layer to look at.
    """

    def __init__(self, fitted: NetworkClassifier, layer: str):
        backbone, last = fitted.backbone_, fitted.backbone_.stages[-1].name
        self.device = resolve_device(fitted.net_.device)
        self._normalization = Normalization(backbone.preprocessing).to(self.device)
        # It shares the memory of the weights, of which none asks for gradients.
        self._stages = _watched(backbone.feature_graph([layer, last])).to(self.device)
        self._head = copy.deepcopy(fitted.net_.module_.head).to(self.device).eval().requires_grad_(False)
        self._pooling = (fitted_pooling(fitted), backbone.channel_axis(last), backbone.has_cls_token(last))
        self._layout = (backbone.channel_axis(layer), backbone.has_cls_token(layer), places(backbone, layer))

    def run(self, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
        """The layer's output as it is, and the logits (n, n_classes), which come from it."""
        activations, last = self._stages(self._normalization(torch.from_numpy(pictures).to(self.device)))
        return activations, self._head(pool(last, *self._pooling))

    def gradients(self, pictures: np.ndarray, classes: np.ndarray) -> tuple[Tensor, Tensor]:
        """The layer's output, and the gradients of the classes' logits, (n, channels, height, width) each."""
        with torch.enable_grad():
            activations, logits = self.run(pictures)
            # Each picture's logit depends on that picture alone, so that one backward pass serves the batch.
            chosen = logits[torch.arange(len(classes)), torch.from_numpy(classes)].sum()
            gradients = torch.autograd.grad(chosen, activations, materialize_grads=True)[0]
        return self._as_maps(activations.detach()), self._as_maps(gradients)

    def _as_maps(self, values: Tensor) -> Tensor:
        """Channels second, places in rows and columns, on the CPU."""
        channel_axis, has_cls_token, grid = self._layout
        values = values.movedim(channel_axis, 1).flatten(2)
        return values[:, :, int(has_cls_token) :].unflatten(2, grid).float().cpu()


def _watched(module: fx.GraphModule) -> fx.GraphModule:
    """Let gradients end at the first of a graph's outputs: nothing before it is kept for them."""
    output = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    watched = output.args[0][0]
    with module.graph.inserting_after(watched):
        leaf = module.graph.call_function(_as_leaf, (watched,))
    watched.replace_all_uses_with(leaf, delete_user_cb=lambda user: user is not leaf)
    module.recompile()
    return module


def _as_leaf(activations: Tensor) -> Tensor:
    return activations.detach().requires_grad_()


def places(backbone: Backbone, layer: str) -> tuple[int, int]:
    """How many rows and columns of places a layer's output has; (1, 1) where it has no places that are known."""
    shape = list(backbone.output_shape(layer))
    if len(shape) > 1:
        axis = backbone.channel_axis(layer)
        del shape[axis if axis < 0 else axis - 1]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) != 1 or len(backbone.output_shape(layer)) == 1:
        return 1, 1
    # Tokens of a transformer: square patches of the picture, row by row.
    n_tokens = shape[0] - backbone.has_cls_token(layer)
    height, width = backbone.preprocessing.crop_shape
    n_rows = round((n_tokens * height / width) ** 0.5)
    n_columns = n_tokens // n_rows if n_rows else 0
    is_grid = n_rows * n_columns == n_tokens and n_rows * width == n_columns * height
    return (n_rows, n_columns) if is_grid else (1, 1)


def _candidates(backbone: Backbone, layer: "int | str | None") -> list[str]:
    """The layers to try: the one named, or the stages with several places, the last one first."""
    if layer is not None:
        if not isinstance(layer, str | Integral):
            raise InputError(f"layer={layer!r} has to be one stage, by its number or name, or one layer by its name.")
        (layer,) = name_layers(backbone, layer)
        found = [layer] if places(backbone, layer) != (1, 1) else []
    else:
        found = [stage.name for stage in reversed(backbone.stages) if places(backbone, stage.name) != (1, 1)]
    if not found:
        shapes = {stage.name: stage.output_shape for stage in backbone.stages}
        asked = f"layer={layer!r}, of shape {backbone.output_shape(layer)}," if layer is not None else "no stage"
        raise InputError(
            f"method='gradcam' needs a layer whose output has rows and columns of places, and {asked} of "
            f"{backbone.name!r} is one. The stages give {shapes}. Name another layer, or use method='occlusion'."
        )
    return found


def _batch_size(backbone: Backbone, device: torch.device) -> int:
    return resolve_batch_size("auto", sum(stage.macs for stage in backbone.stages), device)


def _batches(size: int, *arrays: Any) -> Iterator[list[Any]]:
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


def _starts(length: int, patch_size: int, stride: int) -> list[int]:
    """Where squares begin; the last one ends at the border."""
    return [*range(0, length - patch_size, stride), length - patch_size]


def _check_pixels(name: str, value: "int | None", default: int, most: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 1 <= value <= most:
        what = "the picture's shorter side" if name == "patch_size" else "patch_size: a larger one leaves gaps"
        raise InputError(f"{name}={value!r} has to be a number of pixels from 1 to {most}, {what}.")
    return int(value)
