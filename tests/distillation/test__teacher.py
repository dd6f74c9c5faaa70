"""The teacher: asked for the most that it can say, its classes put in order, cloned or as it is, its network found."""

import copy
import os
import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch
from safetensors.torch import save_file
from scipy.special import log_softmax, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.backbones import load_backbone
from sktl.distillation import _teacher
from sktl.distillation._distillation_objective import ClassifierDistillation
from sktl.distillation._teacher import network_of
from sktl.selection import BackboneSelector

QUICK = {"freeze_depth": "all", "max_epochs": 1, "random_state": 0}


def answers_of(student, X, y, **fit_params):
    """What a teacher's answers are to the student's loss, for the rows of X."""
    seen = {}

    class Noted(ClassifierDistillation):
        def answers(self, table):
            answers = super().answers(table)
            seen.update(zip(table.images.positions.tolist(), answers, strict=True))
            return answers

    class Spy(type(student)):
        _objective_type = Noted

    spy = Spy(**student.get_params(deep=False)).fit(X, y, **fit_params)
    return spy, np.stack([seen[row] for row in range(len(seen))])


# --- what it is asked for ---------------------------------------------------------------------------------------------


class PredictsOnly(ClassifierMixin, BaseEstimator):
    """Says labels and nothing else."""

    def fit(self, X, y):
        self.tree_ = DecisionTreeClassifier(random_state=0).fit(X, y)
        self.classes_ = self.tree_.classes_
        return self

    def predict(self, X):
        return self.tree_.predict(X)


def svc(**params):
    return SVC(kernel="linear", **params)


def logs_of_probabilities(teacher, X):
    return np.log(np.maximum(teacher.predict_proba(X), 1e-7))


def halves(values):
    return np.stack([-values / 2, values / 2], 1)


def decision(teacher, X):
    values = teacher.decision_function(X)
    return halves(values) if values.ndim == 1 else values


def one_hot(teacher, X):
    return np.log(np.maximum(teacher.predict(X)[:, None] == teacher.classes_, 1e-7))


TELLING = {
    "logistic": (LogisticRegression(C=0.1), "logits", decision),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), "logits", decision),
    "search": (GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2), "logits", decision),
    "network": (FineTunedClassifier(**QUICK), "logits", decision),
    "student": (DistilledClassifier(LogisticRegression(), **QUICK), "logits", decision),
    "forest": (RandomForestClassifier(10, random_state=0), "probabilities", logs_of_probabilities),
    "neighbours": (KNeighborsClassifier(3), "probabilities", logs_of_probabilities),
    "calibrated": (CalibratedClassifierCV(LinearSVC(), cv=2), "probabilities", logs_of_probabilities),
    "margins": (LinearSVC(), "decision values", decision),
    "machine": (svc(), "decision values", decision),
    "votes": (
        VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())], voting="hard"),
        "labels",
        one_hot,
    ),
    "labels": (PredictsOnly(), "labels", one_hot),
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", TELLING)
def test_the_most_telling_answers_are_taken(rows, make, name, n_classes):
    """Logits before probabilities before decision values before labels; the loss gets them as logits, all finite."""
    X, y = rows
    kept = y < n_classes
    X, labels = X[kept], np.array(["zero", "one", "two"])[y[kept]]
    teacher, kind, expected = TELLING[name]
    student, answers = answers_of(make(teacher), X, labels)
    assert student.teacher_answers_ == kind
    assert student.teacher_.classes_.tolist() == student.classes_.tolist() == sorted(set(labels))
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(answers, expected(student.teacher_, X), rtol=1e-6, atol=1e-6)


def test_values_that_are_no_logits(rows, make):
    """One against the rest has values for each class and probabilities that they are not the logits of: the latter."""
    student, answers = answers_of(make(OneVsRestClassifier(LogisticRegression())), *rows)
    assert student.teacher_answers_ == "probabilities"
    np.testing.assert_allclose(answers, logs_of_probabilities(student.teacher_, rows[0]))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_are_known_by_their_probabilities(rows, make, n_classes):
    """What is called logits gives the teacher's own probabilities; with two classes, half of one is the other's."""
    X, y = rows
    kept = y < n_classes
    student, answers = answers_of(make(LogisticRegression(C=10)), X[kept], y[kept])
    np.testing.assert_allclose(np.exp(log_softmax(answers, 1)), student.teacher_.predict_proba(X[kept]), rtol=1e-6)
    if n_classes == 2:
        np.testing.assert_allclose(answers.sum(1), 0, atol=1e-12)
        np.testing.assert_allclose(answers[:, 1] - answers[:, 0], logit(student.teacher_.predict_proba(X[kept])[:, 1]))


@pytest.mark.parametrize("n_classes", [3, 4])
def test_values_of_pairs_are_not_values_of_classes(n_classes, make):
    """One against one has a value for each pair, with three classes as many as there are classes: labels are taken."""
    X, y = sklearn.datasets.load_digits(n_class=n_classes, return_X_y=True)
    X, y = X[:60] / 16, y[:60]
    student, answers = answers_of(make(svc(decision_function_shape="ovo")), X, y)
    assert student.teacher_answers_ == "labels"
    np.testing.assert_array_equal(answers.argmax(1), student.teacher_.predict(X))


class Votes(SVC):
    """Predicts another class than that of the largest value for one picture in eight, as votes of pairs may."""

    def predict(self, X):
        best = self.decision_function(X).argmax(1)
        best[::8] = (best[::8] + 1) % 3
        return self.classes_[best]


def test_values_of_classes_need_not_agree_with_every_vote(rows, make):
    """The values of a support vector machine are taken, though its votes now and then are for another class."""
    assert make(Votes(kernel="linear")).fit(*rows).teacher_answers_ == "decision values"


def test_certain_probabilities_stay_finite(rows, make):
    """A tree is sure: zeros become 1e-7, the loss is a number, and the student learns."""
    X, y = rows
    student, answers = answers_of(make(DecisionTreeClassifier(random_state=0), alpha=1.0), X, y)
    assert student.teacher_answers_ == "probabilities"
    assert answers.min() == np.log(1e-7)
    assert np.isfinite(student.history_[:, "train_loss"]).all()
    assert student.score(X, y) > 0.9


class Says(ClassifierMixin, BaseEstimator):
    """Gives what it is told to."""

    def __init__(self, value=None):
        self.value = value

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.broadcast_to(self.value, (len(X), np.shape(self.value)[-1])).astype(float)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (
            [0.5, np.nan, 0.5],
            r"The teacher returned non-finite values for image \d+: \[.*nan.*\]\. Fix the teacher or drop",
        ),
        (
            [0.5, np.inf, 0.5],
            r"returned non-finite values for image \d+: \[.*\]\. Fix the teacher or drop that image\.$",
        ),
        ([0.5, 0.5], r"one column per class\. Got an array of shape \(\d+, 2\) for 3 classes\.$"),
    ],
)
def test_answers_that_are_none_are_named(rows, make, value, match):
    """What is no number, or not one for each class, is an error before it spoils the student."""
    with pytest.raises(ValueError, match=match):
        make(Says(value)).fit(*rows)


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [float, np.uint8, object])
def test_classes_in_another_order_and_of_another_type(rows, make, dtype):
    """Columns go by label: a teacher whose classes are not sorted, or are floats, teaches the same."""
    X, y = rows
    teacher = LogisticRegression(C=0.1).fit(X, y)
    expected = make(FrozenEstimator(teacher)).fit(X, y).predict_proba(X)
    other = copy.deepcopy(teacher)
    order = [2, 0, 1]
    other.classes_ = teacher.classes_[order].astype(dtype)
    other.coef_, other.intercept_ = teacher.coef_[order], teacher.intercept_[order]
    student = make(FrozenEstimator(other)).fit(X, y)
    assert student.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(student.predict_proba(X), expected)


def test_other_classes_are_named(rows, make):
    """A class that the teacher misses, and one that it has more, are in the message with the way out."""
    X, y = rows
    names = np.array(["ant", "bee", "cow"])[y]
    two, three = (LogisticRegression().fit(X[names <= last], names[names <= last]) for last in ("bee", "cow"))
    with pytest.raises(
        ValueError, match=r"from the teacher: \['cow'\]; not in y: \[\]\. .*fit the teacher on all classes"
    ):
        make(FrozenEstimator(two)).fit(X, names)
    few = names != "cow"
    with pytest.raises(ValueError, match=r"from the teacher: \[\]; not in y: \['cow'\]\. .*classes=teacher\.classes_"):
        make(FrozenEstimator(three)).fit(X[few], names[few])
    with pytest.raises(ValueError, match=r"from the teacher: \[0, 1, 2\]; not in y: \['ant', 'bee', 'cow'\]\. "):
        make(FrozenEstimator(three)).fit(X, y)


def test_no_classifier(rows, make):
    """A regressor, a transformer, a class, something without fit: each is refused with its name."""
    X, y = rows
    for teacher in (LinearRegression(), FrozenEstimator(LinearRegression().fit(X, y)), PCA(2)):
        with pytest.raises(ValueError, match=r"must be a classifier\. Got .* instead, which .*Use DistilledRegressor"):
            make(teacher).fit(X, y)
    with pytest.raises(TypeError, match=r"must be an estimator instance, .*Got the class .*LogisticRegression"):
        make(LogisticRegression).fit(X, y)
    with pytest.raises(ValueError, match="'teacher' parameter"):
        make("resnet18").fit(X, y)


def test_several_outputs(rows, make):
    """A forest of several outputs is an error that says so."""
    X, y = rows
    forest = RandomForestClassifier(3, random_state=0).fit(X, np.c_[y, y > 0])
    with pytest.raises(ValueError, match=r"(?s)must have a single output\. Got .* instead, which has several\."):
        make(FrozenEstimator(forest)).fit(X, y)


# --- cloned, or as it is ----------------------------------------------------------------------------------------------


def test_the_teacher_given_stays_as_it_is(rows, make):
    """One that is given is cloned and stays unfitted, one in a FrozenEstimator is used; neither changes by a bit."""
    X, y = rows
    given = LogisticRegression(C=0.3)
    student = make(given).fit(X, y)
    assert not hasattr(given, "coef_")
    assert student.teacher_ is not given
    np.testing.assert_allclose(student.teacher_.coef_, clone(given).fit(X, y).coef_, rtol=1e-3, atol=1e-4)
    fitted = given.fit(X[:20], y[:20])
    before = pickle.dumps(fitted)
    frozen = FrozenEstimator(fitted)
    assert make(frozen).fit(X, y).teacher_ is frozen
    assert pickle.dumps(fitted) == before
    assert make(fitted).fit(X, y).teacher_ is not fitted


def test_a_frozen_one_that_is_not_fitted(rows, make):
    """It is an error before anything is computed, which says both ways out."""
    with pytest.raises(
        NotFittedError, match=r"frozen but not fitted\. Fit it first, or pass it without FrozenEstimator\."
    ):
        make(FrozenEstimator(LogisticRegression())).fit(*rows)


def test_a_network_teaches_in_eval_mode(rows, make):
    """Dropout is off and batch norms do not move: its tensors stay equal to the bit, its answers are its own."""
    X, y = rows
    network = FineTunedClassifier(freeze_depth=-2, freeze_bn=False, dropout=0.5, max_epochs=1, random_state=0).fit(X, y)
    module = network.net_.module_
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    assert any(part.training for part in module.modules())
    student, answers = answers_of(
        make(FrozenEstimator(network), knowledge={"response": 1, "relation": 1}, freeze_depth=-1), X, y
    )
    assert not any(part.training for part in module.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    np.testing.assert_array_equal(answers, network.decision_function(X).astype(float))
    assert student.teacher_answers_ == "logits"


# --- its network ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    """Teachers with a network inside, and what stands in front of it."""
    X, y = sklearn.datasets.load_digits(n_class=3, return_X_y=True)
    X, y = X[:30] / 16, y[:30]
    double = FunctionTransformer(np.sqrt)
    ends = {"plain": [], "front": [double], "two in front": [double, MinMaxScaler(clip=True)]}
    teachers = {
        name: make_pipeline(*front, PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
        for name, front in ends.items()
    }
    teachers["nested"] = make_pipeline(make_pipeline(double, PretrainedFeatureExtractor()), LogisticRegression())
    teachers["frozen step"] = make_pipeline(double, FrozenEstimator(PretrainedFeatureExtractor().fit(X)), LinearSVC())
    teachers["skipped"] = make_pipeline("passthrough", PretrainedFeatureExtractor(), LogisticRegression())
    teachers["search"] = GridSearchCV(
        make_pipeline(double, FineTunedClassifier(**QUICK)),
        {"steps": [[("a", double), ("b", FineTunedClassifier(**QUICK))]]},
        cv=2,
    )
    teachers["calibrated"] = CalibratedClassifierCV(teachers["front"], ensemble=False, cv=2)
    teachers["network"] = FineTunedClassifier(**QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        return X, y, {name: teacher.fit(X, y) for name, teacher in teachers.items()}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("plain", 0),
        ("front", 1),
        ("two in front", 2),
        ("nested", 1),
        ("frozen step", 1),
        ("skipped", 0),
        ("search", 1),
        ("calibrated", 1),
        ("network", 0),
    ],
)
@pytest.mark.parametrize("is_frozen", [True, False])
def test_its_network_is_found_with_what_it_sees(fitted, name, steps, is_frozen):
    """Through pipelines, searches and calibration, with the pictures as the steps in front of it make them."""
    X, _, teachers = fitted
    teacher = FrozenEstimator(teachers[name]) if is_frozen else teachers[name]
    part = network_of(teacher)
    assert isinstance(part.estimator, PretrainedFeatureExtractor | FineTunedClassifier)
    expected = [X, np.sqrt(X), MinMaxScaler(clip=True).fit_transform(np.sqrt(X))][steps]
    np.testing.assert_allclose(part.reached_by(X), expected)


def test_no_network(rows):
    """A forest, an ensemble of networks, a pipeline without one: the error says what works with it all the same."""
    X, y = rows
    teachers = [
        RandomForestClassifier(2),
        make_pipeline(StandardScaler(), LogisticRegression()),
        VotingClassifier([(name, FineTunedClassifier(**QUICK)) for name in "ab"]),
    ]
    for teacher in teachers:
        with pytest.raises(
            ValueError, match=r"(?s)exactly one sktl network .*Got .* instead\. Use knowledge='response' or"
        ):
            network_of(teacher.fit(X, y))


def test_a_weights_file_that_was_written_again_is_another_teacher(rows, make, tmp_path):
    """A teacher that was fitted before is not remembered by the path of its weights, nor by their size and time."""
    path, params = tmp_path / "weights.safetensors", []
    teacher = FineTunedClassifier(weights=path, **QUICK)
    student = make(teacher, warm_start=True)
    for seed in (1, 2, 2):
        save_file(load_backbone("sktl_mini", weights=None, random_state=seed).module.state_dict(), path)
        os.utime(path, (10**9, 10**9))
        student.fit(*rows)
        params.append(student.teacher_.backbone_.fingerprint("layer4"))
    assert params[0] != params[1] == params[2]


def test_weights_files_are_found_wherever_they_are_named(tmp_path):
    """In lists and dicts of networks, and in estimators in estimators; other texts are passed over."""
    for name in "abc":
        (tmp_path / f"{name}.pt").write_bytes(name.encode())
    one, two, three = (PretrainedFeatureExtractor(weights=tmp_path / f"{name}.pt") for name in "abc")
    teacher = make_pipeline(BackboneSelector([one, {"x": two}]), FineTunedClassifier(three, weights="gone.pt"))
    found = _teacher._weights_files(GridSearchCV(teacher, {"backboneselector__layers": [-1]}))
    assert list(found) == [str(tmp_path / f"{name}.pt") for name in "abc"]
    assert len(set(found.values())) == 3
