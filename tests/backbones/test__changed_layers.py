"""Networks made from another one: without its source head, with smaller layers, or up to one of its stages."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sktl.backbones import Backbone, Preprocessing, load_backbone
from sktl.backbones._backbone import up_to


class Net(nn.Module):
    """Three stages and a source head; the last stage is followed by layers that read it in a shape of their own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 1000)

    def forward(self, x):
        return self.fc(self.pool(self.layer2(self.layer1(self.stem(x)))).flatten(1))


@pytest.fixture
def backbone():
    """The network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_backbone(Net(), preprocessing={"resize_size": 16, "crop_size": 16})


@pytest.fixture
def x():
    """Four normalised pictures."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def run(backbone, x, layer="layer2"):
    with torch.no_grad():
        return backbone.feature_graph(layer)(x)[0]


def names(backbone):
    return [stage.name for stage in backbone.stages]


def test_a_body_has_no_source_head(backbone, x):
    """Its stages are the same, to the bit and to the fingerprint, and its thousand outputs are no part of it."""
    body = backbone.body
    assert names(body) == names(backbone) == ["stem", "layer1", "layer2"]
    assert torch.equal(run(body, x), run(backbone, x))
    assert [body.fingerprint(name) for name in names(body)] == [backbone.fingerprint(name) for name in names(backbone)]
    assert "fc.weight" not in body.module.state_dict()
    assert len(pickle.dumps(body)) < len(pickle.dumps(backbone)) - 60_000
    assert body.body is body
    assert backbone.body is body
    assert "fc.weight" in backbone.module.state_dict()
    assert body.module.layer1[0].weight.data_ptr() == backbone.module.layer1[0].weight.data_ptr()


def narrow(rest):
    """Half of the filters of the convolution in layer1, and what reads them."""
    first, second = rest.get_submodule("layer1.0"), rest.get_submodule("layer2.0")
    with torch.no_grad():
        first.weight, first.bias = nn.Parameter(first.weight[:6].clone()), nn.Parameter(first.bias[:6].clone())
        second.weight = nn.Parameter(second.weight[:, :6].clone())
    first.out_channels = second.in_channels = 6


def split(rest):
    """A convolution that has become two."""
    old = rest.get_submodule("layer2.0")
    second = nn.Conv2d(4, 16, 1)
    rest.set_submodule("layer2.0", nn.Sequential(nn.Conv2d(12, 4, old.kernel_size, bias=False), second))


@pytest.mark.parametrize("change", [narrow, split])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("again", [lambda x: x, lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_other_modules(backbone, x, change, depth, again):
    """Stages keep their names, frozen ones their fingerprints; the new network computes what the changed rest does."""
    prefix, rest = backbone.cut(depth, head=False)
    change(rest)
    before = copy.deepcopy(backbone.module.state_dict())
    other = again(backbone.with_modules(rest))
    assert names(other) == names(backbone)
    rest.graph = copy.deepcopy(rest.graph)
    with torch.no_grad():
        torch.testing.assert_close(run(other, x), rest.eval()(prefix(x)))
    assert other.fingerprint("layer2") != backbone.fingerprint("layer2")
    if depth:
        assert other.fingerprint("stem") == backbone.fingerprint("stem")
        own, lent = other.module.stem[0].weight, backbone.module.stem[0].weight
        assert torch.equal(own, lent)
    assert other.output_shape("layer1") == ((6, 7, 7) if change is narrow else (12, 7, 7))
    assert other.macs("layer2") < backbone.macs("layer2")
    after = backbone.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    _, again_rest = other.cut(1, head=False)
    with torch.no_grad():
        torch.testing.assert_close(again_rest(run(other, x, "stem")), run(other, x))


def test_what_is_given_is_copied(backbone, x):
    """A rest that goes on learning does not change the network that was made of it, nor the other way round."""
    _, rest = backbone.cut(1, head=False)
    other = backbone.with_modules(rest)
    expected = run(other, x)
    with torch.no_grad():
        for parameter in rest.parameters():
            parameter.add_(1)
    assert torch.equal(run(other, x), expected)
    assert not any(parameter.requires_grad for parameter in other.module.parameters())


def test_other_modules_twice(backbone, x):
    """A network that was changed can be changed again."""
    _, rest = backbone.cut(1, head=False)
    narrow(rest)
    once = backbone.with_modules(rest)
    _, rest = once.cut(2, head=False)
    rest.set_submodule("layer2.0", nn.Sequential(nn.Conv2d(6, 2, 3), nn.Conv2d(2, 16, 1)))
    twice = once.with_modules(rest)
    assert names(twice) == names(backbone)
    assert twice.fingerprint("layer1") == once.fingerprint("layer1")
    assert run(twice, x).shape == run(backbone, x).shape


def test_stage_ends_that_are_given(backbone, x):
    """Stages may be said to end where one wants; a layer that is not there is named."""
    ends = {"first": "layer1.0", "second": "layer2"}
    settings = {"name": "own", "preprocessing": Preprocessing(resize_size=16, crop_size=16)}
    own = Backbone(copy.deepcopy(backbone.module), stage_ends=ends, **settings)
    assert names(own) == ["first", "second"]
    assert torch.equal(run(own, x, "second"), run(backbone, x))
    assert own.stage_index("first") == 1
    assert len(own.stage_parts["first"]) == 4
    again = pickle.loads(pickle.dumps(own))
    assert names(again) == ["first", "second"]


def test_up_to(backbone, x):
    """The network that ends with a stage gives what that stage gives, has the fingerprints that it had there, and what
    was behind it takes no room."""
    for n_stages in (1, 2, 3):
        part = up_to(backbone, n_stages)
        assert [stage.name for stage in part.stages] == ["stem", "layer1", "layer2"][:n_stages]
        last = part.stages[-1].name
        assert part.fingerprint(last) == backbone.fingerprint(last)
        (expected,) = backbone.feature_graph(last)(x)
        torch.testing.assert_close(part.feature_graph(last)(x)[0], expected, rtol=0, atol=0)
        again = pickle.loads(pickle.dumps(part))
        torch.testing.assert_close(again.feature_graph(last)(x)[0], expected, rtol=0, atol=0)
        _, rest = part.cut(n_stages - 1)
        assert sum(p.numel() for p in rest.parameters()) == part.stages[-1].n_parameters
    assert sum(p.numel() for p in up_to(backbone, 1).module.parameters()) == backbone.stages[0].n_parameters
    assert backbone.module.fc.out_features == 1000
