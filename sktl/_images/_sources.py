"""Reading of the bytes of encoded images from paths, open files, dicts and strings.

No file is kept open, and the position of an open file is restored.
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
_LONGEST_PATH = 4096  # no system allows longer paths
_TEXT = "the file was opened in text mode. Open it with mode 'rb'."
_SPECIAL = "this is not a regular file but a pipe, a socket or a device."
_CHUNK = 1024**2  # bytes per read of a stream of unknown length
_FILES = Lock()  # an open file has one position and may be in a table twice


def is_source(item: Any) -> bool:
    """Check whether an encoded image can be read from an item."""
    if isinstance(item, Mapping):
        return "bytes" in item or "path" in item
    return isinstance(item, (*PATH, *ENCODED)) or is_file(item)


def is_file(item: Any) -> bool:
    """Check for an open file or a path of another file system, such as fsspec."""
    if isinstance(item, str | PurePath | type):
        return False
    is_opener = hasattr(item, "open") and hasattr(item, "__enter__")
    return any(callable(getattr(item, name, None)) for name in ("read", "read_bytes")) or is_opener


def is_read_once(item: Any) -> bool:
    """Check for a stream that is not seekable, such as a download."""
    is_stream = callable(getattr(item, "read", None)) and not callable(getattr(item, "read_bytes", None))
    if not is_stream or not is_file(item) or getattr(item, "closed", False) is True:
        return False
    return not hasattr(item, "seek") or (hasattr(item, "seekable") and not item.seekable())


def is_missing(item: Any) -> bool:
    """Check for a missing value: None, NaN, pandas.NA or NaT."""
    return item is None or is_pandas_na(item) or is_scalar_nan(item) or type(item).__name__ == "NaTType"


def name_of(item: Any) -> str:
    """Return the path of an item in parentheses, shortened, or an empty string."""
    if (path := path_of(item)) is None:
        return ""
    shown = path if len(path) <= _SHOWN else f"{path[: _SHOWN // 2]} ... {path[-_SHOWN // 2 :]}"
    return f" ({shown!r})"


def local_path(item: Any) -> "str | None":
    """Return the path of an item that is a local file, else None."""
    if not isinstance(item, PATH) or is_file(item):
        return None
    text = os.fsdecode(item)
    path = _from_file_url(text) if _is_file_url(text) else text
    return path if os.path.isfile(path) else None


def path_of(item: Any) -> "str | None":
    """Return the path or URL of an item, or None."""
    try:
        return _path_of(item)
    except Exception:  # a file object of another library without name
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
    """Check that a string is not a URL or a base64-encoded image."""
    return len(text) <= _LONGEST_PATH and not _ADDRESS.match(text) and not is_packed_image(text)


def folder_fault(path: Any) -> str:
    """Return the error message for a folder, with the code that loads its images."""
    return f"is a folder. Load the images in it: {load_code(path)}"


def load_code(folder: Any) -> str:
    """Return the code that loads the images of a folder."""
    call = f"load_image_folder({os.fsdecode(folder)!r}, return_X_y=True)"
    return f"from sktl.datasets import load_image_folder; X, y = {call}"


def read(item: Any, name: str) -> bytes:
    """Read the bytes of an encoded image.

    Parameters
    ----------
    item : path, bytes, dict, open file or str
        Item for which `is_source` is true.
    name : str
        Name of the image in errors.

    Raises
    ------
    ImageError
        If the bytes are missing or cannot be read.
    """
    if isinstance(item, ENCODED):
        return _unpacked(bytes(item), name)
    if isinstance(item, Mapping):
        return _read_dict(item, name)
    return _read_file(item, name) if is_file(item) else _read_path(os.fspath(item), name)


def _unpacked(data: bytes, name: str) -> bytes:
    """Decode bytes of a ``data:`` URL or base64; return other bytes unchanged."""
    if looks_like_image(data) or not data[:64].isascii():
        return data
    if data[:5].lower() == b"data:":
        return _from_data_url(data.decode("latin-1"), name)
    return _from_base64(data.decode("latin-1")) or data


def _read_dict(item: Mapping, name: str) -> bytes:
    """Read an undecoded image of Hugging Face: its bytes, or the file at its path."""
    for key in ("bytes", "path"):
        if is_missing(value := item.get(key)):
            continue
        if isinstance(value, Mapping) or not is_source(value):
            raise ImageError(f"{name}: dict[{key!r}] must be of type {key}. Got {type(value).__name__!r} instead.")
        return read(value, name)
    raise ImageError(f"{name}: the value is missing ('bytes' and 'path' of the dict are both empty).")


def _read_file(item: Any, name: str) -> bytes:
    if getattr(item, "closed", False) is True:
        raise ImageError(f"{name}: the file was closed before it was read. Pass its path or its bytes.")
    if isinstance(item, TextIOBase):
        raise ImageError(f"{name}: {_TEXT}")
    try:
        with _FILES:
            data = _read_all(item)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # file systems of other libraries may raise anything
        raise ImageError(f"{name}: the file cannot be read ({reason(error)}).") from error
    if isinstance(data, str):
        raise ImageError(f"{name}: {_TEXT}")
    return bytes(data)


def _read_all(item: Any) -> Any:
    """Read an open file, or a path of another file system, from the beginning."""
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
            raise ImageError("the stream has already been read, and can be read only once. Pass its bytes.")
        return data
    position = item.tell()
    try:
        item.seek(0)
        return _read_up_to_limit(item)
    finally:
        item.seek(position)


def _check_open_file(item: Any) -> None:
    """Refuse an open file that is a device or too large; a pipe may be a download."""
    try:
        status = os.fstat(item.fileno())
    except Exception:  # not a file on disk
        return
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        raise ImageError(_SPECIAL)
    if stat.S_ISREG(status.st_mode):
        _check_size(status.st_size)


def _check_size(n_bytes: int) -> None:
    if n_bytes > (limit := byte_limit()):
        raise ImageError(
            f"the file is too large ({n_bytes:,} bytes; the limit is {limit:,}, a quarter of the memory). Extract the "
            "image from it first."
        )


def _read_up_to_limit(file: Any) -> Any:
    """Read a stream up to the size limit of files, since some streams never end."""
    try:
        chunk = file.read(_CHUNK)
    except TypeError:  # a custom class without a size argument
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
        raise ImageError(f"{name}: the path {folder_fault(path)}") from None
    except (OSError, ValueError) as error:
        if (data := _from_base64(text)) is not None:
            return data
        if len(text) > _LONGEST_PATH:
            raise ImageError(
                f"{name}: the string ({len(text):,} characters) is neither a path nor a base64-encoded image."
            ) from None
        if not isinstance(error, FileNotFoundError):
            raise ImageError(f"{name}: the file cannot be read ({reason(error)}).") from error
    remote = " URLs are not downloaded. Download the file first, or pass its bytes." if _ADDRESS.match(text) else ""
    raise ImageError(f"{name}: the file does not exist.{remote}")


def _check_path(path: "str | bytes") -> None:
    """Refuse a path that is too large or not a file: reading it may never end."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # open() raises the error
        return
    if stat.S_ISREG(status.st_mode):
        _check_size(status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        raise ImageError(_SPECIAL)


def _is_file_url(text: str) -> bool:
    return text[:6].lower() == "file:/"


def _from_file_url(text: str) -> str:
    """Return the local path of a ``file:`` URL."""
    address = urlsplit(text)
    if address.netloc not in ("", "localhost"):
        raise ImageError(f"the file is on another computer ({address.netloc}). Copy it to this computer first.")
    return url2pathname(address.path)


def _from_data_url(text: str, name: str) -> bytes:
    """Return the bytes in a ``data:`` URL (RFC 2397)."""
    header, comma, body = text.partition(",")
    data: bytes | None = unquote_to_bytes(body)
    if header.lower().replace(" ", "").endswith(";base64"):
        data = _unpack_base64(os.fsdecode(data or b""))
    if not comma or data is None:
        raise ImageError(f"{name}: the data: URL cannot be decoded. It must have the form data:image/png;base64,...")
    return data


def _from_base64(text: str) -> "bytes | None":
    """Return the bytes of a base64-encoded image, or None for other strings."""
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
    """Check whether a string is a ``data:`` URL or a base64-encoded image."""
    return text[:5].lower() == "data:" or _from_base64(text) is not None


def reason(error: BaseException) -> str:
    """Return the message of an exception, or its class if the message is empty."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
