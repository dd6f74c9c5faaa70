"""Warnings that other libraries give while they read an image name the image.

`warnings.catch_warnings` is not for threads: what one of them saves, another one restores. So the filters stay as they
are, and only the function that shows warnings is replaced, while any thread reads an image. It names the image that its
own thread reads, and shows every other thread's warnings as they are.
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
    """How warnings were shown before the first thread came, and how many threads are there."""

    n_threads = 0
    before: Callable = warnings.showwarning


@contextlib.contextmanager
def named_warnings(name: str) -> Iterator[None]:
    """Put ``name`` in front of each warning of this thread; one that is an error by the filters is raised with it.

    Without a name nothing is shown: the same warning comes again when the image is decoded. Pillow's warning of large
    images is left out too: how large an image may be is decided elsewhere.
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
