"""Exported graphs: kept, checked, exported again where they are damaged."""

import os
import sys
import warnings

import numpy as np
import pytest
import torch

from sktl._frozen import _onnx
from sktl._frozen._prefix_network import PrefixNetwork
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone
from sktl.exceptions import CacheWarning, EngineError, MissingDependencyError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def prefix():
    """A small prefix, the shape of its pictures, and its key."""
    backbone = load_backbone("sktl_mini")
    key = PrefixSpec(backbone, ["stem"]).key
    return PrefixNetwork(backbone, ["stem"], "avg"), (*backbone.preprocessing.crop_shape, 3), key


@pytest.fixture(scope="module")
def graph(prefix):
    """The prefix, exported: seconds that are spent once for the tests of how graphs are kept."""
    network, shape, _ = prefix
    return _onnx._export(network, shape)


@pytest.fixture
def exporting(monkeypatch, tmp_path, prefix, graph):
    """A home of its own, a run of the prefix, and the count of exports made for it."""
    exports = []
    monkeypatch.setattr(_onnx, "_export", lambda *args: exports.append(1) or graph)
    monkeypatch.setenv("SKTL_HOME", str(tmp_path))
    return a_run(prefix), exports, tmp_path


@pytest.fixture
def really_exporting(monkeypatch, tmp_path, prefix):
    """A run of the prefix that exports it."""
    monkeypatch.setenv("SKTL_HOME", str(tmp_path))
    return a_run(prefix)


def a_run(prefix):
    """A function that runs the prefix on three pictures, by its graph, and compares that with the network."""
    network, shape, key = prefix

    def run():
        pictures = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
        (got,) = _onnx.OnnxRunner(network, key, shape)(pictures)
        np.testing.assert_allclose(got, network(torch.from_numpy(pictures))[0], rtol=1e-4, atol=1e-5)

    return run


def test_a_graph_is_exported_once_and_again_where_it_is_damaged(exporting):
    """A second runner reads the file; one flipped byte or a truncated file is noticed and replaced."""
    run, exports, home = exporting
    run(), run()
    assert len(exports) == 1
    (path,) = (home / "onnx").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run()
    assert len(exports) == 2
    path.write_bytes(path.read_bytes()[:100])
    run(), run()
    assert len(exports) == 3


def test_a_home_that_cannot_be_written_costs_the_file_not_the_features(exporting):
    """Where the graph cannot be kept, a warning says so and how to mend it."""
    run, exports, home = exporting
    (home / "onnx").write_text("a file where the folder should be")
    with pytest.warns(CacheWarning, match="SKTL_HOME"):
        run()
    run()  # which says it no second time: that would be an error here
    assert len(exports) == 2


def test_what_else_lies_in_the_folder_costs_nothing(exporting, monkeypatch):
    """A folder where only files should be, and too much of all: the new graph is kept, without a warning."""
    run, exports, home = exporting
    (home / "onnx" / "folder").mkdir(parents=True)
    os.utime(home / "onnx" / "folder", (1, 1))
    with open(home / "onnx" / "large", "wb") as large:
        large.truncate(2**24)
    os.utime(home / "onnx" / "large", (2, 2))
    monkeypatch.setattr(_onnx, "_MAX_BYTES", 2**23)
    run(), run()
    assert len(exports) == 1
    assert not (home / "onnx" / "large").exists()


def test_a_user_without_a_home_keeps_no_graph(monkeypatch):
    """Where there is no home folder, as in some containers, looking for a graph is no error."""
    monkeypatch.delenv("SKTL_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.warns(CacheWarning, match="SKTL_HOME"):
        _onnx._keep(_onnx.graph_path("key"), b"graph")


def test_a_graph_that_may_not_be_read_is_exported_again(exporting, monkeypatch):
    """A file of another user's is as good as none."""
    run, exports, _ = exporting
    run()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    run()
    assert len(exports) == 2


def test_a_network_too_large_for_one_file_is_an_engine_error(really_exporting, monkeypatch):
    """What fails while the graph is written, as from 2 GB on, is the error that engine="auto" knows how to mend."""

    class TooLarge:
        @property
        def model_proto(self):
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: TooLarge())
    with pytest.raises(EngineError, match="2GB"):
        really_exporting()


def test_nothing_is_left_behind_when_the_disk_is_full(exporting, monkeypatch):
    """A write that fails half-way leaves no partial file that a later run would trust."""
    run, _, home = exporting

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        run()
    assert not list((home / "onnx").iterdir())


def test_the_folder_is_bounded(exporting, monkeypatch):
    """What was used the longest ago makes room for a new graph, left-overs of killed writers too."""
    run, _, home = exporting
    run()
    (first,) = (home / "onnx").iterdir()
    (home / "onnx" / "killed.part").write_bytes(bytes(1000))
    os.utime(home / "onnx" / "killed.part", (0, 0))
    monkeypatch.setattr(_onnx, "_MAX_BYTES", first.stat().st_size + 500)
    first.unlink()
    run()
    assert list((home / "onnx").iterdir()) == [first]


def test_without_the_extra_the_error_names_it(really_exporting, monkeypatch):
    """A missing package is an error with the pip command that installs it."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sktl\[onnx\]'"):
        really_exporting()


def test_an_export_says_nothing_and_leaves_loggers_and_filters_as_they_were(really_exporting, capsys):
    """The exporter's own chatter does not reach the user."""
    before = list(warnings.filters)
    really_exporting()
    assert capsys.readouterr() == ("", "")
    assert warnings.filters == before


def test_telemetry_is_off(monkeypatch):
    """Whoever makes a session has switched off what ONNX Runtime reports to its makers."""
    onnxruntime = pytest.importorskip("onnxruntime")
    calls = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls.append("off"))
    assert _onnx.session_options(1).intra_op_num_threads == 1
    assert calls == ["off"]
