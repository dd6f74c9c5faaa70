"""Distilling a regressor, or features: units, several targets, missing ones; all of scikit-learn's checks."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import DistilledRegressor, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.distillation._teacher import TeacherAnswers


@parametrize_with_checks([DistilledRegressor(LinearRegression())])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Around a regressor, the estimator passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def ink(rows):
    """Digits as flat rows, and how much ink each of their halves has."""
    X, _ = rows
    return X, np.c_[X[:, :32].mean(1), X[:, 32:].mean(1)]


# --- the loss and its units ------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_standardised_targets(ink, make_regressor):
    """The first epoch's loss is alpha * (distance to the teacher)² + (1 - alpha) * (to the targets)², in units of y."""
    X, y = ink
    weight = np.where(np.arange(30) < 10, 3.0, 0.5)
    teacher = FrozenEstimator(Ridge(100).fit(X, 50 * y + 7))
    settings = {"alpha": 0.3, "head_init": "random"}
    start = make_regressor(teacher, **settings, max_epochs=0).fit(X, 50 * y + 7, sample_weight=weight).predict(X)
    center = np.average(50 * y, axis=0, weights=weight)
    scale = np.sqrt(np.average((50 * y - center) ** 2, axis=0, weights=weight))
    said = np.square((start - teacher.predict(X)) / scale).mean(1)
    labels = np.square((start - 50 * y - 7) / scale).mean(1)
    expected = np.average(0.3 * said + 0.7 * labels, weights=weight)
    trained = make_regressor(teacher, **settings, max_epochs=1).fit(X, 50 * y + 7, sample_weight=weight)
    assert trained.history_[0, "train_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_targets_of_any_scale(ink, make_regressor, alpha):
    """In other units, for the teacher as well, the student predicts the same in those units; also far from zero."""
    X, y = ink
    expected = make_regressor(Ridge(0.1), alpha=alpha).fit(X, y[:, 0]).predict(X)
    assert r2_score(y[:, 0], expected) > 0.8
    got = make_regressor(Ridge(0.1), alpha=alpha).fit(X, 1e4 * y[:, 0] - 1e5).predict(X)
    np.testing.assert_allclose((got + 1e5) / 1e4, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, lambda y: y.tolist(), torch.tensor])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_targets_keep_their_shape(ink, make_regressor, kind, n_targets):
    """A table of targets is predicted as a table, of one column too, whoever the teacher is."""
    X, y = ink
    y = y[:, :n_targets] * [1, -1000][:n_targets]
    for teacher in (Ridge(0.1), KNeighborsRegressor(1), FrozenEstimator(Ridge(0.1).fit(X, y))):
        predicted = make_regressor(teacher, freeze_depth=-1).fit(X, kind(y)).predict(X)
        assert predicted.shape == y.shape
        assert predicted.dtype == np.float64
        assert (r2_score(y, predicted, multioutput="raw_values") > 0.8).all()
    flat = pd.Series if kind is pd.DataFrame else kind
    assert make_regressor(Ridge(0.1)).fit(X, flat(y[:, 0])).predict(X).shape == (30,)


def test_the_teacher_gets_targets_as_they_were_given(ink, make_regressor, watched_regressor, calls):
    """It is fitted in their own units, once per fold over alphas and rates, and asked once per picture of the fold."""
    X, y = ink
    search = GridSearchCV(make_regressor(watched_regressor), {"alpha": [0.2, 0.8], "lr": [0.001, 0.01]}, cv=2)
    search.fit(X, 50 * y + 7)
    assert calls.n_fits == 2 + 1
    assert calls.n_asked == 15 * 2 + 30
    np.testing.assert_allclose(search.best_estimator_.teacher_.mean_, (50 * y + 7).mean(0))


def test_copies_are_weights(ink, make_regressor):
    """Whole weights and rows that often, equal to the bit, whether the teacher takes weights or not."""
    X, y = ink
    n_copies = np.random.default_rng(0).integers(0, 4, 30)
    for teacher in (Ridge(1.0), KNeighborsRegressor(3)):
        weighted = make_regressor(teacher, freeze_depth=-1).fit(X, y, sample_weight=n_copies)
        repeated = make_regressor(teacher, freeze_depth=-1)
        repeated.fit(np.repeat(X, n_copies, axis=0), np.repeat(y, n_copies, axis=0))
        np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))


# --- targets that are missing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unlabeled", "hide"),
    [
        (np.nan, lambda y, hidden: np.where(hidden, np.nan, y)),
        (-1.0, lambda y, hidden: np.where(hidden, -1.0, y)),
        (-1, lambda y, hidden: pd.Series(np.where(hidden, -1.0, y), index=np.arange(30) * 3)),
        (np.nan, lambda y, hidden: pd.array(np.where(hidden, np.nan, y), dtype="Float64")),
        (np.nan, lambda y, hidden: [None if h else v for v, h in zip(y.tolist(), hidden.tolist(), strict=True)]),
    ],
    ids=["nan", "number", "series", "masked", "none"],
)
def test_rows_without_a_target(ink, make_regressor, unlabeled, hide):
    """Whatever stands for it, the teacher is fitted on the others, and the student learns from it on all."""
    X, y = ink
    hidden = np.arange(30) >= 12
    expected = make_regressor(Ridge(0.1), unlabeled=-5).fit(X, np.where(hidden, -5, y[:, 0]))
    student = make_regressor(Ridge(0.1), unlabeled=unlabeled).fit(X, hide(y[:, 0], hidden))
    np.testing.assert_array_equal(student.predict(X), expected.predict(X))
    own = Ridge(0.1).fit(X[~hidden], y[~hidden, 0])
    np.testing.assert_allclose(student.teacher_.predict(X), own.predict(X), rtol=1e-5, atol=1e-6)


def test_one_of_several_targets_is_missing(ink, make_regressor):
    """What is known of a row counts, each target in its own units, and the parts keep their shares."""
    X, y = ink
    hidden = np.zeros((30, 2), bool)
    hidden[:20, 1], hidden[25:, 0] = True, True
    given = np.where(hidden, np.nan, y)
    teacher = FrozenEstimator(Ridge(100).fit(X, y))
    settings = {"alpha": 0.3, "head_init": "random", "unlabeled": np.nan}
    start = make_regressor(teacher, **settings, max_epochs=0).fit(X, given).predict(X)
    scale = np.nanstd(given, axis=0)
    said = np.square((start - teacher.predict(X)) / scale).mean()
    labels = np.square((start - y) / scale)[~hidden].mean()
    trained = make_regressor(teacher, **settings, max_epochs=1).fit(X, given)
    assert trained.history_[0, "train_loss"] == pytest.approx(0.3 * said + 0.7 * labels, rel=1e-4)
    assert make_regressor(teacher, unlabeled=np.nan, lr=0.01, max_epochs=30).fit(X, given).score(X, y) > 0.65
    unfrozen = make_regressor(Ridge(0.1), unlabeled=np.nan).fit(X, given)
    np.testing.assert_allclose(unfrozen.teacher_.coef_, Ridge(0.1).fit(X[20:25], y[20:25]).coef_, atol=1e-4)


def test_targets_that_nobody_said_are_missing(ink, make_regressor):
    """NaN is an error unless it was said to stand for none; a target that is missing everywhere is one too."""
    X, y = ink
    with pytest.raises(ValueError, match="NaN"):
        make_regressor(Ridge()).fit(X, np.where(np.arange(30) < 3, np.nan, y[:, 0]))
    with pytest.raises(ValueError, match="Target 1 of y is missing in all rows"):
        make_regressor(FrozenEstimator(Ridge().fit(X, y)), unlabeled=np.nan).fit(X, np.c_[y[:, 0], np.full(30, np.nan)])
    with pytest.raises(ValueError, match=r"All rows of y are unlabeled \(unlabeled=nan\), .*FrozenEstimator"):
        make_regressor(Ridge(), unlabeled=np.nan).fit(X, np.full(30, np.nan))


# --- without any target: features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_without_any_target(ink, make_regressor, alpha):
    """A fitted regressor teaches alone, in its own units, in the shape of its predictions; y=None or all missing."""
    X, y = ink
    for targets, shape in ((1e3 * y[:, 0] - 7, (30,)), (y * [1, 1000], (30, 2))):
        teacher = FrozenEstimator(Ridge(0.1).fit(X, targets))
        student = make_regressor(teacher, alpha=alpha).fit(X)
        assert student.predict(X).shape == shape
        assert r2_score(teacher.predict(X), student.predict(X)) > 0.8
        missing = make_regressor(teacher, alpha=alpha, unlabeled=np.nan).fit(X, np.full(shape, np.nan))
        np.testing.assert_array_equal(missing.predict(X), student.predict(X))
        assert student.footprint_.to_dict()["agreement"][1] == pytest.approx(
            r2_score(*(x / np.std(teacher.predict(X), axis=0) for x in (teacher.predict(X), student.predict(X)))),
            abs=1e-3,
        )
        judged = make_regressor(teacher, early_stopping=True, validation_fraction=0.3).fit(X)
        assert np.isfinite(judged.history_[:, "valid_loss"]).all()


@pytest.mark.parametrize("is_fitted", [True, False])
def test_features_as_targets(rows, make_regressor, is_fitted):
    """A transformer teaches what it gives: the student becomes a small extractor, without any y."""
    X, _ = rows
    transformer = make_pipeline(PretrainedFeatureExtractor(layers="layer3"), PCA(5, random_state=0))
    teacher = FrozenEstimator(transformer.fit(X)) if is_fitted else transformer
    student = make_regressor(teacher, alpha=1.0, freeze_depth=-1, knowledge={"response": 1.0, "feature": 0.5}).fit(X)
    features = transformer.fit_transform(X)
    predicted = student.predict(X)
    assert predicted.shape == (30, 5)
    assert r2_score(features, predicted) > 0.8
    assert pickle.loads(pickle.dumps(student)).predict(X).tolist() == predicted.tolist()


def test_what_cannot_teach_numbers(rows, make_regressor):
    """Other numbers of targets, no numbers, and no fitted regressor where there is no y: each error says so."""
    X, y = rows
    with pytest.raises(
        ValueError, match=r"The teacher predicts 2 targets, but y has 1\. Fit the teacher to the same targets\.$"
    ):
        make_regressor(FrozenEstimator(Ridge().fit(X, np.c_[y, y]))).fit(X, y)
    with pytest.raises(ValueError, match=r"The teacher predicts 5 targets, but y has 1"):
        make_regressor(PCA(5)).fit(X, y)
    with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None.*FrozenEstimator"):
        make_regressor(Ridge()).fit(X)
    endless = Ridge().fit(X, y)
    endless.coef_[:] = np.nan
    with pytest.raises(
        ValueError, match=r"returned non-finite values for image \d+: \[nan\]\. Fix the teacher or drop"
    ):
        make_regressor(FrozenEstimator(endless)).fit(X, y)
    with pytest.raises(ValueError, match=r"'knowledge' parameter must be .*Got 'decoupled' instead\.$"):
        make_regressor(Ridge(), knowledge="decoupled").fit(X, y)
    with pytest.raises(ValueError, match=r"must contain exactly one sktl network"):
        make_regressor(Ridge(), knowledge="feature", freeze_depth=-1).fit(X, y)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knowledge", ["feature", "attention", "relation", "similarity"])
def test_knowledge_of_layers(ink, make_regressor, knowledge):
    """A network's layers teach a regressor beside its predictions: the loss falls and the student is right."""
    X, y = ink
    teacher = FineTunedRegressor(weights=None, freeze_depth="all", max_epochs=1, random_state=0)
    settings = {"knowledge": {"response": 1.0, knowledge: 1.0}, "freeze_depth": -1, "max_epochs": 6, "lr": 0.003}
    student = make_regressor(teacher, **settings, head_init="random").fit(X, y)
    assert student.history_[-1, "train_loss"] < 0.9 * student.history_[0, "train_loss"]


def test_answers_are_asked_for_once(ink, make_regressor, watched_regressor, calls, monkeypatch):
    """Without y the teacher's answers say what the targets' units are and are then learnt from: asked once for both."""
    X, y = ink
    teacher = FrozenEstimator(watched_regressor.fit(X, y))
    calls.forget()
    n_tables = []
    numbers = TeacherAnswers.numbers
    monkeypatch.setattr(TeacherAnswers, "numbers", lambda *args: n_tables.append(1) or numbers(*args))
    make_regressor(teacher).fit(X)
    assert calls.n_asked == 30
    assert len(n_tables) == 2


def test_forests_and_pipelines_teach(ink, make_regressor):
    """A student of a forest on features keeps what it knows, and scores as r2_score says."""
    X, y = ink
    forest = make_pipeline(StandardScaler(), RandomForestRegressor(20, random_state=0))
    student = make_regressor(forest, alpha=0.9, max_epochs=20, lr=0.003).fit(X, y)
    assert student.score(X, y) == pytest.approx(r2_score(y, student.predict(X)))
    assert student.score(X, y) > 0.7
