"""Evidence for a class in images, by gradients (Grad-CAM) and by occlusion."""

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
from sktl._frozen._prefix_network import Normalization, pool
from sktl._frozen._runners import get_runner, resolve_batch_size
from sktl._threads import bounded_threads
from sktl.backbones import Backbone
from sktl.exceptions import InputError

_AT_ONCE = 256  # covered copies of an image per batch: a small stride makes tens of thousands
_CELLS = 7  # default squares per side of an image, as positions of a usual last stage


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute Grad-CAM maps from the output and the gradients of a layer.

    Each channel is weighted by the mean of its gradient over all positions [1]_. The
    map is the weighted sum of the channels, with negative values, which are evidence
    for other classes, set to 0.

    Parameters
    ----------
    activations : Tensor of shape (n, channels, height, width)
        Output of the layer for each image.
    gradients : Tensor of shape (n, channels, height, width)
        Gradient of the logit of one class (the output before the softmax) of each image
        with respect to ``activations``.

    Returns
    -------
    Tensor of shape (n, height, width)
        Nonnegative maps. Only values within one image can be compared, because they
        have no unit.

    Raises
    ------
    InputError
        If the shapes differ or do not have four dimensions.

    See Also
    --------
    GradCAMDisplay : Plot the maps of a fitted classifier over its images.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
           Gradient-based Localization", ICCV 2017, equations 1 and 2.

    Examples
    --------
    >>> import torch
    >>> from sktl.inspection import grad_cam
    >>> activations = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])  # two channels
    >>> gradients = torch.tensor([[[[0.5, 1.5]], [[-1.0, -1.0]]]])
    >>> grad_cam(activations, gradients)  # weights 1 and -1
    tensor([[[1., 0.]]])
    """
    if activations.ndim != 4 or activations.shape != gradients.shape:
        raise InputError(
            "activations and gradients must both have the shape (n, channels, height, width). Got "
            f"{tuple(activations.shape)} and {tuple(gradients.shape)} instead."
        )
    weights = gradients.mean((2, 3), keepdim=True)  # equation 1
    return (weights * activations).sum(1).relu()  # equation 2


def find_network(estimator: Any, X: Any, what: str) -> tuple[NetworkClassifier, Any]:
    """Return the fitted network classifier in an estimator, and ``X`` as it reaches it.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    InputError
        If it does not contain a network that predicts classes.
    """
    found = require_fitted(estimator, "net_", "it does not contain a network that predicts classes")
    fitted = found.estimator
    if not isinstance(fitted, NetworkClassifier):
        kind = "a regressor" if is_regressor(fitted) else "not a classifier"
        raise InputError(
            f"{what} shows the evidence for a class, but {type(fitted).__name__} is {kind}. Pass a "
            "FineTunedClassifier, a DistilledClassifier or a compressor."
        )
    return fitted, found.reached_by(X)


def class_probabilities(fitted: NetworkClassifier, images: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, n_classes) of network inputs."""
    prefix = frozen_prefix(fitted, fitted.freeze_depth_, None)
    # ONNX Runtime rounds differently and takes seconds to start.
    run = get_runner(prefix.spec, prefix.runtime, "torch")
    size = _batch_size(fitted.backbone_, prefix.runtime.device)
    parts = [fitted.net_.outputs(run(batch)[0]) for (batch,) in _batches(size, images)]
    return softmax(np.concatenate(parts), axis=1)


def gradient_maps(
    fitted: NetworkClassifier, images: np.ndarray, classes: np.ndarray, layer: "int | str | None" = None
) -> tuple[np.ndarray, str]:
    """Return a Grad-CAM map in the size of each image, and the name of the layer.

    Parameters
    ----------
    fitted : NetworkClassifier
        Fitted classifier. It is not changed: parameters get no gradients, and all
        modules stay in eval mode.
    images : ndarray of shape (n, height, width, channels), dtype uint8
        Images as the network sees them.
    classes : ndarray of shape (n,)
        Index of the class whose evidence is shown, for each image.
    layer : int or str, default=None
        A stage or layer. None uses the last stage with several positions that affect
        the logits.

    Returns
    -------
    maps : ndarray of shape (n, height, width), float32
    layer : str

    Raises
    ------
    InputError
        If the network is quantized, or the layer has no positions or does not affect
        the logits.
    BackboneError
        If the layer does not exist.
    """
    if not fitted.net_.is_trainable:
        raise InputError(
            "method='gradcam' needs gradients, which a quantized network does not have. Use method='occlusion', or "
            "pass the estimator that was quantized."
        )
    for name in _candidates(fitted.backbone_, layer):
        # Inference mode set by the user would disable gradients.
        with bounded_threads(), torch.inference_mode(False):
            network = _WatchedNetwork(fitted, name)
            size = _batch_size(fitted.backbone_, network.device)
            parts = [network.gradients(*batch) for batch in _batches(size, images, classes)]
        if any(bool(gradients.any()) for _, gradients in parts):
            maps = torch.cat([grad_cam(*part) for part in parts])[:, None]
            return _enlarged(maps, images.shape[1:3]), name
    asked = f"layer={layer!r}" if layer is not None else "any stage"
    raise InputError(
        f"method='gradcam' does not support {asked} of {fitted.backbone_.name!r}: the logits do not depend on the "
        "positions of its output (with pooling='cls', for example, only the class token of the last stage is used). "
        "Use an earlier layer, or method='occlusion'."
    )


def _enlarged(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Resize maps (n, 1, rows, columns) to (n, height, width) by cubic interpolation.

    Bilinear interpolation has visible edges at the centers of positions. Negative
    values next to a peak of the cubic one are set to 0.
    """
    enlarged = nn.functional.interpolate(maps, size=size, mode="bicubic", align_corners=False)
    return enlarged[:, 0].relu().numpy()


def occlusion_maps(
    fitted: NetworkClassifier,
    images: np.ndarray,
    classes: np.ndarray,
    patch_size: "int | None",
    stride: "int | None",
) -> np.ndarray:
    """Return the drop in probability of a class when squares cover the image.

    Parameters
    ----------
    fitted : NetworkClassifier
        Fitted classifier of any precision.
    images : ndarray of shape (n, height, width, channels), dtype uint8
        Images as the network sees them.
    classes : ndarray of shape (n,)
        Index of the class of each image.
    patch_size : int or None
        Side of the square in pixels. None uses a seventh of the shorter side of the
        image.
    stride : int or None
        Distance between adjacent squares in pixels. None uses half of ``patch_size``.

    Returns
    -------
    ndarray of shape (n, height, width), float32
        Mean drop of all squares that cover a pixel, weighted by the distance to their
        centers. Negative if the probability increases.

    Raises
    ------
    InputError
        If the square does not fit into the image, or the stride leaves gaps.
    """
    height, width = images.shape[1:3]
    patch_size = _check_pixels("patch_size", patch_size, max(1, min(height, width) // _CELLS), min(height, width))
    stride = _check_pixels("stride", stride, max(1, patch_size // 2), patch_size)
    places = [
        (slice(row, row + patch_size), slice(column, column + patch_size))
        for row in _starts(height, patch_size, stride)
        for column in _starts(width, patch_size, stride)
    ]
    gray = np.clip(np.rint(255 * np.array(fitted.backbone_.preprocessing.mean)), 0, 255).astype(np.uint8)
    # Equal weights would show block edges that are artifacts.
    window = np.sin(np.pi * (np.arange(patch_size) + 0.5) / patch_size).astype(np.float32) ** 2
    window = np.outer(window, window)
    covers = np.zeros((height, width), np.float32)
    for place in places:
        covers[place] += window
    maps = np.zeros(images.shape[:3], np.float32)
    with bounded_threads():
        before = class_probabilities(fitted, images)
        for image, index, whole, total in zip(images, classes, before, maps, strict=True):
            for (some,) in _batches(_AT_ONCE, places):
                covered = np.repeat(image[None], len(some), axis=0)
                for copied, place in zip(covered, some, strict=True):
                    copied[place] = gray
                lost = whole[index] - class_probabilities(fitted, covered)[:, index]
                for place, drop in zip(some, lost, strict=True):
                    total[place] += drop * window
    return maps / covers


class _WatchedNetwork:
    """Network of a classifier that computes the gradient at one layer.

    It joins `backbone_`, which contains the trained stages, and the head. If all stages
    are frozen, the trained network starts after the pooling and has no layers.
    """

    def __init__(self, fitted: NetworkClassifier, layer: str):
        backbone, last = fitted.backbone_, fitted.backbone_.stages[-1].name
        self.device = resolve_device(fitted.net_.device)
        self._normalization = Normalization(backbone.preprocessing).to(self.device)
        # It shares the memory of the weights, none of which requires gradients.
        self._stages = _watched(backbone.feature_graph([layer, last])).to(self.device)
        self._head = copy.deepcopy(fitted.net_.module_.head).to(self.device).eval().requires_grad_(False)
        self._pooling = (fitted_pooling(fitted), backbone.channel_axis(last), backbone.has_cls_token(last))
        self._layout = (backbone.channel_axis(layer), backbone.has_cls_token(layer), places(backbone, layer))

    def run(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the output of the layer, and the logits (n, n_classes)."""
        activations, last = self._stages(self._normalization(torch.from_numpy(images).to(self.device)))
        return activations, self._head(pool(last, *self._pooling))

    def gradients(self, images: np.ndarray, classes: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the output and its gradients, as (n, channels, height, width)."""
        with torch.enable_grad():
            activations, logits = self.run(images)
            # Each logit depends on one image, so one backward pass suffices for the batch.
            chosen = logits[torch.arange(len(classes)), torch.from_numpy(classes)].sum()
            gradients = torch.autograd.grad(chosen, activations, materialize_grads=True)[0]
        return self._as_maps(activations.detach()), self._as_maps(gradients)

    def _as_maps(self, values: Tensor) -> Tensor:
        """Move channels to axis 1 and positions to rows and columns, on the CPU."""
        channel_axis, has_cls_token, grid = self._layout
        values = values.movedim(channel_axis, 1).flatten(2)
        return values[:, :, int(has_cls_token) :].unflatten(2, grid).float().cpu()


def _watched(module: fx.GraphModule) -> fx.GraphModule:
    """Make the first output of a graph a leaf, so that gradients stop there."""
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
    """Return the rows and columns of a layer's output, or (1, 1) if it has none."""
    shape = list(backbone.output_shape(layer))
    if len(shape) > 1:
        axis = backbone.channel_axis(layer)
        del shape[axis if axis < 0 else axis - 1]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) != 1 or len(backbone.output_shape(layer)) == 1:
        return 1, 1
    # Tokens of a transformer: square patches of the image, row by row.
    n_tokens = shape[0] - backbone.has_cls_token(layer)
    height, width = backbone.preprocessing.crop_shape
    n_rows = round((n_tokens * height / width) ** 0.5)
    n_columns = n_tokens // n_rows if n_rows else 0
    is_grid = n_rows * n_columns == n_tokens and n_rows * width == n_columns * height
    return (n_rows, n_columns) if is_grid else (1, 1)


def _candidates(backbone: Backbone, layer: "int | str | None") -> list[str]:
    """Return the given layer, or all spatial stages from the last one on."""
    if layer is not None:
        if not isinstance(layer, str | Integral):
            raise InputError(
                "The 'layer' parameter must be the index or name of one stage, or the name of one layer. Got "
                f"{layer!r} instead."
            )
        (layer,) = name_layers(backbone, layer)
        found = [layer] if places(backbone, layer) != (1, 1) else []
    else:
        found = [stage.name for stage in reversed(backbone.stages) if places(backbone, stage.name) != (1, 1)]
    if not found:
        shapes = {stage.name: stage.output_shape for stage in backbone.stages}
        asked = f"layer={layer!r}, of shape {backbone.output_shape(layer)}," if layer is not None else "any stage"
        raise InputError(
            f"method='gradcam' does not support {asked} of {backbone.name!r}: its output has no rows and columns. "
            f"The stages have the shapes {shapes}. Use another layer, or method='occlusion'."
        )
    return found


def _batch_size(backbone: Backbone, device: torch.device) -> int:
    return resolve_batch_size("auto", sum(stage.macs for stage in backbone.stages), device)


def _batches(size: int, *arrays: Any) -> Iterator[list[Any]]:
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


def _starts(length: int, patch_size: int, stride: int) -> list[int]:
    """Return the first pixels of the squares; the last square ends at the border."""
    return [*range(0, length - patch_size, stride), length - patch_size]


def _check_pixels(name: str, value: "int | None", default: int, most: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 1 <= value <= most:
        what = "the shorter side of the image" if name == "patch_size" else "patch_size"
        raise InputError(f"The '{name}' parameter must be an int from 1 to {most} ({what}). Got {value!r} instead.")
    return int(value)
