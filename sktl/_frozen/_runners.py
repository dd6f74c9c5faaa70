"""Engines: what runs a frozen prefix on a batch of images, and which one is the fastest for a job."""

import contextlib
import os
import weakref
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from sktl._frozen import _onnx
from sktl._frozen._prefix_network import PrefixNetwork, fuse
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._locks import Lock
from sktl._process import as_the_user_has_it, in_plain_float32
from sktl._stores import register_store
from sktl.backbones import Backbone
from sktl.exceptions import EngineError

NO_ENGINE = ""  # what gives the images themselves

# An export takes some seconds; what the other engine gains per image is in proportion to the work in it. Measured
# with MobileNetV2 on two cores: 5 s against 0.8 ms in 0.3 G multiply-accumulates, so it pays from about 6,000 on.
_EXPORT_PAYS_FROM_MACS = 2e12

# In the first stage, for the images that are run at once: 4 of MobileNetV2 or ResNet-18, 8 of MobileNetV3-small.
_FIRST_STAGE_MACS = 4.5e7


class Runner(Protocol):
    """Runs a prefix: uint8 images (n, height, width, channels) in, one array per layer out."""

    concurrent: bool  # whether several threads may call it at once

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """One array per layer, first axis the images."""


class ImageRunner:
    """Gives the images themselves: what is stored where no stage is frozen."""

    concurrent = True

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """The images, uint8, as the one layer there is."""
        return [images]


class TorchRunner:
    """Runs a prefix in torch: batch norms folded, channels last, inference mode, threads as they are found.

    On a CPU, torch takes other ways of summing for batches of other sizes. There each batch is run in parts of one
    size, the last one filled up, so that what an image gives does not depend on those beside it.
    """

    concurrent = False

    def __init__(self, network: PrefixNetwork, device: torch.device, precision: str, at_once: "int | None" = None):
        network.features = fuse(network.features)
        self._device = device
        self._dtype = getattr(torch, precision)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._at_once = at_once

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Pooled layers of uint8 ``images`` of shape (n, height, width, channels)."""
        n_images = len(images)
        size = self._at_once or max(n_images, 2)
        parts = [self._run(part, size) for part in np.split(images, range(size, n_images, size))]
        return [np.concatenate(layer)[:n_images] for layer in zip(*parts, strict=True)]

    def _run(self, images: np.ndarray, size: int) -> list[np.ndarray]:
        """Layers of ``size`` images, the first of them those that were given."""
        full = images if len(images) == size else images[np.arange(size) % len(images)]
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


def get_runner(spec: PrefixSpec, runtime: Runtime, engine: str) -> Runner:
    """What runs a prefix in an engine, built at the first call that any equal network makes.

    Parameters
    ----------
    spec : PrefixSpec
        What is computed.
    runtime : Runtime
        Read: ``precision`` and ``device``.
    engine : {"torch", "onnxruntime"}
        The engine; without layers none is taken.

    Raises
    ------
    EngineError
        If ``engine="onnxruntime"`` cannot run this network.
    """
    if not spec.layers:
        return ImageRunner()
    backbone = spec.backbone
    slot = _slot(backbone, (spec.key, backbone.in_channels, engine, runtime.precision, runtime.device))
    with slot.lock:  # another network need not wait for this one's export
        if slot.runner is None:
            network = PrefixNetwork(backbone, spec.layers, spec.pooling)
            if engine == "torch":
                at_once = _images_at_once(backbone, runtime.device)
                slot.runner = TorchRunner(network, runtime.device, runtime.precision, at_once)
            else:
                slot.runner = _export(network, spec)
        return slot.runner


def _slot(backbone: Backbone, key: tuple) -> _Slot:
    """The one place for the runner that ``key`` determines, kept as long as ``backbone`` or another holder lives."""
    with _LOCK:
        slot = _SLOTS.setdefault(key, _Slot())
        _HELD.setdefault(backbone, {})[key] = slot
        return slot


def _export(network: PrefixNetwork, spec: PrefixSpec) -> Runner:
    """A runner in ONNX Runtime; a failure is remembered."""
    try:
        return _onnx.OnnxRunner(network, spec.key, spec.image_shape)
    except EngineError:
        _UNEXPORTABLE.add(spec.key)
        raise


def resolve_engine(spec: PrefixSpec, runtime: Runtime, n_images: int) -> str:
    """The engine that is the fastest for ``n_images``, start-up included, where ``engine="auto"`` leaves the choice.

    ONNX Runtime is taken on a CPU in float32 where there is enough work for the export to pay. Whether the graph lies
    on this machine already, from an earlier run, decides nothing: the engines round differently, and the same job
    gives the same numbers every time.
    """
    if not spec.layers:
        return NO_ENGINE
    if runtime.engine != "auto":
        return runtime.engine
    if runtime.precision != "float32" or runtime.device.type != "cpu" or not _onnx.can_run():
        return "torch"
    if spec.key in _UNEXPORTABLE:
        return "torch"
    return "onnxruntime" if n_images * spec.macs >= _EXPORT_PAYS_FROM_MACS and _onnx.can_export() else "torch"


def _images_at_once(backbone: Backbone, device: torch.device) -> "int | None":
    """How many images the torch engine runs at once on a CPU; None elsewhere, where it is as many as there are.

    It goes by the first stage, so that networks which begin alike run what they share alike. More than 8 would gain a
    small network some percent, and an image that comes alone would wait for all of them.
    """
    if device.type != "cpu":
        return None
    return int(np.clip(_FIRST_STAGE_MACS / max(backbone.stages[0].macs, 1), 4, 8))


def batch_size_of(spec: PrefixSpec, runtime: Runtime, engine: str) -> int:
    """How many images go through a prefix at once in an engine; in torch on a CPU as many as it runs in any case."""
    at_once = _images_at_once(spec.backbone, runtime.device) if engine == "torch" else None
    if runtime.batch_size == "auto" and at_once is not None:
        return at_once
    return resolve_batch_size(runtime.batch_size, spec.macs, runtime.device)


def resolve_batch_size(batch_size: "int | str", macs: int, device: torch.device) -> int:
    """How many images go through the network at once, where ``batch_size="auto"`` leaves the choice.

    On a CPU a batch is the fastest while its activations stay in the cache of the processor: 4 images of MobileNetV2
    or ResNet-18, 16 to 32 of the much smaller MobileNetV3-small.
    """
    if batch_size != "auto":
        return int(batch_size)
    if device.type != "cpu":
        return 256
    return int(np.clip(1.2e9 / max(macs, 1), 4, 32))
