"""Integer sums are the same on every processor: those of older ones are worked out here, and run where possible."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sktl._frozen._onnx import session_options
from sktl._training._rest_network import RestNetwork
from sktl.backbones import Backbone
from sktl.backbones._preprocessing import Preprocessing
from sktl.compression import _integer_session
from sktl.compression._int8 import quantize_int8

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from onnx import numpy_helper  # noqa: E402

SMALL = Preprocessing(resize_size=8, crop_size=8, interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class Patches(nn.Module):
    """Linear layers over the pixels of a map, as transformers have them: matrix products of three dimensions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 24)

    def forward(self, x):
        return self.second(self.first(x.flatten(2).transpose(1, 2)).relu()).mean(1)


def of_one_sign(module):
    """The module with weights all above zero, so that sums of their products are as large as they can be."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    return module


@pytest.fixture(scope="module")
def net():
    """A network of all operations that have weights: convolutions, one with groups, matrix products and a head."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1)]
    module = of_one_sign(nn.Sequential(nn.Sequential(*convolutions), Patches(), nn.Linear(24, 2)))
    backbone = Backbone(module, name="small", preprocessing=SMALL)
    network = RestNetwork(backbone, 0, of_one_sign(nn.Linear(24, 5))).eval()
    return quantize_int8(network, [np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)])


@pytest.fixture(scope="module")
def images():
    """Some of them so bright that sums are large."""
    images = np.random.default_rng(1).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    images[:8] = 255
    return images


def sums(activations, weights, zero_point=0):
    """What the kernels for AVX2 make of rows of unsigned activations and columns of weights.

    Signed weights are multiplied and added in pairs that saturate at 16 bits; products of two unsigned numbers are
    added in 32.
    """
    signed, x = weights.astype(int), activations.astype(int)
    padded = len(signed) % 2
    signed, x = np.pad(signed, ((0, padded), (0, 0))), np.pad(x, ((0, 0), (0, padded)))
    pairs = np.einsum("npk,pkm->npm", x.reshape(len(x), -1, 2), signed.reshape(-1, 2, signed.shape[1]))
    if weights.dtype == np.int8:
        pairs = np.clip(pairs, -(2**15), 2**15 - 1)
    return pairs.sum(1) - zero_point * x.sum(1, keepdims=True)


def run_weights(net, path, **options):
    """The weights of each integer layer in the graph that a session makes: columns, with one zero point each."""
    settings = session_options(1)
    for name, value in options.items():
        settings.add_session_config_entry(f"session.{name}", value)
    settings.optimized_model_filepath = str(path)
    _integer_session._session(net.model, settings)
    graph = onnx.load(path).graph
    numbers = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    for node in graph.node:
        for weight, zero in zip(node.input[3:], node.input[5:], strict=False):
            if numbers.get(weight, np.empty(0)).dtype in (np.int8, np.uint8) and numbers[weight].ndim > 1:
                columns = numbers[weight]
                is_conv = node.op_type == "QLinearConv"
                columns = columns.reshape(len(columns), -1).T if is_conv else columns
                yield node.op_type, columns, int(np.unique(numbers[zero]).item())


def overflowing(layers):
    """The operations with activations for which sums in 16 bits are other than the true ones."""
    wrong = []
    for operation, columns, zero in layers:
        true = columns.astype(int) - zero
        for sign in (1, -1):
            x = np.where(sign * true.T > 0, 255, 0).astype(np.uint8)  # for each column the worst there is
            if not np.array_equal(sums(x, columns, zero), x.astype(int) @ true):
                wrong.append(operation)
                break
    return wrong


def test_the_model_of_the_probe():
    """Its product is that of four activations with four weights of 127, each pair of which needs more than 16 bits."""
    graph = onnx.ModelProto.FromString(_integer_session._PROBE).graph
    assert [node.op_type for node in graph.node] == ["MatMulInteger"]
    weights = numpy_helper.to_array(graph.initializer[0])
    np.testing.assert_array_equal(weights, np.full((4, 1), 127, np.int8))
    onnx.checker.check_model(onnx.ModelProto.FromString(_integer_session._PROBE), full_check=True)
    x = np.full((1, 4), 255, np.uint8)
    assert sums(x, weights) == 2 * (2**15 - 1)
    assert sums(x, weights.astype(np.uint8) + 128, 128) == 4 * 255 * 127


def test_no_sum_overflows_where_others_would(net, tmp_path):
    """In the graph that an older processor is given, no sum of any layer can saturate; in the usual one they can.

    So it is whatever processor this test runs on.
    """
    usual = list(run_weights(net, tmp_path / "usual.onnx"))
    assert {operation for operation, *_ in usual} >= {"QLinearConv", "QGemm"}
    assert all(columns.dtype == np.int8 for _, columns, _ in usual)
    assert len(overflowing(usual)) >= 4
    if not _converts(net, tmp_path):
        pytest.skip("this build of ONNX Runtime has one kernel for all weights, which does not overflow")
    wide = list(run_weights(net, tmp_path / "wide.onnx", x64quantprecision="1"))
    assert overflowing(wide) == []
    for (operation, before, zero_before), (same, after, zero) in zip(usual, wide, strict=True):
        assert operation == same
        np.testing.assert_array_equal(before.astype(int) - zero_before, after.astype(int) - zero)


def _converts(net, folder):
    """Whether this machine's kernels differ by the sign of weights: those of ARM do not."""
    layers = run_weights(net, folder / "any.onnx", x64quantprecision="1")
    return any(columns.dtype == np.uint8 for _, columns, _ in layers)


def test_wide_sums_give_the_same_to_the_bit(net, images, monkeypatch):
    """A processor that is taken for an older one gives the same outputs, in a session that is told so."""
    expected = net.outputs(images)
    monkeypatch.setattr(_integer_session, "overflows", lambda: True)
    other = pickle.loads(pickle.dumps(net))  # makes a session of its own
    np.testing.assert_array_equal(other.outputs(images), expected)
    assert other._session().get_session_options().get_session_config_entry("session.x64quantprecision") == "1"
    monkeypatch.setattr(_integer_session, "overflows", lambda: False)
    options = pickle.loads(pickle.dumps(net))._session().get_session_options()
    with pytest.raises(RuntimeError, match="x64quantprecision"):
        options.get_session_config_entry("session.x64quantprecision")


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The library that hides instructions."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    compiler = shutil.which("cc")
    if "cpuid_fault" not in flags or "avx2" not in flags or compiler is None:
        pytest.skip("needs Linux, a C compiler, and a processor of x86-64 that can hide what it is")
    library = tmp_path_factory.mktemp("library") / "older_processor.so"
    source = Path(__file__).with_name("older_processor.c")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


SCRIPT = """
import pickle, sys
import numpy as np
from sktl.compression import _integer_session
net, images = pickle.load(open(sys.argv[1], "rb"))
print(_integer_session.overflows(), net.note)
np.save(sys.argv[2], net.outputs(images))
_integer_session.overflows = lambda: False
np.save(sys.argv[3], pickle.loads(pickle.dumps(net)).outputs(images))
"""


def test_an_older_processor_predicts_the_same(net, images, older, tmp_path):
    """With the kernels for AVX2, outputs are the same to the bit; with sums of 16 bits they are not, as they were."""
    (tmp_path / "net.pickle").write_bytes(pickle.dumps((net, images)))
    environment = {**os.environ, "OLDER_PROCESSOR": "avx2", "LD_PRELOAD": str(older), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONFAULTHANDLER", None)  # it would answer in place of the library
    names = [str(tmp_path / name) for name in ("net.pickle", "wide.npy", "narrow.npy")]
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *names]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode == 77:
        pytest.skip("this machine does not let a program hide what its processor is")
    assert ended.returncode == 0
    assert ended.stdout.startswith("True ")
    assert ", but not on this one, which needs a slower method for exact sums. " in ended.stdout
    wide, narrow = (np.load(path) for path in names[1:])
    np.testing.assert_array_equal(wide, net.outputs(images))
    assert np.abs(narrow - wide).max() > 0.02 * wide.std()
