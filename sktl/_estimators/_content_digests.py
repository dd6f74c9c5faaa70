"""Digests of teachers and of their input, equal for equal content in any process."""

import io
import pickle
import sys
import uuid
from collections.abc import Iterable
from types import FunctionType
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image

from sktl._code import code_key, is_library_code
from sktl._images import unwrapped
from sktl._training._data import LabeledImages
from sktl._training._net import Net
from sktl.backbones import Backbone
from sktl.backbones._fingerprint import fingerprint


def row_digests(table: LabeledImages) -> list[bytes]:
    """Digest each row as a teacher sees it: numbers bit by bit, files by content."""
    X = table.given[0]
    names = f"{type(X).__name__} {list(getattr(X, 'columns', ()))} "  # a pipeline may select columns by name
    if hasattr(X, "shape") and len(X.shape) > 1:
        numbers = _array(X)
        if numbers.dtype.kind in "buif":
            return [names.encode() + _of_numbers(numbers[position]) for position in table.images.positions]
    images = table.images
    digests = [_of_item(unwrapped(images.item(row))) + images.digest(row) for row in range(len(images))]
    beside = [b""] * len(digests) if table.beside is None else table.beside
    return [names.encode() + digest + other for digest, other in zip(digests, beside, strict=True)]


def beside_digests(X: Any, image_column: Any) -> list[bytes]:
    """Digest each row of a table without its image column."""
    names = list(X.columns) if hasattr(X, "columns") else list(range(X.shape[1]))
    columns = [_column(X, number) for number, name in enumerate(names) if name != image_column]
    # A row without a digest gets a unique one, so that it is never mistaken for another.
    return [content_digest(cells) or uuid.uuid4().bytes for cells in zip(*columns, strict=True)]


def _column(X: Any, number: int) -> list[Any]:
    if isinstance(X, np.ndarray):
        return X[:, number].tolist()
    return (X.iloc[:, number] if hasattr(X, "iloc") else X[:, number]).to_list()


def _of_item(item: Any) -> bytes:
    """Digest an item in memory in full: the student's image may have fewer bits."""
    if isinstance(item, np.ndarray | torch.Tensor | list | tuple):
        return _of_numbers(_array(item))
    if isinstance(item, Image.Image):
        return f"{item.mode} {item.size}".encode() + xxhash.xxh3_128(item.tobytes()).digest()
    return b""


def _of_numbers(numbers: np.ndarray) -> bytes:
    content = np.ascontiguousarray(numbers)
    head = f"{content.dtype.str} {content.shape}".encode()
    return head + xxhash.xxh3_128(content.view(np.uint8).data if content.ndim else content.tobytes()).digest()


def _array(X: Any) -> np.ndarray:
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        X = X.float() if X.dtype == torch.bfloat16 else X
    return np.asarray(X)


def content_digest(thing: Any) -> bytes | None:
    """Digest the content of an object; None if it cannot be pickled."""
    return digest_and_size(thing)[0]


def digest_and_size(thing: Any) -> tuple[bytes | None, int]:
    """Return the digest of an object and its size in bytes.

    Objects that cannot be pickled have the digest None and the size `sys.maxsize`.
    """
    digester = _Digester()
    try:
        digester.dump(thing)
    except Exception:  # objects that cannot be pickled may raise anything
        return None, sys.maxsize
    return digester.sink.state.digest(), digester.sink.n_bytes + digester.n_bytes


class _Sink(io.RawIOBase):
    """File that digests and counts the bytes written to it."""

    def __init__(self) -> None:
        self.state = xxhash.xxh3_128()
        self.n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.state.update(data)
        self.n_bytes += n_bytes
        return n_bytes


class _Digester(pickle.Pickler):
    """Pickler that writes networks, tensors and strings into a digest by content.

    A pickle refers back to objects that it has already written, by identity. Whether
    equal strings and dtypes are one object is accidental, so they are always written in
    full: a copy loaded from a file has the digest of the original.
    """

    def __init__(self) -> None:
        self.sink = _Sink()
        self.n_bytes = 0  # of objects of which only a digest is written
        self._counted: set[int] = set()
        super().__init__(self.sink, protocol=pickle.HIGHEST_PROTOCOL)

    def persistent_id(self, obj: Any) -> Any:
        """Return the digest to write for an object, or None to pickle it as usual."""
        if isinstance(obj, str):
            return obj.encode(errors="surrogatepass")
        if isinstance(obj, np.dtype) and not obj.hasobject:
            return repr(obj).encode()
        if isinstance(obj, type | FunctionType) and not is_library_code(obj) and "<" not in obj.__qualname__:
            return code_key(obj)  # pickle writes only its name, and the code may have changed
        if isinstance(obj, bytes):
            self.n_bytes += len(obj)
            return xxhash.xxh3_128(obj).digest()
        if isinstance(obj, Net):
            digest, n_bytes = digest_and_size(obj.content())
            self.n_bytes += 0 if digest is None else n_bytes
            return digest
        if isinstance(obj, torch.fx.GraphModule):  # recreated under other names when loaded
            self._count(obj.state_dict().values())
            return fingerprint(obj.graph, obj).encode()
        if isinstance(obj, Backbone):
            self._count(obj.module.state_dict().values())
            return "backbone", obj.fingerprint(obj.stages[-1].name), repr(obj.preprocessing), obj.in_channels
        if isinstance(obj, torch.Tensor):
            numbers = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            self._count([obj])
            return "tensor", str(obj.dtype), tuple(obj.shape), xxhash.xxh3_128(numbers.data).digest()
        return None

    def _count(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count the bytes of tensors; shared storage counts once."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage.data_ptr() not in self._counted:
                self._counted.add(storage.data_ptr())
                self.n_bytes += storage.nbytes()
