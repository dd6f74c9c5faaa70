"""How often a teacher is fitted and asked, what it is shown, and which weights it gets."""

import pickle
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import _NotAnArray

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._estimators._content_digests import digest_and_size
from sktl.distillation import _teacher
from sktl.distillation._teacher import content_digest
from sktl.exceptions import TrainingWarning

QUICK = {"freeze_depth": "all", "max_epochs": 1, "random_state": 0}


# --- how often it is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_grid_asks_once(rows, make, watched, calls, is_fitted):
    """Over temperatures and alphas, a frozen teacher is asked once per picture; another is fitted once per fold."""
    X, y = rows
    grid = {"temperature": [1.0, 4.0], "alpha": [0.5, 0.9, 1.0]}
    teacher = FrozenEstimator(watched.fit(X, y)) if is_fitted else watched
    calls.forget()
    search = GridSearchCV(make(teacher), grid, cv=KFold(3, shuffle=True, random_state=0)).fit(X, y)
    assert search.best_estimator_.score(X, y) > 0.8
    assert (calls.n_fits, calls.n_asked) == ((0, 30) if is_fitted else (3 + 1, 3 * 20 + 30))


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["none", "instance"])
def test_chance_is_not_remembered(rows, make, watched, calls, random_state):
    """A teacher whose seed is no number is another one in each fit."""
    student = make(watched.set_params(random_state=random_state))
    student.fit(*rows), student.fit(*rows)
    assert calls.n_fits == 2
    calls.forget()
    student.set_params(teacher__random_state=3).fit(*rows), clone(student).fit(*rows)
    assert calls.n_fits == 1


def test_fitted_teachers_are_kept_as_far_as_there_is_room(rows, make, watched, calls, monkeypatch):
    """Their bytes are counted, and the one that was used the longest ago goes first."""
    _, size = digest_and_size(clone(watched).fit(*rows))
    calls.forget()
    monkeypatch.setattr(_teacher, "_FITTED_BYTES", 2 * size + size // 2)
    first, second, third = (clone(watched).set_params(random_state=seed) for seed in range(3))
    for teacher in (first, second, first, third, first):
        make(teacher).fit(*rows)
    assert calls.n_fits == 3
    make(second).fit(*rows)
    assert calls.n_fits == 4
    monkeypatch.setattr(_teacher, "_FITTED_BYTES", size // 2)
    make(second).fit(*rows), make(second).fit(*rows)
    assert calls.n_fits == 5


class Unpicklable(LogisticRegression):
    """Cannot be pickled once it is fitted."""

    def fit(self, X, y):
        self.rule_ = lambda: None
        return super().fit(X, y)


def test_a_teacher_that_is_not_kept_drives_out_no_other(rows, make, watched, calls):
    """One that cannot be pickled, and so not be counted, is fitted each time, and what is kept stays."""
    make(watched).fit(*rows)
    make(Unpicklable(random_state=0)).fit(*rows)
    make(watched).fit(*rows)
    assert calls.n_fits == 1


@pytest.mark.parametrize("freeze_depth", ["all", 0])
def test_a_network_counts_with_its_weights(rows, freeze_depth):
    """Though only their digest is written: the frozen stages' and the trained ones', which are there once."""
    model = FineTunedClassifier(**{**QUICK, "max_epochs": 0, "freeze_depth": freeze_depth}).fit(*rows)
    digest, size = digest_and_size(model)
    assert digest == content_digest(model)
    n_bytes = sum(tensor.nbytes for tensor in model.backbone_.module.state_dict().values())
    assert n_bytes < size < 1.5 * n_bytes


class Interruptible(LogisticRegression):
    """Keeps Ctrl-C to itself, as scikit-learn's `MLPClassifier` does, and what it had learnt by then."""

    def fit(self, X, y):
        """Learn, with an interruption."""
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return super().fit(X[:3], [0, 1, 2])
        return super().fit(X, y)


def test_an_interrupted_teacher_is_not_remembered(rows, make, calls, monkeypatch):
    """Ctrl-C while a teacher is fitted ends the student's fit, and an equal fit later has a whole teacher."""
    student = make(Interruptible(random_state=0))
    with pytest.raises(KeyboardInterrupt):
        student.fit(*rows)
    assert not hasattr(student, "net_")
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)  # another class would be another teacher
    whole = LogisticRegression(random_state=0).fit(*rows)
    np.testing.assert_allclose(student.fit(*rows).teacher_.coef_, whole.coef_, atol=1e-9)


def test_an_interrupted_teacher_of_a_teacher_is_not_remembered(rows, make, monkeypatch):
    """Ctrl-C two fits deep ends both of them, and the innermost teacher is fitted again, to its end."""
    student = make(make(Interruptible(random_state=1), random_state=0))
    with pytest.raises(KeyboardInterrupt):
        student.fit(*rows)
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)  # another class would be another teacher
    whole = LogisticRegression(random_state=1).fit(*rows)
    np.testing.assert_allclose(student.fit(*rows).teacher_.teacher_.coef_, whole.coef_, atol=1e-9)


def test_what_the_teacher_is_fitted_on_is_part_of_its_name(rows, make, watched, calls):
    """Other rows, other labels and other parameters are another teacher; the student's parameters are not."""
    X, y = rows
    make(watched).fit(X, y)
    for student, table in [
        (make(watched), (X[:29], y[:29])),
        (make(watched), (X, (y + 1) % 3)),
        (make(clone(watched).set_params(sharpness=2.0)), (X, y)),
    ]:
        calls.forget()
        student.fit(*table)
        assert calls.n_fits == 1
    calls.forget()
    make(watched, temperature=2.0, knowledge="decoupled", lr=0.1).fit(X, y)
    assert calls.n_fits == 0
    assert calls.n_asked == 0


def test_a_fitted_one_that_somebody_changed_is_fitted_again(rows, make, watched, calls):
    """Who writes into teacher_ spoils that student's teacher, and not the next one's."""
    first = make(watched).fit(*rows)
    first.teacher_.means_[:] = 0
    second = make(watched).fit(*rows)
    assert calls.n_fits == 2
    assert second.teacher_.means_.any()


def test_a_picture_is_asked_about_once(rows, make, watched, calls):
    """Rows that are there several times, epochs and fits later; a teacher that was changed in place is asked again."""
    X, y = rows
    teacher = FrozenEstimator(watched.fit(X, y))
    student = make(teacher, max_epochs=5, batch_size=7).fit(np.r_[X, X[:10]], np.r_[y, y[:10]])
    assert list(map(len, calls.asked)) == [30]
    calls.forget()
    expected = student.fit(X, y).predict_proba(X)
    assert not calls.asked
    watched.means_ = watched.means_[::-1].copy()
    changed = student.fit(X, y).predict_proba(X)
    assert list(map(len, calls.asked)) == [30]
    assert not np.allclose(changed, expected, atol=1e-2)


@pytest.mark.parametrize("cache", [None, "auto"])
def test_numbers_are_told_apart_to_the_last_bit(rows, make, watched, calls, cache):
    """Rows that are the same picture after rounding to bytes are two rows to a teacher; without a cache too."""
    X, y = rows
    near = np.where(X > 0.1, X - 1e-6, X)
    teacher = FrozenEstimator(watched.fit(X, y))
    student = make(teacher, cache=cache)
    student.fit(X, y)
    calls.forget()
    student.fit(near, y)
    assert np.array_equal(np.sort(np.concatenate(calls.asked), axis=0), np.sort(near, axis=0))


def test_what_is_known_is_kept_when_the_rest_fails(rows, make, watched, calls, monkeypatch):
    """Blocks that were answered before a failure are not asked about again."""
    X, y = rows
    monkeypatch.setattr("sktl.distillation._teacher._PREDICTED_TOGETHER", 10)
    student = make(FrozenEstimator(watched.fit(X, y)))
    calls.fail_at(sum_of_tens=3)
    with pytest.raises(RuntimeError, match="out of memory"):
        student.fit(X, y)
    calls.forget()
    student.fit(X, y)
    assert [len(asked) for asked in calls.asked] == [10]


SECOND = """
from sktl.distillation import _teacher
_teacher._checked_answers = _teacher._kind_of_answers = lambda *args: 1 / 0  # whoever asks
result = [student.fit(X, y).predict_proba(X) for student in students]
"""


def test_a_directory_serves_another_process(rows, make, tmp_path, in_new_process):
    """What this process asked a teacher, another one does not ask again, given the same teacher in a pickle."""
    X, y = rows
    teachers = [
        LogisticRegression(C=0.1),
        make_pipeline(MinMaxScaler(), PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000)),
        make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
        FineTunedClassifier(**{**QUICK, "freeze_depth": -1}),
    ]
    students = [make(FrozenEstimator(teacher.fit(X, y)), cache=tmp_path / "cache") for teacher in teachers]
    expected = [student.fit(X, y).predict_proba(X) for student in students]
    got = in_new_process(SECOND, students=[clone(student) for student in students], X=X, y=y)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "forest", "machine", "network", "pipeline"])
def test_a_digest_stands_for_all_that_a_teacher_is(rows, name):
    """It is the same before and after predicting, and through pickle; and not once a number has changed."""
    X, y = rows
    teachers = {
        "logistic": LogisticRegression(),
        "forest": make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
        "machine": make_pipeline(StandardScaler(), SVC()),
        "network": FineTunedClassifier(**{**QUICK, "freeze_depth": -1, "dropout": 0.2}),
        "pipeline": make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000)),
    }
    teacher = teachers[name].fit(X, y)
    digest = content_digest(teacher)
    teacher.predict(X)
    stored = pickle.dumps(teacher)
    for other in (teacher, pickle.loads(stored), pickle.loads(pickle.dumps(pickle.loads(stored)))):
        assert content_digest(other) == digest
    if name == "network":
        with torch.no_grad():
            teacher.net_.module_.head[-1].bias[0] += 1e-3
    elif name == "logistic":
        teacher.coef_[0, 0] += 1e-9
    else:
        last = teacher[-1]
        last.extra_ = 1
    assert content_digest(teacher) != digest
    assert content_digest(lambda: None) is None


def test_an_unpicklable_teacher_works(rows, make):
    """It is asked in each fit, once per picture, and fitted in each; the answers are its own."""
    X, y = rows
    n_calls = []
    shout = FunctionTransformer(lambda X: n_calls.append(len(X)) or X)
    teacher = make_pipeline(shout, LogisticRegression(C=0.1))
    plain = make().fit(X, y).predict_proba(X)
    student = make(teacher, max_epochs=3)
    got = student.fit(X, y)
    assert sum(n > 16 for n in n_calls) == 2  # fitted, and asked
    assert got.teacher_answers_ == "logits"
    np.testing.assert_array_equal(make(teacher).fit(X, y).predict_proba(X), plain)
    frozen = make(FrozenEstimator(teacher.fit(X, y)))
    n_calls.clear()
    frozen.fit(X, y), frozen.fit(X, y)
    assert sum(n > 16 for n in n_calls) == 2


# --- what it sees -----------------------------------------------------------------------------------------------------


class Curious(ClassifierMixin, BaseEstimator):
    """Keeps what it is given, and knows nothing."""

    seen: list = []

    def fit(self, X, y):
        self.seen.append(X)
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        self.seen.append(X)
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_the_teacher_sees_what_fit_was_given(image_source, make, calls):
    """Paths, pictures, arrays, tensors, frames: rows of the very kind, in `fit` and when it is asked."""
    Curious.seen.clear()
    X = image_source.X
    make(Curious()).fit(X, ["left", "right"] * 3)
    assert len(Curious.seen) == 2
    for seen in Curious.seen:
        assert type(seen) is type(X)
        assert len(seen) == 6
        if hasattr(X, "dtype"):
            assert seen.dtype == X.dtype
        if isinstance(X, pd.DataFrame):
            assert seen.columns.tolist() == X.columns.tolist()
        if isinstance(X, list):
            assert all(any(item is given for given in X) for item in seen)


def test_names_of_columns_reach_it_too(rows, make):
    """A table with names is one to the teacher, in fit and afterwards: nothing warns that names are missing."""
    X, y = rows
    table = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student = make().fit(table, pd.Series(y, index=np.arange(30) * 2))
        assert student.teacher_.feature_names_in_.tolist() == table.columns.tolist()
        frozen = make(FrozenEstimator(LogisticRegression(C=0.1).fit(table, y))).fit(table, y)
    np.testing.assert_allclose(frozen.predict_proba(table), student.predict_proba(table), atol=1e-3)


def test_things_that_are_almost_arrays(rows, make):
    """What only turns into an array, a read-only one, and one that is not contiguous teach what the array does."""
    X, y = rows
    expected = make().fit(X, y).predict_proba(X)
    fixed = X.copy()
    fixed.flags.writeable = False
    for given in (_NotAnArray(X), fixed, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(make().fit(given, _NotAnArray(y)).predict_proba(X), expected)


@pytest.mark.parametrize(
    "kind", [torch.tensor, lambda X: torch.tensor(X, requires_grad=True), lambda X: torch.tensor(X).bfloat16()]
)
def test_tensors_of_any_kind(digits, make, kind):
    """What a network of ours understands can be given to a student of it too."""
    X, y = digits
    X = kind(X)
    teacher = FineTunedClassifier(**QUICK).fit(X, y)
    student = make(FrozenEstimator(teacher)).fit(X, y)
    assert (student.predict(X) == teacher.predict(X)).mean() > 0.9


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights():
    """Whole weights of thirty rows, some of them zero."""
    return np.random.default_rng(0).integers(0, 4, 30)


class Weighed(ClassifierMixin, BaseEstimator):
    """Keeps its rows and weights."""

    def fit(self, X, y, sample_weight=None):
        self.rows_, self.weight_ = np.asarray(X), sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def total_of(rows, weight, X):
    """The weight of each row of X in a table."""
    return [sum(weight[(rows == row).all(axis=1)]) for row in X]


def test_weights_reach_a_teacher_that_takes_them(rows, make, weights):
    """Each row with its own weight, zeros left out; without weights it gets none; copies are weights."""
    X, y = rows
    given = weights * 0.5
    teacher = make(Weighed()).fit(X, y, sample_weight=given).teacher_
    assert total_of(teacher.rows_, teacher.weight_, X) == given.tolist()
    assert make(Weighed()).fit(X, y).teacher_.weight_ is None
    teacher = make(Weighed()).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights)).teacher_
    assert total_of(teacher.rows_, teacher.weight_, X) == weights.tolist()


def test_any_other_teacher_sees_rows_as_often_as_they_weigh(rows, make, weights):
    """Neighbours know no weights: whole ones are that many rows."""
    X, y = rows
    for table in ((X, y, weights), (np.repeat(X, weights, axis=0), np.repeat(y, weights), None)):
        teacher = make(KNeighborsClassifier(3)).fit(*table).teacher_
        assert total_of(teacher._fit_X, np.ones(len(teacher._fit_X)), X) == weights.tolist()


def test_weights_that_the_teacher_cannot_take_are_said_so(rows, make):
    """Halves of rows cannot be shown to neighbours: a warning, and the student still minds them."""
    X, y = rows
    weight = np.random.default_rng(0).uniform(0.5, 2, 30)
    with pytest.warns(TrainingWarning, match="KNeighborsClassifier does not take sample_weight. Only the student uses"):
        student = make(KNeighborsClassifier(3)).fit(X, y, sample_weight=weight)
    assert len(student.teacher_._fit_X) == 30
    plain = make(KNeighborsClassifier(3)).fit(X, y)
    assert not np.allclose(student.predict_proba(X), plain.predict_proba(X), atol=1e-3)


def test_weights_are_routed_where_routing_is_on(rows, make):
    """The teacher gets them where it asked for them, and does not where it asked not to."""
    X, y = rows
    weight = np.random.default_rng(0).uniform(0.5, 2, 30)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = make(Weighed().set_fit_request(sample_weight=True)).set_fit_request(sample_weight=True)
        asks.set_score_request(sample_weight=False)
        teacher = asks.fit(X, y, sample_weight=weight).teacher_
        np.testing.assert_allclose(total_of(teacher.rows_, teacher.weight_, X), weight)
        in_a_pipeline = make_pipeline(MinMaxScaler(), Weighed().set_fit_request(sample_weight=True))
        teacher = make(in_a_pipeline).set_fit_request(sample_weight=True).fit(X, y, sample_weight=weight).teacher_
        assert sorted(teacher[-1].weight_) == sorted(weight)
        search = GridSearchCV(asks, {"lr": [0.001]}, cv=2).fit(X, y, sample_weight=weight)
        assert sorted(search.best_estimator_.teacher_.weight_) == sorted(weight)


def test_copies_need_no_routing(rows, make):
    """With routing on and no weights given, equal rows are no weights that somebody would have to ask for."""
    X, y = rows
    with sklearn.config_context(enable_metadata_routing=True):
        for teacher in (Weighed(), KNeighborsClassifier(3), Weighed().set_fit_request(sample_weight=True)):
            student = make(teacher).fit(np.r_[X, X[:3]], np.r_[y, y[:3]])
            assert student.predict(X).shape == (30,)
