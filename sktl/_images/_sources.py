"""The bytes of an encoded image, wherever they are: at a path, in an open file, in a dict, in a text that holds them.

Nothing is kept open, and an open file is left at the position that it had.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from io import TextIOBase
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from sklearn.utils._missing import is_pandas_na, is_scalar_nan

from sktl._images._read_settings import byte_limit
from sktl._images._signatures import looks_like_image
from sktl._locks import Lock
from sktl.exceptions import ImageError

ENCODED = (bytes, bytearray, memoryview)
PATH = (str, os.PathLike)


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")
_SHOWN = 300  # characters of a path in an error
_LONGEST_PATH = 4096  # a longer text is no path on any system
_TEXT = "this file was opened as text; open it with mode 'rb'."
_SPECIAL = "is not a regular file but a pipe, a socket or a device."
_CHUNK = 1024**2  # bytes of a stream of unknown length that are read at once
_FILES = Lock()  # one open file may be in a table twice, and has one position


def is_source(item: Any) -> bool:
    """Whether this is something that an encoded image can be read from."""
    if isinstance(item, Mapping):
        return "bytes" in item or "path" in item
    return isinstance(item, (*PATH, *ENCODED)) or is_file(item)


def is_file(item: Any) -> bool:
    """Whether this is an open file, or a path of another file system (`zipfile.Path`, fsspec's `OpenFile`)."""
    if isinstance(item, str | PurePath | type):
        return False
    is_opener = hasattr(item, "open") and hasattr(item, "__enter__")
    return any(callable(getattr(item, name, None)) for name in ("read", "read_bytes")) or is_opener


def is_read_once(item: Any) -> bool:
    """Whether this is a stream that cannot go back to its beginning, such as a download."""
    is_stream = callable(getattr(item, "read", None)) and not callable(getattr(item, "read_bytes", None))
    if not is_stream or not is_file(item) or getattr(item, "closed", False) is True:
        return False
    return not hasattr(item, "seek") or (hasattr(item, "seekable") and not item.seekable())


def is_missing(item: Any) -> bool:
    """Whether this stands for a value that is not there: None, NaN, pandas.NA or NaT."""
    return item is None or is_pandas_na(item) or is_scalar_nan(item) or type(item).__name__ == "NaTType"


def name_of(item: Any) -> str:
    """What an error calls an item beside its position: its path, cut if it is long, or nothing."""
    if (path := path_of(item)) is None:
        return ""
    shown = path if len(path) <= _SHOWN else f"{path[: _SHOWN // 2]} ... {path[-_SHOWN // 2 :]}"
    return f" ({shown!r})"


def local_path(item: Any) -> "str | None":
    """The path to give to a function that opens files itself, if the item has one."""
    if not isinstance(item, PATH) or is_file(item):
        return None
    text = os.fsdecode(item)
    path = _from_file_url(text) if _is_file_url(text) else text
    return path if os.path.isfile(path) else None


def path_of(item: Any) -> "str | None":
    """The path of an item, if it has one."""
    try:
        return _path_of(item)
    except Exception:  # a file of another library that has no name
        return None


def _path_of(item: Any) -> "str | None":
    if isinstance(item, Mapping):
        path = item.get("path")
        return os.fsdecode(path) if isinstance(path, PATH) else None
    if is_file(item):
        path = getattr(item, "name", None) or getattr(item, "path", None)
        return str(item) if hasattr(item, "read_bytes") else path if isinstance(path, str) else None
    return os.fsdecode(item) if isinstance(item, PATH) else None


def is_path_like(text: str) -> bool:
    """Whether a text can only be a path: it is no address, no data: text and no image in base64."""
    return len(text) <= _LONGEST_PATH and not _ADDRESS.match(text) and not is_packed_image(text)


def folder_fault(path: Any) -> str:
    """Say that a path is a folder, with the lines that load its files and their labels."""
    return (
        "is a folder. Load the images in it: from sktl.datasets import load_image_folder; X, y = "
        f"load_image_folder({os.fsdecode(path)!r}, return_X_y=True)"
    )


def read(item: Any, name: str) -> bytes:
    """Give the encoded bytes that an item stands for.

    Parameters
    ----------
    item : path, bytes, dict, open file or text
        For which `is_source` is true.
    name : str
        How errors call the image.

    Raises
    ------
    ImageError
        If there is nothing to read, or if it cannot be read.
    """
    if isinstance(item, ENCODED):
        return _unpacked(bytes(item), name)
    if isinstance(item, Mapping):
        return _read_dict(item, name)
    return _read_file(item, name) if is_file(item) else _read_path(os.fspath(item), name)


def _unpacked(data: bytes, name: str) -> bytes:
    """Bytes as they are, unless they are the letters of a data: URL or of an image in base64."""
    if looks_like_image(data) or not data[:64].isascii():
        return data
    if data[:5].lower() == b"data:":
        return _from_data_url(data.decode("latin-1"), name)
    return _from_base64(data.decode("latin-1")) or data


def _read_dict(item: Mapping, name: str) -> bytes:
    """Hugging Face's form of an image that is not decoded: its bytes, or else the path to them."""
    for key in ("bytes", "path"):
        if is_missing(value := item.get(key)):
            continue
        if isinstance(value, Mapping) or not is_source(value):
            raise ImageError(f"{name}: dict[{key!r}] must be {key}. Got {type(value).__name__!r}.")
        return read(value, name)
    raise ImageError(f"{name}: the value is missing: both 'bytes' and 'path' of the dict are None.")


def _read_file(item: Any, name: str) -> bytes:
    if getattr(item, "closed", False) is True:
        raise ImageError(f"{name}: this file was closed before it was read. Give its path or its bytes.")
    if isinstance(item, TextIOBase):
        raise ImageError(f"{name}: {_TEXT}")
    try:
        with _FILES:
            data = _read_all(item)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # file systems of other libraries have errors of their own
        raise ImageError(f"{name}: the file cannot be read ({reason(error)}).") from error
    if isinstance(data, str):
        raise ImageError(f"{name}: {_TEXT}")
    return bytes(data)


def _read_all(item: Any) -> Any:
    """All bytes of an open file, or of a path of another file system, from the beginning."""
    if callable(getattr(item, "read_bytes", None)):
        if not callable(getattr(item, "open", None)):
            return item.read_bytes()
        with item.open("rb") as file:
            return _read_up_to_limit(file)
    if not callable(getattr(item, "read", None)):
        with item as file:
            return _read_up_to_limit(file)
    _check_open_file(item)
    if is_read_once(item):
        if not (data := _read_up_to_limit(item)):
            raise ImageError("nothing is left to read: this stream can be read only once. Pass its bytes.")
        return data
    position = item.tell()
    try:
        item.seek(0)
        return _read_up_to_limit(item)
    finally:
        item.seek(position)


def _check_open_file(item: Any) -> None:
    """Refuse an open file of the disk that is a device or too large; a pipe may be a download."""
    try:
        status = os.fstat(item.fileno())
    except Exception:  # it is no file of the disk
        return
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        raise ImageError(_SPECIAL)
    if stat.S_ISREG(status.st_mode):
        _check_size(status.st_size)


def _check_size(n_bytes: int) -> None:
    if n_bytes > (limit := byte_limit()):
        raise ImageError(
            f"not read, as the file is too large ({n_bytes:,} bytes; the limit is {limit:,}, a quarter of the memory). "
            "Cut the image out of it first."
        )


def _read_up_to_limit(file: Any) -> Any:
    """All that a stream gives, unless it gives more than a file may have: some never end."""
    try:
        chunk = file.read(_CHUNK)
    except TypeError:  # somebody's own class, which reads all at once
        return file.read()
    if isinstance(chunk, str):
        return chunk
    data = bytearray()
    while chunk:
        data += chunk
        _check_size(len(data))
        chunk = file.read(_CHUNK)
    return bytes(data)


def _read_path(path: "str | bytes", name: str) -> bytes:
    text = os.fsdecode(path)
    if text[:5].lower() == "data:":
        return _from_data_url(text, name)
    try:
        path = _from_file_url(text) if _is_file_url(text) else path
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    try:
        _check_path(path)
        with open(path, "rb") as file:
            return file.read()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: {folder_fault(path)}") from None
    except (OSError, ValueError) as error:
        if (data := _from_base64(text)) is not None:
            return data
        if len(text) > _LONGEST_PATH:
            raise ImageError(
                f"{name}: the string ({len(text):,} characters) is neither a path nor a base64-encoded image."
            ) from None
        if not isinstance(error, FileNotFoundError):
            raise ImageError(f"{name}: the file cannot be read ({reason(error)}).") from error
    remote = " URLs are not downloaded: download the file first, or pass its bytes." if _ADDRESS.match(text) else ""
    raise ImageError(f"{name}: there is no such file.{remote}")


def _check_path(path: "str | bytes") -> None:
    """Refuse a path if opening it could wait forever, or reading it would not end or not fit into memory."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # it has its own words when it is opened
        return
    if stat.S_ISREG(status.st_mode):
        _check_size(status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        raise ImageError(_SPECIAL)


def _is_file_url(text: str) -> bool:
    return text[:6].lower() == "file:/"


def _from_file_url(text: str) -> str:
    """The local path of a file:// address."""
    address = urlsplit(text)
    if address.netloc not in ("", "localhost"):
        raise ImageError(f"this file is on another computer ({address.netloc}). Copy it here first.")
    return url2pathname(address.path)


def _from_data_url(text: str, name: str) -> bytes:
    """The bytes in a data: text (RFC 2397), as browsers and notebooks write them."""
    header, comma, body = text.partition(",")
    data: bytes | None = unquote_to_bytes(body)
    if header.lower().replace(" ", "").endswith(";base64"):
        data = _unpack_base64(os.fsdecode(data or b""))
    if not comma or data is None:
        raise ImageError(f"{name}: a data: text that cannot be unpacked; it must be data:image/png;base64,...")
    return data


def _from_base64(text: str) -> "bytes | None":
    """The bytes in a text that is no path, if it is an image in base64."""
    data = _unpack_base64(text)
    return data if data and looks_like_image(data) else None


def _unpack_base64(text: str) -> "bytes | None":
    packed = "".join(text.split()).translate(_URL_SAFE)
    if not _BASE64.fullmatch(packed):
        return None
    packed = packed.rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4))
    except binascii.Error:
        return None


def is_packed_image(text: str) -> bool:
    """Whether a text is an image itself and not the path to one."""
    return text[:5].lower() == "data:" or _from_base64(text) is not None


def reason(error: BaseException) -> str:
    """What an exception says, or its kind if it says nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
