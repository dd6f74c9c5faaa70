"""Normalisation, pooling and folding of the frozen prefix."""

import numpy as np
import pytest
import torch
from torch import fx, nn

from sktl._frozen._prefix_network import POOLINGS, PrefixNetwork, check_pooling, fuse, pool, pooled_shape
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError


def slow_pool(x, pooling):
    """Pool one map of shape (channels, height, width) by a plain loop."""
    channels = []
    for channel in x:
        values = [float(v) for row in channel for v in row]
        if pooling == "avg":
            channels.append(sum(values) / len(values))
        elif pooling == "max":
            channels.append(max(values))
        else:
            channels.append((sum(max(v, 1e-6) ** 3 for v in values) / len(values)) ** (1 / 3))
    return channels


@pytest.mark.parametrize("pooling", ["avg", "max", "gem"])
def test_pooling_equals_a_slow_loop(pooling):
    """Each pooling is what its formula says, for channels first and for channels last."""
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = np.array([slow_pool(picture, pooling) for picture in x])
    np.testing.assert_allclose(pool(x, pooling), expected, rtol=1e-5)
    np.testing.assert_allclose(pool(x.permute(0, 2, 3, 1), pooling, channel_axis=-1), expected, rtol=1e-5)


def test_token_pooling_leaves_the_class_token_to_cls():
    """The class token is what "cls" returns and what the mean and the maximum leave out."""
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pool(tokens, "cls", -1, True), tokens[:, 0])
    assert torch.allclose(pool(tokens, "avg", -1, True), tokens[:, 1:].mean(1))
    assert torch.equal(pool(tokens, "max", -1, True), tokens[:, 1:].amax(1))
    assert torch.allclose(pool(tokens, "avg", -1, False), tokens.mean(1))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 5), 1), ((4, 5, 3), -1), ((6, 3), -1), ((7,), 1)])
def test_pooled_shape_is_the_shape_of_what_is_pooled(pooling, shape, axis):
    """The shape that is promised before the network runs is the shape that comes out."""
    if pooling == "cls" and len(shape) == 3:
        shape = (6, 3)  # a map has no tokens
        axis = -1
    assert pooled_shape(shape, pooling, axis) == tuple(pool(torch.zeros(2, *shape), pooling, axis).shape[1:])


class Branches(nn.Module):
    """A convolution that is read twice, a shared one, one with its own batch norm, and a sequence."""

    def __init__(self):
        super().__init__()
        self.plain, self.shared, self.read, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norm_plain, self.norm_shared, self.norm_read = (nn.BatchNorm2d(3) for _ in range(3))
        self.alone, self.beside, self.of_a_view = nn.ReLU(), nn.ReLU(), nn.ReLU6()
        self.sequence = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Hardswish(), nn.MaxPool2d(2), nn.ReLU())

    def forward(self, x):
        x = self.alone(self.norm_plain(self.plain(x)))
        x = self.norm_shared(self.shared(x)) + self.shared(x)
        y = self.read(x)
        z = self.last(x)
        z = self.beside(z) + z
        return y, self.norm_read(y), z, self.of_a_view(z[:, :2]), self.sequence(x)


class Tracer(fx.Tracer):
    """Keeps a sequence as one node, as torchvision's tracer keeps its blocks."""

    def is_leaf_module(self, m, name):
        return isinstance(m, nn.Sequential) or super().is_leaf_module(m, name)


def test_fusing_keeps_the_function_and_spares_what_is_read_elsewhere():
    """Batch norms are folded and activations work in place only where nobody can tell; the outputs stay the same."""
    module = Branches().eval()
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(torch.randn(3, generator=generator))
            norm.running_var.copy_(torch.rand(3, generator=generator) + 0.5)
    x = torch.randn(2, 3, 6, 6, generator=generator)
    traced = fx.GraphModule(module, Tracer().trace(module))
    expected = [output.clone() for output in traced(x)]
    given = x.clone()
    fused = fuse(traced)
    for got, want in zip(fused(x), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, given)
    norms = [name for name, m in fused.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ["norm_shared", "norm_read"]
    in_place = {name: m.inplace for name, m in fused.named_modules() if hasattr(m, "inplace")}
    assert in_place == {
        "alone": True,  # of a convolution that nobody else reads
        "beside": False,  # its input is read again
        "of_a_view": False,  # its input is a part of another output
        "sequence.2": True,
        "sequence.4": False,  # pooling may give back what it got
    }


class Shared(nn.Module):
    """One activation in two sequences, of which only the second may overwrite its input."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU()
        self.first = nn.Sequential(nn.Dropout(), relu)
        self.second = nn.Sequential(nn.Conv2d(3, 3, 1), relu)

    def forward(self, x):
        return self.first(x), self.second(x), x


def test_an_activation_that_is_shared_overwrites_nothing_that_others_read():
    """In place is decided for each place where an activation stands, not for the module."""
    network = Shared().eval()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = [output.clone() for output in network(x)]
    for got, want in zip(fuse(fx.GraphModule(network, Tracer().trace(network)))(x), expected, strict=True):
        torch.testing.assert_close(got, want)


class Reader(nn.Module):
    """A block that runs the parts of a sequence itself and keeps what lies between them."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x):
        outputs = []
        for part in self.parts:
            x = part(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


class ReaderTracer(fx.Tracer):
    """Keeps the block as one node, as one that cannot be traced is kept."""

    def is_leaf_module(self, m, name):
        return isinstance(m, Reader) or super().is_leaf_module(m, name)


def test_a_block_that_is_one_node_is_not_fused_inside():
    """Nobody knows how it runs its parts: here every output between them is read."""
    network = Holder(Reader()).eval()
    network.block.parts[1].running_mean.fill_(0.5)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    fused = fuse(fx.GraphModule(network, ReaderTracer().trace(network)))
    torch.testing.assert_close(fused(x), expected)


class NormWithActivation(nn.BatchNorm2d):
    """A batch norm that does more, as timm's do."""

    def forward(self, x):
        return super().forward(x).clamp(0, 1)


class Holder(nn.Module):
    """A network of one block."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x)


def test_a_norm_that_does_more_is_not_folded():
    """A subclass of a batch norm may hold an activation, which folding would lose."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), NormWithActivation(4)).eval()
    holder = Holder(network)
    fused = fuse(fx.GraphModule(holder, Tracer().trace(holder)))
    assert any(isinstance(module, NormWithActivation) for module in fused.modules())


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "googlenet"),
        *("shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn", "mnasnet0_5", "regnet_y_400mf", "sktl_mini"),
        *("timm:mobilenetv2_035", "timm:regnety_002", "timm:densenet121"),
    ],
)
def test_fused_families_keep_their_function(name):
    """Whatever blocks a family is made of, an early and the last stage stay the same, and the backbone untouched."""
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    size = {"resize_size": 64, "crop_size": 64}
    backbone = load_backbone(name, weights=None, random_state=0, preprocessing=size)
    layers = [backbone.stages[1].name, backbone.stages[-1].name]
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone.feature_graph(layers)(x)
        fused = fuse(backbone.feature_graph(layers))
        for got, want in zip(fused(x), expected, strict=True):
            assert (got - want).abs().max() <= 1e-5 * want.abs().max()
        for again, want in zip(backbone.feature_graph(layers)(x), expected, strict=True):
            assert torch.equal(again, want)


def test_prefix_network_normalises_as_the_weights_ask():
    """uint8 pictures are scaled, centred and divided exactly as torchvision's ToTensor and Normalize do."""
    backbone = load_backbone("sktl_mini")
    height, width = backbone.preprocessing.crop_shape
    pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        (expected,) = backbone.feature_graph(["layer4"])(x)
        (got,) = PrefixNetwork(backbone, ["layer4"], "none")(torch.from_numpy(pictures))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layer", "is_refused"),
    [("sktl_mini", "layer4", True), ("sktl_mini", "stem", True), ("vit_b_16", -1, False), ("swin_t", -1, True)],
)
def test_a_class_token_is_asked_of_what_has_one(name, layer, is_refused):
    """Only pooling="cls" is ever refused, and only where there is no class token; the error names the layer."""
    backbone = load_backbone(name) if name == "sktl_mini" else load_backbone(name, weights=None, random_state=0)
    layer = backbone.stages[layer].name if layer == -1 else layer
    for pooling in set(POOLINGS) - {"cls"}:
        check_pooling(backbone, layer, pooling)
    if is_refused:
        with pytest.raises(BackboneError, match=f"needs a class token, but layer '{layer}' of .*pooling='avg'"):
            check_pooling(backbone, layer, "cls")
    else:
        check_pooling(backbone, layer, "cls")
