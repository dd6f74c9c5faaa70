"""Float graphs in ONNX: the network's function, exported once for all networks of one structure."""

import numpy as np
import pytest
import torch
from torch import nn

from sktl._frozen._onnx import session_options
from sktl.compression import _onnx_export
from sktl.exceptions import EngineError, MissingDependencyError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def network(seed=0, width=4):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.Flatten(), nn.Linear(width * 16, 5)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture
def exports(monkeypatch):
    """How often a graph was exported, with no graph kept from elsewhere."""
    count = []
    export = torch.onnx.export
    monkeypatch.setattr(_onnx_export, "_TEMPLATES", {})
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: count.append(1) or export(*args, **kwargs))
    return count


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def test_the_second_of_one_structure_takes_the_graph_of_the_first_and_its_own_weights(exports):
    """Networks that differ in weights alone are exported once; each graph computes its own network's function."""
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for seed in (0, 1, 0):
        net = network(seed)
        np.testing.assert_allclose(run(_onnx_export.export_float(net, x[:2]), x), net(x).numpy(), rtol=1e-4, atol=1e-5)
    assert len(exports) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.__setitem__(1, nn.ReLU6()),
        lambda net: setattr(net[0], "padding", (1, 1)) or setattr(net[2], "padding", (0, 0)) or net.__setitem__(
            4, nn.Linear(4 * 36, 5)
        ),
        lambda net: net.__setitem__(3, nn.Sequential(nn.Flatten(), nn.Hardtanh(-0.25, 0.25))),
    ],
    ids=["activation", "padding", "a setting"],
)  # fmt: skip
def test_another_structure_is_exported_anew(exports, change):
    """Whatever computes something else has a graph of its own."""
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    _onnx_export.export_float(network(), x[:2])
    net = network()
    change(net)
    net.eval().requires_grad_(False)
    np.testing.assert_allclose(run(_onnx_export.export_float(net, x[:2]), x), net(x).numpy(), rtol=1e-4, atol=1e-5)
    assert len(exports) == 2


def test_equal_weights_do_not_become_one(exports):
    """Biases that are all zero in the first network are each their own in the second one."""
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first = network()
    nn.init.zeros_(first[0].bias), nn.init.zeros_(first[2].bias)
    _onnx_export.export_float(first, x[:2])
    second = network(1)
    got = run(_onnx_export.export_float(second, x[:2]), x)
    np.testing.assert_allclose(got, second(x).numpy(), rtol=1e-4, atol=1e-5)


def test_few_templates_without_weights_are_kept(exports, monkeypatch):
    """Of many structures the oldest is forgotten, and what is kept of one is small."""
    monkeypatch.setattr(_onnx_export, "_MAX_TEMPLATES", 2)
    x = torch.zeros(2, 3, 8, 8)
    for width in (64, 65, 66):
        _onnx_export.export_float(network(width=width), x)
    assert len(_onnx_export._TEMPLATES) == 2
    assert all(len(template) < 20_000 for template in _onnx_export._TEMPLATES.values())  # of 150 kB
    _onnx_export.export_float(network(width=66), x)
    assert len(exports) == 3
    _onnx_export.export_float(network(width=64), x)
    assert len(exports) == 4


class Undecided(nn.Module):
    """Does one thing or another, as the values want it."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_has_no_graph_is_a_clear_error():
    """A network that decides by values cannot be written down; the error names the schemes that can store it."""
    with pytest.raises(
        EngineError, match=r"scheme='int8' runs in .* does not support this network.*Use scheme='float16'"
    ):
        _onnx_export.export_float(Undecided(), torch.zeros(2, 3))


def test_a_missing_package_names_its_extra(monkeypatch):
    """Without onnxscript, the error says how to get it."""
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"scheme='int8' needs .*sktl\[onnx\]"):
        _onnx_export.export_float(network(), torch.zeros(2, 3, 8, 8))
