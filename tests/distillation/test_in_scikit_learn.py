"""In the company of scikit-learn: pickles, clones, searches, pipelines; parameters and caches."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from sktl import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
)
from sktl._frozen._cache import open_cache

NAMES = np.array(["ant", "bee", "cow"])


# --- copies -----------------------------------------------------------------------------------------------------------


def test_a_fitted_student_is_pickled_without_its_teacher(rows, make):
    """A pickle is small and predicts alike; the original keeps its teacher, and the copy says what it left behind."""
    X, y = rows
    big = RandomForestClassifier(300, random_state=0).fit(X, y)
    frozen = FrozenEstimator(big)
    student = make(frozen, freeze_depth="all").fit(X, y)
    alone = FineTunedClassifier(freeze_depth="all", max_epochs=2, lr=0.001, random_state=0).fit(X, y)
    stored = pickle.dumps(student)
    assert len(stored) < len(pickle.dumps(alone)) + 20_000 < len(pickle.dumps(alone)) + len(pickle.dumps(big)) / 4
    assert student.teacher_ is student.teacher is frozen
    assert hasattr(student, "footprint_")
    other = pickle.loads(stored)
    np.testing.assert_array_equal(other.predict_proba(X), student.predict_proba(X))
    assert not hasattr(other, "teacher_")
    assert repr(other) == repr(student)
    with pytest.raises(AttributeError, match=r"requires the teacher, which .*\. Access footprint_ before pickling\.$"):
        _ = other.footprint_
    with pytest.raises(NotFittedError, match=r"pickled without its teacher; to refit it, pass one with set_params\(t"):
        other.fit(X, y)
    refitted = other.set_params(teacher=frozen).fit(X, y)
    np.testing.assert_array_equal(refitted.predict_proba(X), student.predict_proba(X))
    np.testing.assert_array_equal(student.fit(X, y).predict_proba(X), refitted.predict_proba(X))


def test_a_footprint_that_was_asked_for_is_pickled(rows, make):
    """What was measured before stays with the copy, and no picture does."""
    student = make(FrozenEstimator(LogisticRegression().fit(*rows))).fit(*rows)
    expected = student.footprint_.to_dict()
    assert pickle.loads(pickle.dumps(student)).footprint_.to_dict() == expected
    assert student.footprint_ is student.footprint_


def test_an_unfrozen_teacher_can_be_fitted_again_from_a_pickle(rows, make):
    """Its parameters are in the pickle, and nothing that it learnt."""
    X, y = rows
    student = make(RandomForestClassifier(20, random_state=0)).fit(X, y)
    other = pickle.loads(pickle.dumps(student))
    assert other.teacher.get_params() == student.teacher.get_params()
    np.testing.assert_array_equal(other.fit(X, y).predict_proba(X), student.predict_proba(X))


def test_unfitted_ones_are_pickled_with_their_teacher(rows, make, network):
    """As workers of a search need it: fitted, frozen, in a clone too."""
    X, y = rows
    expected = make(network).fit(X, y).predict_proba(X)
    for student in (make(network), clone(make(network)), clone(make(network).fit(X, y)), copy.deepcopy(make(network))):
        other = pickle.loads(pickle.dumps(student))
        assert not hasattr(other, "net_")
        np.testing.assert_array_equal(other.fit(X, y).predict_proba(X), expected)


def test_copies_in_memory_keep_the_teacher(rows, make):
    """copy.deepcopy and copy.copy are whole, and their originals stay so."""
    X, y = rows
    student = make(FrozenEstimator(LogisticRegression().fit(X, y))).fit(X, y)
    other = copy.deepcopy(student)
    np.testing.assert_array_equal(other.predict_proba(X), student.predict_proba(X))
    np.testing.assert_array_equal(other.teacher_.predict_proba(X), student.teacher_.predict_proba(X))
    assert other.teacher_ is not student.teacher_
    np.testing.assert_array_equal(other.fit(X, y).predict_proba(X), student.fit(X, y).predict_proba(X))


def test_an_unpicklable_teacher_stays_here(rows, make):
    """A student of a pipeline with a lambda predicts and has a footprint, in which the bytes of neither are made up."""
    X, y = rows
    teacher = make_pipeline(FunctionTransformer(lambda X: X), LogisticRegression())
    student = make(teacher).fit(X, y)
    assert student.score(X, y) > 0.9
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(student)
    assert student.footprint_.to_dict()["nbytes"] == [None, None]
    assert "-" in repr(student.footprint_)


def test_clones_have_all_parameters_and_nothing_learnt(rows, make):
    """clone() copies every parameter, the teacher's too, and fit changes none."""
    teacher = make_pipeline(MinMaxScaler(), LogisticRegression(C=0.3))
    student = make(teacher, class_weight={0: 2.0}, layers=[("layer4", "layer4")])
    before = {name: repr(value) for name, value in student.get_params().items()}
    student.fit(*rows)
    for other in (student, clone(student)):
        assert {name: repr(value) for name, value in other.get_params().items()} == before
    assert not hasattr(clone(student), "net_")
    assert clone(student).set_params(teacher__logisticregression__C=7).teacher[-1].C == 7


def test_parallel_searches_and_cross_validation(rows, make, network):
    """Two workers have the scores of one; predictions out of fold come in the table's order."""
    X, y = rows
    search = GridSearchCV(make(network), {"temperature": [1.0, 4.0], "alpha": [0.5, 1.0]}, cv=2, error_score="raise")
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_backend("loky", n_jobs=2):
        got = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(got, expected, atol=0.04)
    probabilities = cross_val_predict(make(), X, y, cv=3, method="predict_proba")
    assert (probabilities.argmax(1) == y).mean() > 0.7


def test_in_pipelines_and_around(rows, make):
    """A pipeline's last step, a calibrated one, one whose output is wanted as a frame in front of it."""
    X, y = rows
    pipe = make_pipeline(MinMaxScaler(), make()).set_output(transform="pandas")
    assert pipe.fit(X, NAMES[y]).score(X, NAMES[y]) > 0.9
    calibrated = CalibratedClassifierCV(FrozenEstimator(make().fit(X, y))).fit(X, y)
    assert calibrated.score(X, y) > 0.9
    assert "DistilledClassifier" in make()._repr_html_()


def test_nothing_happens_before_fit(monkeypatch, make):
    """Building, cloning and showing one asks no teacher and loads no network."""
    monkeypatch.setattr(
        "sktl._estimators._network_estimator.resolve_backbone", lambda *args: pytest.fail("loaded a network")
    )
    student = clone(make("no teacher", "resnet18", lr=-1, alpha=7)).set_params(temperature=-1)
    assert "resnet18" in repr(student)
    assert isinstance(student, DistilledClassifier)
    assert isinstance(clone(DistilledRegressor(LinearRegression())), DistilledRegressor)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"alpha": 1.1}, "'alpha' parameter"),
        ({"temperature": 0}, "'temperature' parameter"),
        ({"beta": -1}, "'beta' parameter"),
        ({"knowledge": "respond"}, "Got 'respond' instead"),
        ({"knowledge": ["response"]}, "'knowledge' parameter"),
    ],
)
def test_a_bad_parameter_gets_an_error_before_the_teacher_is_fitted(rows, make, watched, calls, parameters, match):
    """What was given and what would do are in the message, and nobody waited for it."""
    with pytest.raises(ValueError, match=match):
        make(watched, **parameters).fit(*rows)
    assert calls.n_fits == 0


def test_the_cache_holds_answers_by_what_decides_them(rows, make, tmp_path):
    """A directory has the teacher's answers and the frozen stages' output; other temperatures add nothing to it."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, y))
    make(teacher, cache=tmp_path).fit(X, y)
    before = open_cache(tmp_path).stats()
    make(teacher, cache=tmp_path, temperature=9.0, alpha=0.1, lr=0.1, knowledge="decoupled").fit(X, y)
    assert open_cache(tmp_path).stats() == before
    buffer = io.BytesIO()
    joblib.dump(teacher, buffer)
    buffer.seek(0)
    make(joblib.load(buffer), cache=tmp_path, alpha=0.2).fit(X, y)
    assert open_cache(tmp_path).stats() == before


def test_probabilities_of_the_student_follow_the_teachers(rows, make):
    """With alpha=1 and enough steps the student gives the teacher's probabilities, and not those of sure labels."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.01).fit(X, y))
    settings = {"temperature": 1.0, "max_epochs": 60, "lr": 0.01, "weight_decay": 0.0}
    student, alone = (make(teacher, alpha=alpha, **settings).fit(X, y).predict_proba(X) for alpha in (1.0, 0.0))
    expected = teacher.predict_proba(X)
    assert np.abs(student - expected).max() < 0.12 < 0.4 < np.abs(alone - expected).max()
