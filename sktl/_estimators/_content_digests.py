"""What stands for a teacher and for what it is shown: equal for equal ones, in any process."""

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
    """What stands for each row as a teacher sees it: numbers to the last bit, files by their content."""
    X = table.given[0]
    names = f"{type(X).__name__} {list(getattr(X, 'columns', ()))} "  # a pipeline may choose columns by their names
    if hasattr(X, "shape") and len(X.shape) > 1:
        numbers = _array(X)
        if numbers.dtype.kind in "buif":
            return [names.encode() + _of_numbers(numbers[position]) for position in table.images.positions]
    images = table.images
    digests = [_of_item(unwrapped(images.item(row))) + images.digest(row) for row in range(len(images))]
    beside = [b""] * len(digests) if table.beside is None else table.beside
    return [names.encode() + digest + other for digest, other in zip(digests, beside, strict=True)]


def beside_digests(X: Any, image_column: Any) -> list[bytes]:
    """What stands for each row of a table without its column of images."""
    names = list(X.columns) if hasattr(X, "columns") else list(range(X.shape[1]))
    columns = [_column(X, number) for number, name in enumerate(names) if name != image_column]
    # What cannot be told is another row each time it is seen.
    return [content_digest(cells) or uuid.uuid4().bytes for cells in zip(*columns, strict=True)]


def _column(X: Any, number: int) -> list[Any]:
    if isinstance(X, np.ndarray):
        return X[:, number].tolist()
    return (X.iloc[:, number] if hasattr(X, "iloc") else X[:, number]).to_list()


def _of_item(item: Any) -> bytes:
    """What the digest of the student's picture, of 8 bits and perhaps grey, does not tell of an item in memory."""
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
    """What stands for all that an object is, wherever it is; None where that cannot be told."""
    return digest_and_size(thing)[0]


def digest_and_size(thing: Any) -> tuple[bytes | None, int]:
    """What stands for all that an object is, and how many bytes that takes.

    Of an object that cannot be pickled neither can be told: None, and more than there is room for anywhere.
    """
    digester = _Digester()
    try:
        digester.dump(thing)
    except Exception:  # what an object raises that cannot be pickled is its own affair
        return None, sys.maxsize
    return digester.sink.state.digest(), digester.sink.n_bytes + digester.n_bytes


class _Sink(io.RawIOBase):
    """Digests and counts what is written to it."""

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
    """Pickles into a digest; networks, tensors and texts by their content, however they are stored.

    A pickle says of an object that it has met that it is the same one. Of texts and types of arrays there are as many
    as it happens: they are always said in full, so that a copy from a file has the digest of the original.
    """

    def __init__(self) -> None:
        self.sink = _Sink()
        self.n_bytes = 0  # of what only a digest is written of
        self._counted: set[int] = set()
        super().__init__(self.sink, protocol=pickle.HIGHEST_PROTOCOL)

    def persistent_id(self, obj: Any) -> Any:
        """What stands for an object; None for one that is pickled as ever."""
        if isinstance(obj, str):
            return obj.encode(errors="surrogatepass")
        if isinstance(obj, np.dtype) and not obj.hasobject:
            return repr(obj).encode()
        if isinstance(obj, type | FunctionType) and not is_library_code(obj) and "<" not in obj.__qualname__:
            return code_key(obj)  # pickle tells it by name, and it may be written again meanwhile
        if isinstance(obj, bytes):
            self.n_bytes += len(obj)
            return xxhash.xxh3_128(obj).digest()
        if isinstance(obj, Net):
            digest, n_bytes = digest_and_size(obj.content())
            self.n_bytes += 0 if digest is None else n_bytes
            return digest
        if isinstance(obj, torch.fx.GraphModule):  # which is made anew, with other names, wherever it is loaded
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
        """Count what tensors hold, once where several share it."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage.data_ptr() not in self._counted:
                self._counted.add(storage.data_ptr())
                self.n_bytes += storage.nbytes()
