"""Weights files: paths and content.

Reading a file never runs code, and its size is checked before it is read.
"""

import json
import os
import re
import stat
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from safetensors.torch import load_file
from torch import Tensor

from sktl._locks import Lock
from sktl._messages import shortened
from sktl._stores import register_store
from sktl.exceptions import BackboneError, WeightsMismatchError

StateDict = dict[str, Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pt.tar", ".pth.tar")

# Keys under which training programs store the state dict in a checkpoint. The first
# one takes precedence: trained weights before their moving average.
_WRAPPERS = (
    *(
        "state_dict",
        "model_state_dict",
        "model",
        "net",
        "network",
        "module",
        "weights",
        "params",
        "backbone",
        "encoder",
    ),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
)

_SLACK = 2**26  # bytes that any compressed archive may contain
_MOST_TIMES = 10  # largest compression ratio: weights are hardly compressible

_SAVE = (
    "Save only the weights with torch.save(model.state_dict(), path) or "
    "safetensors.torch.save_file(model.state_dict(), path)."
)

# Digests of files by their identity, most recently used last.
_DIGESTS: OrderedDict[tuple, bytes] = OrderedDict()
_DIGESTS_SIZE = 64
_DIGESTS_LOCK = Lock()
register_store("digests of weights files", _DIGESTS.clear, _DIGESTS_LOCK)
_TICK = 2.0  # resolution of the coarsest file systems in seconds


def as_weights_path(weights: "str | PathLike[str]", *, backbone: str, choices: str) -> Path:
    """Return ``weights`` as the path of a weights file.

    ``choices`` describes the other valid values for the error message.

    Raises
    ------
    BackboneError
        If it is neither a published name nor the path of a weights file.
    FileNotFoundError
        If it is a path and the file does not exist.
    WeightsMismatchError
        If the path cannot be opened or is not a file.
    """
    text = os.fspath(weights)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise WeightsMismatchError(f"weights={text!r}: {error}") from None
    if not is_weights_name(path.name):
        raise BackboneError(
            f"weights={text!r} is unknown for backbone={backbone!r}. Use {choices}, "
            f"or the path of a weights file ({', '.join(SUFFIXES)})."
        )
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(shortened(f"weights={text!r}: the file does not exist.")) from None
    except (OSError, ValueError) as error:  # too long, with a NUL, or not permitted
        raise WeightsMismatchError(f"weights={text!r} cannot be opened ({_reason(error)}).") from error
    if stat.S_ISDIR(mode):
        raise WeightsMismatchError(f"weights={text!r} is a directory. Pass the path of a weights file instead.")
    if not stat.S_ISREG(mode):
        raise WeightsMismatchError(
            f"weights={text!r} is not a regular file, but a pipe, socket or device. Pass the path of a weights file "
            "instead."
        )
    return path


def is_weights_name(name: str) -> bool:
    """Check whether a file of this name may contain weights."""
    return name.lower().endswith(SUFFIXES)


def file_digest(path: Path) -> bytes:
    """Return a digest of the content of a file, which is cached while it is unchanged.

    Raises
    ------
    WeightsMismatchError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            key = _identity(file)
            with _DIGESTS_LOCK:
                if key in _DIGESTS:
                    _DIGESTS.move_to_end(key)
                    return _DIGESTS[key]
            digest = _digest(file)
            is_settled = key == _identity(file) and time.time() - max(key[-2:]) / 1e9 > _TICK
    except OSError as error:
        raise _unreadable(path, error) from error
    if is_settled:
        with _DIGESTS_LOCK:
            _DIGESTS[key] = digest
            while len(_DIGESTS) > _DIGESTS_SIZE:
                _DIGESTS.popitem(last=False)
    return digest


def _identity(file: BinaryIO) -> tuple:
    """Return what changes with the file; copying programs cannot set its ctime."""
    state = os.fstat(file.fileno())
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _digest(file: BinaryIO) -> bytes:
    state = xxhash.xxh3_128()
    while block := file.read(2**20):
        state.update(block)
    return state.digest()


def read_state_dict(path: Path) -> StateDict:
    """Return the state dict in a weights file, with floating-point tensors as float32.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file or a file written by `torch.save`. Only tensors and
        containers are read from it.

    Raises
    ------
    WeightsMismatchError
        If the file does not contain a state dict.
    """
    try:
        with path.open("rb") as file:
            _check_sizes(file, path)
        if path.suffix.lower() == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsMismatchError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # corrupt files may cause any error
        raise WeightsMismatchError(
            f"weights={str(path)!r} cannot be read as a state dict ({type(error).__name__}: {_first_words(error)}). "
            f"The file may be corrupt, or contain a pickled model, which is not loaded because it could run code. "
            f"{_SAVE}"
        ) from error
    return as_state_dict(content, origin=str(path))


def _first_words(error: Exception) -> str:
    """Return the reader's message, without torch's advice to let the file run code."""
    unknown = re.search(r"Unsupported (?:global|class|operand)[:\s]+(?:GLOBAL )?([\w.]+\.\w+)", str(error))
    if unknown:
        return f"it contains {unknown[1]}, but only tensors, numbers and containers of them are loaded"
    line = next(iter(str(error).splitlines()), "")
    return line.split("Weights only load failed")[0].strip().rstrip(".")[:120] or "unknown format"


def _check_sizes(file: BinaryIO, path: Path) -> None:
    """Raise an error if a file declares much more content than its size allows."""
    n_bytes = os.fstat(file.fileno()).st_size
    if path.suffix.lower() == ".safetensors":
        declared = _safetensors_bytes(file, n_bytes)
        if declared > n_bytes:
            raise _too_large(path, declared, n_bytes)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > _SLACK + _MOST_TIMES * n_bytes:
            raise _too_large(path, declared, n_bytes)


def _safetensors_bytes(file: BinaryIO, n_bytes: int) -> int:
    """Return the end of the data of the last tensor according to the header."""
    (n_header,) = struct.unpack("<Q", file.read(8))
    if n_header > n_bytes - 8:
        return int(8 + n_header)
    tensors = json.loads(file.read(n_header))
    return (
        8 + n_header + max((entry["data_offsets"][1] for name, entry in tensors.items() if name[:2] != "__"), default=0)
    )


def _too_large(path: Path, declared: int, n_bytes: int) -> WeightsMismatchError:
    return WeightsMismatchError(
        f"weights={str(path)!r} declares {declared:,} bytes of content, but the file has {n_bytes:,} bytes. It is "
        f"truncated, corrupt, or malicious. {_SAVE}"
    )


def _unreadable(path: Path, error: Exception) -> WeightsMismatchError:
    return WeightsMismatchError(f"weights={str(path)!r} cannot be read ({_reason(error)}).")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def as_state_dict(content: Any, *, origin: str) -> StateDict:
    """Return the state dict in a checkpoint, cast to float32.

    The tensors are copies, since those of a memory-mapped file would change with it.

    Raises
    ------
    WeightsMismatchError
        If the content has no state dict, or a tensor that is not dense.
    """
    tensors = _unwrapped(content)
    if tensors is None:
        raise WeightsMismatchError(
            f"weights={origin!r} must contain a state dict, which maps names to tensors{_found(content)}. Save one "
            "with torch.save(model.state_dict(), path)."
        )
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, origin)
    return {
        name: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }


def _unwrapped(content: Any) -> "Mapping[str, Tensor] | None":
    """Return the first state dict in the content of a file, or None."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return content
    inner: Iterator[Any] = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
    found = (_unwrapped(value) for value in inner)
    return next((tensors for tensors in found if tensors is not None), None)


def _found(content: Any) -> str:
    """Describe the content of a file that is not a state dict."""
    if not isinstance(content, Mapping):
        return f", but contains a {type(content).__name__}"
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    return f", but contains a dict with {', '.join(map(repr, other[:5]))}" if other else ", but contains an empty dict"


def _check_tensor(name: str, tensor: Tensor, origin: str) -> None:
    """Raise an error for a tensor that is not dense, such as an expanded view."""
    is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
    if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsMismatchError(
            f"weights={origin!r}: the tensor {name!r} is sparse, quantized, complex, or a view that repeats its "
            "values. Save dense tensors instead: tensor.to_dense().contiguous()."
        )
