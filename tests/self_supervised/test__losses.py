"""Losses of two views against the papers' formulas, written out as loops."""

import copy
import math

import pytest
import torch

from sktl.exceptions import InputError
from sktl.self_supervised import nt_xent_loss, vicreg_loss

LOSSES = {"vicreg": vicreg_loss, "nt_xent": nt_xent_loss}


@pytest.fixture
def views():
    """Two views of six images, with five features, in float64."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return first, first + 0.5 * torch.randn(6, 5, generator=generator, dtype=torch.float64)


def slow_vicreg(first, second, weights=(25, 25, 1)):
    n, d = first.shape
    invariance = sum(
        (a - b) ** 2 for x, y in zip(first.tolist(), second.tolist(), strict=True) for a, b in zip(x, y, strict=True)
    )
    total = weights[0] * invariance / (n * d)
    for view in (first.tolist(), second.tolist()):
        mean = [sum(row[j] for row in view) / n for j in range(d)]
        for j in range(d):
            for k in range(d):
                linked = sum((row[j] - mean[j]) * (row[k] - mean[k]) for row in view) / (n - 1)
                if j == k:
                    total += weights[1] * max(0.0, 1 - math.sqrt(linked + 1e-4)) / d / 2
                else:
                    total += weights[2] * linked**2 / d
    return total


def slow_nt_xent(first, second, temperature):
    n, rows = len(first), [*first.tolist(), *second.tolist()]

    def similarity(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) / temperature

    total = 0.0
    for i, row in enumerate(rows):
        others = sum(math.exp(similarity(row, other)) for j, other in enumerate(rows) if j != i)
        total -= math.log(math.exp(similarity(row, rows[(i + n) % (2 * n)])) / others)
    return total / (2 * n)


def test_vicreg_is_its_formula(views):
    """The three terms of equations 1 to 6, element by element, and each weight times its own term."""
    assert vicreg_loss(*views).item() == pytest.approx(slow_vicreg(*views))
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 5, 7)]:
        names = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
        assert vicreg_loss(*views, **names).item() == pytest.approx(slow_vicreg(*views, weights))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_its_formula(views, temperature):
    """Algorithm 1 of the paper: each of the 2n views finds the other one among all but itself."""
    assert nt_xent_loss(*views, temperature=temperature).item() == pytest.approx(slow_nt_xent(*views, temperature))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(views, name):
    """The gradient is that of finite differences, and finite where all rows are equal or zero."""
    first, second = (view.requires_grad_() for view in views)
    assert torch.autograd.gradcheck(LOSSES[name], (first, second))
    for value in (0.0, 1.0):
        same = torch.full((4, 3), value, requires_grad=True)
        LOSSES[name](same, copy.deepcopy(same)).backward()
        assert same.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_views_may_be_exchanged(views, name):
    """Neither the order of the two views nor that of the images matters."""
    loss, order = LOSSES[name](*views).item(), torch.tensor([3, 1, 5, 0, 4, 2])
    assert LOSSES[name](views[1], views[0]).item() == pytest.approx(loss)
    assert LOSSES[name](views[0][order], views[1][order]).item() == pytest.approx(loss)


def test_what_is_low():
    """VICReg prefers spread to a collapse, and both prefer right pairs to wrong ones."""
    spread = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for loss in LOSSES.values():
        assert loss(spread, spread) < loss(spread, spread.roll(1, 0))
    assert vicreg_loss(spread, spread) < vicreg_loss(spread * 0, spread * 0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "shapes", [((2, 3), (3, 3)), ((1, 3), (1, 3)), ((4,), (4,))], ids=["different", "one row", "flat"]
)
def test_bad_views(name, shapes):
    """Views of other shapes, or of a single image, are refused with their shapes."""
    with pytest.raises(InputError, match=r"at least two rows.* Got \(\d"):
        LOSSES[name](*map(torch.zeros, shapes))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_bad_temperature(views, temperature):
    """Only positive temperatures have a meaning."""
    with pytest.raises(InputError, match=r"must be greater than 0\. Got"):
        nt_xent_loss(*views, temperature=temperature)
