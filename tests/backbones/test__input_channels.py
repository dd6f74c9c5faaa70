"""Other numbers of channels give what they should, exactly."""

import numpy as np
import pytest
import torch
from torch import nn

from sktl.backbones import Preprocessing, load_backbone
from sktl.exceptions import BackboneError

SMALL = {"resize_size": 64, "crop_size": 64}


def normalised(pictures: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(n, channels, height, width) of 0-1, as the network wants it."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return (pictures - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)


@pytest.mark.parametrize("name", ["sktl_mini", "resnet18", "mobilenet_v2", "vit_b_32", "convnext_tiny", "googlenet"])
def test_grey_gives_what_it_gives_as_rgb(name):
    """One channel, normalised with one mean, gives the features of the grey picture repeated in three."""
    settings = {"weights": None, "preprocessing": SMALL, "random_state": 0}
    colour, grey = load_backbone(name, **settings), load_backbone(name, in_channels=1, **settings)
    assert (len(grey.preprocessing.mean), len(grey.preprocessing.std), grey.in_channels) == (1, 1, 1)
    pictures = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    layer = colour.stages[-1].name
    (expected,) = colour.feature_graph(layer)(normalised(pictures.expand(-1, 3, -1, -1), colour.preprocessing))
    (found,) = grey.feature_graph(layer)(normalised(pictures, grey.preprocessing))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_the_inner_renormalisation_is_undone():
    """GoogLeNet's published weights renormalise colours inside, which one channel has not: the result is the same."""
    from torchvision.models import googlenet

    module = googlenet(weights=None, aux_logits=False, transform_input=True, init_weights=False).eval()
    grey = load_backbone(module, in_channels=1, preprocessing=SMALL)
    pictures = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = module(normalised(pictures.expand(-1, 3, -1, -1), Preprocessing()))
    found = grey.module(normalised(pictures, grey.preprocessing))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_more_channels_repeat_the_kernels():
    """Six channels that repeat a picture twice give its features, because the kernels are halved."""
    settings = {"weights": None, "preprocessing": SMALL, "random_state": 0}
    colour, six = load_backbone("resnet18", **settings), load_backbone("resnet18", in_channels=6, **settings)
    assert six.module.conv1.in_channels == 6
    assert six.preprocessing.mean == colour.preprocessing.mean * 2
    picture = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(six.module(picture.repeat(1, 2, 1, 1)), colour.module(picture), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("in_channels", [2, 4, 5])
def test_any_number(in_channels):
    """Any number of channels runs, and is normalised channel by channel."""
    backbone = load_backbone("sktl_mini", in_channels=in_channels)
    assert len(backbone.preprocessing.mean) == len(backbone.preprocessing.std) == in_channels
    assert backbone.module(torch.zeros(1, in_channels, 64, 64)).shape == (1, 256)


def test_an_own_network_for_grey():
    """A network that takes one channel already is not changed."""
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
    backbone = load_backbone(module, in_channels=1, preprocessing=SMALL)
    assert [name for name, _ in backbone.module.named_modules()] == ["", "0", "1"]
    with pytest.raises(BackboneError, match="in_channels="):
        _ = load_backbone(module, preprocessing=SMALL).stages


def test_an_own_network_without_convolutions():
    """Where there is nothing to adapt, a network takes the channels that it takes, and others are refused."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 2))
    backbone = load_backbone(module, in_channels=1, preprocessing={"resize_size": 28, "crop_size": 28})
    assert len(backbone.preprocessing.mean) == backbone.in_channels == 1
    assert backbone.module(torch.zeros(1, 1, 28, 28)).shape == (1, 2)
    with pytest.raises(BackboneError, match=r"\(2, 28, 28\).* in_channels="):
        load_backbone(module, in_channels=2, preprocessing={"resize_size": 28, "crop_size": 28})


def test_nothing_to_adapt():
    """Where the first convolution is no plain one, only the usual number of channels is possible."""
    with pytest.raises(BackboneError, match=r"in_channels=1 is not supported .* Use in_channels=3"):
        load_backbone(nn.Sequential(nn.Conv2d(3, 3, 1, groups=3)), in_channels=1)


def test_integers_of_numpy():
    """A number of channels from a parameter grid is a number, and finds the same network."""
    backbone = load_backbone("sktl_mini", in_channels=np.int64(1))
    assert type(backbone.in_channels) is int
    assert load_backbone("sktl_mini", in_channels=1) is backbone


@pytest.mark.parametrize("in_channels", [0, -1, 1.5, "3"])
def test_wrong_numbers(in_channels):
    """What is no number of channels is named."""
    with pytest.raises(
        BackboneError, match=f"'in_channels' parameter must be an integer of at least 1. Got {in_channels!r} instead"
    ):
        load_backbone("sktl_mini", in_channels=in_channels)
