"""How fast each parameter learns: by stage, by kind, and by the share of a fit that is over."""

import math

import pytest
import torch
from torch import nn

from sktl._training._rest_network import RestNetwork
from sktl._training._schedules import OPTIMIZERS, SCHEDULES, parameter_groups, set_learning_rates
from sktl.backbones import load_backbone

SMALL = {"weights": None, "preprocessing": {"resize_size": 64, "crop_size": 64}, "random_state": 0}


def groups_of(network, **params):
    return parameter_groups(network, **{"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.01, **params})


def test_rates_fall_from_the_head_to_the_input(tiny):
    """The head learns with lr and each earlier stage lr_decay times as fast as the one behind it."""
    groups = groups_of(RestNetwork(tiny, 0, nn.Linear(8, 2)))
    rates = {group["stage"]: (group["lr"], group["base_lr"]) for group in groups}
    expected = {"head": 0.1, "layer2": 0.05, "layer1": 0.025, "stem": 0.0125}
    assert rates == {stage: (rate, rate) for stage, rate in expected.items()}
    assert list(rates) == list(expected)
    behind_the_cut = groups_of(RestNetwork(tiny, 2, nn.Linear(8, 2)), lr_decay=0.1)
    assert {group["stage"]: group["lr"] for group in behind_the_cut} == {"head": 0.1, "layer2": pytest.approx(0.01)}


def test_only_what_learns_is_in_a_group(tiny):
    """Each learning parameter is in one group, a frozen one in none."""
    network = RestNetwork(tiny, 0, nn.Linear(8, 2))
    network.freeze(2)
    grouped = [p for group in groups_of(network) for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in network.parameters() if p.requires_grad}
    assert {group["stage"] for group in groups_of(network)} == {"head", "layer2"}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet18", ["bn1.weight", "layer1.0.bn2.weight"]),
        ("convnext_tiny", ["features.0.1.weight", "features.1.0.layer_scale", "features.1.0.block.2.weight"]),
        ("swin_t", ["features.0.2.weight", "features.1.0.attn.relative_position_bias_table"]),
        ("timm:efficientnet_lite0", ["bn1.weight"]),
        ("timm:convnext_atto", ["stem.1.weight", "stages.0.blocks.0.norm.weight", "stages.0.blocks.0.gamma"]),
    ],
)
def test_weight_decay_is_for_matrices_and_kernels(name, plain):
    """Norms of every library, biases, layer scales and tables of positions have none; convolutions and layers do."""
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    network = RestNetwork(load_backbone(name, **SMALL), 0, nn.Sequential(nn.Linear(8, 1), nn.PReLU(4)))
    decay = {id(p): group["weight_decay"] for group in groups_of(network) for p in group["params"]}
    named = dict(network.stages.named_parameters())
    for path in plain:
        assert decay[id(named[path])] == 0.0, path
    for path, parameter in named.items():
        is_kernel = path.endswith("weight") and parameter.ndim in (2, 4)
        assert decay[id(parameter)] == (0.01 if is_kernel else 0.0), path
    linear, prelu = network.head
    assert [decay[id(p)] for p in (linear.weight, linear.bias, prelu.weight)] == [0.01, 0.0, 0.0]


def test_tokens_and_positions_have_no_decay():
    """Class token and positions of a vision transformer are no weights; its attention's projections are."""
    network = RestNetwork(load_backbone("vit_b_16", weights=None, random_state=0), 0, nn.Identity())
    decay = {id(p): group["weight_decay"] for group in groups_of(network) for p in group["params"]}
    named = dict(network.stages.named_parameters())
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert {path: decay[id(named[path])] for path in ("class_token", "encoder.pos_embedding")} == {
        "class_token": 0.0,
        "encoder.pos_embedding": 0.0,
    }
    assert decay[id(named[f"{attention}.in_proj_weight"])] == 0.01
    assert decay[id(named[f"{attention}.in_proj_bias"])] == 0.0
    assert decay[id(named["encoder.ln.weight"])] == 0.0


def test_norms_over_several_axes():
    """A norm whose scale is no vector has no decay either."""
    backbone = load_backbone(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 8, 8))),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
            nn.Flatten(),
            nn.Linear(256, 2),
        ),
        preprocessing={"resize_size": 8, "crop_size": 8},
    )
    network = RestNetwork(backbone, 0, nn.Identity())
    decayed = [tuple(p.shape) for group in groups_of(network) if group["weight_decay"] for p in group["params"]]
    assert sorted(decayed) == [(4, 3, 1, 1), (4, 4, 1, 1)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    """Each begins with the full rate, never rises, and is what its formula says in between."""
    factors = [SCHEDULES[name](share / 8) for share in range(9)]
    formula = {
        "constant": lambda share: 1.0,
        "cosine": lambda share: math.cos(math.pi * share / 2) ** 2,
        "linear": lambda share: 1 - share,
    }[name]
    assert factors == pytest.approx([formula(share / 8) for share in range(9)], abs=1e-12)
    assert SCHEDULES[name](1.5) == pytest.approx(factors[-1], abs=1e-12)  # steps beyond what was planned


def test_all_groups_move_together():
    """A factor is of each group's own base rate, however often it is set."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "base_lr": rate} for rate in (0.4, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for factor in (0.5, 0.25, 1.0):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.4 * factor, 0.1 * factor]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_groups(tiny, name):
    """Every optimizer that has a name accepts the groups and makes a step of each stage."""
    network = RestNetwork(tiny, 0, nn.Linear(8, 2)).train()
    kind, defaults = OPTIMIZERS[name]
    optimizer = kind(groups_of(network), lr=0.1, **defaults)
    before = {path: p.detach().clone() for path, p in network.named_parameters()}
    network(torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)).square().sum().backward()
    optimizer.step()
    moved = {path for path, p in network.named_parameters() if (p != before[path]).any()}
    for stage, named in network.parameters_by_stage():
        assert any(f"stages.{path}" in moved or f"head.{path}" in moved for path, _ in named), stage
