"""Removing whole filters: the network that is left computes what the whole one does with those filters silent."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sktl._training._rest_network import RestNetwork
from sktl.backbones import load_backbone
from sktl.backbones._tracing import trace
from sktl.compression import _filters
from sktl.compression._filters import prune_filters
from sktl.exceptions import CompressionError, MissingDependencyError

pytest.importorskip("torch_pruning")

RANDOM = {"weights": None, "random_state": 0, "preprocessing": {"resize_size": 64, "crop_size": 64}}
# Sums, concatenations, depthwise convolutions, squeeze-excitation, grouped convolutions; whole and behind a cut.
NETWORKS = [
    ("sktl_mini", 0),
    ("sktl_mini", 2),
    ("vgg11_bn", 2),
    ("resnet18", 0),
    ("resnet18", 3),
    ("densenet121", 6),
    ("mobilenet_v2", 0),
    ("mobilenet_v2", 9),
    ("mobilenet_v3_small", 0),
    ("efficientnet_b0", 4),
    ("squeezenet1_1", 0),
    ("googlenet", 6),
    ("regnet_x_400mf", 2),
    ("mnasnet1_0", 3),
]


def block(n_in, n_out, **params):
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False, **params), nn.BatchNorm2d(n_out), nn.ReLU())


class Plain(nn.Module):
    """Convolutions in a row, as in a VGG."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer1, self.layer2 = block(3, 8), block(8, 12), block(12, 10)
        self.fc = nn.Linear(10, 2)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Residual(nn.Module):
    """Three stages; the second and the third add their input to what they compute."""

    def __init__(self):
        super().__init__()
        self.stem = block(3, 8)
        self.conv1a, self.conv1b = block(8, 6), block(6, 8)
        self.conv2a, self.conv2b = block(8, 12), block(12, 8)
        self.last = block(8, 10)
        self.fc = nn.Linear(10, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv1b(self.conv1a(x))
        x = x + self.conv2b(self.conv2a(x))
        return self.fc(self.last(x).mean((2, 3)))


class Scaled(Plain):
    """A factor for each channel stands between two layers, outside of both."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.factor * self.stem(x))).mean((2, 3)))


class LastNorm(nn.LayerNorm):
    """Over channels that are not the last axis; torch.fx does not look into it."""

    __module__ = "torch.nn.modules.normalization"

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mixing(nn.Module):
    """Channels change places in the middle, in a way that is written down in numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = block(3, 8), block(8, 8), block(8, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = self.second(self.first(x))
        x = x.reshape(x.shape[0], 2, 4, 64).transpose(1, 2).reshape(x.shape[0], 8, 8, 8)
        return self.fc(self.last(x).mean((2, 3)))


def rest(module, depth=0, head=None, **params):
    """The rest of a small network, whose batch norms have seen something and are all different."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.abs_().add_(0.5)
            # Each channel has a number, by which it is known again.
            norm.running_mean.copy_(torch.arange(norm.num_features) / 64)
    backbone = load_backbone(module, preprocessing={"resize_size": 8, "crop_size": 8})
    width = backbone.stages[-1].output_shape[0]
    return backbone, RestNetwork(backbone, depth, head or nn.Linear(width, 3), **params).eval()


def example(backbone, depth=0, n=2):
    shape = backbone.stages[depth - 1].output_shape if depth else (3, *backbone.preprocessing.crop_shape)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def outputs(network, x):
    """What the network gives of floats, in front of which pictures are normalised otherwise."""
    normalization, network.normalization = network.normalization, nn.Identity()
    try:
        with torch.no_grad():
            return network.eval()(x)
    finally:
        network.normalization = normalization


def macs(network, x):
    with FlopCounterMode(display=False) as counter:
        outputs(network, x)
    return counter.get_total_flops() // 2


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def layers(network):
    return [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def widths(network):
    return {path: m.out_channels for path, m in network.stages.named_modules() if isinstance(m, nn.Conv2d)}


def state(network):
    return {
        "values": {name: value.clone() for name, value in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "gradients": [parameter.requires_grad for parameter in network.parameters()],
    }


def is_unchanged(network, before):
    after = state(network)
    return {**after, "values": 0} == {**before, "values": 0} and all(
        torch.equal(value, after["values"][name]) for name, value in before["values"].items()
    )


@pytest.mark.parametrize(("name", "depth"), NETWORKS)
def test_networks_become_smaller_and_work(name, depth):
    """Half of the filters are a quarter of the work; modes and gradients stay; it can be trained and cut again."""
    backbone = load_backbone(name, **({} if name == "sktl_mini" else RANDOM))
    network = RestNetwork(backbone, depth, nn.Linear(backbone.stages[-1].output_shape[0], 3)).train()
    x = example(backbone, depth)
    given = n_parameters(network), macs(network, x), state(network.train())
    prune_filters(network, x, amount=0.5)
    assert [module.training for module in network.modules()] == given[2]["modes"]
    assert [parameter.requires_grad for parameter in network.parameters()] == given[2]["gradients"]
    assert 0.2 < n_parameters(network) / given[0] < 0.4
    left = macs(network, x)
    assert 0.2 < left / given[1] < 0.4
    trace(network.stages)
    prune_filters(network, x, amount=0.3)
    assert macs(network, x) < 0.7 * left
    inputs = torch.zeros(2, *backbone.preprocessing.crop_shape, 3, dtype=torch.uint8) if depth == 0 else x
    result = network.train()(inputs)
    assert result.shape == (2, 3)
    result.sum().backward()


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("Network", [Plain, Residual, Scaled])
def test_it_computes_what_the_whole_one_does_with_silent_filters(Network, scope):
    """The removed channels, known by their number in the batch norm, are silenced there in a copy of the whole one."""
    backbone, network = rest(Network())
    whole, x = copy.deepcopy(network), example(backbone, n=5)
    prune_filters(network, x, amount=0.4, scope=scope)
    n_silent = 0
    for path, norm in whole.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            is_silent = ~torch.isin(norm.running_mean, network.get_submodule(path).running_mean)
            n_silent += int(is_silent.sum())
            with torch.no_grad():
                norm.weight[is_silent], norm.bias[is_silent] = 0, 0
    assert n_silent >= 8
    torch.testing.assert_close(outputs(network, x), outputs(whole, x))


def test_what_comes_from_frozen_stages_stays():
    """A convolution whose output is added to that of a frozen stage keeps its width; what lies inside does not."""
    backbone, network = rest(Residual(), depth=1)
    before = widths(network)
    prune_filters(network, example(backbone, 1), amount=0.5)
    assert {path: (before[path], width) for path, width in widths(network).items()} == {
        "conv1a.0": (6, 3),
        "conv1b.0": (8, 8),
        "conv2a.0": (12, 6),
        "conv2b.0": (8, 8),
        "last.0": (10, 5),
    }


def test_what_does_not_learn_stays():
    """Stages that are frozen later on are as they were, and so is all that is added to what they give."""
    backbone, network = rest(Residual())
    network.freeze(1)
    network.stages.get_submodule("last.1").bias.requires_grad_(False)
    frozen = {name: value.clone() for name, value in network.stages.stem.state_dict().items()}
    prune_filters(network, example(backbone), amount=0.5)
    assert widths(network) == {"stem.0": 8, "conv1a.0": 3, "conv1b.0": 8, "conv2a.0": 6, "conv2b.0": 8, "last.0": 5}
    assert all(torch.equal(value, frozen[name]) for name, value in network.stages.stem.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.stages.stem.parameters())
    assert [parameter.requires_grad for parameter in network.stages.last.parameters()] == [True, True, False]


def test_the_head_loses_inputs_only():
    """Hidden layers and outputs of the head have their widths, a batch norm in front of them follows its inputs."""
    head = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))
    backbone, network = rest(Plain(), head=head)
    prune_filters(network, example(backbone), amount=0.5)
    assert [tuple(p.shape) for p in network.head.parameters()] == [(5,), (5,), (7, 5), (7,), (3, 7), (3,)]


class Shortcut(nn.Module):
    """A head that adds its input to what its hidden layer gives."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.out(x + self.hidden(x))


@pytest.mark.parametrize("head", [nn.Identity(), nn.BatchNorm1d(10), Shortcut()])
def test_outputs_keep_their_number(head):
    """The last convolution stays where its channels are the outputs, or are added to those of the head's layers."""
    backbone, network = rest(Plain(), head=head)
    prune_filters(network, example(backbone), amount=0.5)
    assert widths(network) == {"stem.0": 4, "layer1.0": 6, "layer2.0": 10}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0.25, [6, 9, 8]), (0.5, [4, 6, 5]), (1 - 1e-9, [1, 1, 1]), (0.01, [8, 12, 10]), (1 - 0.64**0.5, [7, 10, 8])],
)
def test_each_layer_loses_the_same_share(amount, expected):
    """Exactly so many filters, and never the last one; equal filters make no difference."""
    backbone, network = rest(Plain())
    prune_filters(network, example(backbone), amount=amount, score=lambda layer: torch.ones(layer.weight.shape))
    assert list(widths(network).values()) == expected


def test_global_ranking_is_exact_and_leaves_a_tenth():
    """Of thirty filters half go, those of small scores wherever they are, but no group loses all."""
    backbone, network = rest(Plain())
    scores = {path: torch.ones(layer.weight.shape) for path, layer in layers(network)}
    scores["stages.layer1.0"] *= torch.tensor([1e-4] * 11 + [1.0]).reshape(-1, 1, 1, 1)
    scores["stages.layer2.0"] *= torch.arange(1, 11).reshape(-1, 1, 1, 1)
    scores["stages.stem.0"] *= 1e6
    named = {layer: scores[path] for path, layer in layers(network)}
    prune_filters(network, example(backbone), amount=0.5, scope="global", score=named.__getitem__)
    # Two of twelve is a tenth, rounded up; the stem's are as important as each other, and so as the average.
    assert widths(network) == {"stem.0": 8, "layer1.0": 2, "layer2.0": 5}


def test_group_norms_keep_their_groups():
    """They lose as many channels in each group, and what is left runs and can be trained."""
    module = Plain()
    module.layer1[1] = nn.GroupNorm(3, 12)
    backbone, network = rest(module)
    prune_filters(network, example(backbone), amount=0.35)
    assert list(widths(network).values()) == [6, 9, 7]
    norm = network.stages.get_submodule("layer1.1")
    assert (norm.num_groups, norm.num_channels, norm.weight.shape) == (3, 9, (9,))
    network.train().stages(example(backbone)).sum().backward()


def test_what_layer_norms_see_stays():
    """torch-pruning would cut their weights in an order of its own, so the convolution in front is left alone."""
    module = Plain()
    module.layer1[1] = LastNorm(12)
    backbone, network = rest(module)
    prune_filters(network, example(backbone), amount=0.5)
    assert list(widths(network).values()) == [4, 12, 5]


def test_a_group_of_many_layers_is_no_more_important():
    """Ranked together with the others, four of its filters that matter a little less than all others go first."""
    backbone, network = rest(Residual())
    scores = {path: torch.ones(layer.weight.shape) for path, layer in layers(network)}
    for path in ("stem.0", "conv1b.0", "conv2b.0"):
        scores[f"stages.{path}"][:4] = 0.5
    for path in ("conv1a.0", "conv2a.0", "last.0"):
        scores[f"stages.{path}"][:, :4] = 0.5
    named = {layer: scores[path] for path, layer in layers(network)}
    prune_filters(network, example(backbone), amount=4 / 36, scope="global", score=named.__getitem__)
    assert list(widths(network).values()) == [4, 6, 4, 12, 4, 10]


def test_a_filter_matters_as_much_as_all_that_goes_with_it():
    """By a slow sum over each weight that writes or reads a channel, each layer divided by what its channels have."""
    backbone, network = rest(Residual())
    generator = torch.Generator().manual_seed(3)
    scores = {
        layer: 10.0**number * torch.rand(layer.weight.shape, generator=generator)
        for number, (_, layer) in enumerate(layers(network))
    }
    writing = [network.stages.get_submodule(path) for path in ("stem.0", "conv1b.0", "conv2b.0")]
    reading = [network.stages.get_submodule(path) for path in ("conv1a.0", "conv2a.0", "last.0")]
    expected = torch.zeros(8)
    for layer in writing + reading:
        own = [(scores[layer][i] if layer in writing else scores[layer][:, i]).sum() for i in range(8)]
        expected += torch.stack(own) / sum(own)
    prune_filters(network, example(backbone), amount=0.5, score=scores.__getitem__)
    kept = network.stages.get_submodule("stem.1").running_mean * 64
    assert kept.tolist() == sorted(expected.argsort()[4:].tolist())


def test_inputs_of_grouped_convolutions_are_those_of_their_block():
    """What reads a channel is found in the channel's own block: 12 inputs in 3 blocks, one of which matters."""

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = block(3, 12), block(12, 6, groups=3)
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(self.b(self.a(x)).mean((2, 3)))

    backbone, network = rest(Grouped())
    scores = {layer: torch.ones(layer.weight.shape) for _, layer in layers(network)}
    scores[network.stages.get_submodule("b.0")][2:4, 3] = 10.0  # the second block, its last input: channel 7
    prune_filters(network, example(backbone), amount=0.75, score=scores.__getitem__)
    assert (network.stages.get_submodule("a.1").running_mean * 64).tolist() == [3, 7, 11]


def test_grouped_convolutions_lose_as_much_in_each_block():
    """The filters of all blocks go together; a depthwise convolution stays one."""

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = block(3, 12), block(12, 12, groups=3), block(12, 12, groups=12)
            self.fc = nn.Linear(12, 2)

        def forward(self, x):
            return self.fc(self.c(self.b(self.a(x))).mean((2, 3)))

    backbone, network = rest(Grouped())
    rounded = copy.deepcopy(network)
    prune_filters(rounded, example(backbone), amount=0.5, round_to=9)  # three in each of three blocks
    assert set(widths(rounded).values()) == {9}
    prune_filters(network, example(backbone), amount=0.25)
    convolutions = [network.stages.get_submodule(f"{name}.0") for name in "abc"]
    assert [(c.in_channels, c.out_channels, c.groups) for c in convolutions] == [(3, 9, 1), (9, 9, 3), (9, 9, 9)]
    for name in "ab":
        kept = network.stages.get_submodule(f"{name}.1").running_mean * 64
        assert torch.equal(kept[:3] + 4, kept[3:6])
        assert torch.equal(kept[:3] + 8, kept[6:])


@pytest.mark.parametrize(
    ("scope", "round_to", "more"), [("layer", 1, 0.02), ("global", 1, 0.01), ("layer", None, 0.05)]
)
@pytest.mark.parametrize("amount", [0.3, 0.5, 0.8])
def test_a_share_of_the_work_is_saved(amount, scope, round_to, more):
    """As counted by torch: not less than asked for, and hardly more; by the eight, if nothing else is said."""
    backbone = load_backbone("sktl_mini")
    network = RestNetwork(backbone, 0, nn.Linear(512, 3))
    x = example(backbone)
    before = macs(network, x)
    prune_filters(network, x, amount=amount, unit="macs", scope=scope, round_to=round_to)
    assert amount <= 1 - macs(network, x) / before < amount + more
    assert round_to or all(width % 8 == 0 for width in widths(network).values())


def test_work_that_cannot_be_saved_is_said():
    """With what is tied to frozen stages, and one filter in each group, something is left."""
    backbone, network = rest(Residual(), depth=1)
    before = state(network)
    with pytest.raises(
        CompressionError,
        match=r"amount=0\.99 of the multiply-accumulates .* at most 0\.\d\d can be saved.*Use a smaller amount\.",
    ):
        prune_filters(network, example(backbone, 1), amount=0.99, unit="macs")
    assert is_unchanged(network, before)


def test_widths_are_rounded():
    """To the nearest multiple, where a group has as many filters; more than there are stay nowhere."""
    backbone, network = rest(Plain())
    prune_filters(network, example(backbone), amount=0.3, round_to=4)
    assert list(widths(network).values()) == [8, 8, 8]
    prune_filters(network, example(backbone), amount=0.9, round_to=16)
    assert list(widths(network).values()) == [1, 1, 1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_no_mode_of_the_caller_matters(mode, capfd):
    """Whatever autograd is told, the same is cut, it can be trained, and nothing is said or left behind."""
    backbone, network = rest(Plain())
    expected = copy.deepcopy(network)
    prune_filters(expected, example(backbone), amount=0.5)
    with mode():
        prune_filters(network, example(backbone), amount=0.5)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (
            mode is torch.enable_grad,
            mode is torch.inference_mode,
        )
    assert is_unchanged(network, state(expected))
    assert not any(parameter.is_inference() for parameter in network.parameters())
    network.stages.requires_grad_(True)(example(backbone)).sum().backward()
    assert capfd.readouterr() == ("", "")


def test_a_network_that_cannot_be_followed(capfd):
    """ShuffleNet's channels change places: an error says what works, nothing is printed, and the network is whole."""
    backbone = load_backbone("shufflenet_v2_x0_5", **RANDOM)
    network = RestNetwork(backbone, 2, nn.Linear(1024, 3))
    before = state(network)
    with pytest.raises(CompressionError, match=r"torch-pruning failed to trace this network.*Use granularity='weight'"):
        prune_filters(network, example(backbone, 2), amount=0.5)
    assert is_unchanged(network, before)
    assert capfd.readouterr() == ("", "")


def test_what_would_not_run_is_left_alone(capfd):
    """Where channels are moved by numbers, the convolution in front stays; the others are cut."""
    backbone, network = rest(Mixing())
    prune_filters(network, example(backbone), amount=0.5)
    assert widths(network) == {"first.0": 4, "second.0": 8, "last.0": 3}
    assert capfd.readouterr() == ("", "")


def test_a_cut_is_proven_before_it_is_made(monkeypatch):
    """A channel taken from the wrong place is noticed on a copy, though the network would run."""
    backbone, network = rest(Plain())
    cuts_of = _filters._cuts

    def shifted(*args):
        cuts = cuts_of(*args)
        wrong = next(i for i, cut in enumerate(cuts) if cut.path == "stages.layer1.0" and not cut.is_output)
        cuts[wrong] = cuts[wrong]._replace(positions=(cuts[wrong].positions + 1) % 8)
        return cuts

    before = state(network)
    monkeypatch.setattr(_filters, "_cuts", shifted)
    with pytest.raises(CompressionError, match=r"misinterprets an operation.*Use granularity='weight'"):
        prune_filters(network, example(backbone), amount=0.5)
    assert is_unchanged(network, before)


def test_without_a_convolution():
    """With all stages frozen there is none, and that is said."""
    _, network = rest(Plain(), depth=3)
    with pytest.raises(
        CompressionError, match=r"does not have convolutions .*Freeze fewer stages\. Use granularity='weight'"
    ):
        prune_filters(network, torch.randn(2, 10), amount=0.5)


def test_the_package_that_is_missing_is_named(monkeypatch):
    """Without torch-pruning the error says which extra brings it."""
    backbone, network = rest(Plain())
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingDependencyError, match=r"granularity='filter' needs.*sktl\[compress\]"):
        prune_filters(network, example(backbone), amount=0.5)
