"""Export of prefixes to ONNX, with the graphs cached on disk."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import nn

from sktl._optional import import_optional, is_installed
from sktl._process import exporting
from sktl._warnings import warn
from sktl.exceptions import CacheWarning, EngineError, MissingDependencyError

_FORMAT = "1"  # increase it when PrefixNetwork or the layout of the file changes
_DIGEST_SIZE = 16
_MAX_BYTES = 4 * 1024**3  # total size of all graphs
_UNKEPT: set[Path] = set()  # folders for which a warning was issued
_FAILURE = "engine='onnxruntime' cannot run this network ({reason}). Use engine='torch'."


def can_run() -> bool:
    """Check whether ONNX Runtime is installed."""
    return is_installed("onnxruntime")


def can_export() -> bool:
    """Check whether everything that an export needs is installed."""
    return can_run() and is_installed("onnx") and is_installed("onnxscript")


def graph_path(key: str) -> Path:
    """Return the path of the exported graph for ``key``, whether it exists or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = os.environ.get("SKTL_HOME") or os.path.join(cache, "sktl")
    if home.startswith("~"):  # a user without a home folder, as in some containers
        home = os.devnull
    name = xxhash.xxh3_128_hexdigest(f"{_FORMAT}|{torch.__version__}|{key}".encode())
    return Path(home) / "onnx" / f"{name}.onnx"


def load_or_export(network: nn.Module, key: str, input_shape: tuple[int, int, int]) -> bytes:
    """Load the ONNX graph of ``network`` from disk, or export it.

    Parameters
    ----------
    network : Module
        Takes uint8 images of shape (n, \\*input_shape) and returns a tuple of arrays.
    key : str
        Key that determines the graph.
    input_shape : tuple of (height, width, channels)
        Shape of one image.

    Returns
    -------
    bytes
        The serialized ONNX model.
    """
    path = graph_path(key)
    stored = b""
    with contextlib.suppress(OSError):  # missing or unreadable
        stored = path.read_bytes()
        os.utime(path)  # the least recently used files are deleted first
    graph = stored[_DIGEST_SIZE:]
    if graph and xxhash.xxh3_128_digest(graph) == stored[:_DIGEST_SIZE]:
        return graph
    graph = _export(network, input_shape)
    _keep(path, xxhash.xxh3_128_digest(graph) + graph)
    return graph


def _export(network: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """Export with a variable number of images."""
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="exporting for engine='onnxruntime'")
    example = torch.zeros((2, *input_shape), dtype=torch.uint8)
    with exporting(), quiet(), named_failure(_FAILURE):
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
        )
        assert program is not None  # None only with the old exporter
        return program.model_proto.SerializeToString()  # fails from 2 GB on


@contextlib.contextmanager
def named_failure(message: str) -> Iterator[None]:
    """Convert any error of the exporter or of ONNX Runtime into an EngineError.

    Parameters
    ----------
    message : str
        The error message, with ``{reason}`` for the original one.

    Raises
    ------
    EngineError
        Instead of any error except that of a missing package.
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise EngineError(message.format(reason=reason)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages of the exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _keep(path: Path, content: bytes) -> None:
    """Write the file atomically, and warn if the folder is not writable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            try:
                part.write(content)
                part.close()
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        if path.parent in _UNKEPT:  # a network may have many prefixes
            return
        _UNKEPT.add(path.parent)
        warn(
            f"The exported graph could not be saved in {path.parent} ({error}). Features are correct, but the next "
            "process exports the graph again. Set SKTL_HOME to a writable folder.",
            CacheWarning,
        )
    else:
        # This graph was saved; trouble with others does not matter.
        with contextlib.suppress(OSError):
            _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Delete the least recently used files until the total size is within the limit."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            stat = file.stat()
            files.append((stat.st_mtime, stat.st_size, file))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > _MAX_BYTES:
            file.unlink(missing_ok=True)


def session_options(n_threads: int) -> Any:
    """Return options of a quiet session whose threads do not spin while they wait."""
    import onnxruntime

    # Some builds of ONNX Runtime send telemetry. All sessions are created with these
    # options.
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRunner:
    """Runs an exported prefix in ONNX Runtime. Threads may call it concurrently."""

    concurrent = True

    def __init__(self, network: nn.Module, key: str, input_shape: tuple[int, int, int]):
        onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="engine='onnxruntime'")
        # Batches run in parallel with one thread each, without barriers or idle
        # spinning.
        options = session_options(1)
        graph = load_or_export(network, key, input_shape)
        with named_failure(_FAILURE):
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the pooled layers of uint8 images (n, height, width, channels)."""
        return self._session.run(None, {self._input: images})
