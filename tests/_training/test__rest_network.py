"""The trainable rest of a network: the same function as the whole, and frozen where it is frozen."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sktl._frozen._prefix_network import PrefixNetwork
from sktl._training._rest_network import RestNetwork, adopt_statistics_quickly, last_linear, make_head, norm_parameters
from sktl.backbones import load_backbone

RANDOM = {"weights": None, "random_state": 0}
SMALL = {"preprocessing": {"resize_size": 64, "crop_size": 64}}
NETWORKS = {
    "sktl_mini": {},
    "resnet18": {**RANDOM, **SMALL},
    "mobilenet_v2": {**RANDOM, **SMALL},
    "convnext_tiny": {**RANDOM, **SMALL},
    "vit_b_16": RANDOM,
    "timm:convnext_atto": {**RANDOM, **SMALL},
    "timm:efficientnet_lite0": {**RANDOM, **SMALL},
}


@pytest.fixture(params=NETWORKS)
def backbone(request):
    if request.param.startswith("timm:"):
        pytest.importorskip("timm")
    return load_backbone(request.param, **NETWORKS[request.param])


def pictures(backbone, n=2):
    shape = (n, *backbone.preprocessing.crop_shape, backbone.in_channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batch_norms(network):
    return [module for module in network.stages.modules() if isinstance(module, nn.BatchNorm2d)]


def modes(network, backbone):
    """(number of its stage, whether it is in train mode) of every module that the rest runs."""
    found = dict(network.stages.named_modules())
    numbered = [(number, path) for number, paths in enumerate(backbone.stage_parts.values()) for path in paths]
    return [(number, found[path].training) for number, path in numbered if path in found]


def test_prefix_and_rest_are_the_whole_network(backbone):
    """At every depth, the rest behind the prefix gives the pooled features of the network in one piece."""
    last = backbone.stages[-1].name
    x = pictures(backbone)
    with torch.inference_mode():
        (expected,) = PrefixNetwork(backbone, [last], "avg")(x)
        for depth in (0, 1, len(backbone.stages) - 1, len(backbone.stages)):
            rest = RestNetwork(backbone, depth, nn.Identity()).eval()
            is_all = depth == len(backbone.stages)
            names = [backbone.stages[depth - 1].name] if depth else []
            (inputs,) = PrefixNetwork(backbone, names, "avg" if is_all else "none")(x) if depth else (x,)
            torch.testing.assert_close(rest(inputs), expected, rtol=1e-4, atol=1e-5)


def test_pooling_is_the_one_asked_for(tiny):
    """The rest pools as the prefix would."""
    x = pictures(tiny)
    for pooling in ("max", "gem", "flatten"):
        (expected,) = PrefixNetwork(tiny, ["layer2"], pooling)(x)
        torch.testing.assert_close(RestNetwork(tiny, 0, nn.Identity(), pooling=pooling).eval()(x), expected)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_taps_come_behind_outputs_and_features(tiny, depth):
    """With taps forward gives outputs, what reaches the head, and the tapped layers; without, the outputs as ever."""
    inputs = pictures(tiny, 4)
    if depth:
        (inputs,) = PrefixNetwork(tiny, [tiny.stages[depth - 1].name], "none")(inputs)
    head = nn.Linear(8, 2)
    plain = RestNetwork(tiny, depth, head).eval()
    taps = ["layer2", "layer1"][: 3 - depth]
    rest = RestNetwork(tiny, depth, head, taps=taps).eval()
    outputs, features, *seen = rest(inputs)
    torch.testing.assert_close(outputs, plain(inputs), rtol=0, atol=0)
    torch.testing.assert_close(rest.features(inputs), features, rtol=0, atol=0)
    torch.testing.assert_close(head(features), outputs, rtol=0, atol=0)
    expected = PrefixNetwork(tiny, taps, "none")(pictures(tiny, 4))
    for got, values in zip(seen, expected, strict=True):
        torch.testing.assert_close(got, values)


def test_no_taps_are_not_none(tiny):
    """With an empty list a loss still sees what reaches the head, also where all stages are frozen."""
    head = nn.Linear(8, 2)
    features = torch.rand(3, 8)
    outputs, seen = RestNetwork(tiny, 3, head, taps=[])(features)
    assert torch.equal(seen, features)
    assert torch.equal(outputs, head(features))
    assert torch.equal(RestNetwork(tiny, 3, head)(features), outputs)


def test_a_tapped_rest_is_trained_as_any_other(tiny):
    """Its parameters, stages and modes are those of the rest without taps, and so is its copy."""
    rest = pickle.loads(pickle.dumps(RestNetwork(tiny, 1, nn.Linear(8, 2), taps=["layer1"])))
    plain = RestNetwork(tiny, 1, nn.Linear(8, 2))
    assert [(name, parameter.requires_grad) for name, parameter in rest.named_parameters()] == [
        (name, parameter.requires_grad) for name, parameter in plain.named_parameters()
    ]
    assert modes(rest.train(), tiny) == modes(plain.train(), tiny)
    rest.freeze(2)
    _, features, tapped = rest.train()(torch.rand(4, *tiny.stages[0].output_shape))
    assert not tapped.requires_grad
    assert features.requires_grad


def test_every_parameter_belongs_to_one_stage(backbone):
    """No parameter is without a stage or in two, class tokens, positions and layer scales included."""
    network = RestNetwork(backbone, 0, nn.Linear(4, 2))
    by_stage = {name: [parameter for _, parameter in named] for name, named in network.parameters_by_stage()}
    owned = [id(parameter) for parameters in by_stage.values() for parameter in parameters]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(parameter) for parameter in network.parameters()}
    assert list(by_stage) == [*(stage.name for stage in backbone.stages), "head"]
    for stage in backbone.stages:
        assert sum(parameter.numel() for parameter in by_stage[stage.name]) == stage.n_parameters
    names = {id(parameter): name for name, parameter in network.stages.named_parameters()}
    for name, named in network.parameters_by_stage():
        assert name == "head" or all(names[id(parameter)] == path for path, parameter in named)


def test_freeze_sets_gradients_and_modes_exactly(backbone):
    """What is frozen asks for no gradient and stays in eval mode, what is not does and does not, over and over."""
    network = RestNetwork(backbone, 0, nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), freeze_bn=False)
    n_stages = len(backbone.stages)
    for n_frozen in (n_stages, 1, n_stages - 1, 0, 2):
        network.freeze(n_frozen)
        assert not any(module.training for module in network.eval().modules())
        network.train()
        for number, (_, named) in enumerate(network.parameters_by_stage()):
            assert {parameter.requires_grad for _, parameter in named} == {number >= n_frozen}
        assert all(is_training == (number >= n_frozen) for number, is_training in modes(network, backbone))
        assert all(module.training for module in network.head.modules())


def test_frozen_in_front_of_the_cut_counts(tiny):
    """Depths count from the input, also where the first stages are not in the rest."""
    network = RestNetwork(tiny, 1, nn.Linear(8, 2))
    for n_frozen, learning in ((0, ["layer1", "layer2"]), (1, ["layer1", "layer2"]), (2, ["layer2"]), (3, [])):
        network.freeze(n_frozen)
        found = [name for name, named in network.parameters_by_stage() if all(p.requires_grad for _, p in named)]
        assert found == [*learning, "head"]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm:efficientnet_lite0"], indirect=True)
def test_batch_norms_keep_their_statistics(backbone):
    """With freeze_bn no batch norm of the backbone is ever in train mode, subclasses of timm's included."""
    kept = RestNetwork(backbone, 0, nn.BatchNorm1d(4))
    assert len(batch_norms(kept)) > 40
    assert not any(module.training for module in batch_norms(kept.train()))
    assert kept.head.training
    assert all(parameter.requires_grad for module in batch_norms(kept) for parameter in module.parameters())
    assert all(module.training for module in batch_norms(RestNetwork(backbone, 0, nn.Identity(), freeze_bn=False)))


def test_whoever_calls_train(tiny):
    """A training pass moves no statistics and drops nothing in what is frozen, however its mode is set."""
    network = RestNetwork(tiny, 0, nn.Identity(), freeze_bn=False)
    network.freeze(2)
    x = pictures(tiny, 4)
    before = copy.deepcopy(network.state_dict())
    for switch in (network.train, lambda: nn.Sequential(network).train(), lambda: network.freeze(2)):
        network.eval()
        switch()
        network.train()
        torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)  # dropout is in layer1
    after = network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"stages.layer2.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
@pytest.mark.parametrize("name", ["tiny", "vit_b_16"])
def test_copies_know_what_is_frozen(tiny, name, copied):
    """A copy gives the same outputs, keeps frozen what was frozen, and its original learns nothing from it."""
    backbone = tiny if name == "tiny" else load_backbone(name, **NETWORKS[name])
    depth = len(backbone.stages) - 3
    network = RestNetwork(backbone, depth, nn.Identity(), freeze_bn=False)
    network.freeze(depth + 1)
    other = copied(network)
    x = torch.rand(2, *(backbone.stages[depth - 1].output_shape if depth else ()))
    x = x if depth else pictures(backbone)
    with torch.inference_mode():
        assert torch.equal(other.eval()(x), network.eval()(x))
    other.train()
    network.train()
    assert {(number > depth) for number, is_training in modes(network, backbone) if is_training} == {True}
    assert modes(other, backbone) == modes(network, backbone)
    wanted = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in other.named_parameters()} == wanted
    other.freeze(len(backbone.stages))
    assert not any(is_training for _, is_training in modes(other.train(), backbone))
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == wanted


def test_the_source_is_never_changed(tiny):
    """Training the rest leaves every tensor, mode and gradient switch of the backbone as it was."""
    before = copy.deepcopy(tiny.module.state_dict())
    network = RestNetwork(tiny, 0, nn.Linear(8, 2), freeze_bn=False).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(pictures(tiny, 4)).sum().backward()
    optimizer.step()
    assert not any(torch.equal(p, before[n]) for n, p in network.stages.named_parameters() if "conv" in n or "0" in n)
    for name, tensor in tiny.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module.training for module in tiny.module.modules())
    assert not any(parameter.requires_grad for parameter in tiny.module.parameters())


class Shared(nn.Module):
    """A layer that the first and the last block run, and one matrix in two blocks."""

    def __init__(self):
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.block2 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.block3 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.block3[0].weight = self.block2[0].weight
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(self.block1(x).mean((2, 3)))


def test_what_stages_share_is_the_first_ones():
    """A shared parameter is in one group, and a layer that a frozen stage runs as well does not learn."""
    backbone = load_backbone(Shared(), preprocessing={"resize_size": 8, "crop_size": 8})
    network = RestNetwork(backbone, 0, nn.Linear(3, 2))
    parameters = [p for _, named in network.parameters_by_stage() for _, p in named]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(network.parameters()))
    network.freeze(2)
    assert not network.stages.get_submodule("block3.0").weight.requires_grad
    rest = RestNetwork(backbone, 1, nn.Linear(3, 2), freeze_bn=False).train()
    assert {n for n, p in rest.stages.named_parameters() if not p.requires_grad} == {
        n for n, _ in rest.stages.named_parameters() if n.startswith("block1")
    }
    assert not any(module.training for module in rest.stages.block1.children())


def test_norm_parameters():
    """Scales and shifts of every kind of norm are found, and nothing else is."""
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.LayerNorm((2, 4, 4)), nn.GroupNorm(1, 2), nn.RMSNorm(4))
    others = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Linear(4, 4), nn.PReLU())
    assert norm_parameters(nn.Sequential(norms, others)) == set(norms.parameters())


@pytest.mark.parametrize(
    ("head", "shapes"),
    [("linear", [(3, 8)]), ((), [(3, 8)]), ((5,), [(5, 8), (3, 5)]), ([6, 4], [(6, 8), (4, 6), (3, 4)])],
)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_heads_by_their_widths(head, shapes, dropout):
    """A head has these layers, with ReLU between them and dropout in front of each."""
    made = make_head(head, 8, 3, dropout=dropout, generator_seed=0)
    assert [tuple(layer.weight.shape) for layer in made if isinstance(layer, nn.Linear)] == shapes
    kinds = [nn.Dropout, nn.Linear, nn.ReLU] if dropout else [nn.Linear, nn.ReLU]
    assert [type(layer) for layer in made] == (kinds * len(shapes))[:-1]
    assert all(layer.p == dropout for layer in made if isinstance(layer, nn.Dropout))
    assert last_linear(made) is made[-1]


def test_heads_are_seeded():
    """A head's weights come from its seed alone, in torch's own distribution; no global generator is drawn from."""
    before = torch.get_rng_state()
    first, again, other = (make_head((50,), 400, 3, dropout=0.0, generator_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
        assert not torch.equal(weights, other.state_dict()[name])
    usual, made = nn.Linear(400, 50).weight.detach(), first[0].weight.detach()
    assert float(made.abs().max()) == pytest.approx(float(usual.abs().max()), rel=0.01)
    assert float(made.std()) == pytest.approx(float(usual.std()), rel=0.05)
    assert 0.04 < float(first[0].bias.detach().abs().max()) <= 0.05


def test_a_head_of_the_users_is_copied():
    """The module given keeps its weights, its modes and its statistics; the copy starts from them."""
    head = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5).eval(), nn.Linear(8, 3))
    before = copy.deepcopy(head.state_dict())
    made = make_head(head, 8, 3, dropout=0.0, generator_seed=0)
    assert [module.training for module in made.modules()] == [module.training for module in head.modules()]
    assert head.training
    assert not head[1].training
    with torch.no_grad():
        made[2].weight.zero_()
        made.train()(torch.rand(4, 8))
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def frozen_head():
    head = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))
    head[0].requires_grad_(False)
    return head


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (frozen_head(), r"frozen parameters: \['0.weight', '0.bias'\].*must be trainable.*requires_grad_\(True\)"),
        (nn.LazyLinear(3), "lazy layers.*fixed number of inputs, 8"),
        (nn.Linear(9, 3), r"fails on features of shape \(n, 8\)"),
        (nn.Linear(8, 2), r"outputs of shape \(2, 3\), one per class or target\. Got \(2, 2\) instead"),
        (nn.Sequential(nn.Linear(8, 3), nn.Flatten(0)), r"Got \(6,\) instead"),
        (TwoOutputs(8, 3), "Got tuple instead"),
        ("conv", r"head must be 'linear', a tuple of widths.* Got 'conv' instead"),
        ((0,), r"Got \(0,\) instead"),
        ((2.5,), r"Got \(2\.5,\) instead"),
        (("8",), r"Got \('8',\) instead"),
    ],
)
def test_heads_that_cannot_work(head, match):
    """A head that is frozen, of another size, or no head at all gets an error that says what would do."""
    with pytest.raises(ValueError, match=match):
        make_head(head, 8, 3, dropout=0.0, generator_seed=0)


def test_last_linear():
    """The layer that gives the outputs is found through nested sequences, and only where it is the last."""
    linear = nn.Linear(2, 2)
    assert last_linear(linear) is linear
    assert last_linear(nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), linear))) is linear
    for head in (nn.Sequential(linear, nn.ReLU()), nn.Sequential(), nn.Identity()):
        assert last_linear(head) is None


def test_a_head_that_lies_elsewhere_is_copied_to_the_cpu(monkeypatch):
    """The check's features are on the CPU; the head given stays where it was, and what it holds."""
    moved = []
    cpu = nn.Module.cpu
    monkeypatch.setattr(nn.Module, "cpu", lambda module: moved.append(module) or cpu(module))
    head = nn.Linear(8, 3)
    made = make_head(head, 8, 3, dropout=0.0, generator_seed=0)
    assert made is not head
    assert moved == [made]
    assert made.weight.data_ptr() != head.weight.data_ptr()
    assert torch.equal(made.weight, head.weight)


def test_norms_that_begin_with_nothing_learn_quickly():
    """A momentum smaller than torch's own is raised to it; greater ones, and a plain mean (None), stay."""
    norms = nn.ModuleList([nn.BatchNorm2d(2, momentum=momentum) for momentum in (0.01, 0.1, 0.5, None)])
    adopt_statistics_quickly(norms)
    assert [norm.momentum for norm in norms] == [0.1, 0.1, 0.5, None]
