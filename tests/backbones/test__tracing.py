"""Networks are read with torchvision's names, measured with the published figures, and closed where they must be."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import nn
from torch.fx import traceback
from torchvision.models.feature_extraction import get_graph_node_names

from sktl.backbones import _tracing
from sktl.exceptions import BackboneError


class Branches(nn.Module):
    """What a graph cannot hold: it depends on the values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class TakesAMask(nn.Module):
    """A second argument with a default, which must not become an input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x, mask=None):
        x = self.conv(x)
        return x if mask is None else x * mask


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_32"])
def test_names_are_those_of_torchvision(name):
    """The names are those that torchvision's own feature extraction gives."""
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None).eval()
    _, expected = get_graph_node_names(module, suppress_diff_warning=True)
    module.eval()
    graph = _tracing.trace(module)
    assert [node.meta["layer"] for node in graph.nodes if node.op != "output"] == [n for n in expected if n != "output"]


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v3_small", "vit_b_32", "swin_t"])
def test_macs_are_those_published(name):
    """The multiply-accumulates are those that torchvision publishes, attention included."""
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None).eval()
    graph = _tracing.trace(module)
    _tracing.measure(graph, module, (1, 3, 224, 224))
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    assert sum(node.meta["macs"] for node in graph.nodes if "macs" in node.meta) / 1e9 == pytest.approx(
        published, abs=5e-4
    )


def test_a_part_that_cannot_be_traced_is_one_layer():
    """A submodule with control flow becomes a single layer, measured by running it on a real image."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Branches(), nn.ReLU())).eval()
    graph = _tracing.trace(module)
    _tracing.measure(graph, module, (1, 3, 8, 8))
    assert [node.meta["layer"] for node in graph.nodes][1:-1] == ["0", "1.0", "1.1"]
    assert [node.meta["shape"] for node in graph.nodes][1:-1] == [(1, 4, 8, 8)] * 3


def test_a_network_that_cannot_be_traced():
    """Where the outermost forward has control flow, the error says what to do about it."""
    with pytest.raises(BackboneError, match=r"Branches .* nn\.Sequential of its blocks"):
        _tracing.trace(Branches())


def test_further_arguments_keep_their_defaults():
    """An optional mask is no input of the graph, and its branch is not taken."""
    graph = _tracing.trace(TakesAMask())
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "output"]


def test_networks_of_other_threads_run_on_meanwhile():
    """torch.fx changes every module of the process while it reads one; other threads must not notice."""
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    results = []

    class RunsAnother(nn.Sequential):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                results.append(pool.submit(other, torch.ones(1, 3, 8, 8)).result())
            return super().forward(x)

    graph = _tracing.trace(RunsAnother(nn.Conv2d(3, 4, 1)))
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "output"]
    assert torch.equal(results[0], other(torch.ones(1, 3, 8, 8)))


def test_who_measures_says_nothing_of_it_to_an_export_beside():
    """While an export keeps what nodes know, torch's interpreters tell it of their own nodes, in whatever thread."""

    class Notes(nn.Module):
        def forward(self, x):
            seen.append(traceback.current_meta)
            return x + 1

    seen: list[dict] = []
    root = nn.Sequential(Notes())
    graph = _tracing._Tracer({"0"}).trace(root)
    for node in graph.nodes:
        node.meta["layer"] = node.name
    with traceback.preserve_node_meta():
        before = traceback.current_meta
        _tracing.measure(graph, root, (1, 3, 4, 4))
    assert len(seen) == 1
    assert seen[0] is before


def test_classes_notice_nothing_of_being_watched():
    """Those that keep a list of their subclasses, or demand something of each, are read as any other."""
    known = []

    class Listed(nn.Module):
        def __init_subclass__(cls, *, name):
            known.append(name)

    class Layer(Listed, name="layer"):
        def forward(self, x):
            return x + 1

    class HasSlots(nn.Module):
        __slots__ = ("slot",)

        def forward(self, x):
            return x + 1

    graph = _tracing.trace(nn.Sequential(Layer(), HasSlots()))
    assert [node.op for node in graph.nodes] == ["placeholder", "call_function", "call_function", "output"]
    assert known == ["layer"]
