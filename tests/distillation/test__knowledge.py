"""Kinds of knowledge: their weights, the pairs of layers, and the loss of a batch, against sums made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sktl.distillation import (
    attention_loss,
    attention_map,
    decoupled_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
    soft_target_loss,
)
from sktl.distillation._knowledge import ClassifierDistillationLoss, RegressorDistillationLoss, check_knowledge
from sktl.distillation._layers import LayerPair

KINDS = ("response", "feature")
SMALL = {"resize_size": 64, "crop_size": 64}


# --- which kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knowledge", "expected"),
    [
        ("response", {"response": 1.0}),
        ({"feature": 2}, {"feature": 2.0}),
        ({"response": 1, "feature": 0}, {"response": 1.0}),
        ({"response": np.float64(0.5), "feature": 0.25}, {"response": 0.5, "feature": 0.25}),
    ],
)
def test_kinds_and_their_weights(knowledge, expected):
    """A name is a weight of one, and what weighs nothing is not there."""
    assert check_knowledge(knowledge, KINDS) == expected


@pytest.mark.parametrize(
    "knowledge", ["relation", "", {"relation": 1}, {"response": -1}, {"response": np.nan}, {"response": np.inf}, ["x"]]
)
def test_kinds_that_are_not_understood(knowledge):
    """The error repeats what was given and says what there is."""
    with pytest.raises(
        ValueError, match=r"parameter must be one of \['response', 'feature'\], or a dict .*Got .* instead\.$"
    ):
        check_knowledge(knowledge, KINDS)


@pytest.mark.parametrize("knowledge", [{}, {"response": 0.0}])
def test_no_kind_at_all(knowledge):
    """Nothing of the teacher is alpha=0, and not an empty dict."""
    with pytest.raises(ValueError, match=r"must have at least one weight greater than 0\. Got \{.*\} instead\.$"):
        check_knowledge(knowledge, KINDS)


# --- the loss of a batch ---------------------------------------------------------------------------------------------

WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.5, 1.0])  # of the labels, with classes
TEACHER_WEIGHT = torch.tensor([1.0, 2.0, 0.5, 0.5, 1.0])
Y = torch.tensor([2, 0, -1, 1, -1])


def drawn(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def criterion(knowledge="response", *, alpha=0.7, pairs=(), student=None, **params):
    settings = {"label_smoothing": 0.0, "temperature": 3.0, "beta": 8.0, "class_weight": np.ones(3), **params}
    knowledge = check_knowledge(knowledge, ("response", "decoupled", "feature", "attention", "relation", "similarity"))
    return ClassifierDistillationLoss(knowledge, alpha=alpha, pairs=pairs, student=student, seed=0, **settings)


def cross_entropies(outputs, y):
    logs = outputs.log_softmax(1)
    return torch.stack([-logs[row, label] if label >= 0 else torch.tensor(0.0) for row, label in enumerate(y.tolist())])


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["response", "decoupled"])
def test_answers_and_labels(kind, alpha):
    """alpha * T² * KL and (1 - alpha) * CE, each with its weights; a row without a label has the first part only."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    batch = {"x": None, "teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    logs = [(x / 3.0).log_softmax(1) for x in (outputs, teacher)]
    said = 9 * functional.kl_div(*logs, reduction="none", log_target=True).sum(1)
    if kind == "decoupled":  # what has no label takes the teacher's word for it
        said = decoupled_loss(outputs, teacher, torch.where(Y >= 0, Y, teacher.argmax(1)), 3.0, 8.0)
    expected = (alpha * said * TEACHER_WEIGHT + (1 - alpha) * cross_entropies(outputs, Y) * WEIGHT).mean()
    torch.testing.assert_close(criterion(kind, alpha=alpha)((outputs, features), Y, batch), expected)


def test_label_smoothing_is_of_labels_alone():
    """It changes the labels' part while it learns, and not the teacher's, and nothing where it judges."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones}
    smooth = criterion(alpha=0.0, label_smoothing=0.3)
    labelled = functional.cross_entropy(outputs[Y >= 0], Y[Y >= 0], reduction="sum", label_smoothing=0.3) / 5
    torch.testing.assert_close(smooth((outputs, features), Y, batch), labelled)
    torch.testing.assert_close(smooth.eval()((outputs, features), Y, batch), cross_entropies(outputs, Y).mean())
    plain, smooth = (criterion(alpha=1.0, label_smoothing=share)((outputs, features), Y, batch) for share in (0, 0.3))
    assert torch.equal(plain, smooth)


def test_classes_that_weigh_more():
    """The teacher's probabilities are multiplied by the weights; a class of none is as good as never there."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones}
    weights = np.array([2.0, 0.5, 1.0])
    shifted = (teacher.softmax(1) * torch.tensor(weights).float()).log()
    expected = soft_target_loss(outputs, shifted, 1.0).mean()
    got = criterion(alpha=1.0, temperature=1.0, class_weight=weights)((outputs, features), Y, batch)
    torch.testing.assert_close(got, expected)
    never = criterion(alpha=1.0, temperature=1.0, class_weight=np.array([0.0, 1, 1]))((outputs, features), Y, batch)
    assert never.isfinite()
    two = (outputs[:, 1:].log_softmax(1), teacher[:, 1:].log_softmax(1))
    without = functional.kl_div(*two, reduction="batchmean", log_target=True)
    missing = -(1 - outputs.softmax(1)[:, 0]).log().mean()  # what the student gives to the class that is none
    torch.testing.assert_close(never, without + missing, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["relation", "similarity"])
def test_relations_between_rows(kind):
    """RKD's distances and twice its angles; similarities times the rows, so that the batch's size does not matter."""
    outputs, teacher, features, embedding = drawn((5, 3), (5, 3), (5, 7), (5, 9))
    batch = {"teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT, "embedding": embedding}
    if kind == "relation":
        parts = (relational_distance_loss, relational_angle_loss)
        distance, angle = (part(features, embedding, TEACHER_WEIGHT) for part in parts)
        said = distance + 2 * angle
    else:
        said = 5 * similarity_loss(features, embedding, TEACHER_WEIGHT)
    got = criterion(kind, alpha=1.0)((outputs, features), Y, batch)
    torch.testing.assert_close(got, (said * TEACHER_WEIGHT).mean())
    assert got > 1e-3


@pytest.fixture
def pairs():
    """Two pairs of layers, and a student whose second one has its channels last."""
    student = SimpleNamespace(channel_axis={"a": 1, "b": -1}.get, has_cls_token=lambda layer: False)
    return [LayerPair("A", "a", 6, 4, (3, 3)), LayerPair("B", "b", 5, 2, (1, 2))], student


def test_maps_of_layers(pairs):
    """Hints after a learned map at each place, attention summed over the places; the mean over the pairs of each."""
    pairs, student = pairs
    outputs, teacher, features, a, b = drawn((5, 3), (5, 3), (5, 7), (5, 4, 3, 3), (5, 1, 2, 2))
    hints = drawn((5, 6, 3, 3), (5, 5, 1, 2))
    looks = [x.square() for x in drawn((5, 9), (5, 2))]
    batch = {"teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    batch |= {f"feature{i}": x for i, x in enumerate(hints)} | {f"attention{i}": x for i, x in enumerate(looks)}
    loss = criterion({"feature": 0.5, "attention": 2.0}, alpha=0.4, pairs=pairs, student=student)
    assert [tuple(layer.weight.shape) for layer in loss.maps] == [(6, 4), (5, 2)]
    b_first = b.movedim(-1, 1)
    mapped = [
        torch.einsum("oc,nchw->nohw", layer.weight, x) + layer.bias[:, None, None]
        for layer, x in zip(loss.maps, (a, b_first), strict=True)
    ]
    hint = (hint_loss(mapped[0], hints[0]) + hint_loss(mapped[1], hints[1])) / 2
    look = (9 * attention_loss(attention_map(a), looks[0]) + 2 * attention_loss(attention_map(b_first), looks[1])) / 2
    labels = cross_entropies(outputs, Y) * WEIGHT
    expected = (0.4 * (0.5 * hint + 2 * look) * TEACHER_WEIGHT + 0.6 * labels).mean()
    torch.testing.assert_close(loss((outputs, features, a, b), Y, batch), expected)


def test_learned_maps(pairs):
    """They come from the seed alone, ask for gradients, belong to hints only, and are gone when training has ended."""
    pairs, student = pairs
    before = torch.get_rng_state()
    first, again = (criterion("feature", pairs=pairs, student=student) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(first.parameters(), again.parameters(), strict=True))
    assert len(list(first.parameters())) == 4
    assert all(parameter.requires_grad for parameter in first.parameters())
    assert not list(criterion("attention", pairs=pairs, student=student).parameters())
    first.forget()
    assert not list(first.parameters())


def test_a_weight_of_none_costs_nothing():
    """Kinds are weighed against each other: twice the weights is twice the teacher's part."""
    outputs, teacher, features, embedding = drawn((5, 3), (5, 3), (5, 7), (5, 9))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones, "embedding": embedding}
    single = [criterion(kind, alpha=1.0)((outputs, features), Y, batch) for kind in ("response", "relation")]
    both = criterion({"response": 0.5, "relation": 3.0}, alpha=1.0)((outputs, features), Y, batch)
    torch.testing.assert_close(both, 0.5 * single[0] + 3 * single[1])
    none = criterion({"response": 1.0, "relation": 0.0}, alpha=1.0)((outputs, features), Y, batch)
    assert torch.equal(none, single[0])


def test_gradients_reach_the_student_and_not_the_teacher(pairs):
    """Of all kinds at once, what the student gave gets gradients, all finite; what the teacher gave gets none."""
    pairs, student = pairs
    given = drawn((5, 3), (5, 7), (5, 4, 3, 3), (5, 1, 2, 2))
    given = [x.requires_grad_() for x in given]
    teacher = drawn((5, 3), (5, 9), (5, 6, 3, 3), (5, 5, 1, 2), (5, 9), (5, 2))
    names = ["teacher", "embedding", "feature0", "feature1", "attention0", "attention1"]
    batch = dict(zip(names, teacher, strict=True)) | {"teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    kinds = ("response", "decoupled", "feature", "attention", "relation", "similarity")
    loss = criterion(dict.fromkeys(kinds, 1.0), pairs=pairs, student=student)
    loss(tuple(given), Y, batch).backward()
    for x in (*given, *loss.parameters()):
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 1e-6
    assert all(x.grad is None for x in teacher)


def test_scores_are_of_labelled_rows():
    """Accuracy and R² with the rows' weights, where something is known; NaN where nothing is."""
    outputs = np.eye(3, dtype=np.float32)
    score = criterion().score
    assert score(outputs, np.array([0, 2, -1]), np.array([3.0, 1.0, 9.0])) == 0.75
    assert np.isnan(score(outputs, np.full(3, -1), np.ones(3)))
    assert criterion().predict(outputs).tolist() == [0, 1, 2]
    regression = RegressorDistillationLoss({"response": 1.0}, alpha=0.5, pairs=(), student=None, seed=0)
    y = np.array([[1.0], [2.0], [np.nan], [3.0]])
    outputs = np.array([[1.0], [2.5], [9.0], [3.0]])
    assert regression.score(outputs, y, np.ones(4)) == pytest.approx(1 - 0.25 / 2)
    assert np.isnan(regression.score(outputs, np.full((4, 1), np.nan), np.ones(4)))


def test_numbers_that_are_missing():
    """A target that is NaN adds nothing and gives no gradient; the others and the teacher's part keep their share."""
    outputs, teacher, features = drawn((4, 2), (4, 2), (4, 7))
    outputs.requires_grad_()
    y = torch.tensor([[1.0, 2.0], [float("nan"), 1.0], [float("nan"), float("nan")], [0.0, 1.0]])
    weight, teacher_weight = torch.tensor([1.0, 2, 3, 1]), torch.tensor([1.0, 1, 2, 1])
    batch = {"teacher": teacher, "teacher_weight": teacher_weight, "weight": weight}
    loss = RegressorDistillationLoss({"response": 1.0}, alpha=0.25, pairs=(), student=None, seed=0)
    rows = []
    for row in range(4):
        known = ~torch.isnan(y[row])
        labels = (outputs[row, known] - y[row, known]).square().sum() / 2
        said = (outputs[row] - teacher[row]).square().mean()
        rows.append(0.25 * said * teacher_weight[row] + 0.75 * labels * weight[row])
    got = loss((outputs, features), y, batch)
    torch.testing.assert_close(got, torch.stack(rows).mean())
    got.backward()
    assert outputs.grad.isfinite().all()


def test_the_loss_is_a_module_of_its_device():
    """What it holds beside the maps moves with it and is no parameter that an optimizer would find."""
    loss = criterion()
    assert isinstance(loss, nn.Module)
    assert not list(loss.parameters())
    assert {tensor.device.type for tensor in loss.to("meta").buffers()} <= {"meta"}
