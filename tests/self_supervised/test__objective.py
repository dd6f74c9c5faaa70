"""Views as rows, the network that takes them, heads and losses."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sktl._frozen._activations import GivenActivations
from sktl._training._rest_network import RestNetwork
from sktl._training._settings import TrainingSettings
from sktl.exceptions import InputError
from sktl.self_supervised import nt_xent_loss, vicreg_loss
from sktl.self_supervised._objective import (
    RotationLoss,
    RotationObjective,
    TwoViewLoss,
    TwoViewObjective,
    ViewNetwork,
    ViewsOfImages,
    is_projector,
)

SETTINGS = TrainingSettings()


@pytest.fixture
def views():
    """Four images with three views each, as uint8."""
    return torch.randint(0, 256, (4, 3, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_views_of_images():
    """Batches that begin with all first views become rows with the views of one image each."""

    class Numbered(GivenActivations):
        def batch(self, positions, epoch):
            return torch.cat([100 * view + torch.as_tensor(positions) for view in range(3)])

    rows = ViewsOfImages(Numbered(torch.zeros(10)), 3)
    assert len(rows) == 10
    assert rows.batch([4, 2], 0).tolist() == [[4, 104, 204], [2, 102, 202]]


def test_network_of_views(tiny, views):
    """In eval mode each view has the outputs that it has alone, in its place."""
    head = nn.Linear(8, 5)
    network, alone = ViewNetwork(tiny, 0, head).eval(), RestNetwork(tiny, 0, head).eval()
    outputs = network(views)
    assert outputs.shape == (4, 3, 5)
    for view in range(3):
        torch.testing.assert_close(outputs[:, view], alone(views[:, view]))
    torch.testing.assert_close(network.features(views[:, 0]), alone.features(views[:, 0]))


def test_projector():
    """Its layers have the widths, its seed decides its weights, and it ends with a linear layer."""
    objective = TwoViewObjective(vicreg_loss, (16, 6, 4))
    head = objective.head(8, SETTINGS, seed=0)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    assert [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)] == [(16, 8), (6, 16), (4, 6)]
    again, other = (objective.head(8, SETTINGS, seed=seed) for seed in (0, 1))
    assert torch.equal(head[0].weight, again[0].weight)
    assert not torch.equal(head[0].weight, other[0].weight)
    assert len(TwoViewObjective(vicreg_loss, (4,)).head(8, SETTINGS, seed=0)) == 1


def test_projector_of_the_user():
    """It is copied and keeps its mode; one that does not fit is refused with what it gave."""
    given = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3))
    head = TwoViewObjective(vicreg_loss, given).head(8, SETTINGS, seed=0)
    assert head is not given
    assert torch.equal(head[0].weight, given[0].weight)
    assert head.training
    assert given.training
    with pytest.raises(InputError, match=r"projector=Linear fails on features of shape \(n, 8\)"):
        TwoViewObjective(vicreg_loss, nn.Linear(9, 3)).head(8, SETTINGS, seed=0)
    with pytest.raises(InputError, match=r"Got \(2, 4, 2\) instead"):
        TwoViewObjective(vicreg_loss, nn.Unflatten(1, (4, 2))).head(8, SETTINGS, seed=0)


def test_a_head_belongs_to_its_task():
    """A warm start continues the head of the same kind, and begins another one for another task."""
    two, turns = TwoViewObjective(vicreg_loss, (6, 4)), RotationObjective()
    projector, rotation = (objective.head(8, SETTINGS, seed=0) for objective in (two, turns))
    assert torch.equal(two.head(8, SETTINGS, 1, projector)[0].weight, projector[0].weight)
    assert torch.equal(turns.head(8, SETTINGS, 1, rotation)[0].weight, rotation[0].weight)
    assert [len(two.head(8, SETTINGS, 1, rotation)), len(turns.head(8, SETTINGS, 1, projector))] == [4, 1]


@pytest.mark.parametrize("value", [(), "512", 512, (0,), (1.5,), (512, "a"), None])
def test_no_projector(value):
    """Only modules and sequences of positive widths are projectors."""
    assert not is_projector(value)
    assert is_projector([np.int64(3)])
    assert is_projector(nn.Identity())


def test_loss_of_two_views():
    """The task gets the first and the second views, with its own parameters; weights do not matter."""
    outputs = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    loss = TwoViewLoss(partial(nt_xent_loss, temperature=0.2))
    batch = {"weight": torch.arange(5.0)}
    expected = nt_xent_loss(outputs[:, 0], outputs[:, 1], temperature=0.2)
    assert loss(outputs, torch.zeros(5), batch) == expected
    assert loss.score(outputs.numpy(), np.zeros(5), np.ones(5)) == pytest.approx(-expected.item())


@pytest.mark.parametrize(
    ("task", "came"),
    [(lambda a, b: (a - b).square(), r"a tensor of shape \(5, 3\)"), (lambda a, b: 1.0, "float")],
    ids=["rows", "number"],
)
def test_a_loss_that_is_no_number(task, came):
    """A callable that returns something else is refused with what it returned."""
    with pytest.raises(InputError, match=f"A callable 'task' must .* Got {came} instead"):
        TwoViewLoss(task)(torch.zeros(5, 2, 3), torch.zeros(5), {})


def test_a_learned_loss_is_copied():
    """A module as the task is not changed by training."""
    module = nn.Bilinear(3, 3, 1)
    assert next(TwoViewLoss(module).parameters()) is not module.weight


def test_loss_of_rotations():
    """It is the mean cross-entropy of the four orientations: log 4 without knowledge, 0 with all of it."""
    assert RotationLoss()(torch.zeros(3, 4, 4), torch.zeros(3), {}).item() == pytest.approx(math.log(4))
    assert RotationLoss()(100 * torch.eye(4).expand(3, 4, 4), torch.zeros(3), {}).item() == pytest.approx(0)
    outputs = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    slow = [-outputs[i, k].log_softmax(0)[k].item() for i in range(2) for k in range(4)]
    assert RotationLoss()(outputs, torch.zeros(2), {}).item() == pytest.approx(np.mean(slow))
