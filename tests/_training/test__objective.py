"""What a network is to learn: losses, targets and where heads start, and what an objective need not say."""

import numpy as np
import pytest
import torch

from sktl._training._head_probe import classification_probe, regression_probe
from sktl._training._losses import ClassificationLoss, RegressionLoss
from sktl._training._objective import ClassificationObjective, Objective, RegressionObjective
from sktl.exceptions import InputError


@pytest.fixture
def features():
    """Five numbers of each digit, which say something of it."""
    return np.random.default_rng(0).normal(size=(64, 5))


def test_what_an_objective_need_not_say(tiny, digits, make_table):
    """Targets are the table's, no columns, no taps; there has to be a loss, and a probe where a head starts with it."""
    objective, table = Objective(4), make_table(*digits)
    assert objective.n_outputs == 4
    assert objective.targets(table).tolist() == digits[1].tolist()
    assert objective.columns(table) == {}
    assert objective.taps(tiny) is None
    with pytest.raises(NotImplementedError):
        objective.loss(tiny)
    with pytest.raises(
        InputError, match=r"fits the head to targets, but this estimator has none\. Use head_init='random'"
    ):
        objective.probe(np.ones((2, 3)), None, np.arange(2))


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_head_starts_with_what_some_rows_say(tiny, digits, features, make_table, make_data, kind):
    """The probe is fitted to the targets and weights of the rows that it is given the features of, and of no others."""
    X, y = digits
    weight = np.random.default_rng(1).uniform(1, 2, 30)
    positions = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    x, some = features[positions], weight[positions]
    if kind == "classes":
        objective, targets = ClassificationObjective(3, 0.0), y
        expected = classification_probe(x, y[positions], some, 3)
    else:
        objective, targets = RegressionObjective(1), X.mean((1, 2))[:, None].astype(np.float32)
        expected = regression_probe(x, targets[positions], some, (np.arange(30) // 3)[positions])
    table = make_table(X, targets, weight, groups=np.arange(30) // 3)
    probe = objective.probe(x, make_data(objective, tiny, 3, table), positions)
    np.testing.assert_array_equal(probe.weight, expected.weight)
    np.testing.assert_array_equal(probe.bias, expected.bias)


def test_losses_are_newly_made(tiny):
    """Cross-entropy with its smoothing, and squared error: one for each net, since a net trains its loss too."""
    objective = ClassificationObjective(3, 0.2)
    first, second = objective.loss(tiny), objective.loss(tiny)
    assert first is not second
    assert isinstance(first, ClassificationLoss)
    assert first.label_smoothing == 0.2
    assert isinstance(RegressionObjective(2).loss(tiny), RegressionLoss)
    assert float(RegressionObjective(2).loss(tiny).per_row(torch.ones(1, 2), torch.zeros(1, 2))) == 1
