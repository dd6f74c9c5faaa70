"""Addition of the image's name to warnings that other libraries issue while reading it.

`warnings.catch_warnings` is not thread-safe. Therefore the filters are not changed.
Only the function that shows warnings is replaced while a thread reads an image: it adds
the name of the image that its thread reads, and shows the warnings of other threads
unchanged.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from sktl._locks import Lock

_LOCK = Lock()
_READING = threading.local()


class _Shown:
    """The original function that shows warnings, and the number of reading threads."""

    n_threads = 0
    before: Callable = warnings.showwarning


@contextlib.contextmanager
def named_warnings(name: str) -> Iterator[None]:
    """Prefix all warnings of this thread, also those that filters turn into errors.

    An empty name hides warnings that are issued again when the image is decoded.
    Pillow's warning about large images is always hidden because sktl has its own limit.
    """
    with _LOCK:
        if warnings.showwarning is not _show:
            _Shown.before, warnings.showwarning = warnings.showwarning, _show
        _Shown.n_threads += 1
    _READING.name = name
    try:
        yield
    except Warning as warning:
        if isinstance(warning, Image.DecompressionBombWarning) or str(warning).startswith(name):
            raise
        raise type(warning)(f"{name}: {warning}") from warning
    finally:
        _READING.name = None
        with _LOCK:
            _Shown.n_threads -= 1
            if not _Shown.n_threads and warnings.showwarning is _show:
                warnings.showwarning = _Shown.before


def _show(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    name = getattr(_READING, "name", None)
    if name == "" or (name is not None and issubclass(category, Image.DecompressionBombWarning)):
        return
    if name is not None and not str(message).startswith(name):
        message = category(f"{name}: {message}")
    _Shown.before(message, category, *args, **kwargs)
