"""How far pictures are from what a network knows, by its batch norms."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sktl._estimators._norm_shift import norm_shift
from sktl.backbones import load_backbone

SIZE = {"resize_size": 16, "crop_size": 16, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def make_network() -> nn.Module:
    """Two convolutions, the second one inside a block, with batch norms that have learnt nothing yet."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pictures_of(n, seed, brightness=0):
    """Random pictures, brighter or darker."""
    rng = np.random.default_rng(seed)
    base = rng.integers(60, 160, (n, 1, 1, 3)) + rng.integers(-40, 40, (n, 16, 16, 3)) + brightness
    return base.clip(0, 255).astype(np.uint8)


def learn(network, pictures):
    """Give the batch norms the statistics of some pictures."""
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network((torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    return network.eval()


@pytest.fixture
def backbone():
    """The network with the statistics of a thousand pictures."""
    return load_backbone(learn(make_network(), pictures_of(1000, 0)), preprocessing=SIZE)


def test_the_distance_by_hand(backbone):
    """Each norm's shift is what a loop over its channels gives; the first norms do not count."""
    pictures = pictures_of(40, 1, brightness=30)
    module = backbone.module
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    expected = []
    with torch.no_grad():
        for norm, before in ((module[1], module[0]), (module[3][1], nn.Sequential(*module[:3], module[3][0]))):
            values = before(x).numpy()
            shifts = []
            for channel in range(values.shape[1]):
                means = [picture[channel].mean() for picture in values]
                squared = (np.mean(means) - norm.running_mean[channel].item()) ** 2
                shifts.append((squared - np.var(means, ddof=1) / 40) / (norm.running_var[channel].item() + 1e-5))
            expected.append(max(np.mean(shifts), 0))
    found = norm_shift(backbone, pictures)
    assert found.norms == ["1", "3.1"]
    np.testing.assert_allclose(found.shifts, expected, rtol=1e-3)
    assert found.distance == pytest.approx(np.sqrt(np.mean(expected)))


def test_the_first_norms_do_not_count(backbone):
    """Of five norms the last three make the distance."""
    from sktl._estimators._norm_shift import NormShift

    assert NormShift(list("abcde"), np.array([9.0, 9.0, 1.0, 4.0, 7.0])).distance == 2.0


def test_near_and_far(backbone):
    """Pictures of the same kind are near, however few; brighter ones far, and more so the brighter."""
    distances = [norm_shift(backbone, pictures_of(300, 1, brightness)).distance for brightness in (0, 20, 60)]
    assert distances[0] < 0.1 < 0.3 < distances[1] < distances[2]
    assert np.mean([norm_shift(backbone, pictures_of(4, seed)).distance for seed in range(10)]) < 0.3


def test_nothing_changes(backbone):
    """The network is as it was: statistics, weights, mode, hooks; pictures in blocks give the same."""
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    pictures = pictures_of(70, 2)
    first, second = norm_shift(backbone, pictures), norm_shift(backbone, pictures[::-1].copy())
    np.testing.assert_allclose(first.shifts, second.shifts, rtol=1e-4)
    for name, tensor in backbone.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in backbone.module.modules())
    assert not any(module.training for module in backbone.module.modules())


def test_without_norms():
    """A network without batch norms, or with norms that keep no statistics or have learnt none yet, says nothing."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for network in (nn.Sequential(layers[0], *layers[2:]), nn.Sequential(*layers)):
        assert norm_shift(load_backbone(network, preprocessing=SIZE), pictures_of(4, 0)) is None
    assert norm_shift(load_backbone(make_network(), preprocessing=SIZE), pictures_of(4, 0)) is None


def test_a_norm_in_two_places():
    """A norm that runs twice has no mean of its own for each picture, and is left out."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.second, self.last = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
            self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()

        def forward(self, x):
            """Features."""
            x = self.norm(self.first(x))
            return self.flat(self.pool(self.last(self.norm(self.second(x)))))

    torch.manual_seed(0)
    found = norm_shift(load_backbone(learn(Twice(), pictures_of(100, 0)), preprocessing=SIZE), pictures_of(4, 1))
    assert found.norms == ["last"]


def test_a_channel_that_was_constant(backbone):
    """It has no standard deviation to measure by: the others say how far the pictures are, or nobody does."""
    module = copy.deepcopy(backbone.module)
    module[3][1].running_var[2] = 0
    others = np.arange(8) != 2
    pictures = pictures_of(40, 1, brightness=30)
    whole, part = (norm_shift(load_backbone(x, preprocessing=SIZE), pictures) for x in (backbone.module, module))
    assert part.shifts[0] == whole.shifts[0]
    assert 0 < part.shifts[1] < 100
    with torch.no_grad():
        x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        means = module[3][0](module[:3](x)).mean((2, 3))
    norm = module[3][1]
    shifts = (means.mean(0) - norm.running_mean).square() - means.var(0) / 40
    expected = (shifts / (norm.running_var + norm.eps))[torch.from_numpy(others)].mean()
    assert part.shifts[1] == pytest.approx(expected.item(), rel=1e-3)
    module[3][1].running_var[:] = 0
    assert norm_shift(load_backbone(module, preprocessing=SIZE), pictures).shifts[1] == 0
