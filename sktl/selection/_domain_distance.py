"""Distance of images from the pretraining images of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from sktl._estimators._backbone_parameter import has_random_weights
from sktl._estimators._norm_shift import near_line, source_distance
from sktl._moved import RenamedAttributes
from sktl._params import validate_params
from sktl.backbones import Preprocessing
from sktl.exceptions import InputError
from sktl.selection._extractors import SETTINGS_CONSTRAINTS, class_layer, read_images, run_layers


@dataclass(frozen=True, repr=False)
class DomainDistance(RenamedAttributes):
    """Distance of images from the pretraining images of a network.

    Created by `sktl.selection.domain_distance`.

    Parameters
    ----------
    backbone : str
        Name of the network.
    n_images : int
        Number of images that were used.
    distance : float or None
        Distance between the channel means of these images and those of the pretraining
        images, in standard deviations. None if the network has no batch normalization
        layers with pretrained statistics.
    confidence : float or None
        Mean of the highest class probability that a published classifier predicts for
        each image. None for networks or weights without a published classifier.
    line : float or None, default=None
        Threshold below which images count as similar to the pretraining images. It was
        measured for a few weights only: 0.42 for ``sktl_mini``, 0.25 and 0.32 for the
        MobileNetV2 and the MobileNetV3-Small of the project's benchmarks. None for all
        others, such as networks that were fine-tuned or truncated.

    Attributes
    ----------
    is_near : bool or None
        Whether the distance is below the threshold. None if one of them is unknown.
    """

    _renamed = {"n_pictures": "n_images"}

    backbone: str
    n_images: int
    distance: "float | None"
    confidence: "float | None"
    line: "float | None" = None

    @property
    def is_near(self) -> "bool | None":
        """True if the images are similar to the pretraining images, None if unknown."""
        return None if self.distance is None or self.line is None else self.distance < self.line

    def __repr__(self) -> str:
        lines = [f"Distance of {self.n_images} images from the pretraining images of {self.backbone}"]
        if self.distance is None:
            lines.append("distance: unknown (the network has no batch normalization layers with pretrained statistics)")
        else:
            verdict = "different from the pretraining images"
            if self.is_near is not False:
                known = "similar to the pretraining images"
                unknown = "no threshold is known for these weights: compare with the distance of familiar images"
                verdict = known if self.is_near else unknown
            lines.append(f"distance: {self.distance:.2f} standard deviations ({verdict})")
        if self.confidence is not None:
            lines.append(f"confidence of the classifier: {self.confidence:.2f}")
        return "\n".join(lines)


@validate_params(
    {
        **SETTINGS_CONSTRAINTS,
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def domain_distance(
    X: Any,
    backbone: Any = "sktl_mini",
    *,
    weights: "str | PathLike[str] | None" = "default",
    in_channels: int = 3,
    image_shape: "tuple[int, ...] | None" = None,
    channels: str = "auto",
    preprocessing: "Preprocessing | Mapping[str, Any] | None" = None,
    engine: str = "auto",
    precision: str = "float32",
    batch_size: "int | str" = "auto",
    cache: "str | PathLike[str] | None" = "auto",
    device: "str | torch.device" = "auto",
    n_jobs: "int | None" = None,
    max_samples: int = 256,
    random_state: "int | np.random.RandomState | None" = 0,
) -> DomainDistance:
    """Measure the distance of images from the pretraining images of a network.

    Neither labels nor the pretraining images are needed.

    Read more in the :doc:`user guide </choosing>`.

    Parameters
    ----------
    X : array-like of images
        Paths, images, a batch array or rows of pixels; see the user guide. At least two
        images are required.
    backbone : str, Module, Backbone or estimator, default="sktl_mini"
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, your own network, or an estimator that contains one,
        such as a sktl estimator, or a fitted pipeline or search. A fitted estimator
        reads the images as in its `fit`.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy. This parameter and
        those down to ``n_jobs`` cannot be set if ``backbone`` is an estimator, whose
        own settings are used.
    in_channels : int, default=3
        Number of channels of the network's input.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of each image if ``X`` holds flat rows of pixels.
    channels : {"auto", "first", "last"}, default="auto"
        Position of the channel axis in arrays.
    preprocessing : Preprocessing or dict, default=None
        Size, crop, interpolation, mean and standard deviation used to prepare the
        images. None uses the preprocessing of the weights.
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        Engine that runs the network.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Floating-point precision of the network.
    batch_size : int or "auto", default="auto"
        Number of images that go through the network at once.
    cache : "auto", path-like or None, default="auto"
        Where to keep the outputs of the network.
    device : str or torch.device, default="auto"
        Device that runs the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        ``"auto"`` uses CUDA if available and the CPU otherwise.
    n_jobs : int, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    max_samples : int, default=256
        Maximum number of images to use, drawn at random.
    random_state : int, RandomState instance or None, default=0
        Seed of the random subset of images. Pass an int for reproducible results.

    Returns
    -------
    DomainDistance
        The distance and the confidence of the classifier. It prints as a short summary.

    Raises
    ------
    InputError
        If there are fewer than two images, or settings are passed with an estimator.
    ImageError
        If ``X`` does not contain images, or an image cannot be read.
    BackboneError
        If the network does not exist.

    Notes
    -----
    During training, batch normalization layers keep a running mean and variance of each
    channel. The distance is the root mean square, over the channels of the later
    layers, of the difference between the mean on the given images and the running mean,
    in units of the running standard deviation [1]_. The expected contribution of
    chance, which is large for few images, is subtracted.

    The distance tells whether the *images* are similar to the pretraining images. It
    does not tell whether the *labels* depend on features that the network extracts:
    images of defects on known objects have a small distance and can be as hard as any
    others. Distances of different networks cannot be compared, because each was trained
    on other images. Networks without batch normalization (VGG, vision transformers)
    have no distance, and that of a network with random weights is meaningless. Since a
    classifier can be confident and wrong, the confidence [2]_ orders images less
    reliably than the distance and serves as a second opinion.

    References
    ----------
    .. [1] Li, Wang, Shi, Hou and Liu, "Adaptive Batch Normalization for practical
           domain adaptation", Pattern Recognition 2018.
    .. [2] Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and
           Out-of-Distribution Examples in Neural Networks", ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.selection import domain_distance
    >>> X, _ = load_digits(return_X_y=True)
    >>> domain_distance(X[:50] / 16).is_near
    False
    """
    settings = locals()
    extractor, images = read_images(X, backbone, settings)
    if len(images) < 2:
        raise InputError(f"X must contain at least 2 images, because one has no variance. Got {len(images)} instead.")
    some = np.sort(check_random_state(random_state).permutation(len(images))[:max_samples])
    images = images.take(some)
    distance = None if has_random_weights(extractor) else source_distance(extractor, images)
    confidence = None
    head = class_layer(extractor)
    if head is not None:
        (logits,) = run_layers(extractor, [head], images)
        confidence = float(softmax(logits.astype(np.float64), axis=1).max(axis=1).mean())
    backbone = extractor.backbone_
    line = None if distance is None else near_line(backbone)
    return DomainDistance(backbone.name, len(images), distance, confidence, line)
