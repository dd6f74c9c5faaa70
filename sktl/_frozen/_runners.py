"""Engines: what runs a frozen prefix on a batch of pictures, and which one is the fastest for a job."""

import contextlib
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from sktl._frozen import _onnx
from sktl._frozen._prefix_network import PICTURES, PrefixNetwork, fuse
from sktl._locks import Lock
from sktl._process import as_the_user_has_it, in_plain_float32
from sktl._stores import register_store
from sktl.backbones import Backbone
from sktl.exceptions import EngineError, InputError

ENGINES = ("auto", "torch", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16")

# An export takes some seconds; what the other engine gains per picture is in proportion to the work in it. Measured
# with MobileNetV2 on two cores: 5 s against 0.8 ms in 0.3 G multiply-accumulates, so it pays from about 6,000 on.
_EXPORT_PAYS_FROM_MACS = 2e12

# In the first stage, for the pictures that are run at once: 4 of MobileNetV2 or ResNet-18, 8 of MobileNetV3-small.
_FIRST_STAGE_MACS = 4.5e7


class Runner(Protocol):
    """Runs a prefix: uint8 pictures (n, height, width, channels) in, one array per layer out."""

    concurrent: bool  # whether several threads may call it at once

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """One array per layer, first axis the pictures."""


class PictureRunner:
    """Gives the pictures themselves: what is stored where no stage is frozen."""

    concurrent = True

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """The pictures, uint8, as the one layer there is."""
        return [pictures]


class TorchRunner:
    """Runs a prefix in torch: batch norms folded, channels last, inference mode, threads as they are found.

    On a CPU, torch takes other ways of summing for batches of other sizes. There each batch is run in parts of one
    size, the last one filled up, so that what a picture gives does not depend on those beside it.
    """

    concurrent = False

    def __init__(self, network: PrefixNetwork, device: torch.device, precision: str, at_once: "int | None" = None):
        network.features = fuse(network.features)
        self._device = device
        self._dtype = getattr(torch, precision)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._at_once = at_once

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Pooled layers of uint8 ``pictures`` of shape (n, height, width, channels)."""
        n_pictures = len(pictures)
        size = self._at_once or max(n_pictures, 2)
        parts = [self._run(part, size) for part in np.split(pictures, range(size, n_pictures, size))]
        return [np.concatenate(layer)[:n_pictures] for layer in zip(*parts, strict=True)]

    def _run(self, pictures: np.ndarray, size: int) -> list[np.ndarray]:
        """Layers of ``size`` pictures, the first of them those that were given."""
        full = pictures if len(pictures) == size else pictures[np.arange(size) % len(pictures)]
        batch = torch.from_numpy(full)
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), self._numerics():
            return [output.float().cpu().numpy() for output in self._network(batch)]

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """The precision asked for, and no other: not the caller's autocast, and on CUDA no tf32."""
        is_float32 = self._dtype is torch.float32
        is_plain = is_float32 and self._device.type == "cuda"
        with (
            in_plain_float32() if is_plain else as_the_user_has_it(),
            torch.autocast(self._device.type, dtype=None if is_float32 else self._dtype, enabled=not is_float32),
        ):
            yield


class _Slot:
    """A place for one runner, which is built once, by one thread at a time."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.runner: Runner | None = None


# Equal networks (a source and what was fine-tuned from it, up to the frozen stages) share their runners: one slot for
# what determines a runner. Every network holds the slots that it asked for, and the last one to go takes them along.
_SLOTS: "weakref.WeakValueDictionary[tuple, _Slot]" = weakref.WeakValueDictionary()
_HELD: "weakref.WeakKeyDictionary[Backbone, dict[tuple, _Slot]]" = weakref.WeakKeyDictionary()
_LOCK = Lock()  # for these two, never held while a runner is built
# Prefixes that could not be exported: with engine="auto" they run in torch, and nobody tries again in this process.
_UNEXPORTABLE: set[str] = set()


def _forget_runners() -> None:
    """Let all be built again: a forked child builds its own, since sessions have threads, which are not there."""
    with _LOCK:
        _SLOTS.clear()
        _HELD.clear()
        _UNEXPORTABLE.clear()


register_store("engines of networks", _forget_runners)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runners)


def get_runner(
    backbone: Backbone,
    layers: Sequence[str],
    pooling: str,
    *,
    engine: str,
    precision: str,
    device: torch.device,
) -> Runner:
    """The runner of these layers, built at the first call that any equal network makes.

    Raises
    ------
    EngineError
        Where ``engine="onnxruntime"`` cannot run this network.
    """
    if tuple(layers) == (PICTURES,):
        return PictureRunner()
    function = prefix_key(backbone, layers, pooling)
    slot = _slot(backbone, (function, backbone.in_channels, engine, precision, device))
    with slot.lock:  # another network need not wait for this one's export
        if slot.runner is None:
            network = PrefixNetwork(backbone, layers, pooling)
            if engine == "torch":
                slot.runner = TorchRunner(network, device, precision, pictures_at_once(backbone, device))
            else:
                shape = (*backbone.preprocessing.crop_shape, backbone.in_channels)
                slot.runner = _export(network, function, shape)
        return slot.runner


def _slot(backbone: Backbone, key: tuple) -> _Slot:
    """The one place for the runner that ``key`` determines, kept as long as ``backbone`` or another holder lives."""
    with _LOCK:
        slot = _SLOTS.setdefault(key, _Slot())
        _HELD.setdefault(backbone, {})[key] = slot
        return slot


def _export(network: PrefixNetwork, function: str, shape: tuple[int, int, int]) -> Runner:
    """A runner in ONNX Runtime; a failure is remembered."""
    try:
        return _onnx.OnnxRunner(network, function, shape)
    except EngineError:
        _UNEXPORTABLE.add(function)
        raise


def prefix_key(backbone: Backbone, layers: Sequence[str], pooling: str) -> str:
    """Names all that determines the function of pictures to pooled layers, up to the engine's rounding."""
    if tuple(layers) == (PICTURES,):
        return f"pictures|{backbone.preprocessing.pixels_key}"
    fingerprints = ",".join(backbone.fingerprint(layer) for layer in layers)
    return f"{fingerprints}|{backbone.preprocessing.key}|{pooling}"


def check_numerics(engine: str, precision: str, device: torch.device) -> None:
    """Refuse what no engine can do.

    Raises
    ------
    InputError
        Where the engine asked for cannot do what the precision or the device demand.
    """
    if precision == "float16" and device.type == "cpu":
        raise InputError("precision='float16' needs device='cuda'. On a CPU use 'float32' or 'bfloat16'.")
    if engine == "onnxruntime" and (precision != "float32" or device.type != "cpu"):
        raise InputError(
            f"engine='onnxruntime' runs in float32 on the CPU, but precision={precision!r} and device={device.type!r} "
            "were asked for. Use engine='auto' or 'torch'."
        )


def resolve_engine(
    engine: str,
    backbone: Backbone,
    layers: Sequence[str],
    pooling: str,
    *,
    precision: str,
    device: torch.device,
    n_pictures: int,
) -> str:
    """The engine that is the fastest for ``n_pictures``, start-up included, where ``engine="auto"`` leaves the choice.

    ONNX Runtime is taken on a CPU in float32 where there is enough work for the export to pay. Whether the graph lies
    on this machine already, from an earlier run, decides nothing: the engines round differently, and the same job
    gives the same numbers every time.
    """
    if engine != "auto":
        return engine
    if precision != "float32" or device.type != "cpu" or not _onnx.can_run():
        return "torch"
    function = prefix_key(backbone, layers, pooling)
    if function in _UNEXPORTABLE:
        return "torch"
    work = n_pictures * max(backbone.macs(layer) for layer in layers)
    return "onnxruntime" if work >= _EXPORT_PAYS_FROM_MACS and _onnx.can_export() else "torch"


def pictures_at_once(backbone: Backbone, device: torch.device) -> "int | None":
    """How many pictures the torch engine runs at once on a CPU; None elsewhere, where it is as many as there are.

    It goes by the first stage, so that networks which begin alike run what they share alike. More than 8 would gain a
    small network some percent, and an image that comes alone would wait for all of them.
    """
    if device.type != "cpu":
        return None
    return int(np.clip(_FIRST_STAGE_MACS / max(backbone.stages[0].macs, 1), 4, 8))


def resolve_batch_size(batch_size: "int | str", macs: int, device: torch.device) -> int:
    """How many pictures go through the network at once, where ``batch_size="auto"`` leaves the choice.

    On a CPU a batch is the fastest while its activations stay in the cache of the processor: 4 pictures of MobileNetV2
    or ResNet-18, 16 to 32 of the much smaller MobileNetV3-small.
    """
    if batch_size != "auto":
        return int(batch_size)
    if device.type != "cpu":
        return 256
    return int(np.clip(1.2e9 / max(macs, 1), 4, 32))
