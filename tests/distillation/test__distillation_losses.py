"""Losses of distillation, against slow loops, published programs, copies of rows, and bad input."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sktl.distillation import (
    _distillation_losses,
    attention_loss,
    attention_map,
    decoupled_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
    soft_target_loss,
)

RELATIONS = [relational_distance_loss, relational_angle_loss, similarity_loss]


def drawn(*shapes, seed=0, scale=1.0):
    """Tensors of normal numbers in double precision; NumPy's RandomState gives the same for ever."""
    random = np.random.RandomState(seed)
    return [torch.tensor(scale * random.standard_normal(shape)) for shape in shapes]


def softmax(logits):
    exponentials = [math.exp(logit) for logit in logits]
    return [exponential / sum(exponentials) for exponential in exponentials]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def huber(a, b):
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def slow_soft_target(student, teacher, temperature):
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    soft = [[softmax([logit / temperature for logit in logits]) for logits in row] for row in rows]
    return [temperature**2 * kl(theirs, ours) for ours, theirs in soft]


def slow_decoupled(student, teacher, target, temperature, beta):
    """The two distributions of each row written out from its probabilities."""
    losses = []
    for *row, k in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        ours, theirs = (softmax([logit / temperature for logit in logits]) for logits in row)
        tckd = kl([theirs[k], 1 - theirs[k]], [ours[k], 1 - ours[k]])
        others = [[p[j] / (1 - p[k]) for j in range(len(p)) if j != k] for p in (theirs, ours)]
        losses.append(temperature**2 * (tckd + beta * kl(*others)))
    return losses


def slow_attention(student, teacher):
    """Of activations (n, n_channels, height, width), with loops over rows, places and channels."""
    losses = []
    for ours, theirs in zip(student.numpy(), teacher.numpy(), strict=True):
        maps = []
        for activation in (ours, theirs):
            _, height, width = activation.shape
            places = [sum(x**2 for x in activation[:, i, j]) for i in range(height) for j in range(width)]
            norm = math.sqrt(sum(place**2 for place in places))
            maps.append([place / norm for place in places])
        losses.append(sum((a - b) ** 2 for a, b in zip(*maps, strict=True)) / len(maps[0]))
    return losses


def slow_distance(student, teacher):
    spaces = []
    for x in (student.numpy(), teacher.numpy()):
        distances = [[math.sqrt(sum((a - b) ** 2)) for b in x] for a in x]
        positive = [distance for row in distances for distance in row if distance > 0]
        mean = sum(positive) / len(positive)
        spaces.append([[distance / mean for distance in row] for row in distances])
    n = len(student)
    return [sum(huber(spaces[0][i][j], spaces[1][i][j]) for j in range(n)) / n for i in range(n)]


def cosine(x, i, j, k):
    a, b = x[j] - x[i], x[k] - x[i]
    norms = math.sqrt(sum(a**2)) * math.sqrt(sum(b**2))
    return sum(a * b) / norms if norms else 0.0


def slow_angle(student, teacher):
    n, ours, theirs = len(student), student.numpy(), teacher.numpy()
    pairs = [(j, k) for j in range(n) for k in range(n)]
    return [sum(huber(cosine(ours, i, j, k), cosine(theirs, i, j, k)) for j, k in pairs) / n**2 for i in range(n)]


def slow_similarity(student, teacher):
    spaces = []
    for x in (student.flatten(1).numpy(), teacher.flatten(1).numpy()):
        products = [[sum(a * b) for b in x] for a in x]
        spaces.append([[product / math.sqrt(sum(p**2 for p in row)) for product in row] for row in products])
    n = len(student)
    return [sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) / n for rows in zip(*spaces, strict=True)]


SLOW = {
    relational_distance_loss: slow_distance,
    relational_angle_loss: slow_angle,
    similarity_loss: slow_similarity,
}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_answers_equal_a_slow_loop(temperature):
    """Row by row: probabilities, divergences and their factors written out in plain Python."""
    student, teacher = drawn((6, 5), (6, 5), scale=3)
    target = torch.tensor([0, 4, 1, 2, 3, 3])
    ours = soft_target_loss(student, teacher, temperature)
    np.testing.assert_allclose(ours, slow_soft_target(student, teacher, temperature), rtol=1e-10)
    ours = decoupled_loss(student, teacher, target, temperature, beta=2.5)
    np.testing.assert_allclose(ours, slow_decoupled(student, teacher, target, temperature, 2.5), rtol=1e-10)


def test_features_equal_a_slow_loop():
    """Row by row: the mean squared difference, and maps of attention compared place by place."""
    student, teacher = drawn((3, 4, 2, 5), (3, 4, 2, 5))
    expected = [np.mean((a - b) ** 2) for a, b in zip(student.numpy(), teacher.numpy(), strict=True)]
    np.testing.assert_allclose(hint_loss(student, teacher), expected, rtol=1e-10)
    student, teacher = drawn((3, 4, 2, 5), (3, 7, 2, 5))
    ours = attention_loss(attention_map(student), attention_map(teacher))
    np.testing.assert_allclose(ours, slow_attention(student, teacher), rtol=1e-10)


@pytest.mark.parametrize("loss", RELATIONS)
@pytest.mark.parametrize("scale", [0.1, 1000.0])
def test_relations_equal_a_slow_loop(loss, scale):
    """Row by row: distances, angles and similarities between all rows, whatever the unit of either space."""
    (student,), (teacher,) = drawn((7, 3)), drawn((7, 5), seed=1, scale=scale)
    np.testing.assert_allclose(loss(student, teacher), SLOW[loss](student, teacher), rtol=1e-9)


def test_relations_of_equal_rows_equal_a_slow_loop():
    """Where rows are the same in one space, or in both, distances and angles are what the loops make of zeros."""
    student, teacher = drawn((6, 3), (6, 4))
    student[1] = student[0]
    student[3], teacher[3] = student[2], teacher[2]
    for loss in RELATIONS:
        np.testing.assert_allclose(loss(student, teacher), SLOW[loss](student, teacher), rtol=1e-9)


def test_places_are_in_row_major_order_wherever_the_channels_are():
    """Channels first, channels last and tokens of one activation have one map; without places it has one place."""
    (activation,) = drawn((2, 3, 4, 5))
    expected = activation.square().sum(1).reshape(2, 20)
    assert torch.equal(attention_map(activation), expected)
    torch.testing.assert_close(attention_map(activation.movedim(1, -1), channel_axis=-1), expected)
    torch.testing.assert_close(attention_map(activation.flatten(2).mT, channel_axis=2), expected)
    assert attention_map(activation[:, :, 0, 0]).shape == (2, 1)


# Printed by torchdistill 1.1.5 (KDLoss with alpha=1e-12, beta=1; ATLoss, mode "code"; RKDLoss with one factor at a
# time, reduction "mean"; SPKDLoss, "batchmean"), timm 1.0.31 (LogitDistillationTask, FeatureDistillationTask) and
# mdistiller at commit e8c5bb3 (dkd_loss with alpha=1, beta=8; similarity_loss of SP), in double precision.
def test_answers_equal_published_programs():
    """The mean over the rows is the loss of torchdistill, timm and the authors of DKD, T² included."""
    student, teacher = drawn((8, 10), (8, 10), scale=3)
    for temperature, torchdistill, timm, authors in (
        (1.0, 3.9751733426462454, 3.9751733426405815, 30.10399202412634),
        (4.0, 7.361841689442807, 7.361841689437144, 54.63390435333219),
    ):
        loss = float(soft_target_loss(student, teacher, temperature).mean())
        assert loss == pytest.approx(torchdistill, rel=1e-10)
        assert loss == pytest.approx(timm, rel=1e-10)
        assert float(decoupled_loss(student, teacher, torch.arange(8), temperature).mean()) == pytest.approx(authors)
    assert float(hint_loss(student, teacher).mean()) == pytest.approx(18.820094429746245, rel=1e-10)


def test_features_and_relations_equal_published_programs():
    """The mean over the rows is the loss of torchdistill and, for similarities, of mdistiller."""
    student, teacher = drawn((4, 3, 5, 5), (4, 7, 5, 5))
    loss = attention_loss(attention_map(student), attention_map(teacher))
    assert float(loss.mean()) == pytest.approx(0.021718599900661495, rel=1e-10)
    student, teacher = drawn((8, 5), (8, 9))
    assert float(relational_distance_loss(student, teacher).mean()) == pytest.approx(0.05738122400604996, rel=1e-10)
    assert float(relational_angle_loss(student, teacher).mean()) == pytest.approx(0.06657122913459729, rel=1e-10)
    student, teacher = drawn((8, 3, 2, 2), (8, 5, 4, 4))
    assert float(similarity_loss(student, teacher).mean()) == pytest.approx(0.06085992062147672, rel=1e-10)


def test_torchdistills_similarity_differs_by_its_norm():
    """Its SPKDLoss divides each row of scalar products by the 1-norm, where the paper's equation 2 has the 2-norm."""
    spaces = []
    for activation in drawn((8, 3, 2, 2), (8, 5, 4, 4)):
        flat = activation.flatten(1)
        products = flat @ flat.T
        spaces.append(products / products.abs().sum(1, keepdim=True))
    assert float((spaces[0] - spaces[1]).square().sum() / 8**2) == pytest.approx(0.02183632025427597, rel=1e-10)


def test_hintons_loss_is_made_of_the_two_decoupled_ones():
    """Equation 5 of the paper on DKD: TCKD + (1 - p) NCKD, with the teacher's probability of the target."""
    student, teacher = drawn((6, 5), (6, 5), scale=2)
    target, temperature = torch.tensor([0, 4, 1, 2, 3, 3]), 2.0
    tckd = decoupled_loss(student, teacher, target, temperature, beta=0.0)
    nckd = decoupled_loss(student, teacher, target, temperature, beta=1.0) - tckd
    p = (teacher / temperature).softmax(1)[torch.arange(6), target]
    torch.testing.assert_close(tckd + (1 - p) * nckd, soft_target_loss(student, teacher, temperature))


def test_two_classes_have_nothing_beside_the_target():
    """With two classes the second part is exactly 0, whatever its weight, and the first is Hinton's whole loss."""
    student, teacher = (x.float().requires_grad_() for x in drawn((6, 2), (6, 2), scale=3))
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    light, heavy = (decoupled_loss(student, teacher, target, 4.0, beta) for beta in (0.0, 1e6))
    assert torch.equal(light, heavy)
    torch.testing.assert_close(light, soft_target_loss(student, teacher, 4.0))
    gradients = [torch.autograd.grad(loss.sum(), student)[0] for loss in (light, heavy)]
    assert torch.equal(*gradients)
    assert (gradients[0] != 0).all()


@pytest.mark.parametrize("loss", [soft_target_loss, decoupled_loss])
def test_gradients_keep_their_size_over_temperatures(loss):
    """From T = 1 to 8 the gradient's norm stays within a factor of 2, where without T² it would fall fiftyfold."""
    student, teacher = drawn((64, 10), (64, 10))
    target = [] if loss is soft_target_loss else [torch.arange(64) % 10]
    student.requires_grad_()
    norms = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        (gradient,) = torch.autograd.grad(loss(student, teacher, *target, temperature).mean(), student)
        norms.append(float(gradient.norm()))
    assert max(norms) < 2 * min(norms)
    assert norms[-1] / 8**2 < norms[0] / 30


def test_high_temperatures_compare_centred_logits():
    """Hinton's limit: the gradient becomes the difference of the centred logits, divided by the number of classes."""
    student, teacher = drawn((5, 10), (5, 10))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_target_loss(student, teacher, 1e4).sum(), student)
    difference = (student - teacher).detach()
    torch.testing.assert_close(gradient, (difference - difference.mean(1, keepdim=True)) / 10, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", RELATIONS)
def test_a_weight_is_as_many_copies_of_the_row(loss):
    """Weights and repeated rows give one loss and one gradient, also where other rows are equal, and without a row."""
    student, teacher = (x.float() for x in drawn((6, 3), (6, 5)))
    student[4] = student[3]
    weight = torch.tensor([2, 1, 3, 1, 2, 0])
    weighted, repeated = student.clone().requires_grad_(), student.clone().requires_grad_()
    rows = loss(weighted, teacher, weight.float())
    copies = loss(repeated.repeat_interleave(weight, 0), teacher.repeat_interleave(weight, 0))
    torch.testing.assert_close(rows.repeat_interleave(weight), copies, rtol=1e-5, atol=1e-6)
    ours, theirs = (weight * rows).sum() / weight.sum(), copies.mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    ours.backward(), theirs.backward()
    torch.testing.assert_close(weighted.grad, repeated.grad, rtol=1e-4, atol=1e-6)
    assert weighted.grad.abs().max() > 1e-3
    assert (rows - loss(student, teacher)).abs().max() > 1e-3


@pytest.mark.parametrize("loss", RELATIONS)
def test_equal_weights_are_none(loss):
    """Weights of 1 are no weights, in any dtype; where all are 0 nothing is left, and nothing breaks."""
    student, teacher = (x.float() for x in drawn((6, 3), (6, 5)))
    torch.testing.assert_close(loss(student, teacher, torch.ones(6, dtype=torch.float64)), loss(student, teacher))
    assert torch.equal(loss(student, teacher, torch.zeros(6)), torch.zeros(6))


def test_large_batches_are_computed_in_parts(monkeypatch):
    """A few vertices at a time, and recomputed in the backward pass, the angles have the same losses and gradients."""
    student, teacher = drawn((7, 3), (7, 5))
    weight = torch.arange(1.0, 8.0)
    results = []
    for block in (_distillation_losses._ANGLES_TOGETHER, 3 * 7**2, 1):
        monkeypatch.setattr(_distillation_losses, "_ANGLES_TOGETHER", block)
        embeddings = student.clone().requires_grad_()
        loss = relational_angle_loss(embeddings, teacher, weight)
        results.append((loss.detach(), torch.autograd.grad(loss @ weight.double(), embeddings)[0]))
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


def test_angles_of_near_rows_far_from_the_origin():
    """In single precision the angles are right where rows are close to each other and far from 0."""
    student, teacher = (1000 + 0.01 * x.float() for x in drawn((8, 16), (8, 32)))
    expected = relational_angle_loss(student.double(), teacher.double())
    torch.testing.assert_close(relational_angle_loss(student, teacher).double(), expected, rtol=1e-5, atol=0)


def bad_logits():
    (plain,) = (x.float() for x in drawn((4, 3)))
    certain = 1e4 * torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1], [-1, -1, -1]])
    yield from ((plain, plain), (plain, certain), (certain, plain), (certain, -certain), (certain, certain))
    yield from ((certain[:1], plain[:1]), (certain[:, :2], -certain[:, :2]), (plain[:, :1], certain[:, :1]))


def bad_activations():
    student, teacher = (x.float() for x in drawn((4, 6), (4, 6)))
    equal, zeros = student[:1].repeat(4, 1), torch.zeros(4, 6)
    twins = student.clone()
    twins[1] = twins[0]
    same = [student, teacher, equal, zeros, twins, 1e4 * student, 1e-4 * student, student + 1e4]
    same += [scale * student for scale in (1e-18, 1e-22, 1e-30, 1e-40)]
    yield from ((a, b) for a in same for b in same)
    yield from ((a[:n], b[:n]) for n in (1, 2) for a in same for b in same)


def finite(loss, student, teacher, *arguments):
    """The gradients of both sides, once they and the loss are known to be finite and as many as the rows."""
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    rows = loss(student, teacher, *arguments)
    assert rows.shape == (len(student),)
    assert rows.isfinite().all()
    gradients = torch.autograd.grad(rows.sum(), (student, teacher))
    assert all(gradient.isfinite().all() for gradient in gradients)
    return gradients


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_certain_answers_stay_finite(temperature):
    """Logits of ±1e4, equal ones, one row, two classes and one: losses and gradients are numbers."""
    for student, teacher in bad_logits():
        finite(soft_target_loss, student, teacher, temperature)
        target = torch.arange(len(student)) % student.shape[1]
        finite(decoupled_loss, student, teacher, target, temperature)


@pytest.mark.parametrize(
    "loss", [hint_loss, attention_loss, *RELATIONS, lambda a, b: attention_loss(attention_map(a), attention_map(b))]
)
def test_degenerate_activations_stay_finite(loss):
    """Equal rows, zeros, one row or two, large, small and shifted ones: losses and gradients are numbers."""
    for student, teacher in bad_activations():
        finite(loss, student, teacher)
    for student, teacher in bad_activations():
        if loss in RELATIONS:
            finite(loss, student, teacher, torch.linspace(0, 2, len(student)))


@pytest.mark.parametrize("loss", RELATIONS)
def test_equal_rows_of_the_student_have_gentle_gradients(loss):
    """What the teacher tells apart and the student does not gives a gradient of ordinary size, or none."""
    student, teacher = (x.float() for x in drawn((6, 3), (6, 5)))
    usual = finite(loss, student, teacher)[0].abs().max()
    student[1] = student[0]
    assert finite(loss, student, teacher)[0].abs().max() < 3 * usual
    assert torch.equal(finite(loss, torch.zeros(6, 3), teacher)[0], torch.zeros(6, 3))


def test_maps_of_zeros_pass_no_gradient_on():
    """A map that is dark everywhere stays so; one of small numbers is as good as any, until their squares vanish."""
    student, teacher = (x.float().square() for x in drawn((3, 6), (3, 6)))
    zeros = torch.zeros(3, 6)
    assert torch.equal(finite(attention_loss, zeros, teacher)[0], zeros)
    assert torch.equal(attention_loss(1e-22 * student, teacher), attention_loss(zeros, teacher))
    torch.testing.assert_close(attention_loss(1e-16 * student, teacher), attention_loss(student, teacher))


def test_gradients_are_those_of_the_losses():
    """Finite differences agree with the gradients, in double precision."""
    student, teacher = (x.requires_grad_() for x in drawn((5, 4), (5, 4)))
    target, weight = torch.arange(5) % 4, torch.tensor([1.0, 2, 0.5, 1, 3])
    assert torch.autograd.gradcheck(lambda a, b: soft_target_loss(a, b, 3.0), (student, teacher))
    assert torch.autograd.gradcheck(lambda a, b: decoupled_loss(a, b, target, 3.0), (student, teacher))
    assert torch.autograd.gradcheck(hint_loss, (student, teacher))
    assert torch.autograd.gradcheck(attention_loss, (student, teacher))
    assert torch.autograd.gradcheck(attention_map, (student,))
    for loss in RELATIONS:
        assert torch.autograd.gradcheck(lambda a, b: loss(a, b, weight), (student, teacher))


@pytest.mark.parametrize("loss", [hint_loss, attention_loss])
def test_shapes_that_differ_are_an_error(loss):
    """Nothing is broadcast: maps of two resolutions are not compared."""
    with pytest.raises(ValueError, match=r"same shape\. Got \(2, 4\) and \(2, 1\) instead"):
        loss(torch.ones(2, 4), torch.ones(2, 1))


def test_answers_that_cannot_be_compared_are_errors():
    """Other classes, and a temperature that divides nothing, are named."""
    logits = torch.ones(2, 4)
    for loss, target in ((soft_target_loss, []), (decoupled_loss, [torch.tensor([0, 1])])):
        with pytest.raises(ValueError, match=r"Got \(2, 4\) and \(2, 3\) instead"):
            loss(logits, logits[:, :3], *target, 4.0)
        for temperature in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=f"must be greater than 0. Got {temperature} instead"):
                loss(logits, logits, *target, temperature)


@pytest.mark.parametrize("loss", RELATIONS)
def test_relations_are_between_the_same_rows(loss):
    """A teacher of other rows is an error that says how many there are."""
    with pytest.raises(ValueError, match=r"same number of rows\. Got 3 and 2 rows instead"):
        loss(torch.ones(3, 4), torch.ones(2, 4))


def test_torch_agrees_on_the_divergence():
    """Torch's own kl_div, summed over the classes, times T²."""
    student, teacher = drawn((6, 5), (6, 5), scale=3)
    logs = [(x / 4).log_softmax(1) for x in (student, teacher)]
    expected = 16 * functional.kl_div(*logs, reduction="batchmean", log_target=True)
    torch.testing.assert_close(soft_target_loss(student, teacher, 4.0).mean(), expected)
