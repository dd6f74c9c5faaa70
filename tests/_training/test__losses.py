"""Losses and scores, against a slow loop, torch and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score
from torch.nn import functional

from sktl._training._losses import ClassificationLoss, RegressionLoss, WeightedLoss


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def classes():
    """Logits, class numbers and weights of seven rows."""
    logits = 3 * torch.randn(7, 4, generator=generator())
    return logits, torch.tensor([0, 3, 1, 1, 2, 0, 3]), torch.tensor([1.0, 0.5, 2.0, 0.25, 1.0, 3.0, 0.1])


def slow_cross_entropy(logits, y, smoothing):
    """Of one row: minus the mean, over the smoothed target, of the log of the softmax."""
    exponentials = [math.exp(logit) for logit in logits]
    loss = 0.0
    for number, exponential in enumerate(exponentials):
        target = smoothing / len(logits) + (1 - smoothing) * (number == y)
        loss -= target * math.log(exponential / sum(exponentials))
    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_a_slow_loop(classes, smoothing):
    """Weight times cross-entropy, summed over the rows and divided by their number."""
    logits, y, weight = classes
    rows = [slow_cross_entropy(row, label, smoothing) for row, label in zip(logits.tolist(), y.tolist(), strict=True)]
    loss = ClassificationLoss(smoothing).train()
    np.testing.assert_allclose(loss.per_row(logits, y), rows, rtol=1e-5)
    expected = sum(w * row for w, row in zip(weight.tolist(), rows, strict=True)) / len(rows)
    assert float(loss(logits, y, {"weight": weight})) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_equals_scikit_learns(classes):
    """With weights of mean one it is scikit-learn's weighted log loss."""
    logits, y, weight = classes
    weight = weight / weight.mean()
    expected = log_loss(y, logits.double().softmax(1), sample_weight=weight)
    assert float(ClassificationLoss()(logits, y, {"weight": weight})) == pytest.approx(expected, rel=1e-5)


def test_smoothing_is_for_training_alone(classes):
    """Where the network is judged, the loss is the plain cross-entropy."""
    logits, y, _ = classes
    loss = ClassificationLoss(0.3)
    assert torch.equal(loss.eval().per_row(logits, y), functional.cross_entropy(logits, y, reduction="none"))
    assert (loss.train().per_row(logits, y) != loss.eval().per_row(logits, y)).all()


@pytest.mark.parametrize("kind", [ClassificationLoss, RegressionLoss])
def test_a_weight_of_two_is_a_row_twice(kind):
    """In a full batch, weights and repeated rows give the same loss and the same gradients."""
    x = torch.randn(4, 3, generator=generator())
    y = torch.tensor([0, 1, 2, 1]) if kind is ClassificationLoss else torch.randn(4, 3, generator=generator())
    repeats = torch.tensor([2, 1, 3, 1])
    weighted, repeated = (x.clone().requires_grad_() for _ in range(2))
    losses = [
        kind()(weighted, y, {"weight": repeats / repeats.float().mean()}),
        kind()(repeated.repeat_interleave(repeats, 0), y.repeat_interleave(repeats, 0), {"weight": torch.ones(7)}),
    ]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(weighted.grad, repeated.grad)


def test_batches_estimate_the_tables_loss(classes):
    """The mean over batches of equal size is the loss of the whole table, whatever weights come together."""
    logits, y, weight = (column[:6] for column in classes)
    weight = weight / weight.mean()
    loss = ClassificationLoss()
    parts = [loss(logits[i : i + 2], y[i : i + 2], {"weight": weight[i : i + 2]}) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, y, {"weight": weight}))


def test_squared_error_equals_a_slow_loop():
    """The mean over targets of the squared difference, weighted and divided by the rows."""
    outputs, y = torch.randn(2, 5, 3, generator=generator())
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.5])
    rows = [
        sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / 3
        for ours, theirs in zip(outputs.tolist(), y.tolist(), strict=True)
    ]
    np.testing.assert_allclose(RegressionLoss().per_row(outputs, y), rows, rtol=1e-5)
    expected = sum(w * row for w, row in zip(weight.tolist(), rows, strict=True)) / 5
    assert float(RegressionLoss()(outputs, y, {"weight": weight})) == pytest.approx(expected, rel=1e-5)


def test_scores_are_scikit_learns(classes):
    """Accuracy of the largest output, and R2 over the targets, with weights; both are plain numbers."""
    logits, y, weight = (column.numpy() for column in classes)
    score = ClassificationLoss().score(logits, y, weight)
    assert score == accuracy_score(y, logits.argmax(1), sample_weight=weight)
    assert 0 < score < 1
    assert type(score) is float
    targets = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    assert RegressionLoss().score(logits, targets, weight) == r2_score(targets, logits, sample_weight=weight)


def test_one_row_has_no_r2():
    """A single row has no variance to explain: the score is NaN, and nothing warns."""
    assert math.isnan(RegressionLoss().score(np.ones((1, 2)), np.ones((1, 2)), np.ones(1)))


def test_a_loss_without_a_score():
    """A loss of which no more is known than what a row costs: outputs are predictions, and less of it is better."""

    class Distance(WeightedLoss):
        def per_row(self, outputs, y):
            return (outputs - y).abs().sum(1)

    outputs, y, weight = np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([[1.0, 1.0], [3.0, 5.0]]), np.array([1.0, 3.0])
    assert Distance().predict(outputs) is outputs
    assert Distance().score(outputs, y, weight) == -(1 * 1 + 3 * 3) / 4
    assert np.isnan(Distance().score(outputs * np.nan, y, weight))
    assert not Distance().forget()
