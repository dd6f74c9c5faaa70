"""Engines that run a frozen prefix, and the choice of the fastest one for a job."""

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

NO_ENGINE = ""  # the engine of a prefix without layers

# Work (multiply-accumulates) from which an ONNX export pays off. Measured with
# MobileNetV2 (0.3 G per image) on two cores: the export takes 5 s and saves 0.8 ms per
# image, so it pays off from about 6,000 images on.
_EXPORT_PAYS_FROM_MACS = 2e12

# Work of the first stage for the images run at once: 4 images of MobileNetV2 or
# ResNet-18, 8 of MobileNetV3-small.
_FIRST_STAGE_MACS = 4.5e7


class Runner(Protocol):
    """Function that maps uint8 images (channels last) to one array per layer."""

    concurrent: bool  # whether several threads may call it at once

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return one array per layer. The first axis is the images."""


class ImageRunner:
    """Runner of a prefix without layers, which returns the images."""

    concurrent = True

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the uint8 images as the only output."""
        return [images]


class TorchRunner:
    """Runs a prefix in torch, with folded batch normalization and channels last.

    On a CPU, torch chooses its summation order by batch size. Batches are therefore run
    in parts of constant size, the last one padded, so that the result for an image does
    not depend on the other images.
    """

    concurrent = False

    def __init__(self, network: PrefixNetwork, device: torch.device, precision: str, at_once: "int | None" = None):
        network.features = fuse(network.features)
        self._device = device
        self._dtype = getattr(torch, precision)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._at_once = at_once

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return pooled layers of uint8 images (n, height, width, channels)."""
        n_images = len(images)
        size = self._at_once or max(n_images, 2)
        parts = [self._run(part, size) for part in np.split(images, range(size, n_images, size))]
        return [np.concatenate(layer)[:n_images] for layer in zip(*parts, strict=True)]

    def _run(self, images: np.ndarray, size: int) -> list[np.ndarray]:
        """Return the layers of some images, padded to ``size`` images."""
        full = images if len(images) == size else images[np.arange(size) % len(images)]
        batch = torch.from_numpy(full)
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), self._numerics():
            return [output.float().cpu().numpy() for output in self._network(batch)]

    @contextlib.contextmanager
    def _numerics(self) -> Iterator[None]:
        """Apply the requested precision, without the caller's autocast or TF32."""
        is_float32 = self._dtype is torch.float32
        is_plain = is_float32 and self._device.type == "cuda"
        with (
            in_plain_float32() if is_plain else as_the_user_has_it(),
            torch.autocast(self._device.type, dtype=None if is_float32 else self._dtype, enabled=not is_float32),
        ):
            yield


class _Slot:
    """Holder of a runner, which one thread builds once."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.runner: Runner | None = None


# Networks with equal frozen stages (a source and its fine-tuned copies) share runners.
# Each network holds the slots that it uses, and a slot is freed with its last holder.
_SLOTS: "weakref.WeakValueDictionary[tuple, _Slot]" = weakref.WeakValueDictionary()
_HELD: "weakref.WeakKeyDictionary[Backbone, dict[tuple, _Slot]]" = weakref.WeakKeyDictionary()
_LOCK = Lock()  # for these two, never held while a runner is built
# Prefixes that could not be exported; with engine="auto" they run in torch from then
# on.
_UNEXPORTABLE: set[str] = set()


def _forget_runners() -> None:
    """Drop all runners, also in forked children, which lack the threads of sessions."""
    with _LOCK:
        _SLOTS.clear()
        _HELD.clear()
        _UNEXPORTABLE.clear()


register_store("engines of networks", _forget_runners)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runners)


def get_runner(spec: PrefixSpec, runtime: Runtime, engine: str) -> Runner:
    """Return the runner of a prefix, shared by all equal networks.

    Parameters
    ----------
    spec : PrefixSpec
        The prefix.
    runtime : Runtime
        Provides ``precision`` and ``device``.
    engine : {"torch", "onnxruntime"}
        The engine. Ignored for a prefix without layers.

    Raises
    ------
    EngineError
        If ``engine="onnxruntime"`` cannot run this network.
    """
    if not spec.layers:
        return ImageRunner()
    backbone = spec.backbone
    slot = _slot(backbone, (spec.key, backbone.in_channels, engine, runtime.precision, runtime.device))
    with slot.lock:  # other networks do not wait for this export
        if slot.runner is None:
            network = PrefixNetwork(backbone, spec.layers, spec.pooling)
            if engine == "torch":
                at_once = _images_at_once(backbone, runtime.device)
                slot.runner = TorchRunner(network, runtime.device, runtime.precision, at_once)
            else:
                slot.runner = _export(network, spec)
        return slot.runner


def _slot(backbone: Backbone, key: tuple) -> _Slot:
    """Return the slot for ``key``, kept alive by ``backbone`` and other holders."""
    with _LOCK:
        slot = _SLOTS.setdefault(key, _Slot())
        _HELD.setdefault(backbone, {})[key] = slot
        return slot


def _export(network: PrefixNetwork, spec: PrefixSpec) -> Runner:
    """Return a runner in ONNX Runtime, and remember a failure."""
    try:
        return _onnx.OnnxRunner(network, spec.key, spec.image_shape)
    except EngineError:
        _UNEXPORTABLE.add(spec.key)
        raise


def resolve_engine(spec: PrefixSpec, runtime: Runtime, n_images: int) -> str:
    """Return the fastest engine for ``n_images``, including its start-up time.

    With ``engine="auto"``, ONNX Runtime is chosen on a CPU in float32 if the export
    pays off. Graphs exported by earlier runs do not affect the choice: engines round
    differently, and the same job must return the same numbers every time.
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
    """Return the number of images that torch runs at once on a CPU, None elsewhere.

    It depends on the first stage only, so that networks that share their first stages
    round alike. More than 8 images would be a few percent faster for a small network,
    but a single image would take as long as all of them.
    """
    if device.type != "cpu":
        return None
    return int(np.clip(_FIRST_STAGE_MACS / max(backbone.stages[0].macs, 1), 4, 8))


def batch_size_of(spec: PrefixSpec, runtime: Runtime, engine: str) -> int:
    """Return the number of images that go through a prefix at once in an engine."""
    at_once = _images_at_once(spec.backbone, runtime.device) if engine == "torch" else None
    if runtime.batch_size == "auto" and at_once is not None:
        return at_once
    return resolve_batch_size(runtime.batch_size, spec.macs, runtime.device)


def resolve_batch_size(batch_size: "int | str", macs: int, device: torch.device) -> int:
    """Return the batch size of the network, chosen if ``batch_size="auto"``.

    On a CPU, a batch is fastest if its activations fit into the processor's cache: 4
    images of MobileNetV2 or ResNet-18, 16 to 32 of the much smaller MobileNetV3-small.
    """
    if batch_size != "auto":
        return int(batch_size)
    if device.type != "cpu":
        return 256
    return int(np.clip(1.2e9 / max(macs, 1), 4, 32))
