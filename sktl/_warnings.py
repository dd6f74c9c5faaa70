"""Warnings that name the line of the user's program that they are about, however deep inside they arise."""

import sys
import threading
import warnings
import weakref
from collections.abc import Collection, Hashable, Iterable
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
_AROUND = frozenset({"sktl", "sklearn"})  # in a worker process, whose outermost frames are no lines of the user's

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
    frame = sys._getframe(1)
    where = _first_place(frame, _BETWEEN) or getattr(_FOLLOWED, "place", None) or _first_place(frame, _AROUND)
    where = where or _place_of(frame)
    warnings.warn_explicit(message, category, *where)


def worker_threads(n_threads: int) -> ThreadPoolExecutor:
    """A pool of threads whose warnings name the line of the user's program that they work for."""
    frame = sys._getframe(1)
    place = _first_place(frame, _BETWEEN) or getattr(_FOLLOWED, "place", None)
    return ThreadPoolExecutor(n_threads, "sktl", initializer=setattr, initargs=(_FOLLOWED, "place", place))


def _first_place(frame: "FrameType | None", passed_over: Collection[str]) -> "Place | None":
    """The innermost frame that is of none of some packages."""
    while frame is not None:
        if _package(frame) not in passed_over:
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


# What was told inside a search, by the search or the like that the user has called; the last for workers.
_TOLD: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()
_TOLD_IN_WORKER: set[str] = set()
_LOOPS = ("sklearn.model_selection", "sklearn.ensemble", "joblib")


def was_told(facts: Iterable[str]) -> bool:
    """Whether the search, cross-validation or ensemble that this fit is a part of was told all of this before.

    It does not go by Python's filters, which are others in a notebook, in a test and in a worker. It goes by the
    outermost loop, whatever classes of the user's stand between that one and the fit: an estimator that is searched or
    cross-validated twice is told once. In a worker, which does not know whose it is, a fact is told once.

    Parameters
    ----------
    facts : iterable of str
        What a warning says: its text, or each of the things that it lists.
    """
    loop = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_LOOPS):
            loop = frame
        frame = frame.f_back
    if loop is None:
        return False
    owner, facts = _owner(loop), set(facts)
    told = _TOLD_IN_WORKER if owner is None else _TOLD.setdefault(owner, set())
    if owner is not None:  # by threads of this search, which ends here
        told |= facts & _TOLD_IN_WORKER
        _TOLD_IN_WORKER.difference_update(facts)
    is_known = facts <= told
    told |= facts
    return is_known


def _owner(loop: "FrameType | None") -> Any:
    """The estimator that a loop is about, which joblib's do not know: the one that called it."""
    while loop is not None and _package(loop) in _BETWEEN:
        for thing in (loop.f_locals.get("self"), loop.f_locals.get("estimator")):
            if hasattr(thing, "fit") and isinstance(thing, Hashable):
                return thing
        loop = loop.f_back
    return None
