"""Networks emptied to be pickled beside what was in them, and filled again."""

import pickle

import pytest
import torch
from torch import nn

from sktl.backbones import load_backbone
from sktl.backbones._hollow import fill, hollow, hollow_tensor, is_hollow


@pytest.fixture
def backbone():
    """Two stages and a source head, with random weights."""
    module = nn.Sequential()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        module.layer1 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        module.pool = nn.AdaptiveAvgPool2d(1)
        module.flatten = nn.Flatten()
        module.fc = nn.Linear(16, 1000)
        return load_backbone(module, preprocessing={"resize_size": 16, "crop_size": 16})


@pytest.fixture
def x():
    """Four normalized images."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def run(backbone, x):
    with torch.no_grad():
        return backbone.feature_graph("layer1")(x)[0]


def test_hollow_and_filled(backbone, x):
    """Hollow, a network takes no room and knows its fingerprints; filled again, it is what it was."""
    expected, fingerprint = run(backbone, x), backbone.fingerprint("layer1")
    state = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    empty = hollow(backbone, [*state, "no.tensor"])
    assert empty.fingerprint("layer1") == fingerprint
    assert len(pickle.dumps(empty)) < 0.4 * len(pickle.dumps(backbone))
    assert all(is_hollow(tensor) for tensor in empty.module.state_dict().values() if tensor.numel() > 1)
    assert torch.equal(run(backbone, x), expected)
    full = fill(pickle.loads(pickle.dumps(empty)), {**state, "no.tensor": torch.zeros(1)})
    assert torch.equal(run(full, x), expected)
    assert full.fingerprint("layer1") == fingerprint
    with torch.no_grad():
        full.module.stem[0].weight.zero_()
    assert torch.equal(run(backbone, x), expected)


@pytest.mark.parametrize("tensor", [torch.ones(3, 4), torch.ones(2, dtype=torch.int64), torch.ones(5, 2).t()])
def test_a_hollow_tensor(tensor):
    """Zeros of the same shape and type that are one number in memory; what has numbers of its own is not hollow."""
    empty = hollow_tensor(tensor)
    assert (empty.shape, empty.dtype) == (tensor.shape, tensor.dtype)
    assert not empty.any()
    assert empty.untyped_storage().nbytes() == tensor.element_size()
    assert is_hollow(empty)
    assert not is_hollow(tensor)


@pytest.mark.parametrize("tensor", [torch.tensor(3.0), torch.ones(1), torch.ones(1, 1)])
def test_one_number_is_not_hollow(tensor):
    """Emptied it would take no less room, and so it is kept with its value."""
    assert not is_hollow(tensor)
    assert not is_hollow(hollow_tensor(tensor))
