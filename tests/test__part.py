"""Parts of networks load from a pickle as what they were, and nobody else notices."""

import copy
import operator
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import fx, nn
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._part import Part, to_pickle, without_tracing
from sktl._training._rest_network import make_head
from sktl.backbones import load_backbone
from sktl.selection import BackboneSelector


def double(x):
    """A function of the user's own."""
    return 2 * x


fx.wrap("double")


class Odd(nn.Module):
    """Whatever a graph may hold: functions that torch keeps elsewhere, slices, tuples, methods, tensors, numbers."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleDict({"first": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 3.0))
        self.register_buffer("shift", torch.ones(4, 1, 1))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.blocks["first"](x), 2)
        left, right = torch.split(x, [1, 3], dim=1)
        x = torch.cat([left * 2, right], dim=1) * self.scale + self.shift
        x = operator.neg(double(x)[:, :, 1:, ::2]).clamp(min=-5.0, max=x.shape[2])
        return {"features": x.flatten(1), "sizes": (x.size(0), left.mean((2, 3)))}


@pytest.fixture
def no_tracing(monkeypatch):
    """Whoever traces fails, and so does whoever replaces a method of all modules."""

    def refuse(*args, **kwargs):
        raise AssertionError("it was traced")

    monkeypatch.setattr(fx.Tracer, "trace", refuse)
    monkeypatch.setattr(fx._symbolic_trace._Patcher, "patch_method", refuse)


def test_a_part_is_what_it_was(no_tracing):
    """Nodes, names, weights, mode and results are those before, in both directions of time."""
    part = Part(*traced(Odd().eval()))
    part.blocks.requires_grad_(False)
    loaded = pickle.loads(pickle.dumps(part))
    x = torch.rand(2, 3, 9, 9)
    found, expected = loaded(x), part(x)
    assert torch.equal(found["features"], expected["features"])
    assert torch.equal(found["sizes"][1], expected["sizes"][1])
    # The original begins with a line for those who would trace it again.
    assert part.code.strip().endswith(loaded.code.strip())
    assert [node.name for node in loaded.graph.nodes] == [node.name for node in part.graph.nodes]
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in part.parameters()]
    assert str(pickle.loads(pickle.dumps(loaded)).graph) == str(loaded.graph)
    assert isinstance(copy.deepcopy(loaded), Part)


def traced(module):
    """A network and its graph, from before tracing was forbidden."""
    return module, _GRAPHS[type(module)].__deepcopy__()


_GRAPHS = {Odd: fx.symbolic_trace(Odd().eval()).graph}


def test_two_uses_of_one_tensor_stay_one():
    """A weight that two layers share is one in what is loaded."""
    layer = nn.Linear(3, 3)
    part = without_tracing(fx.symbolic_trace(nn.Sequential(layer, nn.ReLU(), layer)))
    loaded = pickle.loads(pickle.dumps(part))
    assert len(list(loaded.parameters())) == 2


def test_a_users_graph_modules_are_parts_in_a_pickle(no_tracing):
    """Wherever one is in a network; the user's own object is left as it is, and so is any other value."""
    inner = fx.GraphModule(nn.Module(), _GRAPHS_OF_USERS[0].__deepcopy__())
    network = nn.Sequential(nn.Identity(), nn.Sequential(inner))
    loaded = pickle.loads(pickle.dumps(to_pickle(network)))
    assert torch.equal(loaded(torch.ones(2)), network(torch.ones(2)))
    assert type(network[1][0]).__mro__[1] is fx.GraphModule
    plain = nn.Linear(2, 2)
    assert to_pickle(plain) is plain
    assert to_pickle("sktl_mini") == "sktl_mini"


class _Doubles(nn.Module):
    def forward(self, x):
        return double(x) + 1


_GRAPHS_OF_USERS = [fx.symbolic_trace(_Doubles()).graph]


@pytest.fixture(scope="module")
def fitted():
    """A fitted classifier, its pictures and its answers."""
    X = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)
    model = FineTunedClassifier(max_epochs=1, freeze_depth=-1, random_state=0).fit(X, np.arange(8) % 2)
    return model, X, model.predict_proba(X)


def test_fitted_estimators_load_without_tracing(fitted, no_tracing):
    """The one that was trained, and what it was made of."""
    model, X, _ = fitted
    pickle.loads(pickle.dumps(model))
    pickle.loads(pickle.dumps(model.net_.module_))
    pickle.loads(pickle.dumps(PretrainedFeatureExtractor().fit(X)))
    pickle.loads(pickle.dumps(model.backbone_.feature_graph("layer1")))


def test_networks_of_the_users_own_load_without_tracing():
    """A graph module as backbone and as head, in the parameters and in what was trained."""
    backbone = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    head = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 2)))
    X = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    model = FineTunedClassifier(backbone, head=head, head_init="random", max_epochs=1, random_state=0)
    content = pickle.dumps(model.fit(X, np.arange(6) % 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fx.Tracer, "trace", None)
        loaded = pickle.loads(content)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_threads_load_copy_and_predict_at_once(fitted):
    """Servers load models in threads: each answers as the original, no method of torch's is ever another one."""
    model, X, expected = fitted
    content, wrong, own = pickle.dumps(model), [], (nn.Module.__call__, nn.Module.__getattr__)

    def serve():
        try:
            for _ in range(3):
                loaded = pickle.loads(content)
                if not np.array_equal(copy.deepcopy(loaded).predict_proba(X), expected):
                    wrong.append("other numbers")
                if own != (nn.Module.__call__, nn.Module.__getattr__):
                    wrong.append("other methods")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):  # and a network is read for the first time meanwhile
        load_backbone(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        model.predict(X)
    for thread in threads:
        thread.join(120)
    assert wrong == []


class _Drops(nn.Module):
    """Drops features while it is trained, by what a graph takes for a constant."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return nn.functional.dropout(self.layers(x), 0.5, self.training)


def test_torchvisions_graphs_for_training_and_for_predictions_are_both_kept():
    """As a backbone it is the one for predictions, and copies and pickles are in the mode of the original."""
    network = create_feature_extractor(
        _Drops(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), ["dropout"]
    )
    x = torch.ones(2, 3, 16, 16)
    expected = network.eval()(x)["dropout"]
    kept = nn.Sequential(network).eval()
    for found in (kept, copy.deepcopy(to_pickle(kept)), pickle.loads(pickle.dumps(to_pickle(kept)))):
        assert torch.equal(found(x)["dropout"], expected)
        assert (found.train()(x)["dropout"] == 0).any()
        assert torch.equal(found.eval()(x)["dropout"], expected)
    kept.train()
    backbones = [network, to_pickle(network), pickle.loads(pickle.dumps(to_pickle(network)))]
    for backbone in (load_backbone(each) for each in backbones):
        assert torch.equal(backbone.module(x)["dropout"], expected)


def test_networks_in_lists_and_dicts_are_parts_in_a_pickle(no_tracing):
    """However deep; what has none in it stays the very object."""
    network = fx.GraphModule(nn.Module(), _GRAPHS_OF_USERS[0].__deepcopy__())
    loaded = pickle.loads(pickle.dumps(BackboneSelector([network, "sktl_mini"])))
    assert isinstance(loaded.backbones[0], Part)
    assert loaded.backbones[1] == "sktl_mini"
    found = to_pickle({"a": ([network], 1), "b": None})
    assert isinstance(found["a"][0][0], Part)
    assert type(network).__mro__[1] is fx.GraphModule
    plain = {"a": ["x"], "b": (nn.Linear(1, 1),)}
    assert to_pickle(plain) is plain


class _ToChannelsLast(nn.Module):
    def forward(self, x):
        return x.to(dtype=torch.float32, memory_format=torch.channels_last)


@pytest.mark.parametrize("protocol", [2, 4])
def test_memory_formats_are_pickled_in_every_protocol(protocol):
    """That of torch.save too."""
    part = without_tracing(fx.symbolic_trace(_ToChannelsLast()))
    loaded = pickle.loads(pickle.dumps(part, protocol))
    assert loaded(torch.ones(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_a_head_of_two_graphs_drops_in_training_alone():
    """It is a part from the first step on."""
    root, x = _Drops(nn.Linear(4, 8)), torch.ones(2, 4)
    graphs = [fx.symbolic_trace(root.train(mode)).graph for mode in (True, False)]
    head = make_head(DualGraphModule(root, *graphs), 4, 8, dropout=0.0, generator_seed=0)
    assert isinstance(head, Part)
    assert (head.train()(x) == 0).any()
    assert torch.equal(head.eval()(x), root.layers(x))
