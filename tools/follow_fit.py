"""Follow the images through a real ``fit``: how many functions are handed them, and how often the path jumps.

Fits on 37 tiny images with every parameter at its default but ``max_epochs=1``, and looks on with `sys.setprofile` in
the thread that calls ``fit``. What `DistilledClassifier` learns from is a logistic regression, fitted on the way::

    python tools/follow_fit.py             # both estimators, counts only
    python tools/follow_fit.py --path      # and the path of X through FineTunedClassifier.fit
    python tools/follow_fit.py --pairs     # and each change of level

Data and stops are recognized by what they hold and do, so that a renamed function or class counts as before; by name
only the two doors at which the path ends.

**Data** is ``X``, any array or tensor that has a row for each image (37 rows of at least 16 values, so neither targets
nor weights nor probabilities), and any object that leads to one: by its attributes, items, bound ``self``, closure or
local variables, in at most eight steps. A network leads to no data, whatever it holds.

A **stop** is a function of sktl that is handed data, as an argument or as its ``self``. It counts once, however often
it is called. What only reads a fact off the data is none: a property, and a special method but ``__init__`` and
``__call__``. What is written inside a function (a lambda, a comprehension) is part of it.

The path is followed from ``fit`` through calls of sktl by sktl, and **ends** where the work is done:

* the frozen prefix: `FrozenPrefix.run` is a stop, and what happens inside is not followed (a run in which it is never
  reached is an error, not a smaller number),
* the training loop: a method of a network (a torch module or a skorch net) is a stop, what happens inside is not,
* the reader of images: a function of `sktl._images` is a stop, what happens inside is not,
* code outside sktl: what it calls back is not followed, but for ``with`` and decorators of the standard library.

**Returns**: walk the stops in the order of their first calls, into each function when it is called and back to its
caller when it is through. A return is a step to another file in which the path has been before: back to the caller, or
into a file that it had left. A helper in another file costs one, a hook in a class above or below costs one or two.

A **level change** is a call in which ``self`` is the estimator that fits and another class defines the function that is
called than the one that called it: the innermost caller with the same ``self``. Only classes of sktl count, properties
do and special methods do not. They are counted as different (caller, callee) pairs, as pairs in which the images are
handed over, and as calls.
"""

import argparse
import contextlib
import functools
import sys
import types
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNet

import sktl
from sktl import DistilledClassifier, FineTunedClassifier

N_IMAGES = 37  # prime, and the width of no layer: an array of 37 rows is one of images
N_VALUES = 16  # of a row at least
N_STEPS = 8  # from an object to the data that it leads to
SKTL = Path(sktl.__file__).parent
THROUGH = {contextlib.__file__, functools.__file__}
NETWORKS = (torch.nn.Module, NeuralNet)
LEADS_NOWHERE = (type, types.ModuleType, str, bytes, int, float, complex, type(None), np.dtype, *NETWORKS)


Walk = list[tuple[int, str]]  # the calls of stops, from `fit` on: their numbers and their files


class Stop(NamedTuple):
    """The first call of a function that was handed data."""

    file: str
    function: str
    arguments: list[str]
    walk: Walk  # to it, with its own call


class Change(NamedTuple):
    """A call from a method of one class to a method of another, of the same estimator."""

    caller: str
    callee: str
    hands_data: bool


class Follower:
    """What a profiler has seen of a fit.

    Parameters
    ----------
    estimator : estimator
        Which will be fitted.
    X : ndarray
        What it will be fitted on.
    """

    def __init__(self, estimator: Any, X: np.ndarray):
        self.estimator, self.X = estimator, X
        self.stops: list[Stop] = []
        self.changes: list[Change] = []
        self.has_run_prefix = False
        self._known: set[types.CodeType] = set()
        self._calls: list[tuple[types.FrameType, bool, Walk]] = []  # frame, whether it is followed, walk to it
        self._n_calls = 0

    def fit(self, y: np.ndarray) -> "Follower":
        """Fit the estimator, and look on."""
        sys.setprofile(self._see)
        try:
            self.estimator.fit(self.X, y)
        finally:
            sys.setprofile(None)
        return self

    def _see(self, frame: types.FrameType, event: str, _: Any) -> None:
        if event == "return" and self._calls and self._calls[-1][0] is frame:
            self._calls.pop()
        if event != "call" or (not self._calls and not self._is_start(frame)):
            return
        sys.setprofile(None)  # what is done here is no part of the fit
        self._note_change(frame)
        _, is_followed, walk = self._calls[-1] if self._calls else (frame, True, [])
        if is_followed and is_own(frame):
            walk, is_followed = self._stop_at(frame, walk)
        elif frame.f_code.co_filename not in THROUGH:
            is_followed = False
        self._calls.append((frame, is_followed, walk))
        sys.setprofile(self._see)

    def _is_start(self, frame: types.FrameType) -> bool:
        return is_own(frame) and frame.f_code.co_name == "fit" and subject(frame) is self.estimator

    def _stop_at(self, frame: types.FrameType, walk: Walk) -> tuple[Walk, bool]:
        """The walk to a function, with its own call if it is a stop; and whether what it calls is followed."""
        file = Path(frame.f_code.co_filename).relative_to(SKTL).as_posix()
        is_reader = file.startswith("_images/")
        handed = [] if "<" in frame.f_code.co_name or reads_only(frame) else self._handed(frame)
        if not handed:
            return walk, not is_reader
        self._n_calls += 1
        walk = [*walk, (self._n_calls, file)]
        if frame.f_code not in self._known:
            self._known.add(frame.f_code)
            self.stops.append(Stop(file, frame.f_code.co_qualname, handed, walk))
        is_prefix = frame.f_code.co_qualname == "FrozenPrefix.run"
        self.has_run_prefix |= is_prefix
        is_loop = bool(level(frame)[1]) and isinstance(subject(frame), NETWORKS)
        return walk, not (is_prefix or is_reader or is_loop)

    def _handed(self, frame: types.FrameType) -> list[str]:
        """The arguments that are data."""
        return [name for name, value in arguments(frame).items() if value is self.X or leads_to_data(value)]

    def _note_change(self, frame: types.FrameType) -> None:
        if subject(frame) is not self.estimator or not is_method(frame):
            return
        caller = frame.f_back
        while caller is not None and not (subject(caller) is self.estimator and is_method(caller)):
            caller = caller.f_back
        if caller is not None and level(caller) != level(frame):
            callee = frame.f_code.co_qualname
            self.changes.append(Change(caller.f_code.co_qualname, callee, bool(self._handed(frame))))


def is_own(frame: types.FrameType) -> bool:
    """Whether it is sktl's code."""
    return frame.f_code.co_filename.startswith(f"{SKTL}/")


def is_method(frame: types.FrameType) -> bool:
    """Whether a class of sktl defines it, and it is no special method."""
    name = frame.f_code.co_name
    return is_own(frame) and bool(level(frame)[1]) and "<" not in name and not name.startswith("__")


def level(frame: types.FrameType) -> tuple[str, str]:
    """The file and the name of the class that defines a method; the latter is empty for a function."""
    return frame.f_code.co_filename, frame.f_code.co_qualname.rpartition(".")[0]


def arguments(frame: types.FrameType) -> dict[str, Any]:
    """What a function was called with, by name; with what has been closed over inside left out."""
    code = frame.f_code
    has_more = bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args and **kwargs
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + has_more]
    return {name: frame.f_locals[name] for name in names if name in frame.f_locals}


def subject(frame: types.FrameType) -> Any:
    """The first argument: of a method, ``self``."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def reads_only(frame: types.FrameType) -> bool:
    """Whether it is a property, or a special method that neither makes nor is what is called."""
    name = frame.f_code.co_name
    if name.startswith("__") and name.endswith("__"):
        return name not in ("__init__", "__call__", "__new__")
    return isinstance(getattr(type(subject(frame)), name, None), property | functools.cached_property)


def leads_to_data(value: Any) -> bool:
    """Whether there is a way from an object to an array with a row for each image."""
    seen: set[int] = set()
    reached = [value]
    for _ in range(N_STEPS + 1):
        reached = [x for x in reached if not isinstance(x, LEADS_NOWHERE) and id(x) not in seen]
        if any(isinstance(x, np.ndarray | torch.Tensor) and is_data(x) for x in reached):
            return True
        seen.update(map(id, reached))
        reached = [next_one for x in reached for next_one in behind(x)]
    return False


def is_data(array: "np.ndarray | torch.Tensor") -> bool:
    """Whether an array has a row for each image, which is more than a target or some probabilities."""
    return array.ndim > 1 and len(array) == N_IMAGES and np.prod(array.shape[1:]) >= N_VALUES


def behind(value: Any) -> Iterator[Any]:
    """What an object holds."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, types.FunctionType):
        yield from closed_over(value)
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.GeneratorType):
        yield from value.gi_frame.f_locals.values() if value.gi_frame else ()
    yield from getattr(value, "__dict__", {}).values()
    slots = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    names = [name for one in slots for name in ((one,) if isinstance(one, str) else one)]
    yield from (getattr(value, name) for name in names if hasattr(value, name))


def closed_over(function: types.FunctionType) -> Iterator[Any]:
    """The variables of the functions around it, as far as they have a value yet."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


def count_returns(stops: list[Stop]) -> int:
    """How often the walk through the stops, and back to `fit`, steps to another file in which it has been before."""
    steps: Walk = list(stops[0].walk)
    before = steps
    for walk in [*(stop.walk for stop in stops[1:]), stops[0].walk]:
        n_shared = sum(call in walk for call in before)  # calls that are not through; the others are left for them
        steps = [*steps, *reversed(before[n_shared - 1 : -1]), *walk[n_shared:]]
        before = walk
    files = [file for _, file in steps]
    return sum(there != here and there in files[:at] for at, (here, there) in enumerate(pairwise(files), 1))


def images() -> tuple[np.ndarray, np.ndarray]:
    """Gray images of 8 x 8, none of them twice, of three classes."""
    X = np.random.default_rng(0).random((N_IMAGES, 8, 8))
    return X, np.arange(N_IMAGES) % 3


def follow_fine_tuning() -> Follower:
    """Look on while a classifier is fine-tuned."""
    X, y = images()
    follower = Follower(FineTunedClassifier(max_epochs=1, random_state=0), X).fit(y)
    if not follower.has_run_prefix:
        raise RuntimeError("The path did not come to FrozenPrefix.run. Say in this file what runs the prefix now.")
    return follower


def follow_distillation() -> Follower:
    """Look on while a classifier is distilled from one that knows no images."""
    X, y = images()
    teacher = make_pipeline(FunctionTransformer(flattened), LogisticRegression())
    return Follower(DistilledClassifier(teacher, max_epochs=1, random_state=0), X).fit(y)


def flattened(X: Any) -> np.ndarray:
    """Rows of pixels."""
    return np.asarray(X).reshape(len(X), -1)


def print_changes(name: str, changes: list[Change], has_pairs: bool) -> None:
    """Print how often a fit changes the class; and from where to where."""
    pairs = Counter(changes)
    n_handing = len({change[:2] for change in changes if change.hands_data})
    n_pairs = len({change[:2] for change in changes})
    print(f"{name}: {n_pairs} level changes ({n_handing} hand the images over), {len(changes)} calls")
    for pair, number in pairs.items() if has_pairs else ():
        print(f"  {number:3d}  {pair.caller} -> {pair.callee}{'  (images)' if pair.hands_data else ''}")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", action="store_true", help="print each stop of X through FineTunedClassifier.fit")
    parser.add_argument("--pairs", action="store_true", help="print each change of level")
    options = parser.parse_args()
    tuning, distillation = follow_fine_tuning(), follow_distillation()
    for number, stop in enumerate(tuning.stops if options.path else (), 1):
        place = f"{'  ' * (len(stop.walk) - 1)}{stop.file}: {stop.function}"
        print(f"{number:3d}  {place}({', '.join(stop.arguments)})")
    n_files = len({stop.file for stop in tuning.stops})
    print(f"FineTunedClassifier.fit(X, y): {len(tuning.stops)} stops in {n_files} files, ", end="")
    print(f"{count_returns(tuning.stops)} returns")
    print_changes("FineTunedClassifier.fit", tuning.changes, options.pairs)
    print_changes("DistilledClassifier.fit", distillation.changes, options.pairs)


if __name__ == "__main__":
    main()
