"""A network of three convolutions, a table that it learns in no time, and what can be seen of frozen stages."""

import copy
from collections import OrderedDict

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sktl import FineTunedClassifier
from sktl._training._dataset import RowDataset
from sktl.compression import LotteryTicketClassifier, PrunedClassifier


def make_small() -> nn.Module:
    """Three stages of a convolution with a batch norm each, and a dropout in the last one; of torch's own classes.

    So other processes can unpickle it.
    """
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    layer1 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU())
    layer2 = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2))
    parts = {"stem": stem, "layer1": layer1, "layer2": layer2, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict({**parts, "fc": nn.Linear(16, 10)}))


@pytest.fixture(scope="session")
def backbone():
    """The network, which has learnt digits; it is shared by all tests, which do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make_small()
    X, y = load_digits(return_X_y=True)
    settings = {"freeze_depth": 0, "freeze_bn": False, "max_epochs": 8, "lr": 0.02, "random_state": 0}
    size = {"resize_size": 16, "crop_size": 16}
    return FineTunedClassifier(module, preprocessing=size, **settings).fit(X[40:440] / 16, y[40:440]).backbone_


@pytest.fixture
def small(backbone):
    """The same as an nn.Module, a copy."""
    return copy.deepcopy(backbone.module)


@pytest.fixture(scope="session")
def table():
    """Forty digits of three kinds as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:40] / 16, y[:40]


@pytest.fixture(scope="session")
def make(backbone):
    """Makes a classifier with the small network whose first stage is frozen."""
    settings = {"freeze_depth": 1, "max_epochs": 2, "lr": 0.01, "batch_size": 8, "random_state": 0}
    return lambda **params: FineTunedClassifier(**{"backbone": backbone, **settings, **params})


@pytest.fixture(scope="session")
def fitted(make, table):
    """A fitted classifier, which nothing may change."""
    return make().fit(*table)


class Numbers:
    """Activations that are given."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def batch(self, positions, epoch):
        return self.values[torch.as_tensor(positions)]


@pytest.fixture(scope="session")
def as_rows():
    """Makes rows of pictures, their classes and their weights; the pictures are ``rows.activations.values``."""

    def make_rows(x, y, weight=None):
        weight = torch.ones(len(y)) if weight is None else weight
        return RowDataset(Numbers(x), y, weight=weight / weight.mean(), sample_weight=weight.double())

    return make_rows


@pytest.fixture(scope="session")
def make_rows(as_rows):
    """Makes rows of random pictures in two classes."""

    def make(n, seed=0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 256, (n, 16, 16, 3), dtype=torch.uint8, generator=generator)
        return as_rows(x, torch.arange(n) % 2)

    return make


@pytest.fixture
def zeros():
    """Gives where the weights are zero, by the path of the layer, of a fitted compressor or classifier."""
    from sktl.compression._compressed import compressible

    def find(model):
        model = getattr(model, "estimator_", model)
        return {path: (layer.weight == 0).numpy() for path, layer in compressible(model.net_.module_).items()}

    return find


@pytest.fixture
def state():
    """Gives all tensors of the rest of a fitted compressor or classifier, as arrays."""

    def tensors(model):
        model = getattr(model, "estimator_", model)
        return {name: tensor.numpy().copy() for name, tensor in model.net_.module_.state_dict().items()}

    return tensors


@pytest.fixture
def prune(make):
    """Makes a compressor around a classifier, or what is given, that trains for an epoch."""
    return lambda estimator=None, **params: PrunedClassifier(
        make() if estimator is None else estimator, **{"max_epochs": 1, "random_state": 0, **params}
    )


@pytest.fixture
def draw(make):
    """Makes a lottery of one round."""
    return lambda estimator=None, **params: LotteryTicketClassifier(
        make() if estimator is None else estimator, **{"n_rounds": 1, "controls": False, "random_state": 0, **params}
    )


@pytest.fixture(params=["prune", "draw"])
def compress(request, prune, draw):
    """Makes either."""
    return {"prune": prune, "draw": draw}[request.param]
