"""Where the channels are is right in every layer of networks of all layouts."""

import pytest
import torch
import torchvision
from torch import nn

from sktl.backbones import _graph, _layout, _tracing, load_backbone


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", 32, [1] * 5),
        ("convnext_tiny", 32, [1] * 8),
        ("swin_t", 32, [-1] * 7 + [1]),  # the last stage ends with the permutation in front of the pooling
        ("vit_b_32", 32, [-1] * 13),
        ("maxvit_t", 224, [1] * 5),
    ],
)
def test_stages(name, size, expected):
    """The stages of the known layouts: channels second, channels last, tokens."""
    preprocessing = {"resize_size": size, "crop_size": size}
    backbone = load_backbone(name, weights=None, preprocessing=preprocessing, random_state=0)
    assert [stage.channel_axis for stage in backbone.stages] == expected


@pytest.mark.parametrize("name", ["convnext_tiny", "densenet121", "resnet18", "shufflenet_v2_x0_5"])
def test_the_channel_axis_does_not_grow_with_the_picture(name):
    """In every layer with places, the axis has the same length for a larger picture, while each other axis grows."""
    shapes = []
    with torch.device("meta"):
        root = torchvision.models.get_model(name, weights=None).eval()
    for size in (64, 128):
        graph = _tracing.trace(root)
        _tracing.measure(graph, root, (1, 3, size, size))
        shapes.append([node.meta["shape"] for node in _graph.tensor_nodes(graph)])
    axes = _layout.channel_axes(graph, root)
    checked = 0
    for node, small, large in zip(_graph.tensor_nodes(graph), *shapes, strict=True):
        if len(small) == 4 and small[2:] != large[2:]:
            grown = [axis for axis in (1, 2, 3) if small[axis] != large[axis]]
            assert axes[node] % 4 not in grown, node.meta["layer"]
            checked += 1
    assert checked > 30


class Tokens(nn.Module):
    """Two layers of tokens, with a class token in front that is dropped at the end."""

    def __init__(self, with_token: bool):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 6, 4, stride=4), nn.Parameter(torch.zeros(1, 1, 6))
        self.norm, self.linear, self.with_token = nn.LayerNorm(6), nn.Linear(6, 6), with_token

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.with_token:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.linear(self.norm(x))
        return x[:, 1:] if self.with_token else x


@pytest.mark.parametrize("with_token", [True, False])
def test_class_token(with_token):
    """A class token is known from where it is joined to where it is dropped, and nowhere else."""
    backbone = load_backbone(Tokens(with_token), preprocessing={"resize_size": 16, "crop_size": 16})
    assert backbone.has_cls_token("linear") is with_token
    assert not backbone.has_cls_token("transpose")
    assert not backbone.has_cls_token("patches")
    assert not backbone.has_cls_token(backbone.layers[-1])
    assert backbone.channel_axis("flatten") == 1
    assert backbone.channel_axis("transpose") == -1
    assert backbone.channel_axis("linear") == -1
