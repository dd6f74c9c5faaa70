"""Which way to use a network, before anything is trained: freeze it, train its end, train all of it, or leave it."""

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
from sktl._params import check_consistent_length, validate_params
from sktl._training._data import LabeledImages
from sktl._training._head_probe import PROBE_PENALTY, in_order
from sktl._warnings import warn
from sktl.backbones import Preprocessing
from sktl.backbones._backbone import up_to
from sktl.exceptions import InputError, TransferWarning
from sktl.feature_extraction import PretrainedFeatureExtractor
from sktl.selection._extractors import SETTINGS_CONSTRAINTS, read_pictures, run_layers
from sktl.selection._linear_probe import held_out_scores
from sktl.selection._logme import logme_score
from sktl.selection._validation import Labels, Task, as_target, draw_rows

_WORTH_IT = 0.05  # of what pixels get wrong; a network of which it is not known that it saves less may be of use
_N_STAGES = 5  # whose features are looked at
_SIDE = 16  # of the small pictures that a model of pixels sees
_AT_ONCE = 256  # pictures, as large as the network sees them

_NETWORK = ("weights", "preprocessing")
_SETTINGS = ("in_channels", "image_shape", "channels", *SHARED_PARAMETERS)

_TITLES = {
    "freeze_all": "Freeze all stages, and train a head on what they give",
    "earlier_layer": "Freeze all, and train a head on what an earlier stage gives",
    "last_stages": "Fine-tune the last stages, and freeze those before",
    "train_all": "Train all stages, at a tenth of the rate",
    "no_transfer": "Do not transfer: the network sees no more than the pixels say",
}
_CELLS = {
    ("little", "similar"): "freeze all",
    ("little", "different"): "an earlier stage, or the last ones",
    ("much", "similar"): "the last stages",
    ("much", "different"): "the last stages",
}


@dataclass(frozen=True, repr=False)
class StrategyAdvice:
    """How to use a pretrained network for some pictures and labels; made by `recommend_strategy`.

    It prints as a page of its own, in a notebook too.

    Parameters
    ----------
    strategy : {"freeze_all", "earlier_layer", "last_stages", "train_all", "no_transfer"}
        What to do.
    params : dict
        The parameters that do it: ``FineTunedClassifier(**advice.params)``, or `FineTunedRegressor` for numbers. Those
        of "no_transfer" train all of the network, from random weights where it has a name: that takes many pictures,
        and a model of the pixels may do better.
    backbone : str
        The name of the network.
    n_pictures : int
        How many different ones there are.
    n_classes : int or None
        How many classes they have; None for a regression.
    amount : {"little", "much"}
        Whether there are fewer than 100 pictures of each class on average; of a regression, fewer than 1,000.
    domain : {"similar", "different", "unknown"}
        Whether the pictures are of a kind that the network knows, by `domain_distance`; unknown for weights whose line
        nobody has measured.
    distance : float or None
        From what it learnt from, in standard deviations; None where it cannot be told.
    logme : dict of str to float
        How well the features of some stages suit the labels, by `logme_score`, the last stage last.
    probes : dict of str to float
        The accuracy, or R², of a linear model on held-out pictures, with the features of the last stage and of the
        best one, by `probe_score`.
    pixels : float
        The same with nothing but the pixels of the picture, 16 × 16.
    line : float or None, default=None
        The distance below which the pictures are similar; None where nobody has measured it for these weights.
    """

    strategy: str
    params: dict[str, Any] = field(hash=False)
    backbone: str
    n_pictures: int
    n_classes: "int | None"
    amount: str
    domain: str
    distance: "float | None"
    logme: dict[str, float] = field(hash=False)
    probes: dict[str, float] = field(hash=False)
    pixels: float
    line: "float | None" = None

    def __repr__(self) -> str:
        rows = [["", "similar pictures", "different pictures"], *self._cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines = [fill(f"- {line}", 80, subsequent_indent="  ") for line in self._evidence()]
        return "\n".join([self._title(), self._call(), "", *table, "", *lines])

    def _repr_html_(self) -> str:
        head, *rows = [["", "similar pictures", "different pictures"], *self._cells()]
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
        """The estimator, as one would write it."""
        kind = "Regressor" if self.n_classes is None else "Classifier"
        return f"FineTuned{kind}({', '.join(f'{name}={_written(value)}' for name, value in self.params.items())})"

    def _cells(self) -> list[list[str]]:
        """The table, with an arrow where the pictures are."""
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
        """What the advice goes by, as sentences."""
        score = "R²" if self.n_classes is None else "accuracy"
        much = f"{self.amount} data (much is {MUCH if self.n_classes else 10 * MUCH:,} or more)"
        each = ""
        if self.n_classes is not None:
            each = f", {self.n_pictures / self.n_classes:.3g} of each of {self.n_classes} classes on average"
        lines = [f"{self.n_pictures:,} pictures{each}: {much}"]
        if self.distance is None:
            lines.append(f"how near they are to what {self.backbone} learnt from cannot be told: unknown")
        else:
            where = "nobody has measured what is similar for these weights"
            where = where if self.line is None else f"similar is below {self.line}"
            from_there = f"{self.distance:.2f} standard deviations from what {self.backbone} learnt from"
            lines.append(f"{from_there} ({where}): {self.domain}")
        fits = ", ".join(f"{stage} {value:.3f}" for stage, value in self.logme.items())
        lines.append(f"LogME of the features of each stage: {fits}")
        reached = ", ".join(f"{value:.2f} with {stage}" for stage, value in self.probes.items())
        lines.append(f"{score} of a linear model on held-out pictures: {reached}, {self.pixels:.2f} with pixels alone")
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
    """Recommend how a pretrained network is best used for pictures and labels. Only linear models are trained for that.

    Parameters
    ----------
    X : array-like of pictures
        Paths, pictures, a batch array or rows of pixels, see the user guide. Two at least.
    y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
        Labels, or targets of a regression.
    backbone : str, Module, Backbone or estimator, default="sktl_mini"
        The network: a name, a network of your own, a `Backbone`, or an estimator that has one: an extractor or another
        estimator of sktl, fitted or not, or a fitted pipeline or search with one in it. A fitted one reads the images
        as it has learnt to. Its layers and its pooling play no part.
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
    task : {"auto", "classification", "regression"}, default="auto"
        What y is. "auto" is a regression where y has several columns or numbers that are not whole.
    max_samples : int, default=1000
        How many pictures are looked at, at most, drawn in the shares of the classes. All are read and counted, copies
        once, as a fit has them: neither copies nor the order of the rows make a difference.
    random_state : int, RandomState instance or None, default=0
        Which ones, and how they are shuffled into folds.
    groups : array-like of shape (n_images,), default=None
        What each image belongs to, such as the subject or the original of near-copies: numbers or strings. Linear
        models are evaluated on groups that they have not learned from.

    Returns
    -------
    StrategyAdvice
        Prints as a page; ``params`` are ready for `sktl.FineTunedClassifier`.

    Raises
    ------
    InputError
        Where y has missing values, or one class or value only; where groups has missing values, or one group only;
        where the weights are random, for then there is nothing to transfer.
    ImageError
        Where a picture cannot be read.
    BackboneError
        Where there is no such network.

    Warns
    -----
    TransferWarning
        Where features are no better than pixels: a linear model of the pixels is right on as many held-out pictures,
        or more, and there are enough of them to say that the network's features do not save one in twenty of its
        errors.

    See Also
    --------
    BackboneSelector : Which network, and which of its layers.
    domain_distance : How near the pictures are to what it knows.

    Notes
    -----
    The cells of the table are much and little data (100 pictures of each class on average), and pictures that are
    similar to those that the network learnt from, or different, by `domain_distance`. What stands in a cell was
    measured; the user guide has the figures, and says how often another strategy was better. Where little data are
    different, LogME decides between the features of an earlier stage and fine-tuning; where it is unknown whether
    they are, between those and the last stage's. ``"train_all"`` stands in no cell. Lines drawn on a few sets of
    pictures are rules of thumb: where time allows, search over ``freeze_depth``.

    A regression has no classes: 1,000 pictures are much. No regression was measured.

    References
    ----------
    .. [1] Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?", NIPS 2014.
    .. [2] Karpathy, "CS231n: Transfer Learning", course notes, Stanford: the table.

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
    extractor, images = read_pictures(X, backbone, settings)
    if has_random_weights(extractor):
        raise InputError("weights=None is a network with random weights, from which there is nothing to transfer.")
    table, n_classes = _different(images, y, task, groups)
    return _advise(extractor, table, n_classes, max_samples, check_random_state(random_state))


def _advise(
    extractor: PretrainedFeatureExtractor,
    table: LabeledImages,
    n_classes: "int | None",
    max_samples: int,
    random: np.random.RandomState,
) -> StrategyAdvice:
    """Look at different images and their encoded targets."""
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
    pixels = held_out_scores(_small_pictures(extractor, images), y, **known)

    strategy = _decide(situation, best == last, max(probes.values(), key=np.mean), pixels, groups)
    return StrategyAdvice(
        strategy,
        _params(strategy, extractor, best),
        extractor.backbone_.name,
        situation.n_pictures,
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
    """Rows as a fit has them, copies once and in an order of their own, with codes or numbers; and n_classes."""
    if y is None:
        raise InputError("y=None: the advice depends on what is to be learnt. Give a label for each picture.")
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
    """The strategy, by the cell and by what linear models of features and of pixels reach on each held-out picture."""
    gain = features - pixels
    group = np.arange(len(gain)) if groups is None else in_order(groups)
    # Of few pictures chance decides which model is right more often; that both are right of all proves little, so that
    # one is counted of which only one of them is. What chance draws is groups, if there are some.
    of_groups = np.bincount(group, weights=gain - gain.mean())
    error = np.sqrt(np.square(of_groups).sum() + np.square(len(gain) / len(of_groups))) / len(gain)
    # Nothing is known where nothing is ever right, as with one picture of each class; and little where all but all is,
    # as of a rare class: what pixels get wrong is what there is to gain.
    worth_it = _WORTH_IT * (1 - max(0.0, pixels.mean()))
    if pixels.any() and gain.mean() <= 0 and gain.mean() + 2 * error < worth_it:
        warn(
            f"A linear model of {_SIDE} x {_SIDE} pixels reaches {pixels.mean():.2f} on held-out pictures, and one of "
            f"the network's features {features.mean():.2f}: transfer looks useless here. Try another network, or a "
            "model of your pictures alone.",
            TransferWarning,
        )
        return "no_transfer"
    is_little_and_far = situation.amount == "little" and situation.domain != "similar"
    return "earlier_layer" if is_little_and_far and not fits_best_at_the_end else situation.strategy


def _params(strategy: str, extractor: PretrainedFeatureExtractor, best: str) -> dict[str, Any]:
    """What carries the strategy out with the extractor's network and settings, as far as they are not default ones."""
    backbone = extractor.backbone_
    params = strategy_params(strategy, len(backbone.stages))
    default = PretrainedFeatureExtractor().get_params()
    own = {name: getattr(extractor, name) for name in (*_NETWORK, *_SETTINGS)}
    own = {name: value for name, value in own.items() if value is not default[name] and value != default[name]}
    # A fitted estimator would lend nothing once a search has cloned it.
    own["backbone"] = backbone if hasattr(extractor.backbone, "get_params") else extractor.backbone
    if strategy == "earlier_layer":
        own = {name: value for name, value in own.items() if name not in _NETWORK}
        own["backbone"] = up_to(backbone, backbone.stage_index(best))
    if strategy == "no_transfer" and not isinstance(extractor.backbone, str):
        del params["weights"]  # a network that is given has its own
    return {"backbone": own.pop("backbone")} | own | params


def _stage_features(extractor: PretrainedFeatureExtractor, images: Images) -> dict[str, np.ndarray]:
    """What the last stage gives for each picture, and up to four of those before it, pooled; by one pass."""
    stages = [stage.name for stage in extractor.backbone_.stages]
    late = stages[len(stages) // 3 :]
    chosen = [late[i] for i in np.unique(np.linspace(0, len(late) - 1, _N_STAGES).round().astype(int))]
    tables = run_layers(extractor, chosen, images)
    return {stage: table.astype(np.float64) for stage, table in zip(chosen, tables, strict=True)}


def _small_pictures(extractor: PretrainedFeatureExtractor, images: Images) -> np.ndarray:
    """The pictures as rows of pixels, as much of them as the network sees."""
    rows = []
    for start in range(0, len(images), _AT_ONCE):
        block = images.take(np.arange(start, min(start + _AT_ONCE, len(images))))
        (pictures,) = run_layers(extractor, (), block)
        small = nn.functional.adaptive_avg_pool2d(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), _SIDE)
        rows.append(small.flatten(1).numpy())
    return np.concatenate(rows).astype(np.float64)


def _written(value: Any) -> str:
    """A parameter as one would write it; of a network, which is pages long, its kind."""
    return f"{type(value).__name__}(...)" if isinstance(value, nn.Module) else repr(value)


def _marked(cell: str) -> str:
    """A cell of the table, in bold where the pictures are."""
    return f"<b>{escape(cell)}</b>" if cell.startswith("→") else escape(cell)
