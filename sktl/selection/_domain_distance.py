"""How near the user's pictures are to those that a network learnt from."""

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
from sktl._params import validate_params
from sktl.backbones import Preprocessing
from sktl.exceptions import InputError
from sktl.selection._extractors import SETTINGS_CONSTRAINTS, class_layer, read_pictures, run_layers


@dataclass(frozen=True, repr=False)
class DomainDistance:
    """How near pictures are to those that a network learnt from; made by `domain_distance`.

    Parameters
    ----------
    backbone : str
        The name of the network.
    n_pictures : int
        How many pictures were looked at.
    distance : float or None
        How far the means of the network's channels are from those that its batch norms keep from its training, in
        standard deviations; None where it has no batch norms that have learnt statistics.
    confidence : float or None
        The mean of the highest probability that a published classifier gives to a picture; None for other networks, and
        for weights without a classifier.
    line : float or None, default=None
        The distance below which pictures are of a known kind, where that was measured for these very weights: 0.42 for
        ``sktl_mini``, 0.25 and 0.32 for the MobileNetV2 and the MobileNetV3-Small of the project's benchmarks. None for
        all others, such as a network that was fine-tuned or truncated.

    Attributes
    ----------
    is_near : bool or None
        Whether the distance is below the line; None without either.
    """

    backbone: str
    n_pictures: int
    distance: "float | None"
    confidence: "float | None"
    line: "float | None" = None

    @property
    def is_near(self) -> "bool | None":
        """Whether the pictures are of a kind that the network knows."""
        return None if self.distance is None or self.line is None else self.distance < self.line

    def __repr__(self) -> str:
        lines = [f"{self.n_pictures} pictures, as {self.backbone} sees them"]
        if self.distance is None:
            lines.append(
                "distance: unknown, for the network has no batch norms with learnt statistics that can be read"
            )
        else:
            verdict = "of another kind than those it learnt from"
            if self.is_near is not False:
                known = "like those it learnt from"
                unknown = "nobody has measured what is near for these weights: compare it with images that you know"
                verdict = known if self.is_near else unknown
            lines.append(f"distance: {self.distance:.2f} standard deviations ({verdict})")
        if self.confidence is not None:
            lines.append(f"confidence of its classifier: {self.confidence:.2f}")
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
    """Measure how near pictures are to those that a network learnt from. No labels, and no source pictures, are needed.

    Parameters
    ----------
    X : array-like of pictures
        Paths, pictures, a batch array or rows of pixels, see the user guide. Two at least.
    backbone : str, Module, Backbone or estimator, default="sktl_mini"
        The network: a name, a network of your own, a `Backbone`, or an estimator that has one: an extractor or another
        estimator of sktl, fitted or not, or a fitted pipeline or search with one in it. A fitted one reads the images
        as it has learnt to.
    weights : str, path-like or None, default="default"
        The weights of a network that is given by its name; this and the parameters down to ``n_jobs`` are those of
        `sktl.PretrainedFeatureExtractor`. An estimator has settings of its own.
    in_channels : int, default=3
        Channels that the network sees.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of the images where ``X`` holds flat rows of pixels.
    channels : {"auto", "first", "last"}, default="auto"
        Where the channel axis of arrays is.
    preprocessing : Preprocessing or dict, default=None
        Size, crop, interpolation, mean and standard deviation; None takes what belongs to the weights.
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        What runs the network.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numerics of the network.
    batch_size : int or "auto", default="auto"
        Images that go through the network at once.
    cache : "auto", path-like or None, default="auto"
        Where the network's outputs are kept.
    device : str or torch.device, default="auto"
        ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    n_jobs : int, default=None
        Threads that read and decode images; None takes as many as torch uses.
    max_samples : int, default=256
        How many pictures are looked at, at most.
    random_state : int, RandomState instance or None, default=0
        Which ones.

    Returns
    -------
    DomainDistance
        Prints as a sentence; ``distance`` and ``confidence`` are its numbers.

    Raises
    ------
    InputError
        Where there are fewer than two pictures.
    ImageError
        Where a picture cannot be read.
    BackboneError
        Where there is no such network.

    Notes
    -----
    While a network learns, its batch norms keep the mean and variance of each of their channels. The distance is the
    root mean square, over the channels of the later norms, of the difference between the mean on these pictures and the
    kept one, in units of the kept standard deviation; what few pictures differ by chance is taken off.

    It says whether the *pictures* are of a known kind, and nothing about whether the *labels* depend on what the
    network looks at: defects on known objects are near, and may be as hard as anything. Networks cannot be compared by
    it, for each knows other pictures; nor can those be judged that have no batch norms (VGG, vision transformers). Of a
    network with random weights it means nothing. A classifier can be certain and wrong: confidence orders less well
    than the distance, and is there as a second opinion.

    References
    ----------
    .. [1] Li, Wang, Shi, Hou and Liu, "Adaptive Batch Normalization for practical domain adaptation", Pattern
       Recognition 2018.
    .. [2] Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
       Networks", ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.selection import domain_distance
    >>> X, _ = load_digits(return_X_y=True)
    >>> domain_distance(X[:50] / 16).is_near
    False
    """
    settings = locals()
    extractor, images = read_pictures(X, backbone, settings)
    if len(images) < 2:
        raise InputError(f"X has {len(images)} picture, which has no variance. Give at least two.")
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
