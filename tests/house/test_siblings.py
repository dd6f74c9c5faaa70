"""What siblings share is described alike: the same parameter or attribute has the same type and the same words.

Where there is a reason for other words, it is listed with what all of them say all the same, as a regular expression.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import pytest
from sklearn.utils._testing import assert_docstring_consistency

import sktl.inspection
from sktl import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
    selection,
)
from sktl.anomaly import AnomalyDetector
from sktl.autoencoders import Autoencoder
from sktl.compression import LotteryTicketClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.inspection import (
    CompressionDisplay,
    DistillationDisplay,
    EmbeddingDisplay,
    FreezeDepthDisplay,
    LayerProbeDisplay,
    LRRangeDisplay,
)
from sktl.selection import BackboneSelector, domain_distance, recommend_strategy
from sktl.self_supervised import SelfSupervisedExtractor

pytest.importorskip("numpydoc")


class Family(NamedTuple):
    """Classes or functions, and what is described in other words, or of another type too."""

    members: list[Callable]
    differing: dict[str, str]
    other_types: tuple[str, ...] = ()


def method(owner: type, name: str) -> Callable:
    """A method as a function of a name of its own: scikit-learn tells the objects that it compares by their names."""

    def function():
        pass

    function.__name__ = f"{owner.__name__}.{name}"
    function.__doc__ = inspect.getdoc(getattr(owner, name))
    return function


def ways(display: type) -> list[Callable]:
    """All methods that make such a display, and the one that draws it."""
    return [method(display, name) for name in dir(display) if name.startswith("from_") or name == "plot"]


# References have other numbers in classes with more of them.
NUMBERED = {
    "head_init": r'^How the last layer of the head is initialized\. ``"probe"`` fits a (logistic|ridge) regression to '
    r'.* do not distort the pretrained features \[\d\]_; ``"random"`` draws random weights\.$',
    "unfreeze_every": r"^Gradual unfreezing \[\d\]_: training starts with the head alone, .* until ``freeze_depth`` is "
    r"reached\. None trains all unfrozen stages from the start\.$",
}
# Only fine-tuning has partial fits, and a depth that depends on the data.
BY_KIND_OF_TRAINING = {
    **NUMBERED,
    "freeze_depth": r"^Number of stages to freeze, counted from the input\. .* "
    r"Frozen stages run once per image, in evaluation mode, and are not changed by `fit`\.$",
    "lr_schedule": r"^Schedule of all learning rates over the epochs of `fit`\.",
}
# Classes and logits, or targets and numbers.
BY_KIND_OF_LABELS = {
    "head": r"^Layers that replace the pretrained classifier: .* maps features of shape \(n_samples, n_features\) "
    r"to outputs of shape \(n_samples, n_(classes|targets)\)\.$",
    "head_init": NUMBERED["head_init"],
    "on_error": r'^What to do if an image cannot be read\. ``"raise"`` raises an error that lists .* images\. '
    r'``"nan"`` leaves them out of `fit` and `score` with one warning and returns .* to list them in advance\.$',
    "net_": r"^The trained stages and head as a skorch net\. It maps the output of the frozen stages to ",
}
# What one way to make a display knows and another one does not.
OF_ONE_WAY = {
    "CompressionDisplay": {"y": "^Labels .*of the images.$"},
    "EmbeddingDisplay": {"task": r"^Whether ``y`` contains labels or numeric targets\. "},
    "MisclassifiedDisplay": {"X": "mages"},
    "TransferabilityDisplay": {"accuracies": r"as keys\.$"},
}
# Where to draw: in one axes or in two, of which `plot` says what is in which.
IN_FIGURES = {"ax": r"^Axes to draw on\. If None, a new figure is created\."}

FAMILIES = {
    "fine-tuned": Family([FineTunedClassifier, FineTunedRegressor], BY_KIND_OF_LABELS),
    "distilled": Family(
        [DistilledClassifier, DistilledRegressor],
        {
            **BY_KIND_OF_LABELS,
            "unfreeze_every": NUMBERED["unfreeze_every"],
            "teacher": "^The (classifier|regressor) to learn from.* It is cloned and fitted, unless .* preprocessing.$",
            "knowledge": "^Kind of knowledge to transfer from the teacher, or a dict .* require a teacher that "
            "contains an sktl network.$",
            "alpha": "^Weight of the teacher in the loss, between 0 and 1; the (labels|targets) have "
            "the weight ``1 - alpha``",
            "unlabeled": "^(Label|Value) that marks .*, such as .* The student learns these from the teacher alone. ",
            "footprint_": "^Cost of the teacher and of the student .* Measured on first access.$",
        },
        ("alpha", "unlabeled"),
    ),
    "classifiers": Family([FineTunedClassifier, DistilledClassifier], BY_KIND_OF_TRAINING),
    "regressors": Family([FineTunedRegressor, DistilledRegressor], BY_KIND_OF_TRAINING),
    "trained with and without labels": Family(
        [FineTunedClassifier, SelfSupervisedExtractor],
        {  # a projector instead of a head, views instead of targets, and no validation
            "freeze_depth": r"^Number of stages to freeze, counted from the input\. 0 trains all stages, .* are not "
            r"changed by `fit`\.$",
            "max_epochs": r"^Number of passes over the training images\.",
            "lr": "^Learning rate of the (head|projector)",
            "lr_decay": "^Factor by which the learning rate shrinks from each stage to the one before it: ",
            "batch_size": "^Number of images per training step. .* merged with the one before it",
            "augment": "^Random .* the name of a recipe, ",
            "pooling": r"^How the output of the last stage is pooled (before|to) .* in `sktl\.\w+`\.$",
            "freeze_bn": "^Whether the batch normalization layers .* keep their .*running statistics",
            "warm_start": "The network, its (head|projector) and its preprocessing stay those of the first call.$",
            "on_error": '^What to do if an image cannot be read. .* ``"nan"`` leaves them out of `fit` ',
            "cache": "^Where to keep .*: in the memory of this process up to a limit",
            "random_state": "^Seed of the (head|projector), the order of .* Pass an int for reproducible results",
            "net_": "^The trained stages and .* as a skorch net.",
            "history_": "^Training history, one row per epoch: ``train_loss``, ``lr`` ",
            "best_epoch_": "^The epoch whose weights were kept",
        },
        ("max_epochs", "lr", "lr_decay", "batch_size", "augment", "freeze_bn"),
    ),
    "trained on images and on rows": Family(
        [FineTunedClassifier, Autoencoder],
        {  # rows of numbers as well as images, and what is reconstructed
            "backbone": "name listed by `sktl.backbones.list_backbones`, a timm model as .* trained network",
            "freeze_depth": r"^Number of stages to freeze, counted from the input\. 0 trains all stages.* Frozen "
            r"stages run once per image, in evaluation mode, and are not changed by `fit`\.$",
            "max_epochs": "^Number of passes over the training (images|rows).$",
            "lr": "^Learning rate of the ",
            "batch_size": "^Number of (images|rows) per training step. A last batch of .* needs at least two.$",
            "early_stopping": "^Whether to stop training when the validation loss has not improved for "
            "``n_iter_no_change`` epochs. .* the initial weights count as epoch 0.$",
            "validation_fraction": "^Fraction of the rows to hold out for validation. Only used if "
            "``early_stopping=True`` ",
            "n_iter_no_change": "^Number of epochs without improvement after which training stops.",
            "weight_decay": "^Weight decay ",
            "warm_start": "^Whether `fit` continues from the weights of the previous call, with the current parameters",
            "on_error": "^What to do if an image cannot be read. .* with one warning and returns rows of NaN from ",
            "random_state": "^Seed of the .* Pass an int for reproducible results on the same machine with the same ",
            "net_": "^The trained .* as a skorch net. It maps ",
            "history_": "^Training history, one row per epoch: ``train_loss``, ``lr`` .* are in ``history_.start``",
            "backbone_": "^The trained network, with its stages, weights and preprocessing.",
            "image_format_": "^Format of the images seen during `fit`: kind, image shape, channel axis and value",
            "n_features_in_": "^Number of columns seen during `fit`. Only defined if ``X`` is a table of ",
        },
        ("backbone", "freeze_depth", "max_epochs", "lr", "early_stopping", "n_iter_no_change", "weight_decay"),
    ),
    "compressors": Family(
        [PrunedClassifier, QuantizedClassifier, LowRankClassifier, LotteryTicketClassifier],
        {  # a lottery trains from the start, and takes its papers' shares; the others begin with what was learnt
            "estimator": r"^The classifier to (compress|train): a `sktl\.FineTunedClassifier`.* It is cloned",
            "scope": "^Whether to (rank|prune) the ",
            "n_rounds": r"^Number of rounds of pruning and training\.",
            "freeze_depth": r"^Number of stages to leave unchanged, .* as in `sktl\.FineTunedClassifier`[;.] .*None ",
            "max_epochs": r"^Number of training epochs .*, with the optimizer of the estimator\. The running",
            "alpha": r"^Weight of the distillation loss, .* before compression \[\d\]_\. The loss of the estimator ",
            "random_state": r"^Seed of .*the estimator unless it has its own ``random_state``\. Pass an int for ",
            "estimator_": r"^The fitted classifier with the .* can be the ``backbone`` of other estimators\.$",
        },
        ("scope", "n_rounds"),
    ),
    "fits": Family(
        [method(cls, "fit") for cls in (FineTunedClassifier, FineTunedRegressor, DistilledClassifier)]
        + [method(cls, "fit") for cls in (DistilledRegressor, PrunedClassifier, LotteryTicketClassifier)],
        {  # what a teacher, or the estimator that is compressed, gets of it
            "y": "^(Labels|Targets|Labels or targets) of the images.",
            "sample_weight": "^Weights of the rows. A weight of zero leaves a row out.",
            "y_val": "^(Labels|Targets|Labels or targets) of ``X_val``.$",
            "groups": "^Group label of each row of ``X``, such as the subject or the original of near-copies. Rows of "
            "one group stay on the same side of the validation split",
        },
        ("y", "y_val"),
    ),
    "extractor and selector": Family(
        [PretrainedFeatureExtractor, BackboneSelector],
        {  # one network, or several of which one is chosen
            "layers": "^(The l|L)ayers .* number .*name",
            "on_error": '^What to do if an image cannot be read. ``"raise"`` raises an error that lists ',
            "random_state": "^Seed of the random ",
            "backbone_": "^The network",
            "layers_": "^(Names of the layers|The layer) ",
        },
        ("layers",),
    ),
    "extractor and detector": Family(
        [PretrainedFeatureExtractor, AnomalyDetector],
        {  # features, or scores of them
            "layers": r"^Layers whose output to use as features: the number of a stage \(-1 is the last one\), the "
            r"name of a stage, or the name of any other layer in ``Backbone\.layers``\. ",
            "cache": r"^Where to keep the features: in the memory of this process up to a limit \(``\"auto\"``\), or "
            r"in a directory shared by processes and runs\. None keeps nothing: each call computes the features again",
            "on_error": '^What to do if an image cannot be read. ``"raise"`` raises an error that lists ',
            "random_state": "^Seed of the .*random weights",
            "verbose": "^Verbosity level: 1 prints the progress and the speed of ",
        },
        ("layers",),
    ),
    "functions that take a network": Family(
        [domain_distance, recommend_strategy],
        {
            "backbone": r"^The pretrained network: a name .* A fitted estimator reads the images as in its `fit`\.",
            "max_samples": "^Maximum number of images .* drawn at random",
            "random_state": r"^Seed of the random subset of images.* Pass an int for reproducible results\.$",
        },
        ("max_samples",),
    ),
    "scores": Family(
        [getattr(selection, name) for name in selection.__all__ if name.endswith("_score")],
        {
            "y": "^Labels (or targets|of at least two classes).$",
            "n_components": "None",
            "random_state": r"^Seed of the .* Pass an int for reproducible results\.$",
        },
        ("y", "n_components"),
    ),
    "displays of costs": Family([CompressionDisplay, DistillationDisplay], {}),
    "figures of costs": Family(
        [method(cls, "from_estimator") for cls in (CompressionDisplay, DistillationDisplay)],
        {"estimator": "^Fitted", "y": "^Labels .*of the images.$"},
        ("y",),
    ),
    "figures of a network": Family(
        [method(cls, "from_estimator") for cls in (EmbeddingDisplay, LayerProbeDisplay)],
        {"y": "^Labels or targets of the images"},
        ("y",),
    ),
    "figures of trainings": Family(
        [method(cls, "from_estimator") for cls in (FreezeDepthDisplay, LRRangeDisplay)],
        {"estimator": "It is (cloned|not changed).$", **IN_FIGURES},
        ("estimator", "ax"),
    ),
    **{
        f"ways to a {name}": Family(
            ways(getattr(sktl.inspection, name)),
            {**IN_FIGURES, **OF_ONE_WAY.get(name, {})},
            ("y",) if name == "CompressionDisplay" else (),
        )
        for name in sktl.inspection.__all__
        if name.endswith("Display")
    },
}


def check(members: list[Callable], differing: dict[str, str], other_types: tuple[str, ...] = ()) -> None:
    """Compare all pairs of members by what both have, the differing by a pattern each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checking was skipped")  # what only one of them has
        for pair in combinations(members, 2):
            compare(pair, True, list(differing))
            for name, pattern in differing.items():
                compare(pair, [name], None, descr_regex_pattern=pattern, ignore_types=other_types)


def compare(members, names, without, **options) -> None:
    assert_docstring_consistency(
        members, include_params=names, exclude_params=without, include_attrs=names, exclude_attrs=without, **options
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_are_described_alike(family):
    """The same words and types, or for a reason other words in which the same is said."""
    check(*FAMILIES[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_to_differ_does(family):
    """A reason is listed as long as there is one."""
    members, differing, other_types = FAMILIES[family]
    for name in set(differing) - set(IN_FIGURES):
        with pytest.raises(AssertionError, match=name):
            check(members, {other: differing[other] for other in differing if other != name}, other_types)
    for name in other_types:
        with pytest.raises(AssertionError, match=f"type specification of .* '{name}'"):
            check(members, differing, tuple(other for other in other_types if other != name))


@pytest.mark.parametrize(
    ("text", "pattern", "fault"),
    [
        ("lr : float\n    The rate.", None, None),
        ("lr : float\n    The\n    rate.", None, None),
        ("lr : float\n    A rate.", None, "description of Parameter 'lr'"),
        ("lr : int\n    The rate.", None, "type specification of Parameter 'lr'"),
        ("lr : int\n    A rate.", "rate", "type specification of Parameter 'lr'"),
        ("lr : float\n    A rate.", "rate", None),
        ("lr : float\n    The speed.", "rate", "'lr' in .'second'. does not match"),
        ("size : int\n    Another thing.", None, None),
    ],
)
def test_drift_is_found(text, pattern, fault):
    """What the tests above rest on: other words and other types are found, other lines and parameters are fine."""

    def described(name, text):
        def function():
            pass

        function.__name__, function.__doc__ = name, f"Do.\n\nParameters\n----------\n{text}"
        return function

    members = [described("first", "lr : float\n    The rate."), described("second", text)]
    with contextlib.nullcontext() if fault is None else pytest.raises(AssertionError, match=fault):
        check(members, {} if pattern is None else {"lr": pattern})
