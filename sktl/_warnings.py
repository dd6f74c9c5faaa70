"""Warnings that are attributed to the line of the user's code that caused them."""

import sys
import threading
import warnings
import weakref
from collections.abc import Collection, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, NamedTuple

# Packages whose frames can be between the user's line and the warning: sktl, its
# callers, packages that call functions of sktl, and modules of Python itself.
_BETWEEN = frozenset(
    {
        *("sktl", "sklearn", "skorch", "joblib", "torch", "torchvision", "numpy", "scipy", "pandas", "polars", "dask"),
        *("distributed", "concurrent", "threading", "contextlib", "functools", "multiprocessing", "copy", "runpy"),
    }
)
_AROUND = frozenset({"sktl", "sklearn"})  # for worker processes, whose outermost frames are not the user's code

_FOLLOWED = threading.local()


class SourceLine(NamedTuple):
    """Line of a program, with the registry of its warnings."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning for the line of the user's code that caused it.

    The ``stacklevel`` of `warnings.warn` would depend on the caller, and
    ``skip_file_prefixes`` requires Python 3.12.

    Parameters
    ----------
    message : str
        Text of the warning: what is wrong and what to do.
    category : type
        Class of the warning in `sktl.exceptions`.
    """
    frame = sys._getframe(1)
    where = _first_line(frame, _BETWEEN) or getattr(_FOLLOWED, "line", None) or _first_line(frame, _AROUND)
    where = where or _line_of(frame)
    warnings.warn_explicit(message, category, *where)


def worker_threads(n_threads: int) -> ThreadPoolExecutor:
    """Return a thread pool whose warnings are attributed to the user's current line."""
    frame = sys._getframe(1)
    line = _first_line(frame, _BETWEEN) or getattr(_FOLLOWED, "line", None)
    return ThreadPoolExecutor(n_threads, "sktl", initializer=setattr, initargs=(_FOLLOWED, "line", line))


def _first_line(frame: "FrameType | None", passed_over: Collection[str]) -> "SourceLine | None":
    """Return the innermost frame that belongs to none of the given packages."""
    while frame is not None:
        if _package(frame) not in passed_over:
            return _line_of(frame)
        frame = frame.f_back
    return None


def _package(frame: FrameType) -> str:
    """Return the package of a frame's code, also under ``python -m``."""
    spec = frame.f_globals.get("__spec__")
    name = frame.f_globals.get("__name__") if spec is None else spec.name
    return str(name).partition(".")[0]


def _line_of(frame: FrameType) -> SourceLine:
    module = str(frame.f_globals.get("__name__") or "<string>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    return SourceLine(frame.f_code.co_filename, frame.f_lineno, module, registry)


# Facts that were already reported, by the loop that the user called, and in workers.
_TOLD: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()
_TOLD_IN_WORKER: set[str] = set()
_LOOPS = ("sklearn.model_selection", "sklearn.ensemble", "joblib")


def was_told(facts: Iterable[str]) -> bool:
    """Check whether the enclosing search has reported these facts before.

    A search is any cross-validation or ensemble. The check does not depend on Python's
    filters, which differ between notebooks, tests and workers. Facts are recorded for
    the outermost loop, so that an estimator that is searched or cross-validated twice
    reports them once. In a worker, which does not know its loop, each fact is reported
    once.

    Parameters
    ----------
    facts : iterable of str
        Content of a warning: its text, or each of the items that it lists.
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
    if owner is not None:  # reported by threads of this search, which ends here
        told |= facts & _TOLD_IN_WORKER
        _TOLD_IN_WORKER.difference_update(facts)
    is_known = facts <= told
    told |= facts
    return is_known


def _owner(loop: "FrameType | None") -> Any:
    """Return the estimator that started a loop, which joblib's frames do not know."""
    while loop is not None and _package(loop) in _BETWEEN:
        for thing in (loop.f_locals.get("self"), loop.f_locals.get("estimator")):
            if hasattr(thing, "fit") and isinstance(thing, Hashable):
                return thing
        loop = loop.f_back
    return None
