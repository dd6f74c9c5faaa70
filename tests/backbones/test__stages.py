"""The stages of every family of networks are the blocks one would name, and cutting there changes nothing."""

import pytest
import torch
from torch import nn

from sktl.backbones import load_backbone

# One small member of each family: the size of its picture, and its stages ("features.0-8": features.0 to features.8).
FAMILIES = {
    "sktl_mini": (32, ["stem", "layer1-4"]),
    "alexnet": (96, ["block1-3"]),
    "convnext_tiny": (64, ["features.0-7"]),
    "densenet121": (64, ["stem"] + [f"features.{kind}{n}" for n in (1, 2, 3) for kind in ("denseblock", "transition")]
                    + ["features.denseblock4"]),
    "efficientnet_b0": (64, ["features.0-8"]),
    "efficientnet_v2_s": (64, ["features.0-7"]),
    "googlenet": (96, ["conv1-3", "inception3a", "inception3b"]
                  + [f"inception4{letter}" for letter in "abcde"] + ["inception5a", "inception5b"]),
    "inception_v3": (96, ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
                     + [f"Mixed_5{letter}" for letter in "bcd"] + [f"Mixed_6{letter}" for letter in "abcde"]
                     + [f"Mixed_7{letter}" for letter in "abc"]),
    "maxvit_t": (224, ["stem", "blocks.0-3"]),
    "mnasnet0_5": (64, ["stem", "layers.8-13"]),
    "mobilenet_v2": (64, ["features.0-18"]),
    "mobilenet_v3_small": (64, ["features.0-12"]),
    "regnet_x_400mf": (64, ["stem", "trunk_output.block1-4"]),
    "regnet_y_400mf": (64, ["stem", "trunk_output.block1-4"]),
    "resnet18": (64, ["stem", "layer1-4"]),
    "resnext50_32x4d": (64, ["stem", "layer1-4"]),
    "shufflenet_v2_x0_5": (64, ["conv1", "stage2-4", "conv5"]),
    "squeezenet1_1": (96, ["stem", "features.3-4", "features.6-7", "features.9-12"]),
    "swin_t": (64, ["features.0-7"]),
    "swin_v2_t": (64, ["features.0-7"]),
    "vgg11_bn": (64, ["block1-5"]),
    "vit_b_32": (64, ["stem", "encoder.layers.encoder_layer_0-11"]),
}  # fmt: skip


def spelled_out(names: list[str]) -> list[str]:
    """``["layer1-3"]`` as ``["layer1", "layer2", "layer3"]``."""
    found = []
    for name in names:
        first, _, last = name.rpartition("-")
        stem = first.rstrip("0123456789")
        found += [f"{stem}{n}" for n in range(int(first[len(stem) :]), int(last) + 1)] if first else [name]
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A network of each family, and the stages that it should have."""
    size, names = FAMILIES[request.param]
    preprocessing = {"resize_size": size, "crop_size": size}
    backbone = load_backbone(request.param, weights=None, preprocessing=preprocessing, random_state=0)
    return backbone, spelled_out(names)


def test_names(family):
    """The stages are the network's own top-level blocks."""
    backbone, names = family
    assert [stage.name for stage in backbone.stages] == names


def test_cutting_changes_nothing(family):
    """At every stage, the rest of the prefix's output is the network's output, and has the shape that was promised."""
    backbone, _ = family
    picture = torch.randn(2, 3, *backbone.preprocessing.crop_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone.module(picture)
        # A rest is a copy: of a large network with many equal blocks, some cuts will do.
        large = sum(stage.n_parameters for stage in backbone.stages) > 5e7
        for depth, stage in list(enumerate(backbone.stages, start=1))[:: 4 if large else 1]:
            prefix, rest = backbone.cut(depth)
            features = prefix(picture)
            assert tuple(features.shape[1:]) == stage.output_shape
            torch.testing.assert_close(rest(features), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_the_stages_share_out_the_body(family):
    """Every layer up to the last stage's end is in exactly one stage, and the source's classifier is in none."""
    backbone, _ = family
    layers = [layer for stage in backbone.stages for layer in stage.layers]
    assert len(layers) == len(set(layers))
    assert all(stage.node in stage.layers for stage in backbone.stages)
    classifier = list(backbone.module.parameters())[-1].numel()
    n_parameters = sum(parameter.numel() for parameter in backbone.module.parameters())
    assert sum(stage.n_parameters for stage in backbone.stages) <= n_parameters - classifier
    assert sum(stage.macs for stage in backbone.stages) == backbone.macs(backbone.stages[-1].name)


class WithoutAHead(nn.Module):
    """A body whose classifier was taken away."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Identity()

    def forward(self, x):
        return self.fc(self.pool(self.second(self.first(x))).flatten(1))


class Branches(nn.Module):
    """A block with a branch that depends on the values, which no graph can hold."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.mean() < 0 else x / 2


OWN = {
    "bare layers, split by pooling": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        ),
        {"block1": "2", "block2": "4"},
    ),
    "bare layers without pooling, one convolution each": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        ),
        {"block1": "1", "block2": "3"},
    ),
    "a perceptron": (
        nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)),
        {"block1": "2", "block2": "4"},
    ),
    "fully convolutional": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        {"block1": "1", "block2": "2"},
    ),
    "blocks that cannot be traced": (
        nn.Sequential(Branches(3, 4), nn.MaxPool2d(2), Branches(4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        {"0": "1", "2": "2"},
    ),
    "no classifier": (WithoutAHead(), {"first": "first.1", "second": "second.1"}),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_own_networks(case):
    """A network that nobody has thought of is cut at its blocks, or sensibly where it has none."""
    module, expected = OWN[case]
    backbone = load_backbone(module, preprocessing={"resize_size": 16, "crop_size": 16})
    assert {stage.name: stage.node for stage in backbone.stages} == expected
