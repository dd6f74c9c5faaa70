"""Prefixes exported to ONNX, kept on disk by what determines them, so that an export is paid once per machine."""

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

_FORMAT = "1"  # raise it when PrefixNetwork or the file's layout changes
_DIGEST_SIZE = 16
_MAX_BYTES = 4 * 1024**3  # of all graphs together
_UNKEPT: set[Path] = set()  # folders of which it was said that they cannot be written
_FAILURE = "engine='onnxruntime' cannot run this network ({reason}). Use engine='torch'."


def can_run() -> bool:
    """Whether ONNX Runtime is installed."""
    return is_installed("onnxruntime")


def can_export() -> bool:
    """Whether all that an export needs is installed."""
    return can_run() and is_installed("onnx") and is_installed("onnxscript")


def graph_path(key: str) -> Path:
    """Where the exported graph of the prefix that ``key`` determines is kept, whether it is there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = os.environ.get("SKTL_HOME") or os.path.join(cache, "sktl")
    if home.startswith("~"):  # a user without a home folder, as in some containers: there is no place to keep graphs
        home = os.devnull
    name = xxhash.xxh3_128_hexdigest(f"{_FORMAT}|{torch.__version__}|{key}".encode())
    return Path(home) / "onnx" / f"{name}.onnx"


def load_or_export(network: nn.Module, key: str, input_shape: tuple[int, int, int]) -> bytes:
    """The ONNX graph of ``network``, from disk where it is there and whole, newly exported otherwise.

    Parameters
    ----------
    network : Module
        Takes uint8 images of shape (n, \\*input_shape), returns a tuple of arrays.
    key : str
        Names all that determines the graph.
    input_shape : tuple of (height, width, channels)
        Shape of one image.

    Returns
    -------
    bytes
        The serialized ONNX model.
    """
    path = graph_path(key)
    stored = b""
    with contextlib.suppress(OSError):  # there is none, or it cannot be read
        stored = path.read_bytes()
        os.utime(path)  # what is used stays
    graph = stored[_DIGEST_SIZE:]
    if graph and xxhash.xxh3_128_digest(graph) == stored[:_DIGEST_SIZE]:
        return graph
    graph = _export(network, input_shape)
    _keep(path, xxhash.xxh3_128_digest(graph) + graph)
    return graph


def _export(network: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """Export with a free number of images."""
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="exporting for engine='onnxruntime'")
    example = torch.zeros((2, *input_shape), dtype=torch.uint8)
    with exporting(), quiet(), named_failure(_FAILURE):
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
        )
        assert program is not None  # it is None for the exporter that writes files only
        return program.model_proto.SerializeToString()  # fails from 2 GB on


@contextlib.contextmanager
def named_failure(message: str) -> Iterator[None]:
    """Turn what the exporter or ONNX Runtime cannot do, which has many types, into one error with the way out.

    Parameters
    ----------
    message : str
        What it says, with ``{reason}`` for what went wrong.

    Raises
    ------
    EngineError
        In place of any error but that of a missing package.
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
    """Silence what the exporter says to its own developers."""
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
    """Write the file whole or not at all; without a place to write to, the next process exports again."""
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
            f"The exported graph could not be kept in {path.parent} ({error}); the features are right, the next "
            "process exports it again. Set SKTL_HOME to a folder that can be written.",
            CacheWarning,
        )
    else:
        with contextlib.suppress(OSError):  # what else lies there is no reason to say that this graph is not kept
            _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Drop the files that were used the longest ago, until the others fit the bound."""
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
    """Options of a quiet session on this number of threads, which do not spin while they wait."""
    import onnxruntime

    # Some of its builds report to their makers what they run; an image library calls nobody. All sessions pass here.
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRunner:
    """Runs an exported prefix in ONNX Runtime; may be called by several threads at once, each on one core."""

    concurrent = True

    def __init__(self, network: nn.Module, key: str, input_shape: tuple[int, int, int]):
        onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="engine='onnxruntime'")
        # Whole batches run side by side, one thread each: nobody waits at a barrier, and no thread spins when idle.
        options = session_options(1)
        graph = load_or_export(network, key, input_shape)
        with named_failure(_FAILURE):
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Pooled layers of uint8 ``images`` of shape (n, height, width, channels)."""
        return self._session.run(None, {self._input: images})
