"""What a network is trained on: rows that stay together, as they were given and as a loss wants them."""

import numpy as np
import pandas as pd
import pytest
import torch

from sktl._training._data import TrainingData, unit_mean
from sktl._training._soft_targets import SoftTargets


@pytest.fixture
def table(make_table):
    """Eight rows: pictures 0, 1, 2, 0, 1, 0, 3, 3 with labels 0, 1, 0, 0, 1, 2, 1, 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    return make_table(
        pixels[[0, 1, 2, 0, 1, 0, 3, 3]], [0, 1, 0, 0, 1, 2, 1, 1], np.arange(1.0, 9), np.arange(11.0, 19)
    )


def test_take_keeps_rows_together(table):
    """Pictures, targets and both weights of the positions asked for, in that order; of the same table as given."""
    taken = table.take(np.array([5, 2])).take(np.array([1, 0]))
    assert taken.images.positions.tolist() == [2, 5]
    assert (taken.y.tolist(), taken.weight.tolist(), taken.sample_weight.tolist()) == ([0, 2], [3, 6], [13, 16])
    assert taken.given is table.given


@pytest.mark.parametrize(
    "kind",
    [
        lambda X: X,
        list,
        lambda X: torch.tensor(X),
        lambda X: pd.DataFrame(X.reshape(len(X), -1)),
        lambda X: pd.Series(list(X), index=[f"row {i}" for i in range(len(X))]),
    ],
    ids=["array", "list", "tensor", "frame", "series"],
)
def test_rows_as_they_were_given(kind, make_table):
    """A view gives back what the user gave, of the same type and with what belongs to it, not what was decoded."""
    pixels = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
    X = kind(pixels)
    taken = make_table(X, [0, 1, 0, 1]).take(np.array([3, 1, 2]))
    given = taken.as_given()
    assert type(given) is type(X)
    for got, row in zip(list(given) if not hasattr(given, "iloc") else given.to_numpy(), [3, 1, 2], strict=True):
        np.testing.assert_array_equal(np.asarray(got).ravel(), pixels[row].ravel())
    assert len(taken.as_given(2)) == 2
    if hasattr(X, "iloc"):
        assert given.index.tolist() == X.index[[3, 1, 2]].tolist()


def test_a_view_has_its_groups_and_what_stands_beside(table):
    """Both go along with their rows, and where there are none there are none."""
    beside = np.array([f"row {i}".encode() for i in range(8)], dtype=object)
    assert table.take(np.array([6])).beside is None
    assert table.take(np.array([6])).groups is None
    table = table._replace(groups=np.arange(8) // 2, beside=beside)
    taken = table.take(np.array([6, 1]))
    assert taken.groups.tolist() == [3, 0]
    assert taken.beside.tolist() == [b"row 6", b"row 1"]


def test_weights_have_a_mean_of_one(table):
    """Over the rows that there are, in float32; scores are weighed by those of the rows alone, as they are."""
    rows = table.dataset(range(8), torch.zeros(8), {})
    assert rows.columns["weight"].dtype == torch.float32
    np.testing.assert_allclose(rows.columns["weight"], np.arange(1.0, 9) / 4.5, rtol=1e-6)
    np.testing.assert_array_equal(rows.columns["sample_weight"], np.arange(11.0, 19))
    np.testing.assert_allclose(unit_mean(np.array([1e-200, 3e-200])), [0.5, 1.5])


def test_an_objective_may_replace_columns(table):
    """What it knows of the rows joins the weights, and goes before them; targets are the given ones."""
    rows = table.dataset(range(8), torch.arange(8), {"weight": torch.ones(8), "extra": torch.zeros(8, 2)})
    assert sorted(rows.columns) == ["extra", "sample_weight", "weight"]
    assert rows.columns["weight"].tolist() == [1] * 8
    assert rows.y.tolist() == list(range(8))


def test_groups_of_some_rows(table):
    """Those of the positions asked for; nothing where there are none."""
    rows = table.dataset(range(8), torch.zeros(8), {})
    data = TrainingData(table._replace(groups=np.arange(8)), rows, None, 0, 0)
    assert data.groups_of(np.array([4, 2])).tolist() == [4, 2]
    assert data._replace(table=table).groups_of(np.array([4, 2])) is None


def test_answers_stand_beside_the_rows(table):
    """Each row has its logits, and weighs what it weighs without its class; what they are is said with them."""
    data = TrainingData(table, table.dataset(range(8), torch.zeros(8), {}), None, 0, 0)
    logits = np.arange(16, dtype=np.float32).reshape(8, 2)
    taught = data.with_answers(logits, SoftTargets(0.5, 2.0))
    assert taught.soft_targets == SoftTargets(0.5, 2.0)
    assert data.soft_targets is None
    np.testing.assert_array_equal(taught.rows.columns["soft_target"], logits)
    np.testing.assert_allclose(taught.rows.columns["soft_target_weight"], np.arange(11.0, 19) / 14.5, rtol=1e-6)
