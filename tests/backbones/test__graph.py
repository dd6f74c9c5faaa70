"""What is read from a graph is right on small networks whose answer is known by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from sktl.backbones import _graph, _tracing

PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def read(module: nn.Module) -> tuple[fx.Graph, nn.Module]:
    """A measured graph and the copy of ``module`` that it refers to."""
    root = _graph.shadow(module.eval(), torch.Tensor.detach)
    graph = _tracing.trace(root)
    _tracing.measure(graph, root, (1, 3, 8, 8))
    return graph, root


def node(graph: fx.Graph, layer: str) -> fx.Node:
    return next(n for n in graph.nodes if n.meta["layer"] == layer)


class Residual(nn.Module):
    """Two data paths between the first convolution and the addition."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.second(x))


class ReadsItsSize(nn.Module):
    """The batch size, read at the start, is needed at the end."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        n = x.shape[0]
        x = torch.relu(self.conv(x)) * self.scale
        return x.reshape(n, -1)


class Overwrites(nn.Module):
    """Every way to change a tensor in place; two of the results depend on the change being seen by others."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.conv(x)
        shortcut = x
        y = self.relu(x) * 2  # the shortcut is rectified as well
        y += shortcut
        F.elu(y, 1.0, True)  # the result is only to be found in y
        y.mul_(3)
        torch.relu_(y)
        n = y.size(1)
        m = n
        m += 1  # a number: no tensor is changed
        return F.relu(y - n - m, inplace=True)


def test_cut_points():
    """A place that a second path goes around is no cut; the image and the output node are none either."""
    graph, _ = read(Residual())
    assert [cut.meta["layer"] for cut in _graph.cut_points(graph)] == ["first", "add", "last"]


def test_a_size_that_is_still_needed_prevents_a_cut():
    """Integers from shapes cannot leak across a cut, while parameters can be read again behind it."""
    graph, _ = read(ReadsItsSize())
    assert [cut.meta["layer"] for cut in _graph.cut_points(graph)] == ["reshape"]


def test_extract_takes_no_more_than_needed():
    """Layers behind the wanted one, and beside the way to it, are not in the part."""
    graph, root = read(Residual())
    part = fx.GraphModule(root, _graph.extract(graph, node(graph, "second")))
    assert dict(part.named_children()).keys() == {"first", "second"}
    module = root.first(PICTURE)
    torch.testing.assert_close(part(PICTURE), root.second(module), rtol=0, atol=0)
    rest = fx.GraphModule(root, _graph.extract(graph, _graph.output_node(graph), start=node(graph, "add")))
    assert dict(rest.named_children()).keys() == {"last"}


def test_several_outputs():
    """A tuple of nodes gives a tuple of tensors, in the order asked for, repeated where asked for twice."""
    graph, root = read(Residual())
    wanted = (node(graph, "add"), node(graph, "first"), node(graph, "add"))
    add, first, again = fx.GraphModule(root, _graph.extract(graph, wanted))(PICTURE)
    torch.testing.assert_close(first, root.first(PICTURE), rtol=0, atol=0)
    assert add is again


def test_remove_mutation_keeps_the_result():
    """A network that relies on its in-place operations computes the same without any."""
    module = Overwrites().eval()
    expected = module(PICTURE)
    graph, root = read(module)
    _graph.remove_mutation(graph, root)
    assert not any(n.op == "call_method" and str(n.target).endswith("_") for n in graph.nodes)
    torch.testing.assert_close(fx.GraphModule(root, graph)(PICTURE), expected, rtol=0, atol=0)
    assert module.relu.inplace, "the network itself is left as it was"


def test_remove_mutation_keeps_what_was_there_before():
    """Every layer's output, returned together with all others, is what it was when it was computed."""
    graph, root = read(Overwrites())
    _graph.remove_mutation(graph, root)
    nodes = tuple(_graph.tensor_nodes(graph))
    together = fx.GraphModule(root, _graph.extract(graph, nodes))(PICTURE)
    for wanted, value in zip(nodes, together, strict=True):
        alone = fx.GraphModule(root, _graph.extract(graph, wanted))(PICTURE)
        torch.testing.assert_close(value, alone, rtol=0, atol=0)
    assert node(graph, "conv") in nodes
    assert together[0].min() < 0, "the convolution's output is not rectified"


def test_shadow_shares_memory_but_not_placement():
    """The copy sees the same numbers in the same memory; casting it leaves the original alone."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    shadow = _graph.shadow(module, torch.Tensor.detach)
    assert shadow[0].weight.data_ptr() == module[0].weight.data_ptr()
    assert not shadow[0].weight.requires_grad
    shadow.half()
    assert module[0].weight.dtype == torch.float32


def test_shadow_keeps_shared_weights_shared():
    """A parameter used twice stays one parameter."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    shadow = _graph.shadow(module, torch.Tensor.clone)
    assert shadow[0].weight is shadow[1].weight
    assert shadow[0].weight is not module[0].weight


@pytest.mark.parametrize("module", [Residual(), ReadsItsSize(), Overwrites()])
def test_module_is_not_changed(module):
    """Reading, measuring and rewriting leave every weight and setting of the network as they were."""
    before = copy.deepcopy(module.state_dict())
    graph, root = read(module)
    _graph.remove_mutation(graph, root)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())
