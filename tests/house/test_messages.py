"""No message grows with what was given: it begins with what was wrong and ends with what to do, in some lines."""

import ast
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils._param_validation import InvalidParameterError

from sktl import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
)
from sktl import selection as scores
from sktl._messages import LIMIT
from sktl.anomaly import AnomalyDetector
from sktl.autoencoders import Autoencoder, ReconstructionClassifier
from sktl.backbones import Preprocessing, describe_backbone, load_backbone
from sktl.compression import LotteryTicketClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.finetuning import lr_range_test
from sktl.inspection import EmbeddingDisplay, LayerProbeDisplay, TrainingCurveDisplay
from sktl.preprocessing import ImageReader, PixelRowsToImages
from sktl.selection import BackboneSelector
from sktl.self_supervised import SelfSupervisedExtractor

LONG = "x" * 100_000
MANY = ["a name"] * 10_000
QUICK = {"max_epochs": 0, "random_state": 0}

X, Y = load_digits(n_class=2, return_X_y=True)
X, Y = X[:8] / 16, Y[:8]
TEXT = [f"{label}{LONG}" for label in Y]  # labels of 100,001 characters, of two classes

ESTIMATORS = {
    PretrainedFeatureExtractor: {},
    FineTunedClassifier: QUICK,
    FineTunedRegressor: QUICK,
    DistilledClassifier: {"teacher": LogisticRegression(), **QUICK},
    DistilledRegressor: {"teacher": Ridge(), **QUICK},
    PrunedClassifier: {"estimator": FineTunedClassifier(**QUICK), **QUICK},
    LowRankClassifier: {"estimator": FineTunedClassifier(**QUICK), **QUICK},
    QuantizedClassifier: {"estimator": FineTunedClassifier(**QUICK), **QUICK},
    LotteryTicketClassifier: {"estimator": FineTunedClassifier(max_epochs=1), "random_state": 0},
    Autoencoder: QUICK,
    ReconstructionClassifier: {"estimator": Autoencoder(**QUICK)},
    AnomalyDetector: {},
    SelfSupervisedExtractor: QUICK,
    BackboneSelector: {"backbones": ["sktl_mini"]},
    ImageReader: {},
    PixelRowsToImages: {},
}

# Modules that raise a plain ValueError: none of their own making comes to a user.
PLAIN = {"sktl._images._convert"}


class Unprintable:
    """What has all methods of an estimator, and a long text for a representation."""

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def __repr__(self):
        return f"Unprintable({LONG})"


def outcome(call: Callable[[], Any]) -> Exception | None:
    """The error or the warning that comes of a call; None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call()
        except Exception as error:
            return error
    return None


def fine(**params: Any) -> FineTunedClassifier:
    return FineTunedClassifier(**{**QUICK, **params})


def distilled(teacher: Any = None, **params: Any) -> DistilledClassifier:
    return DistilledClassifier(teacher or LogisticRegression(), **QUICK, **params)


def learnt(y: Any = TEXT) -> FineTunedClassifier:
    return fine().fit(X, y)


@pytest.mark.parametrize("cls", ESTIMATORS, ids=lambda cls: cls.__name__)
def test_parameters(cls):
    """Whatever parameter is a text of 100,000 characters or a list of 10,000 texts, a message has some lines."""
    y = Y.astype(float) if cls in (FineTunedRegressor, DistilledRegressor) else Y
    wrong = []
    for name in cls(**ESTIMATORS[cls]).get_params(deep=False):
        for value in (LONG, MANY):
            error = outcome(lambda: cls(**{**ESTIMATORS[cls], name: value}).fit(X, y))
            message = str(error)
            if len(message) > LIMIT:
                wrong.append(f"{name}: {len(message)} characters")
            if isinstance(error, InvalidParameterError) and not (
                message.startswith(f"The '{name}' parameter of {cls.__name__} must be") and message.endswith("instead.")
            ):
                wrong.append(f"{name}: {message}")
    assert wrong == []


CASES = {
    # parameters whose values are dicts, objects and paths
    "preprocessing": (lambda: fine(preprocessing={LONG: 1}).fit(X, Y), "preprocessing={'xxx", "'antialias']."),
    "net_params": (lambda: fine(net_params={LONG: 1}).fit(X, Y), "net_params={'xxx", ""),
    "net_params, loader": (
        lambda: FineTunedClassifier(max_epochs=1, net_params={f"iterator_train__{LONG}": 1}).fit(X, Y),
        "DataLoader.__init__() got an unexpected keyword argument 'xxx",
        "xxx'",
    ),
    "net_params, callbacks": (
        lambda: fine(net_params={"callbacks": LONG}).fit(X, Y),
        "net_params['callbacks'] must",
        "instead.",
    ),
    "knowledge": (
        lambda: distilled(knowledge={LONG: 1.0}).fit(X, Y),
        "The 'knowledge' parameter must be one of ['response'",
        "instead.",
    ),
    "teacher": (lambda: distilled(Unprintable()).fit(X, Y), "Cannot clone object 'Unprintable(xxx", "method."),
    "teacher, frozen": (
        lambda: distilled(FrozenEstimator(LogisticRegression(C=MANY))).fit(X, Y),
        "teacher=FrozenEstimator",
        "pass one with set_params(teacher=...).",
    ),
    "estimator": (
        lambda: PrunedClassifier(Unprintable()).fit(X, Y),
        "The 'estimator' parameter of a compressor must be a FineTunedClassifier, ",
        "To use a pipeline or a TunedThresholdClassifierCV, pass the compressor to it.",
    ),
    "estimator, ticket": (
        lambda: LotteryTicketClassifier(Unprintable()).fit(X, Y),
        "The 'estimator' parameter of LotteryTicketClassifier must be a FineTunedClassifier or a DistilledClassifier. ",
        "Use PrunedClassifier to prune a fitted classifier, whose training cannot be restarted.",
    ),
    "cache, a path": (
        lambda: PretrainedFeatureExtractor(cache=LONG).fit_transform(X),
        "cache='",
        "writable directory.",
    ),
    "cache, a list": (lambda: PretrainedFeatureExtractor(cache=MANY).fit(X), "The 'cache' parameter", "instead."),
    "weights, a path": (lambda: fine(weights=f"{LONG}.pth").fit(X, Y), "weights='xxx", "(File name too long)."),
    "image_shape": (lambda: PixelRowsToImages(np.arange(10**5)).fit(X), "The 'image_shape' parameter", "instead."),
    "backbones": (lambda: BackboneSelector([LONG]).fit(X, Y), "backbone='xxx", "or an nn.Module."),
    # labels, targets and weights
    "class_weight, key": (lambda: fine(class_weight={"a": 1}).fit(X, TEXT), "The classes, ['0xxx", "class_weight"),
    "class_weight, value": (
        lambda: fine(class_weight=dict.fromkeys(TEXT, -1.0)).fit(X, TEXT),
        "The 'class_weight' parameter",
        "instead.",
    ),
    "one class": (lambda: learnt([LONG] * 8), "FineTunedClassifier needs at least two classes", "xxx'."),
    "unknown in X_val": (
        lambda: fine().fit(X, TEXT, X_val=X, y_val=[LONG] * 8),
        "y has labels ['xxx",
        "(classes=...), or fit from scratch.",
    ),
    "unknown in partial_fit": (
        lambda: learnt().partial_fit(X, [LONG] * 8),
        "y has labels ['xxx",
        "or fit from scratch.",
    ),
    "other classes": (
        lambda: learnt().partial_fit(X, TEXT, classes=[LONG, "b"]),
        "The 'classes' parameter",
        "Pass the same classes or None.",
    ),
    "teacher's classes": (
        lambda: distilled(FrozenEstimator(LogisticRegression().fit(X, TEXT))).fit(X, [LONG, "b"] * 4),
        "The teacher and y have different classes: missing from the teacher: ",
        "inside a FrozenEstimator.",
    ),
    "weights of rows": (lambda: fine().fit(X, Y, sample_weight=[LONG] * 8), "could not convert string", ""),
    "texts for numbers": (lambda: FineTunedRegressor(**QUICK).fit(X, [LONG] * 8), "could not convert string", ""),
    "score": (
        lambda: FineTunedRegressor(**QUICK).fit(X, Y).score(X, [LONG] * 8),
        "could not convert string to float: 'xxx",
        "",
    ),
    "y, one text": (lambda: fine().fit(X, np.array(LONG)), "Input should have", "instead."),
    "y, one text, selector": (lambda: BackboneSelector().fit(X, np.array(LONG)), "Input should have", "instead."),
    # images
    "paths": (lambda: PretrainedFeatureExtractor().fit_transform([LONG] * 8), "Image 0 ('...xxx", "lists all of them."),
    "paths, on_error": (
        lambda: PretrainedFeatureExtractor(on_error="nan").fit_transform([LONG] * 8),
        "8 of 8",
        "",
    ),
    "cells": (lambda: fine().fit(pd.DataFrame([[LONG, LONG]] * 8), Y), "X has 2 columns", "[['image']]."),
    # functions
    "load_backbone": (lambda: load_backbone(LONG), "backbone='xxx", "or an nn.Module."),
    "describe_backbone": (lambda: describe_backbone(LONG), "backbone='xxx", "or an nn.Module."),
    "seed": (lambda: load_backbone("sktl_mini", weights=None, random_state=LONG), "'xxx", "instance"),
    "layer": (lambda: load_backbone("sktl_mini").output_shape(LONG), "'xxx", "Backbone.layers lists all layers."),
    "Preprocessing": (lambda: Preprocessing(mean=(0.5,) * 10**5), "Invalid preprocessing: ", ") instead."),
    "lr_range_test": (lambda: lr_range_test(fine(), X, Y, n_steps=LONG), "The 'n_steps' parameter", "instead."),
    "score's parameter": (lambda: scores.probe_score(X, Y, task=LONG), "The 'task' parameter", "instead."),
    "features": (lambda: scores.logme_score([[LONG]] * 8, Y), "could not convert string", ""),
    "classes of a score": (lambda: scores.h_score(X, [LONG] * 8), "y has only one class, 'xxx", "two classes."),
    # displays
    "an estimator": (lambda: TrainingCurveDisplay.from_estimator(LONG), "xxx", "is not an estimator instance."),
    "method": (lambda: EmbeddingDisplay.from_features(X, method=LONG), "The 'method' parameter must be", "instead."),
    "scoring": (lambda: LayerProbeDisplay.from_estimator("sktl_mini", X, Y, scoring=LONG, cv=2), "The 'scoring'", "."),
}


@pytest.mark.parametrize("case", CASES)
def test_messages(case):
    """What is long in it loses its middle; what was wrong and the way out stay."""
    call, begins, ends = CASES[case]
    message = str(outcome(call))
    assert len(message) <= LIMIT, message[:LIMIT]
    assert message.startswith(begins), message
    assert message.endswith(ends), message


@pytest.mark.parametrize("cls", [PretrainedFeatureExtractor, FineTunedClassifier, ImageReader, PixelRowsToImages])
def test_names_of_columns(cls):
    """Other columns than in `fit`, with names of 100,000 characters, are refused in some lines."""
    seen, others = (pd.DataFrame(X, columns=[f"{kind}{n}{LONG}" for n in range(X.shape[1])]) for kind in "ab")
    fitted = cls(**ESTIMATORS[cls]).fit(seen, Y)
    use = fitted.predict if hasattr(fitted, "predict") else fitted.transform
    message = str(outcome(lambda: use(others)))
    assert message.startswith("The feature names should match")
    assert len(message) <= LIMIT


def raised(tree: ast.Module) -> set[str]:
    """The names of the exceptions that a module raises."""
    calls = [node.exc.func if isinstance(node.exc, ast.Call) else node.exc for node in ast.walk(tree) if is_raise(node)]
    return {ast.unparse(call) for call in calls}


def is_raise(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and node.exc is not None


def test_errors_are_our_own(modules):
    """Where there is a class of ours for it no module raises a plain one, whose message nobody would shorten."""
    plain = {name for name, tree in modules.items() if raised(tree) & {"ValueError", "RuntimeError", "Exception"}}
    assert plain <= PLAIN


def test_warnings_are_our_own(modules):
    """Each warning has a category of ours, which shortens its message, and names the user's line: one function does."""
    calls = [
        (name, ast.unparse(node.func), [ast.unparse(argument) for argument in node.args[1:2]])
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warn", "warnings.warn", "warnings.warn_explicit")
    ]
    ours = {"CacheWarning", "ImageWarning", "TrainingWarning", "TransferWarning"}
    assert len([call for call in calls if call[1] == "warn"]) > 10
    assert [call for call in calls if call[1] == "warn" and not set(call[2]) & ours] == []
    assert [call[:2] for call in calls if call[1] != "warn"] == [("sktl._warnings", "warnings.warn_explicit")]
