"""A small network and small tables to train it on, for the tests of the engine's training."""

import pytest
import torch

from sktl._training._dataset import RowDataset
from sktl._training._losses import ClassificationLoss
from sktl._training._rest_network import RestNetwork, make_head
from sktl._training._skorch_net import TransferNet
from sktl.backbones import Backbone


class Table:
    """Activations of given numbers, which remember the epochs that they were asked for in."""

    def __init__(self, values: torch.Tensor):
        self.values = values
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, positions, epoch: int) -> torch.Tensor:
        self.epochs.append(epoch)
        return self.values[torch.as_tensor(positions)]


@pytest.fixture
def make_rows():
    """Makes a table of random activations behind ``depth`` stages, whose two classes a network can tell apart."""

    def make(
        backbone: Backbone, depth: int, n: int = 22, *, seed: int = 0, weight=None, sample_weight=None
    ) -> RowDataset:
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(n) % 2
        stages = backbone.stages
        shape = stages[depth - 1].output_shape if 0 < depth < len(stages) else (stages[-1].output_shape[0],)
        if depth == 0:
            shape = (*backbone.preprocessing.crop_shape, backbone.in_channels)
        x = torch.rand(n, *shape, generator=generator) + 0.3 * y.reshape(-1, *[1] * len(shape))
        if depth == 0:
            x = (200 * x.clamp(max=1.2)).to(torch.uint8)
        weight = torch.ones(n) if weight is None else torch.as_tensor(weight).float()
        sample_weight = weight if sample_weight is None else torch.as_tensor(sample_weight).double()
        return RowDataset(Table(x), y, weight=weight / weight.mean(), sample_weight=sample_weight)

    return make


@pytest.fixture
def make_net():
    """Makes a net of the small network with a new head, which says nothing and has batches of eight."""

    def make(backbone: Backbone, depth: int, *, head="linear", criterion=None, dropout=0.0, freeze_bn=True, **params):
        n_features = backbone.stages[-1].output_shape[0]
        head = make_head(head, n_features, 2, dropout=dropout, generator_seed=0)
        network = RestNetwork(backbone, depth, head, freeze_bn=freeze_bn)
        params = {"lr": 0.01, "batch_size": 8, "callbacks__print_log": None, **params}
        return TransferNet(network, criterion or ClassificationLoss(), **params).initialize()

    return make
