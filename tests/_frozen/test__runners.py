"""Engines: the same function, chosen for the job."""

import copy
import gc
import os
import signal
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sktl._frozen import _onnx, _runners
from sktl._frozen._runners import TorchRunner, get_runner, resolve_batch_size, resolve_engine
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone

CPU = torch.device("cpu")
RUNTIME = Runtime(device="cpu", cache=None)


@pytest.fixture
def backbone():
    return load_backbone("sktl_mini")


def pictures(backbone, n=5):
    """Random pictures of the size that the network sees."""
    shape = (n, *backbone.preprocessing.crop_shape, backbone.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def choose(backbone, engine="auto", n=100, **settings):
    runtime = Runtime(**{"engine": engine, "device": "cpu", "cache": None, **settings})
    return resolve_engine(PrefixSpec(backbone, ["layer4"]), runtime, n)


def runner_of(backbone, layers, pooling="avg", *, engine="torch", precision="float32"):
    return get_runner(PrefixSpec(backbone, layers, pooling), replace(RUNTIME, precision=precision), engine)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_engine_equals_the_eager_network(backbone, engine, monkeypatch, tmp_path):
    """Folding, memory layout and export change the numbers by rounding only."""
    if engine == "onnxruntime":
        pytest.importorskip("onnxscript")
        monkeypatch.setenv("SKTL_HOME", str(tmp_path))
    x = pictures(backbone)
    runner = runner_of(backbone, ["layer1", "layer4"], engine=engine)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    with torch.inference_mode():
        maps = backbone.feature_graph(["layer1", "layer4"])(
            (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std
        )
    for got, activation in zip(runner(x), maps, strict=True):
        expected = activation.mean((2, 3)).numpy()
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_callers_autocast_and_default_dtype_play_no_part(backbone):
    """float32 is float32 (and is cached as that) inside an autocast block and under another default dtype."""
    x = pictures(backbone)
    expected = runner_of(backbone, ["layer1"])(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(runner_of(backbone, ["layer1"])(x)[0], expected)
    torch.set_default_dtype(torch.float64)
    try:
        got = runner_of(backbone, ["layer1", "layer2"])(x)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_float32_on_cuda_keeps_cudnn_and_leaves_tf32(backbone, monkeypatch):
    """Within a run on CUDA only tf32 is switched off, and afterwards nothing is."""
    runner = runner_of(backbone, ["stem"])
    monkeypatch.setattr(runner, "_device", torch.device("cuda"))  # only the settings are looked at, which need none
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "User provided device_type")  # of autocast, where there is no CUDA
        with runner._numerics():
            inside = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    assert inside == (*before[:3], False)
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before


def test_bfloat16_is_close_and_is_not_float32(backbone):
    """Less precision gives rounded features of the same network."""
    x = pictures(backbone)
    exact, rounded = (
        runner_of(backbone, ["layer4"], precision=precision)(x)[0] for precision in ("float32", "bfloat16")
    )
    difference = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < difference < 0.05


def test_auto_takes_onnxruntime_where_the_export_is_paid_for(backbone, monkeypatch, tmp_path):
    """Few pictures run in torch at once, many pay for the export; a graph that lies there decides nothing."""
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("SKTL_HOME", str(tmp_path))
    assert choose(backbone, n=100) == "torch"
    assert choose(backbone, n=10**9) == "onnxruntime"
    graph = _onnx.graph_path(PrefixSpec(backbone, ["layer4"]).key)
    graph.parent.mkdir(parents=True)
    graph.touch()
    assert choose(backbone, n=1) == "torch"


def test_auto_takes_torch_without_the_extra_on_cuda_and_in_less_precision(backbone, monkeypatch):
    """Where ONNX Runtime is missing or cannot serve, torch does."""
    on_cuda = SimpleNamespace(**vars(RUNTIME) | {"device": torch.device("cuda")})
    assert resolve_engine(PrefixSpec(backbone, ["layer4"]), on_cuda, 10**9) == "torch"
    assert choose(backbone, n=10**9, precision="bfloat16") == "torch"
    monkeypatch.setattr(_onnx, "can_run", lambda: False)
    assert choose(backbone, n=10**9) == "torch"


def test_a_runner_is_built_once_and_goes_with_its_network():
    """Two calls share one runner; nothing keeps it when the network is gone."""
    backbone = load_backbone(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()))
    layer = backbone.stages[-1].name
    runner = runner_of(backbone, [layer])
    assert runner_of(backbone, [layer]) is runner
    gone = weakref.ref(runner)
    del runner, backbone
    gc.collect()
    assert gone() is None


def test_equal_networks_share_a_runner_as_long_as_one_lives():
    """A network whose frozen stages are its source's runs them in the same runner, also after the source has gone."""
    source = copy.deepcopy(load_backbone("sktl_mini", weights=None, random_state=5))
    runner = runner_of(source, ["layer2"])
    assert runner_of(copy.deepcopy(source), ["layer2"]) is runner
    tuned = source.with_weights({name: 2 * weight for name, weight in source.cut(-1)[1].state_dict().items()})
    assert runner_of(tuned, ["layer2"]) is runner
    assert runner_of(tuned, ["layer4"]) is not runner_of(source, ["layer4"])
    assert runner_of(tuned, ["layer2"], "max") is not runner
    gone = weakref.ref(runner)
    del runner, source
    gc.collect()
    assert gone() is runner_of(tuned, ["layer2"])
    del tuned
    gc.collect()
    assert gone() is None


def test_one_runner_for_threads_that_ask_at_once(monkeypatch):
    """Equal networks in several threads, each new, wait for one runner and get that one."""
    built = []

    class Slow(TorchRunner):
        def __init__(self, *args):
            time.sleep(0.05)
            built.append(self)
            super().__init__(*args)

    monkeypatch.setattr(_runners, "TorchRunner", Slow)
    networks = [copy.deepcopy(load_backbone("sktl_mini", weights=None, random_state=6)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda network: runner_of(network, ["layer1"]), networks))
    assert len(built) == 1
    assert all(runner is built[0] for runner in got)


def test_automatic_batches_are_small_for_large_networks():
    """MobileNetV2 runs in fours, small networks in more, and an explicit number is taken as it is."""
    assert resolve_batch_size("auto", 300_000_000, CPU) == 4
    assert resolve_batch_size("auto", 60_000_000, CPU) == 20
    assert resolve_batch_size("auto", 10**12, CPU) == 4
    assert resolve_batch_size("auto", 0, CPU) == 32
    assert resolve_batch_size(5, 10**12, CPU) == 5


def test_a_child_of_a_fork_waits_for_no_lock_of_its_parent(backbone):
    """A child that is forked while another thread builds a runner builds its own."""
    backbone = copy.deepcopy(backbone)
    runner_of(backbone, ["stem"], "max")
    slot = next(reversed(_runners._HELD[backbone].values()))
    with slot.lock, _runners._LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forking with threads
        child = os.fork()
        if child == 0:
            runner_of(backbone, ["stem"], "max")
            os._exit(0)
    for _ in range(600):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
    assert pid == child
    assert status == 0
