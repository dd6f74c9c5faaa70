"""The teacher: fitted where it is not, asked once per picture, its classes put into the student's order."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from scipy.special import softmax
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled, process_routing
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from sktl._estimators._content_digests import content_digest, digest_and_size, row_digests
from sktl._estimators._find_fitted import FittedPart, find_fitted
from sktl._estimators._groups import accepts_groups
from sktl._frozen._cache import open_cache, shared_memory_cache
from sktl._interrupts import noticed_interrupts
from sktl._locks import Lock
from sktl._messages import shortened, shortened_errors
from sktl._stores import register_store
from sktl._training._data import LabeledImages
from sktl._warnings import warn
from sktl.backbones._weights_files import file_digest, is_weights_name
from sktl.distillation._knowledge import LEAST_PROBABILITY
from sktl.exceptions import InputError, TrainingWarning

_ASKED_TOGETHER = 4096  # images: what is known is kept if the next ones fail
_FEW = 16  # pictures from which is seen what a teacher's decision values are

KINDS = ("logits", "probabilities", "decision values", "labels")

# Fitted teachers, their digests and sizes, the most recently used last: the candidates of a search want the same one
# for each fold.
_FITTED: OrderedDict[bytes, tuple[Any, bytes, int]] = OrderedDict()
_FITTED_BYTES = shared_memory_cache().max_bytes // 2
_FITTED_LOCK = Lock()
register_store("fitted teachers", _FITTED.clear, _FITTED_LOCK)


def is_frozen(teacher: Any) -> bool:
    """Whether a teacher is used as it is."""
    return isinstance(teacher, FrozenEstimator)


def fit_teacher(owner: Any, table: LabeledImages, y: "np.ndarray | None") -> Any:
    """The teacher of an estimator, fitted on a table; a frozen one as it is.

    Parameters
    ----------
    owner : DistilledClassifier or DistilledRegressor
        Whose ``teacher`` it is.
    table : LabeledImages
        The rows to fit it on. Equal ones are one row: a teacher that takes weights gets them, to any other a row is
        shown as often as it was there.
    y : ndarray or None
        What it is to predict for them, in the user's own words or units.
    """
    teacher = owner.teacher
    if is_frozen(teacher):  # and fitted, as `check_teacher` has seen
        return teacher
    is_plain = bool(np.all(table.sample_weight == 1))
    metadata: dict[str, Any] = {"sample_weight": table.sample_weight, "groups": table.groups}
    if _routing_enabled():
        absent = {"sample_weight": not table.is_weighted, "groups": table.groups is None}
        given = {name: column for name, column in metadata.items() if not absent[name]}
        fit_params = dict(process_routing(owner, "fit", **given).teacher.fit)
    else:
        takes = {
            "sample_weight": not is_plain and has_fit_parameter(teacher, "sample_weight"),
            "groups": table.groups is not None and accepts_groups(teacher),
        }
        fit_params = {name: column for name, column in metadata.items() if takes[name]}
    if not is_plain and "sample_weight" not in fit_params:
        rows = _repetitions(teacher, table)
        table, y = table.take(rows), None if y is None else y[rows]
        fit_params |= {"groups": table.groups} if "groups" in fit_params else {}
    return _fitted(teacher, table, y, fit_params)


def check_teacher(owner: Any, *, is_answering: bool) -> None:
    """Refuse what cannot be a teacher, before anything is computed.

    Parameters
    ----------
    owner : DistilledClassifier or DistilledRegressor
        Whose ``teacher`` it is.
    is_answering : bool
        Whether it is to answer for classes or targets, and not only to show its layers.

    Raises
    ------
    TypeError
        Where it is a class.
    NotFittedError
        Where it is frozen and not fitted.
    """
    teacher = owner.teacher
    if isinstance(teacher, type):
        raise TypeError(
            shortened(
                f"teacher={teacher!r} is no estimator but a class. Give an instance: one to be fitted, or a fitted one "
                "inside a sklearn.frozen.FrozenEstimator."
            )
        )
    if is_frozen(teacher):
        _check_frozen(teacher)
    is_wrong = is_answering and is_classifier(owner) and hasattr(teacher, "__sklearn_tags__") and is_regressor(teacher)
    if is_wrong:  # which a fit of some hours would find out too
        raise InputError(
            f"The 'teacher' parameter of DistilledClassifier must be a classifier. Got {teacher!r} instead, which is "
            "no classifier but a regressor. For numbers use DistilledRegressor."
        )


class TeacherAnswers:
    """What a fitted teacher says of images, each of which it is asked about once.

    It is kept under what the teacher is (its whole fitted state) and what it was shown (the row as it was given).

    Parameters
    ----------
    teacher : fitted estimator
        Who is asked.
    cache : "auto", path-like or None
        Where answers are kept.
    """

    def __init__(self, teacher: Any, cache: Any):
        self.teacher = teacher
        self._cache = open_cache(cache)
        digest = content_digest(teacher) if self._cache is not None else None
        if digest is None:
            self._cache = None
        self._digest = digest or b""

    def kind(self, table: LabeledImages) -> str:
        """What a classifier's answers are, one of `KINDS`, the most telling that it has.

        Logits are preferred to probabilities, which cannot tell apart what is nearly 0 or nearly 1; these to decision
        values, whose scale is their own; and these to labels, which say nothing of the other classes.
        """
        key = self._key(b"kind")
        (found,) = self._cache.get_many([key]) if self._cache is not None else (None,)
        if found is not None:
            return KINDS[int(found)]
        positions = table.images.positions[:_FEW]
        kind = _kind_of_answers(self.teacher, _safe_indexing(table.given[0], positions))
        if self._cache is not None:
            self._cache.put_many([(key, np.array(KINDS.index(kind)))])
        return kind

    def logits(self, table: LabeledImages, kind: str) -> np.ndarray:
        """Logits of a classifier for the images of a table, (n_images, n_classes), in the order of its own classes.

        Raises
        ------
        InputError
            If it gives no finite numbers for an image.
        """
        return self._answers(table, lambda X: _logits(self.teacher, X, kind), kind)

    def numbers(self, table: LabeledImages) -> np.ndarray:
        """What a regressor predicts for the images of a table, (n_images, n_targets); or a transformer's features.

        Raises
        ------
        InputError
            If it is a classifier, or gives no finite numbers for an image.
        """
        if is_classifier(self.teacher):
            raise InputError(
                f"teacher={self.teacher!r} is a classifier: its class numbers are no quantity. Use DistilledClassifier."
            )
        kind = "predictions" if hasattr(self.teacher, "predict") else "features"
        ask = self.teacher.predict if hasattr(self.teacher, "predict") else self.teacher.transform

        def numbers(X: Any) -> np.ndarray:
            values = np.asarray(ask(X), np.float64)
            return values.reshape(len(values), -1)

        return self._answers(table, numbers, kind)

    def _answers(self, table: LabeledImages, ask: Callable[[Any], np.ndarray], kind: str) -> np.ndarray:
        """Its answers, one row for each image."""
        keys = [self._key(kind.encode(), digest) for digest in row_digests(table)]
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        known: dict[bytes, np.ndarray] = {}
        if self._cache is not None:
            found = zip(first, self._cache.get_many(list(first)), strict=True)
            known = {key: answer for key, answer in found if answer is not None}
        missing = sorted(row for key, row in first.items() if key not in known)
        for start in range(0, len(missing), _ASKED_TOGETHER):
            rows = missing[start : start + _ASKED_TOGETHER]
            answers = _checked_answers(table, ask, rows)
            new = [(keys[row], answer) for row, answer in zip(rows, answers, strict=True)]
            known.update(new)
            if self._cache is not None:
                self._cache.put_many(new)
        return np.stack([known[key] for key in keys])

    def _key(self, *parts: bytes) -> bytes:
        return xxhash.xxh3_128(b"|".join([b"teacher 1", self._digest, *parts])).digest()


def _checked_answers(table: LabeledImages, ask: Callable[[Any], np.ndarray], rows: Sequence[int]) -> np.ndarray:
    """The answers for some rows of a table, all finite numbers."""
    positions = table.images.positions[rows]
    answers = ask(_safe_indexing(table.given[0], positions))
    if len(answers) != len(rows):
        raise InputError(f"The teacher gave {len(answers)} answers for {len(rows)} pictures.")
    bad = np.flatnonzero(~np.isfinite(answers).all(axis=1))
    if len(bad):
        raise InputError(
            f"The teacher's answer to picture {positions[bad[0]]} is {answers[bad[0]].tolist()}: no finite numbers "
            "to learn from. Mend the teacher, or leave the picture out."
        )
    return answers


def network_of(teacher: Any) -> FittedPart:
    """The part of a teacher that has a network.

    Raises
    ------
    InputError
        Where there is none.
    """
    part = find_fitted(teacher, "backbone_")
    if part is None:
        raise InputError(
            f"teacher={teacher!r} has no network of sktl whose layers could be looked at, or has several. With it only "
            "knowledge='response' and knowledge='decoupled' work."
        )
    return part


def identity(teacher: Any) -> Any:
    """What is equal for two teachers that fitting makes the same: a frozen one itself, of another its parameters."""
    digest = None if is_frozen(teacher) else content_digest((clone(teacher, safe=False), _weights_files(teacher)))
    return teacher if digest is None else digest


def _check_frozen(teacher: FrozenEstimator) -> None:
    try:
        check_is_fitted(teacher.estimator)
    except NotFittedError:
        raise NotFittedError(
            shortened(
                f"teacher={teacher!r} is frozen and not fitted. Fit it first, or give it without FrozenEstimator. (A "
                "fitted student is pickled without its teacher: to fit it again, set_params(teacher=...).)"
            )
        ) from None


def _fitted(teacher: Any, table: LabeledImages, y: "np.ndarray | None", fit_params: dict[str, Any]) -> Any:
    """The teacher fitted, or what an equal one was fitted on these rows before."""
    key = None
    if _is_repeatable(teacher):
        known_by = (_unfitted(teacher), _weights_files(teacher), row_digests(table))
        key = content_digest((known_by, None if y is None else y.tolist(), fit_params))
    if key is None:
        return _fit(teacher, table, y, fit_params)
    with _FITTED_LOCK:
        known, digest, size = _FITTED.pop(key, (None, None, 0))
    if known is None or digest != content_digest(known):  # somebody may have changed it since
        known = _fit(teacher, table, y, fit_params)
        digest, size = digest_and_size(known)
    if digest is not None and size <= _FITTED_BYTES:  # one that there is no room for would only drive out the others
        with _FITTED_LOCK:
            _FITTED[key] = known, digest, size
            while sum(size for _, _, size in _FITTED.values()) > _FITTED_BYTES:
                _FITTED.popitem(last=False)
    return known


def _fit(teacher: Any, table: LabeledImages, y: "np.ndarray | None", fit_params: dict[str, Any]) -> Any:
    """A copy of the teacher, fitted to its end: one that Ctrl-C has stopped teaches nobody."""
    unfitted = _unfitted(teacher)
    with noticed_interrupts():
        return unfitted.fit(table.as_given(), y, **fit_params)


def _weights_files(teacher: Any) -> dict[str, bytes]:
    """What is in the weights files that a teacher's parameters name, which may be written again under the same name."""
    paths = {os.path.expanduser(path) for path in _paths(teacher)}
    return {path: file_digest(Path(path)) for path in sorted(paths) if os.path.isfile(path)}


def _paths(value: Any) -> Iterator[str]:
    """The paths of weights in a parameter: itself, in a container, or among the parameters of an estimator."""
    if isinstance(value, str | os.PathLike):
        yield from [os.fspath(value)] if is_weights_name(os.fsdecode(value)) else []
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_paths, value))
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_paths, value.values()))
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield from chain.from_iterable(map(_paths, value.get_params(deep=False).values()))


def _unfitted(teacher: Any) -> Any:
    """A copy with the same parameters."""
    with shortened_errors():
        return clone(teacher)


def _repetitions(teacher: Any, table: LabeledImages) -> np.ndarray:
    """Each row as often as it was there, for a teacher that takes no weights."""
    rows, counts = np.arange(len(table.y)), table.sample_weight.astype(int)
    if np.all(counts == table.sample_weight) and counts.sum() <= 100 * len(counts):
        return np.repeat(rows, counts)
    warn(
        f"The teacher, {type(teacher).__name__}, takes no sample_weight: the weights count for the student alone.",
        TrainingWarning,
    )
    return rows


def classes_of(teacher: Any) -> np.ndarray:
    """The classes that a fitted teacher tells apart.

    Raises
    ------
    InputError
        Where it is no classifier, or one of several outputs.
    """
    if is_regressor(teacher) or not hasattr(teacher, "classes_"):
        raise InputError(
            f"teacher={teacher!r} has no classes_ after fit: it is no classifier. For numbers use DistilledRegressor."
        )
    if isinstance(teacher.classes_, list) and np.ndim(teacher.classes_[0]):
        raise InputError(f"teacher={teacher!r} has several outputs, and can teach one only.")
    return np.asarray(teacher.classes_)


def class_columns(teacher: Any, classes: np.ndarray) -> list[int]:
    """Where the teacher has each class of the student; an error if they are not the same ones."""
    known = classes_of(teacher).tolist()
    missing = [label for label in classes.tolist() if label not in known]
    more = [label for label in known if label not in classes.tolist()]
    if missing or more:
        raise InputError(
            f"The teacher and the labels know other classes: the teacher misses {missing[:5]} and has {more[:5]} more, "
            f"of {len(classes)} in y. "
            + (
                "Give labels of all classes, or name them: fit(X, y, classes=teacher.classes_)."
                if more and not missing
                else "Rows without a label? Say which: unlabeled=-1. Otherwise fit the teacher on rows of all classes, "
                "and give it inside a FrozenEstimator."
            )
        )
    return [known.index(label) for label in classes.tolist()]


def _kind_of_answers(teacher: Any, few: Any) -> str:
    """What a classifier can say, the most telling it has; seen from a few pictures."""
    has_probabilities = hasattr(teacher, "predict_proba")
    if not hasattr(teacher, "decision_function"):
        return "probabilities" if has_probabilities else "labels"
    logits = _from_decision(teacher.decision_function(few))
    # One against one has a value for each pair of classes, which may happen to be as many as there are classes.
    chosen = logits.argmax(axis=1)
    classes = np.asarray(teacher.classes_)
    is_by_class = logits.shape[1] == len(teacher.classes_)
    # Not of all pictures: a support vector machine predicts what most pairs vote for, which may be another class.
    if not is_by_class or np.mean(classes[chosen] == np.asarray(teacher.predict(few))) < 0.75:
        return "probabilities" if has_probabilities else "labels"
    if not has_probabilities:
        return "decision values"
    # Of a network or a logistic regression they are logits; of most others something else (distances to a margin).
    probabilities = np.asarray(teacher.predict_proba(few))
    implied = softmax(logits, axis=1)
    is_logits = probabilities.shape == implied.shape and np.allclose(probabilities, implied, rtol=1e-3, atol=1e-6)
    return "logits" if is_logits else "probabilities"


def _logits(teacher: Any, X: Any, kind: str) -> np.ndarray:
    """A classifier's answers as logits (n, n_classes), in the order of its own classes."""
    if kind in ("logits", "decision values"):
        return _from_decision(teacher.decision_function(X))
    if kind == "probabilities":
        probabilities = np.asarray(teacher.predict_proba(X), np.float64)
    else:
        probabilities = (np.asarray(teacher.predict(X))[:, np.newaxis] == teacher.classes_).astype(np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(teacher.classes_):
        raise InputError(
            f"The teacher gives an array of shape {probabilities.shape}, but has {len(teacher.classes_)} classes."
        )
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY))  # NaN stays, to be found


def _from_decision(values: Any) -> np.ndarray:
    """Decision values as logits: one column becomes two, half of it for and half of it against."""
    values = np.asarray(values, np.float64)
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


def _is_repeatable(teacher: Any) -> bool:
    """Whether chance has no part in fitting a teacher: every seed in it is a number."""
    params = teacher.get_params(deep=True) if hasattr(teacher, "get_params") else {"random_state": None}
    seeds = [value for name, value in params.items() if name.rpartition("__")[2] == "random_state"]
    return all(isinstance(seed, int | np.integer) for seed in seeds)
