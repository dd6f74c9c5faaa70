"""What a student is to learn: the columns of each row, what its loss is made of, and where its head starts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge

from sktl._training._head_probe import classification_probe, regression_probe
from sktl.backbones import load_backbone
from sktl.distillation._distillation_objective import ClassifierDistillation, RegressorDistillation
from sktl.distillation._partial_targets import PartlyKnownNumbers, PartlyLabeledClasses
from sktl.exceptions import InputError

ANSWERS = {"response": 1.0}


@pytest.fixture
def classifier(rows, make_table):
    """Makes an objective of classes and its table: thirty digits, of which the last ten have no label."""

    def make(teacher=None, knowledge=ANSWERS, *, depth=0, y=None, alpha=0.5, class_weight=None):
        X, labels = rows
        teacher = teacher or LogisticRegression(C=0.1).fit(X, labels)
        given = np.where(np.arange(30) < 20, labels, -1) if y is None else y
        owner = SimpleNamespace(
            **{"teacher": FrozenEstimator(teacher), "teacher_": teacher, "alpha": alpha, "cache": None},
            **{
                "knowledge": knowledge,
                "layers": [("layer4", "layer4")],
                "backbone_": load_backbone("sktl_mini"),
                "unlabeled": -1,
            },
            **{"class_weight": class_weight, "label_smoothing": 0.1, "temperature": 3.0, "beta": 2.0},
        )
        coding = PartlyLabeledClasses(owner, None, None)
        weight = np.linspace(1, 2, 30)
        index, factor = coding.encode(given, weight, learns=True)
        table = make_table(X, index, weight * factor, weight)
        return ClassifierDistillation(owner, coding, knowledge, table, depth, 0), table

    return make


@pytest.fixture
def regressor(rows, make_table):
    """Makes an objective of numbers and its table; some of the targets are not known."""

    def make(teacher, y, alpha=0.5):
        X, _ = rows
        owner = SimpleNamespace(
            **{"teacher": FrozenEstimator(teacher), "teacher_": teacher, "alpha": alpha, "cache": None},
            **{"knowledge": "response", "layers": "auto", "backbone_": load_backbone("sktl_mini"), "unlabeled": np.nan},
        )
        coding = PartlyKnownNumbers(owner, None)
        encoded, _ = coding.encode(y, np.ones(30), learns=True)
        table = make_table(X, encoded)
        return RegressorDistillation(owner, coding, ANSWERS, table, 0, 0), table

    return make


def test_columns_of_answers(rows, classifier):
    """The teacher's logits, its weights with a mean of one, and the labels' with one over the rows that have some."""
    objective, table = classifier(class_weight={0: 4.0})
    columns = objective.columns(table)
    assert sorted(columns) == ["teacher", "teacher_weight", "weight"]
    log = objective.teacher.predict_log_proba(rows[0])
    torch.testing.assert_close(columns["teacher"].log_softmax(1), torch.from_numpy(log).float(), rtol=1e-3, atol=1e-4)
    own = np.linspace(1, 2, 30)
    np.testing.assert_allclose(columns["teacher_weight"], own / own.mean(), rtol=1e-6)
    known = table.y >= 0
    np.testing.assert_allclose((columns["weight"].numpy() * known).mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(columns["weight"] / columns["weight"][0], table.weight / table.weight[0], rtol=1e-5)


def test_without_any_label_there_is_no_weight_of_labels(classifier):
    """The one that every table has stays, and nothing is divided by nothing."""
    objective, table = classifier(y=np.full(30, -1))
    assert sorted(objective.columns(table)) == ["teacher", "teacher_weight"]
    np.testing.assert_array_equal(objective.class_weight, np.ones(3))


def test_answers_are_in_the_order_of_the_labels(rows, classifier):
    """And of the same classes, or it is an error; rows to evaluate on are asked about in the same way."""
    X, y = rows
    turned = LogisticRegression(C=0.1).fit(X, 2 - y)
    turned.classes_ = 2 - turned.classes_  # the same labels, from the last to the first
    straight, other = classifier()[0], classifier(turned)[0]
    assert straight.kind == other.kind
    table = classifier()[1].take(np.array([3, 1]))
    assert (straight.answers(table).argmax(1) == other.answers(table).argmax(1)).all()
    with pytest.raises(InputError, match=r"different classes: missing from the teacher: \[2\]; not in y: \[\]\."):
        classifier(LogisticRegression().fit(X[y < 2], y[y < 2]))


def test_layers_are_looked_into_where_knowledge_is_of_them(classifier, network, tiny):
    """Only then there are taps and columns of layers; those of relations need no taps."""
    objective, table = classifier()
    assert objective.taps(load_backbone("sktl_mini")) == []
    few = table.take(np.arange(4))
    found = classifier(network.estimator, {"feature": 1.0, "response": 0.5})[0]
    assert found.taps(load_backbone("sktl_mini")) == ["layer4"]
    assert "feature0" in found.columns(few)
    related = classifier(network.estimator, {"relation": 1.0})[0]
    assert related.taps(load_backbone("sktl_mini")) == []
    assert sorted(set(related.columns(few)) - {"weight"}) == ["embedding", "teacher", "teacher_weight"]


def test_what_the_loss_is_made_of(classifier, network):
    """Shares, knowledge and pairs of this objective, the words of its owner, and maps of its seed."""
    objective, _ = classifier(network.estimator, {"feature": 1.0, "response": 0.5}, alpha=0.25, class_weight={1: 2.0})
    backbone = load_backbone("sktl_mini")
    loss, again = objective.loss(backbone), objective.loss(backbone)
    assert (loss.alpha, loss.knowledge) == (0.25, {"feature": 1.0, "response": 0.5})
    assert (loss.temperature, loss.beta, loss.labels.label_smoothing) == (3.0, 2.0, 0.1)
    (first,), (second,) = loss.maps, again.maps
    assert first is not second
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_head_starts_with_labels_or_answers(classifier, make_data, alpha):
    """Rows without a label, or all if labels are not to be looked at, count as what the teacher says."""
    objective, table = classifier(alpha=alpha, class_weight={0: 2.0})
    backbone = load_backbone("sktl_mini")
    data = make_data(objective, backbone, 5, table)
    features, positions = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30)[::-1]
    log_weight = np.log(objective.class_weight)
    taught = (data.rows.columns["teacher"].numpy() + log_weight).argmax(1)
    own = (table.y >= 0) & (alpha < 1)
    y = np.where(own, table.y, taught)
    weight = np.where(own, table.weight, table.sample_weight * objective.class_weight[y])
    expected = classification_probe(features, y[positions], weight[positions], 3)
    np.testing.assert_array_equal(objective.probe(features, data, positions).weight, expected.weight)
    assert objective.agreement(np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 0, 1]]) == 0.5


def test_numbers_of_a_teacher_are_in_the_units_of_targets(rows, regressor, make_data):
    """Its predictions are standardized as they are; what is not known begins with them."""
    X, y = rows
    teacher, targets = Ridge().fit(X, 10.0 * y + 5), np.where(np.arange(30) < 12, 10.0 * y + 5, np.nan)
    objective, table = regressor(teacher, targets)
    expected = (teacher.predict(X) - np.nanmean(targets)) / np.nanstd(targets)
    np.testing.assert_allclose(objective.answers(table)[:, 0], expected, rtol=1e-6)
    data, features = (
        make_data(objective, load_backbone("sktl_mini"), 5, table),
        np.random.default_rng(0).normal(size=(30, 4)),
    )
    known = np.where(np.isnan(table.y), data.rows.columns["teacher"].numpy(), table.y)
    for alpha, start in ((0.5, known), (1, data.rows.columns["teacher"].numpy())):
        objective.alpha = alpha
        probe = regression_probe(features, start, table.weight, None)
        np.testing.assert_array_equal(objective.probe(features, data, np.arange(30)).weight, probe.weight)
    assert objective.agreement(np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]])) == 1
    assert np.isnan(objective.agreement(np.ones((1, 1)), np.ones((1, 1))))


@pytest.mark.parametrize("n_targets", [1, 2])
def test_without_targets_the_teachers_answers_give_units_and_shape(rows, regressor, n_targets):
    """As many outputs as it predicts, of mean zero; a vector stays one."""
    X, y = rows
    objective, table = regressor(Ridge().fit(X, np.c_[y, 100 * y][:, :n_targets]), np.full(30, np.nan))
    assert objective.n_outputs == objective.coding.n_outputs == n_targets
    assert objective.coding.is_flat == (n_targets == 1)
    np.testing.assert_allclose(objective.answers(table).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(objective.answers(table).std(0), 1, rtol=1e-6)


def test_another_number_of_targets(rows, regressor):
    """The error has both."""
    X, y = rows
    objective, table = regressor(Ridge().fit(X, np.c_[y, y]), y.astype(float))
    with pytest.raises(
        InputError, match=r"The teacher predicts 2 targets, but y has 1\. Fit the teacher to the same targets\.$"
    ):
        objective.columns(table)
