"""Recommendation of how to use a pretrained network, before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from numbers import Integral
from os import PathLike
from textwrap import fill
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktl._estimators._auto_depth import MUCH, Situation, assess_situation, strategy_params
from sktl._estimators._backbone_parameter import has_random_weights
from sktl._estimators._checked_table import as_targets, distinct
from sktl._estimators._groups import check_groups
from sktl._frozen._runtime import SHARED_PARAMETERS
from sktl._images import Images
from sktl._moved import RenamedAttributes
from sktl._params import check_consistent_length, validate_params
from sktl._training._data import LabeledImages
from sktl._training._head_probe import PROBE_PENALTY, in_order
from sktl._warnings import warn
from sktl.backbones import Preprocessing
from sktl.backbones._backbone import up_to
from sktl.exceptions import InputError, TransferWarning
from sktl.feature_extraction import PretrainedFeatureExtractor
from sktl.selection._extractors import SETTINGS_CONSTRAINTS, read_images, run_layers
from sktl.selection._linear_probe import held_out_scores
from sktl.selection._logme import logme_score
from sktl.selection._validation import Labels, Task, as_target, draw_rows

_WORTH_IT = 0.05  # share of the errors of the pixel model that useful features avoid
_N_STAGES = 5  # maximum number of stages whose features are scored
_SIDE = 16  # side length of the small images of the pixel model
_AT_ONCE = 256  # number of full-size images in memory

_NETWORK = ("weights", "preprocessing")
_SETTINGS = ("in_channels", "image_shape", "channels", *SHARED_PARAMETERS)

_TITLES = {
    "freeze_all": "Freeze all stages and train a head on the last one",
    "earlier_layer": "Freeze all stages and train a head on an earlier one",
    "last_stages": "Freeze the first stages and fine-tune the last ones",
    "train_all": "Fine-tune all stages with a tenth of the learning rate",
    "no_transfer": "Do not transfer: the features are not better than pixels",
}
_CELLS = {
    ("little", "similar"): "freeze all",
    ("little", "different"): "use an earlier stage, or fine-tune the last ones",
    ("much", "similar"): "fine-tune the last stages",
    ("much", "different"): "fine-tune the last stages",
}


@dataclass(frozen=True, repr=False)
class StrategyAdvice(RenamedAttributes):
    """Recommended way to use a pretrained network for given images and labels.

    Created by `sktl.selection.recommend_strategy`. It prints as a report, also in
    notebooks.

    Parameters
    ----------
    strategy : {"freeze_all", "earlier_layer", "last_stages", "train_all", "no_transfer"}
        The recommended strategy.
    params : dict
        Parameters that carry out the strategy:
        ``FineTunedClassifier(**advice.params)``, or `sktl.FineTunedRegressor` for
        regression. Those of ``"no_transfer"`` train the whole network, from random
        weights if the backbone is given by name. This takes many images, and a model of
        the pixels may be better.
    backbone : str
        Name of the network.
    n_images : int
        Number of distinct images.
    n_classes : int or None
        Number of classes. None for regression.
    amount : {"little", "much"}
        Amount of data: ``"little"`` with fewer than 100 images per class on average, or
        fewer than 1,000 images for regression.
    domain : {"similar", "different", "unknown"}
        Whether the images are similar to the pretraining images, by
        `sktl.selection.domain_distance`. Unknown for weights without a measured
        threshold.
    distance : float or None
        Distance from the pretraining images, in standard deviations. None if it cannot
        be measured.
    logme : dict of str to float
        `sktl.selection.logme_score` of the features of each stage, with the last stage
        at the end.
    probes : dict of str to float
        `sktl.selection.probe_score` of the features of the best and the last stage: the
        accuracy or R² of a linear model on held-out images.
    pixels : float
        The same score for the pixels of the images, reduced to 16 × 16.
    line : float or None, default=None
        Threshold of the distance below which images count as similar. None if it was
        not measured for these weights.
    """

    _renamed = {"n_pictures": "n_images"}

    strategy: str
    params: dict[str, Any] = field(hash=False)
    backbone: str
    n_images: int
    n_classes: "int | None"
    amount: str
    domain: str
    distance: "float | None"
    logme: dict[str, float] = field(hash=False)
    probes: dict[str, float] = field(hash=False)
    pixels: float
    line: "float | None" = None

    def __repr__(self) -> str:
        rows = [["", "similar images", "different images"], *self._cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines = [fill(f"- {line}", 80, subsequent_indent="  ") for line in self._evidence()]
        return "\n".join([self._title(), self._call(), "", *table, "", *lines])

    def _repr_html_(self) -> str:
        head, *rows = [["", "similar images", "different images"], *self._cells()]
        cells = "".join(
            f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{_marked(cell)}</td>" for cell in row[1:]) + "</tr>"
            for row in rows
        )
        return (
            f"<div><p><b>{escape(self._title())}</b></p><p><code>{escape(self._call())}</code></p>"
            f"<table><thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>"
            f"<tbody>{cells}</tbody></table>"
            f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in self._evidence())}</ul></div>"
        )

    def _title(self) -> str:
        return _TITLES[self.strategy]

    def _call(self) -> str:
        """Return the code of the recommended estimator."""
        kind = "Regressor" if self.n_classes is None else "Classifier"
        return f"FineTuned{kind}({', '.join(f'{name}={_written(value)}' for name, value in self.params.items())})"

    def _cells(self) -> list[list[str]]:
        """Return the rows of the table, with an arrow in the cell of the images."""
        return [
            [
                f"{amount} data",
                *(
                    ("→ " if (self.amount, self.domain) == (amount, domain) else "") + _CELLS[amount, domain]
                    for domain in ("similar", "different")
                ),
            ]
            for amount in ("little", "much")
        ]

    def _evidence(self) -> list[str]:
        """Return the reasons for the advice, one per line."""
        score = "R²" if self.n_classes is None else "Accuracy"
        much = f"{self.amount} data (much data is {MUCH if self.n_classes else 10 * MUCH:,} or more)"
        each = ""
        if self.n_classes is not None:
            each = f", on average {self.n_images / self.n_classes:.3g} in each of {self.n_classes} classes"
        lines = [f"{self.n_images:,} images{each}: {much}"]
        if self.distance is None:
            lines.append(f"Distance from the pretraining images of {self.backbone}: cannot be measured, unknown domain")
        else:
            where = "no threshold is known for these weights"
            where = where if self.line is None else f"similar images are below {self.line}"
            from_there = (
                f"Distance from the pretraining images of {self.backbone}: {self.distance:.2f} standard deviations"
            )
            lines.append(f"{from_there}, {self.domain} domain ({where})")
        fits = ", ".join(f"{stage} {value:.3f}" for stage, value in self.logme.items())
        lines.append(f"LogME of the features of each stage: {fits}")
        reached = ", ".join(f"{value:.2f} with {stage}" for stage, value in self.probes.items())
        lines.append(f"{score} of a linear model on held-out images: {reached}, {self.pixels:.2f} with pixels only")
        return lines


@validate_params(
    {
        **SETTINGS_CONSTRAINTS,
        "task": [StrOptions({"auto", "classification", "regression"})],
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
        "groups": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def recommend_strategy(
    X: Any,
    y: Any,
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
    task: Task = "auto",
    max_samples: int = 1000,
    random_state: "int | np.random.RandomState | None" = 0,
    groups: Any = None,
) -> StrategyAdvice:
    """Recommend how to use a pretrained network for given images and labels.

    Only linear models are trained to find the recommendation.

    Read more in the :doc:`user guide </choosing>`.

    Parameters
    ----------
    X : array-like of images
        Paths, images, a batch array or rows of pixels; see the user guide. At least two
        images are required.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets of the images.
    backbone : str, Module, Backbone or estimator, default="sktl_mini"
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, your own network, or an estimator that contains one,
        such as a sktl estimator, or a fitted pipeline or search. A fitted estimator
        reads the images as in its `fit`. Its ``layers`` and ``pooling`` are ignored.
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
    task : {"auto", "classification", "regression"}, default="auto"
        Type of ``y``. ``"auto"`` means regression if ``y`` has several columns or
        numbers that are not integers. Use ``"regression"`` if the targets are integers.
    max_samples : int, default=1000
        Maximum number of images whose features are scored, drawn at random and
        stratified by class. All images are read and counted, with duplicates counted
        once as in a fit. Neither duplicates nor the order of the rows change the
        result.
    random_state : int, RandomState instance or None, default=0
        Seed of the random subset of images and of the folds. Pass an int for
        reproducible results.
    groups : array-like of shape (n_samples,), default=None
        Group label of each row of ``X``, such as the subject or the original of
        near-copies. Linear models are evaluated on groups that they were not trained
        on.

    Returns
    -------
    StrategyAdvice
        The recommendation. It prints as a report; its ``params`` are those of a
        `sktl.FineTunedClassifier` or `sktl.FineTunedRegressor`.

    Raises
    ------
    InputError
        If ``y`` has missing values or only one class or value, ``groups`` has missing
        values or only one group, the weights are random, or settings are passed with an
        estimator.
    ImageError
        If ``X`` does not contain images, or an image cannot be read.
    BackboneError
        If the network does not exist.

    Warns
    -----
    TransferWarning
        If the features are not better than pixels: a linear model of the pixels is at
        least as accurate on held-out images, and there are enough of them to conclude
        that the features do not avoid one in twenty of its errors.

    See Also
    --------
    BackboneSelector : Select a network and one of its layers.
    domain_distance : Distance of images from the pretraining images.

    Notes
    -----
    The strategy depends on the amount of data (little or much, with 100 images per
    class on average as the limit) and on whether the images are similar to the
    pretraining images or different, by `sktl.selection.domain_distance` [1]_ [2]_. The
    strategy of each case is the best one in our measurements; the user guide shows the
    results, and how often another strategy was better. With little data of a different
    domain, LogME decides between the features of an earlier stage and fine-tuning; if
    the domain is unknown, between the features of an earlier stage and those of the
    last one. ``"train_all"`` is never recommended. Since these limits were measured on
    a few datasets, they are rules of thumb: if time permits, search over
    ``freeze_depth``.

    For regression, at least 1,000 images count as much data. The recommendations were
    not measured on regression tasks.

    References
    ----------
    .. [1] Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep
           neural networks?", NIPS 2014.
    .. [2] Karpathy, "CS231n: Transfer Learning", course notes, Stanford.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.selection import recommend_strategy
    >>> X, y = load_digits(return_X_y=True)
    >>> advice = recommend_strategy(X[:200] / 16, y[:200])
    >>> advice.amount, advice.domain
    ('little', 'different')
    >>> model = FineTunedClassifier(**advice.params).fit(X[:200] / 16, y[:200])
    """
    settings = locals()
    extractor, images = read_images(X, backbone, settings)
    if has_random_weights(extractor):
        raise InputError(
            "The network has random weights (weights=None), so there is nothing to transfer. Use pretrained weights."
        )
    table, n_classes = _different(images, y, task, groups)
    return _advise(extractor, table, n_classes, max_samples, check_random_state(random_state))


def _advise(
    extractor: PretrainedFeatureExtractor,
    table: LabeledImages,
    n_classes: "int | None",
    max_samples: int,
    random: np.random.RandomState,
) -> StrategyAdvice:
    """Return the recommendation for distinct images and their encoded targets."""
    situation = assess_situation(extractor, table.images, n_classes)
    known: dict = {"task": "regression" if n_classes is None else "classification"}
    rows = draw_rows(table.y, max_samples, random=random, **known)
    seed = int(random.randint(2**31 - 1))
    images, y, groups = table.images.take(rows), table.y[rows], table.take(rows).groups
    tables = _stage_features(extractor, images)
    logme = {stage: logme_score(table, y, **known) for stage, table in tables.items()}
    known |= {"C": 1 / PROBE_PENALTY, "random_state": seed, "groups": groups}
    best, last = max(logme, key=logme.__getitem__), list(logme)[-1]
    probes = {stage: held_out_scores(tables[stage], y, **known) for stage in dict.fromkeys([best, last])}
    pixels = held_out_scores(_small_images(extractor, images), y, **known)

    strategy = _decide(situation, best == last, max(probes.values(), key=np.mean), pixels, groups)
    return StrategyAdvice(
        strategy,
        _params(strategy, extractor, best),
        extractor.backbone_.name,
        situation.n_images,
        n_classes,
        situation.amount,
        situation.domain,
        situation.distance,
        logme,
        {stage: float(scores.mean()) for stage, scores in probes.items()},
        float(pixels.mean()),
        situation.line,
    )


def _different(images: Images, y: Any, task: Task, groups: Any) -> tuple[LabeledImages, "int | None"]:
    """Return the distinct rows in a fixed order with encoded targets, and n_classes."""
    if y is None:
        raise InputError("y must have a label or target for each image, because the advice depends on it. Got y=None.")
    y = as_targets(y)
    check_consistent_length(range(len(images)), y)
    target = as_target(y, task)
    codes, n_classes = (target.codes, len(target.counts)) if isinstance(target, Labels) else (target, None)
    ones = np.ones(len(codes))
    table = LabeledImages(images, codes, ones, ones, (), groups=check_groups(groups, len(images)))
    return distinct(table), n_classes


def _decide(
    situation: Situation,
    fits_best_at_the_end: bool,
    features: np.ndarray,
    pixels: np.ndarray,
    groups: "np.ndarray | None" = None,
) -> str:
    """Return the strategy, given the scores of each held-out image.

    ``features`` and ``pixels`` are those of linear models of features and of pixels.
    """
    gain = features - pixels
    group = np.arange(len(gain)) if groups is None else in_order(groups)
    # Standard error of the mean gain. It has a lower bound, as if the models differed on
    # one image, because agreement on a few images proves little. Groups, if given, are
    # the independent units.
    of_groups = np.bincount(group, weights=gain - gain.mean())
    error = np.sqrt(np.square(of_groups).sum() + np.square(len(gain) / len(of_groups))) / len(gain)
    # Features can only avoid the errors of the pixel model, which are few for a rare
    # class. No conclusion is possible if it is never right (one image per class).
    worth_it = _WORTH_IT * (1 - max(0.0, pixels.mean()))
    if pixels.any() and gain.mean() <= 0 and gain.mean() + 2 * error < worth_it:
        warn(
            f"The features of the network are not better than pixels. On held-out images, a linear model of {_SIDE} x "
            f"{_SIDE} pixels scores {pixels.mean():.2f}, and one of the features {features.mean():.2f}. Try another "
            "network, or train a model without transfer.",
            TransferWarning,
        )
        return "no_transfer"
    is_little_and_far = situation.amount == "little" and situation.domain != "similar"
    return "earlier_layer" if is_little_and_far and not fits_best_at_the_end else situation.strategy


def _params(strategy: str, extractor: PretrainedFeatureExtractor, best: str) -> dict[str, Any]:
    """Return the non-default parameters of an estimator for the strategy."""
    backbone = extractor.backbone_
    params = strategy_params(strategy, len(backbone.stages))
    default = PretrainedFeatureExtractor().get_params()
    own = {name: getattr(extractor, name) for name in (*_NETWORK, *_SETTINGS)}
    own = {name: value for name, value in own.items() if value is not default[name] and value != default[name]}
    # The backbone, because a search clones a fitted estimator to an unfitted one.
    own["backbone"] = backbone if hasattr(extractor.backbone, "get_params") else extractor.backbone
    if strategy == "earlier_layer":
        own = {name: value for name, value in own.items() if name not in _NETWORK}
        own["backbone"] = up_to(backbone, backbone.stage_index(best))
    if strategy == "no_transfer" and not isinstance(extractor.backbone, str):
        del params["weights"]  # only valid for a name
    return {"backbone": own.pop("backbone")} | own | params


def _stage_features(extractor: PretrainedFeatureExtractor, images: Images) -> dict[str, np.ndarray]:
    """Return the pooled features of the last stage and up to four earlier ones."""
    stages = [stage.name for stage in extractor.backbone_.stages]
    late = stages[len(stages) // 3 :]
    chosen = [late[i] for i in np.unique(np.linspace(0, len(late) - 1, _N_STAGES).round().astype(int))]
    tables = run_layers(extractor, chosen, images)
    return {stage: table.astype(np.float64) for stage, table in zip(chosen, tables, strict=True)}


def _small_images(extractor: PretrainedFeatureExtractor, images: Images) -> np.ndarray:
    """Return the images as rows of pixels, cropped as for the network."""
    rows = []
    for start in range(0, len(images), _AT_ONCE):
        block = images.take(np.arange(start, min(start + _AT_ONCE, len(images))))
        (pixels,) = run_layers(extractor, (), block)
        small = nn.functional.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), _SIDE)
        rows.append(small.flatten(1).numpy())
    return np.concatenate(rows).astype(np.float64)


def _written(value: Any) -> str:
    """Return the code of a parameter; a network is abbreviated."""
    return f"{type(value).__name__}(...)" if isinstance(value, nn.Module) else repr(value)


def _marked(cell: str) -> str:
    """Return a cell of the table as HTML, in bold if it is that of the given images."""
    return f"<b>{escape(cell)}</b>" if cell.startswith("→") else escape(cell)
