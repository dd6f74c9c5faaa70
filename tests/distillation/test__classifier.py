"""Distilling a classifier: rows without labels, classes without rows, weights; all of scikit-learn's checks."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import (
    DistilledClassifier,
    FineTunedClassifier,
    PretrainedFeatureExtractor,
)
from sktl.distillation import relational_angle_loss, relational_distance_loss, similarity_loss


@parametrize_with_checks([DistilledClassifier(LogisticRegression())])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_of_check_estimator(estimator, check):
    """Around a classifier, the estimator passes every common check of scikit-learn; none is excluded."""
    check(estimator)


def losses(student, teacher, y, temperature):
    """The divergence from softened answers times T², and the cross-entropy, of each row; logits given."""
    soft = [log_softmax(x / temperature, axis=1) for x in (student, teacher)]
    divergence = temperature**2 * (np.exp(soft[1]) * (soft[1] - soft[0])).sum(1)
    return divergence, -log_softmax(student, axis=1)[np.arange(len(y)), np.maximum(y, 0)]


# --- rows without labels ----------------------------------------------------------------------------------------------

NAMES = np.array(["ant", "bee", "cow"])


@pytest.mark.parametrize(
    ("unlabeled", "labels"),
    [
        (-1, lambda y, known: np.where(known, y, -1)),
        (-1.0, lambda y, known: np.where(known, y, -1)),
        (7, lambda y, known: np.where(known, y, 7.0)),
        ("?", lambda y, known: np.where(known, NAMES[y], "?")),
        ("?", lambda y, known: pd.Series(np.where(known, NAMES[y], "?"), index=np.arange(30)[::-1])),
        ("?", lambda y, known: np.where(known, NAMES[y], "?").astype(object).tolist()),
        ("?", lambda y, known: pd.Categorical(np.where(known, NAMES[y], "?"))),
        (np.nan, lambda y, known: np.where(known, y, np.nan)),
        (np.float32("nan"), lambda y, known: np.where(known, y, np.nan)),
        (np.nan, lambda y, known: np.where(known, NAMES[y].astype(object), np.nan)),
        (np.nan, lambda y, known: np.where(known, NAMES[y].astype(object), None)),
        (np.nan, lambda y, known: pd.Series(np.where(known, NAMES[y].astype(object), None), dtype="string")),
        (np.nan, lambda y, known: pd.Series(y, dtype="Int64").where(known)),
        (pd.NA, lambda y, known: pd.Series(y, dtype="Int64").where(known)),
        (pd.NA, lambda y, known: pd.Series(NAMES[y].astype(object)).where(known, pd.NA)),
    ],
    ids=lambda value: repr(value)[:20] if not callable(value) else "",
)
def test_whatever_stands_for_no_label(rows, make, unlabeled, labels):
    """Numbers, texts and what is missing, in arrays, lists, Series: the same student, and no class of its own."""
    X, y = rows
    known = np.arange(30) < 12
    teacher = LogisticRegression(C=0.1)
    expected = make(teacher, unlabeled=-1).fit(X, np.where(known, y, -1))
    student = make(teacher, unlabeled=unlabeled).fit(X, labels(y, known))
    assert len(student.classes_) == 3
    np.testing.assert_array_equal(student.predict_proba(X), expected.predict_proba(X))


def test_by_default_every_label_is_one(rows, make):
    """-1 is an ordinary label, and what is missing an error, unless it was said to stand for none."""
    X, y = rows
    student = make().fit(X, y - 1)
    assert student.classes_.tolist() == [-1, 0, 1]
    with pytest.raises(ValueError, match="missing labels, the first one at position 3"):
        make().fit(X, [*NAMES[y[:3]], None, *NAMES[y[4:]]])
    with pytest.raises(ValueError, match="missing labels, the first one at position"):
        make(unlabeled="?").fit(X, [*NAMES[y[:3]], None, *NAMES[y[4:29]], "?"])


def test_a_teacher_is_fitted_on_labelled_rows(rows, make, watched, calls):
    """It sees those alone, and is asked about all."""
    X, y = rows
    labels = np.where(np.arange(30) < 20, y, -1)
    make(watched, unlabeled=-1).fit(X, labels)
    assert (calls.n_fits, calls.n_asked) == (1, 30)
    with pytest.raises(ValueError, match="missing from the teacher: "):
        make(FrozenEstimator(clone(watched).fit(X[y < 2], y[y < 2])), unlabeled=-1).fit(X, labels)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_without_any_label(rows, make, alpha):
    """A fitted teacher needs none: not an array of such, and not y; its classes are the student's."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, NAMES[y]))
    student = make(teacher, alpha=alpha).fit(X)
    assert student.classes_.tolist() == NAMES.tolist()
    assert student.score(X, NAMES[y]) > 0.9
    same = make(teacher, alpha=alpha, unlabeled="?").fit(X, np.full(30, "?"))
    np.testing.assert_array_equal(same.predict_proba(X), student.predict_proba(X))
    assert student.footprint_.to_dict()["agreement"][1] > 0.9
    judged = make(teacher, alpha=alpha, early_stopping=True, validation_fraction=0.3).fit(X)
    assert np.isfinite(judged.history_[:, "valid_loss"]).all()


def test_without_any_label_and_without_a_teacher(rows, make):
    """A teacher that is to be fitted needs labels; the error says how to give a fitted one."""
    X, y = rows
    with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None.*FrozenEstimator"):
        make().fit(X)
    with pytest.raises(ValueError, match=r"All rows of y are unlabeled \(unlabeled=-1\), .*FrozenEstimator"):
        make(unlabeled=-1).fit(X, np.full(30, -1))
    with pytest.raises(ValueError, match="must be a classifier"):
        make(FrozenEstimator(LinearRegression().fit(X, y))).fit(X)


def test_a_regressor_is_refused_before_it_is_fitted(rows, make, monkeypatch):
    """Alone and in a pipeline: the error has the parameter, what came, and what to use."""

    def fit(self, X, y):
        raise AssertionError("it is fitted")

    monkeypatch.setattr(LinearRegression, "fit", fit)
    for teacher in (LinearRegression(), make_pipeline(StandardScaler(), LinearRegression())):
        with pytest.raises(ValueError, match=r"^The 'teacher' parameter of DistilledClassifier must be.*Got") as caught:
            make(teacher).fit(*rows)
        assert "LinearRegression() instead" in str(caught.value) or "LinearRegression())])" in str(caught.value)
        assert "Use DistilledRegressor" in str(caught.value)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_a_class_that_the_student_never_saw(rows, make, alpha):
    """Named in classes=, and known to the teacher, it is learnt from soft answers to pictures of other classes."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, NAMES[y]))
    seen = y != 1
    with pytest.raises(
        ValueError,
        match=r"not in y: \['bee'\]\. Pass labels of all classes, or fit\(X, y, classes=teacher\.classes_\)\.",
    ):
        make(teacher).fit(X[seen], NAMES[y[seen]])
    settings = {"temperature": 1.0, "max_epochs": 60, "lr": 0.01}
    student = make(teacher, alpha=alpha, **settings).fit(X[seen], NAMES[y[seen]], classes=NAMES[[2, 0, 1]])
    assert student.classes_.tolist() == NAMES.tolist()
    bees = student.predict_proba(X)[:, 1]
    assert np.median(bees[y == 1]) > 2 * np.median(bees[seen])
    alone = FineTunedClassifier(freeze_depth="all", random_state=0).fit(X[seen], NAMES[y[seen]])
    assert "bee" not in alone.classes_
    with pytest.raises(ValueError, match=r"missing from the teacher: \['bee'\]"):
        make().fit(X[seen], NAMES[y[seen]], classes=NAMES)
    with pytest.raises(ValueError, match="not among the classes"):
        make(teacher).fit(X, y, classes=NAMES)


# --- weights ----------------------------------------------------------------------------------------------------------

WEIGHED = [
    {},
    {"freeze_depth": -1, "batch_size": 8, "dropout": 0.2},
    {"early_stopping": True, "validation_fraction": 0.3},
    {"knowledge": {"relation": 1.0, "similarity": 1.0}, "freeze_depth": -1},
    {"knowledge": {"feature": 1.0, "attention": 1.0, "decoupled": 1.0}, "freeze_depth": -1},
]


@pytest.mark.parametrize("settings", WEIGHED, ids=str)
@pytest.mark.parametrize("is_fitted", [True, False])
def test_weights_are_copies(rows, make, network, settings, is_fitted):
    """Whole weights are that many rows and zero is none, to the bit: for the student, and for the teacher it fits."""
    X, y = rows
    teacher = network if is_fitted else network.estimator
    n_copies = np.random.default_rng(0).integers(0, 4, 30)
    weighted = make(teacher, **settings).fit(X, y, sample_weight=n_copies)
    repeated = make(teacher, **settings).fit(np.repeat(X, n_copies, axis=0), np.repeat(y, n_copies))
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    there = n_copies > 0
    plain = make(teacher, **settings).fit(X[there], y[there])
    assert not np.array_equal(plain.predict_proba(X), weighted.predict_proba(X))


@pytest.mark.parametrize("kind", ["response", "relation", "similarity"])
def test_weights_weigh_the_teachers_part(rows, make, stranger, kind):
    """With alpha=1 a weight multiplies what the teacher says of a row and of its relations to others, by hand."""
    X, y = rows
    weight = np.where(y == 0, 3.0, 0.1)
    settings = {"alpha": 1.0, "knowledge": kind, "freeze_depth": -1, "head_init": "random", "temperature": 2.0}
    start = make(stranger, **settings, max_epochs=0).fit(X, y)
    ours, theirs = (
        torch.from_numpy(PretrainedFeatureExtractor(backbone).fit_transform(X))
        for backbone in ("sktl_mini", stranger.estimator)
    )
    tensor = torch.from_numpy(weight / weight.mean()).float()
    expected = {
        "response": lambda: losses(start.decision_function(X), stranger.decision_function(X), y, 2.0)[0],
        "relation": lambda: (
            relational_distance_loss(ours, theirs, tensor) + 2 * relational_angle_loss(ours, theirs, tensor)
        ),
        "similarity": lambda: 30 * similarity_loss(ours, theirs, tensor),
    }[kind]()
    expected = np.average(np.asarray(expected), weights=weight)
    trained = make(stranger, **settings, max_epochs=1).fit(X, y, sample_weight=weight)
    assert trained.history_[0, "train_loss"] == pytest.approx(expected, rel=1e-3)
    plain = make(stranger, **settings, max_epochs=1).fit(X, y).history_[0, "train_loss"]
    assert plain != pytest.approx(expected, rel=5e-3)


def skewed(rows):
    X, y = rows
    kept = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1), np.flatnonzero(y == 2)[:3]]
    return X[kept], y[kept]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_class_weights_move_predictions(rows, make, alpha):
    """A class that weighs more is predicted more, also where the teacher alone is learnt from; none, never."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=1e-3).fit(X, y))
    settings = {"alpha": alpha, "max_epochs": 20, "lr": 0.01}
    plain = make(teacher, **settings).fit(X, y).predict_proba(X)
    heavy = make(teacher, **settings, class_weight={2: 10.0}).fit(X, y).predict_proba(X)
    assert (heavy[:, 2] > plain[:, 2]).mean() > 0.9
    assert heavy[:, 2].mean() > plain[:, 2].mean() + 0.1


def test_class_weights_multiply_the_teachers_probabilities(rows, make):
    """With alpha=1 and T=1 the loss is the divergence from the teacher's probabilities times the weights, by hand."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, y))
    settings = {"alpha": 1.0, "temperature": 1.0, "class_weight": {2: 10.0}, "head_init": "random"}
    start = make(teacher, **settings, max_epochs=0).fit(X, y).decision_function(X)
    weights = np.array([1.0, 1.0, 10.0])
    shifted = np.log(teacher.predict_proba(X) * weights)
    divergence, _ = losses(start, shifted, y, 1.0)
    trained = make(teacher, **settings, max_epochs=1).fit(X, y)
    assert trained.history_[0, "train_loss"] == pytest.approx(divergence.mean(), rel=1e-4)


def test_balance_is_that_of_the_rows_that_are_learnt_from(rows, make):
    """Classes of few rows count as much as others, and a validation set of another balance changes nothing."""
    X, y = skewed(rows)
    few = np.r_[np.flatnonzero(y == 2), np.flatnonzero(y == 0)[:1], np.flatnonzero(y == 1)[:1]]
    student = make(class_weight="balanced").fit(X, y)
    judged = make(class_weight="balanced").fit(X, y, X_val=X[few], y_val=y[few])
    np.testing.assert_array_equal(judged.predict_proba(X), student.predict_proba(X))
    counts = np.bincount(y)
    by_hand = make(class_weight=dict(enumerate(1 / counts))).fit(X, y)
    np.testing.assert_allclose(by_hand.predict_proba(X), student.predict_proba(X), rtol=1e-4)
    assert not np.allclose(make().fit(X, y).predict_proba(X), student.predict_proba(X), rtol=1e-2)
