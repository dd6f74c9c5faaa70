"""Weights files: their paths, and what is in them. Nothing here runs code, and nothing is read that cannot be held."""

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

# Where training programs keep the state dict of the network in a checkpoint. Of several the first one counts: what was
# trained before its moving average.
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

_SLACK = 2**26  # bytes that a compressed archive may hold in any case
_MOST_TIMES = 10  # its own size that it may hold: weights hardly become smaller

_SAVE = (
    "Save the weights alone: torch.save(model.state_dict(), path), or "
    "safetensors.torch.save_file(model.state_dict(), path)."
)

# Digests of files by what the system says of them, the most recently used last.
_DIGESTS: OrderedDict[tuple, bytes] = OrderedDict()
_DIGESTS_SIZE = 64
_DIGESTS_LOCK = Lock()
register_store("digests of weights files", _DIGESTS.clear, _DIGESTS_LOCK)
_TICK = 2.0  # seconds in which a file may be written twice and have the same times: the coarsest file systems


def as_weights_path(weights: "str | PathLike[str]", *, backbone: str, choices: str) -> Path:
    """The weights file that ``weights`` names; ``choices`` tells what else could have been meant.

    Raises
    ------
    BackboneError
        If it is neither a published name nor the path of a weights file.
    FileNotFoundError
        If it looks like a path and there is no such file.
    WeightsMismatchError
        If it is a path that cannot be opened, or that of something else than a file.
    """
    text = os.fspath(weights)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise WeightsMismatchError(f"weights={text!r}: {error}") from None
    if not is_weights_name(path.name):
        raise BackboneError(
            f"weights={text!r} is unknown for backbone={backbone!r}. Use {choices}, "
            f"or the path of a file {', '.join(SUFFIXES)}."
        )
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(shortened(f"weights={text!r}: there is no such file.")) from None
    except (OSError, ValueError) as error:  # too long for the system, a NUL in it, a folder that may not be entered
        raise WeightsMismatchError(f"weights={text!r}: this path cannot be opened ({_reason(error)}).") from error
    if stat.S_ISDIR(mode):
        raise WeightsMismatchError(f"weights={text!r} is a folder. Give the path of a weights file.")
    if not stat.S_ISREG(mode):
        raise WeightsMismatchError(f"weights={text!r} is not a regular file but a pipe, a socket or a device.")
    return path


def is_weights_name(name: str) -> bool:
    """Whether a file of this name may hold weights."""
    return name.lower().endswith(SUFFIXES)


def file_digest(path: Path) -> bytes:
    """What stands for the content of a file, which is read once, as long as the system says that it is the same.

    Raises
    ------
    WeightsMismatchError
        If it cannot be read.
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
    """What changes whenever a file does: of the times, ctime cannot be set by a program that copies files."""
    state = os.fstat(file.fileno())
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _digest(file: BinaryIO) -> bytes:
    state = xxhash.xxh3_128()
    while block := file.read(2**20):
        state.update(block)
    return state.digest()


def read_state_dict(path: Path) -> StateDict:
    """Read a weights file; floating-point tensors come back as float32.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or one of `torch.save`, of which nothing but tensors and containers is read.

    Raises
    ------
    WeightsMismatchError
        If the file is no state dict.
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
    except Exception as error:  # a damaged file may make its reader fail anywhere
        raise WeightsMismatchError(
            f"weights={str(path)!r} cannot be read as a state dict ({type(error).__name__}: {_first_words(error)}). It "
            f"may be broken, or hold a whole pickled model, which would run code when it is read. {_SAVE}"
        ) from error
    return as_state_dict(content, origin=str(path))


def _first_words(error: Exception) -> str:
    """What a reader says, without torch's advice to let the file run code."""
    unknown = re.search(r"Unsupported (?:global|class|operand)[:\s]+(?:GLOBAL )?([\w.]+\.\w+)", str(error))
    if unknown:
        return f"it holds {unknown[1]}, and only tensors, numbers and containers of them are read"
    line = next(iter(str(error).splitlines()), "")
    return line.split("Weights only load failed")[0].strip().rstrip(".")[:120] or "not what it should be"


def _check_sizes(file: BinaryIO, path: Path) -> None:
    """Refuse a file that says of itself that it holds much more than its own size, before it is read."""
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
    """Where the data of the last tensor ends, by the header."""
    (n_header,) = struct.unpack("<Q", file.read(8))
    if n_header > n_bytes - 8:
        return int(8 + n_header)
    tensors = json.loads(file.read(n_header))
    return (
        8 + n_header + max((entry["data_offsets"][1] for name, entry in tensors.items() if name[:2] != "__"), default=0)
    )


def _too_large(path: Path, declared: int, n_bytes: int) -> WeightsMismatchError:
    return WeightsMismatchError(
        f"weights={str(path)!r} declares {declared:,} bytes of content, in a file of {n_bytes:,}: it is truncated, "
        f"damaged, or made to fill the memory. {_SAVE}"
    )


def _unreadable(path: Path, error: Exception) -> WeightsMismatchError:
    return WeightsMismatchError(f"weights={str(path)!r} cannot be read ({_reason(error)}).")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def as_state_dict(content: Any, *, origin: str) -> StateDict:
    """Unwrap what training programs wrap around a state dict, and cast to float32.

    The tensors are copies: those of a file may be windows into it, and would change when it is written again.

    Raises
    ------
    WeightsMismatchError
        If there is no state dict, or a tensor in it that no file has to hold.
    """
    tensors = _unwrapped(content)
    if tensors is None:
        raise WeightsMismatchError(
            f"weights={origin!r} holds something else than a state dict, which maps names to tensors{_found(content)}. "
            "Save it with torch.save(model.state_dict(), path)."
        )
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, origin)
    return {
        name: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }


def _unwrapped(content: Any) -> "Mapping[str, Tensor] | None":
    """The first state dict in what a file holds, by the names that training programs give it."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return content
    inner: Iterator[Any] = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
    found = (_unwrapped(value) for value in inner)
    return next((tensors for tensors in found if tensors is not None), None)


def _found(content: Any) -> str:
    """What a file holds in place of a state dict."""
    if not isinstance(content, Mapping):
        return f", but a {type(content).__name__}"
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    return f", but a dict with {', '.join(map(repr, other[:5]))}" if other else ", but an empty dict"


def _check_tensor(name: str, tensor: Tensor, origin: str) -> None:
    """Refuse what is no plain table of numbers, such as a view that repeats one number a billion times."""
    is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
    if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsMismatchError(
            f"weights={origin!r}: the tensor {name!r} is sparse, quantized, complex, or a view that repeats its "
            "numbers. Save plain tensors: tensor.to_dense().contiguous()."
        )
