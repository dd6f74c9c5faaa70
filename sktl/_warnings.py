"""Warnings that name the line of the user's program that they are about, however deep inside they arise."""

import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, NamedTuple

# Packages whose frames stand between the user's line and the one that warns: sktl, what calls it, what it calls with a
# function of its own, and what Python itself puts between a function and its caller.
_BETWEEN = frozenset(
    {
        *("sktl", "sklearn", "skorch", "joblib", "torch", "torchvision", "numpy", "scipy", "pandas", "polars", "dask"),
        *("distributed", "concurrent", "threading", "contextlib", "functools", "multiprocessing", "copy", "runpy"),
    }
)

_FOLLOWED = threading.local()


class Place(NamedTuple):
    """A line of a program, with the warnings that it has given already."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


def warn(message: str, category: type[Warning]) -> None:
    """Warn of something that the user's program does.

    `warnings.warn` counts frames, which differ from caller to caller; `skip_file_prefixes` is not there before Python
    3.12.

    Parameters
    ----------
    message : str
        What is wrong and what to do.
    category : type
        A warning of `sktl.exceptions`.
    """
    where = _users_place(sys._getframe(1)) or getattr(_FOLLOWED, "place", None) or _place_of(sys._getframe(1))
    warnings.warn_explicit(message, category, *where)


def worker_threads(n_threads: int) -> ThreadPoolExecutor:
    """A pool of threads whose warnings name the line of the user's program that they work for."""
    frame = sys._getframe(1)
    place = _users_place(frame) or getattr(_FOLLOWED, "place", None)
    return ThreadPoolExecutor(n_threads, "sktl", initializer=setattr, initargs=(_FOLLOWED, "place", place))


def _users_place(frame: "FrameType | None") -> "Place | None":
    """The innermost frame that is neither ours nor of a library around us."""
    while frame is not None:
        if _package(frame) not in _BETWEEN:
            return _place_of(frame)
        frame = frame.f_back
    return None


def _package(frame: FrameType) -> str:
    """The package that a frame's code is of; of what is run by ``python -m`` as well."""
    spec = frame.f_globals.get("__spec__")
    name = frame.f_globals.get("__name__") if spec is None else spec.name
    return str(name).partition(".")[0]


def _place_of(frame: FrameType) -> Place:
    module = str(frame.f_globals.get("__name__") or "<string>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    return Place(frame.f_code.co_filename, frame.f_lineno, module, registry)


# What was warned of inside a search, by the search or the like that the user has called; the last for workers.
_TOLD: "weakref.WeakKeyDictionary[Any, set]" = weakref.WeakKeyDictionary()
_TOLD_IN_WORKER: set[tuple[int, str]] = set()
_LOOPS = ("sklearn.model_selection", "sklearn.ensemble", "joblib")


def was_told(message: str) -> bool:
    """Whether the search, cross-validation or ensemble that this fit is a part of was warned of the same before.

    It does not go by Python's filters, which are others in a notebook, in a test and in a worker. In a worker, which
    does not know whose it is, a message is given once.
    """
    frames, frame = [], sys._getframe(1)
    while frame is not None and _package(frame) in _BETWEEN:
        frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    if any(str(one.f_globals.get("__name__")).startswith(_LOOPS) for one in frames):
        owner = _owner(frames[-1]) if frame is not None else None
        told = _TOLD_IN_WORKER if owner is None else _TOLD.setdefault(owner, set())
        # The frame's id tells one call of the same object from the next one.
        key = (0 if owner is None else id(frames[-1]), message)
        if key not in told and owner is not None and (0, message) in _TOLD_IN_WORKER:
            _TOLD_IN_WORKER.discard((0, message))  # by a thread of this search, which ends here
            told.add(key)
        if key in told:
            return True
        told.add(key)
    return False


def _owner(frame: FrameType) -> Any:
    """The estimator that the call of a frame is about."""
    given = frame.f_locals
    things = [given.get("self"), given.get("estimator"), *given.get("args", ()), *given.get("kwargs", {}).values()]
    return next((thing for thing in things if hasattr(thing, "fit") and hasattr(thing, "__weakref__")), None)
