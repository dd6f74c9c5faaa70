"""Teachers: fitting, cached predictions, and the order of their classes."""

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

_PREDICTED_TOGETHER = 4096  # images; predictions are cached after each such chunk
_FEW = 16  # images that decide whether decision values are logits

KINDS = ("logits", "probabilities", "decision values", "labels")

# Fitted teachers, their digests and sizes, the most recently used last: all candidates
# of a search use the same teacher for a fold.
_FITTED: OrderedDict[bytes, tuple[Any, bytes, int]] = OrderedDict()
_FITTED_BYTES = shared_memory_cache().max_bytes // 2
_FITTED_LOCK = Lock()
register_store("fitted teachers", _FITTED.clear, _FITTED_LOCK)


def is_frozen(teacher: Any) -> bool:
    """Return whether a teacher is inside a `FrozenEstimator`."""
    return isinstance(teacher, FrozenEstimator)


def fit_teacher(owner: Any, table: LabeledImages, y: "np.ndarray | None") -> Any:
    """Return the fitted teacher of an estimator.

    Parameters
    ----------
    owner : DistilledClassifier or DistilledRegressor
        Estimator whose ``teacher`` is fitted, unless it is frozen.
    table : LabeledImages
        Rows to fit the teacher on. They have no duplicates: a teacher gets the number
        of copies as ``sample_weight`` if it takes weights, and copies of the rows
        otherwise.
    y : ndarray or None
        Original labels or targets of the rows.
    """
    teacher = owner.teacher
    if is_frozen(teacher):  # and fitted: see check_teacher
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
    """Validate the teacher before anything is computed.

    Parameters
    ----------
    owner : DistilledClassifier or DistilledRegressor
        Estimator whose ``teacher`` is validated.
    is_answering : bool
        Whether the predictions of the teacher are used, and not only its layers.

    Raises
    ------
    TypeError
        If the teacher is a class.
    NotFittedError
        If the teacher is frozen but not fitted.
    InputError
        If the teacher of a classifier is a regressor.
    """
    teacher = owner.teacher
    if isinstance(teacher, type):
        raise TypeError(
            shortened(
                "The 'teacher' parameter must be an estimator instance, or a fitted one inside a "
                f"sklearn.frozen.FrozenEstimator. Got the class {teacher!r} instead."
            )
        )
    if is_frozen(teacher):
        _check_frozen(teacher)
    is_wrong = is_answering and is_classifier(owner) and hasattr(teacher, "__sklearn_tags__") and is_regressor(teacher)
    if is_wrong:  # fails here, not after a long fit
        raise InputError(
            f"The 'teacher' parameter of DistilledClassifier must be a classifier. Got {teacher!r} instead, which is "
            "a regressor. Use DistilledRegressor for regression."
        )


class TeacherAnswers:
    """Predictions of a fitted teacher, computed once per image.

    The cache key consists of the fitted state of the teacher and the original row.

    Parameters
    ----------
    teacher : fitted estimator
        The teacher.
    cache : "auto", path-like or None
        Where to keep the predictions.
    """

    def __init__(self, teacher: Any, cache: Any):
        self.teacher = teacher
        self._cache = open_cache(cache)
        digest = content_digest(teacher) if self._cache is not None else None
        if digest is None:
            self._cache = None
        self._digest = digest or b""

    def kind(self, table: LabeledImages) -> str:
        """Return the most informative kind of a classifier's predictions.

        Logits are preferred to probabilities, which are rounded near 0 and 1.
        Probabilities are preferred to decision values, which have an arbitrary scale,
        and these to labels, which carry no information about the other classes.
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
        """Return logits (n_images, n_classes) in the order of the teacher's classes.

        Raises
        ------
        InputError
            If the logits of an image are not finite.
        """
        return self._answers(table, lambda X: _logits(self.teacher, X, kind), kind)

    def numbers(self, table: LabeledImages) -> np.ndarray:
        """Return predictions of a regressor, or features of a transformer.

        Raises
        ------
        InputError
            If the teacher is a classifier, or its predictions are not finite.
        """
        if is_classifier(self.teacher):
            raise InputError(
                "The 'teacher' parameter of DistilledRegressor must be a regressor or a transformer. Got "
                f"{self.teacher!r} instead, which is a classifier. Use DistilledClassifier for classification."
            )
        kind = "predictions" if hasattr(self.teacher, "predict") else "features"
        ask = self.teacher.predict if hasattr(self.teacher, "predict") else self.teacher.transform

        def numbers(X: Any) -> np.ndarray:
            values = np.asarray(ask(X), np.float64)
            return values.reshape(len(values), -1)

        return self._answers(table, numbers, kind)

    def _answers(self, table: LabeledImages, ask: Callable[[Any], np.ndarray], kind: str) -> np.ndarray:
        """Return the predictions of all rows, and compute those that are not cached."""
        keys = [self._key(kind.encode(), digest) for digest in row_digests(table)]
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        known: dict[bytes, np.ndarray] = {}
        if self._cache is not None:
            found = zip(first, self._cache.get_many(list(first)), strict=True)
            known = {key: answer for key, answer in found if answer is not None}
        missing = sorted(row for key, row in first.items() if key not in known)
        for start in range(0, len(missing), _PREDICTED_TOGETHER):
            rows = missing[start : start + _PREDICTED_TOGETHER]
            answers = _checked_answers(table, ask, rows)
            new = [(keys[row], answer) for row, answer in zip(rows, answers, strict=True)]
            known.update(new)
            if self._cache is not None:
                self._cache.put_many(new)
        return np.stack([known[key] for key in keys])

    def _key(self, *parts: bytes) -> bytes:
        return xxhash.xxh3_128(b"|".join([b"teacher 1", self._digest, *parts])).digest()


def _checked_answers(table: LabeledImages, ask: Callable[[Any], np.ndarray], rows: Sequence[int]) -> np.ndarray:
    """Return the predictions of some rows, or raise an error if they are invalid."""
    positions = table.images.positions[rows]
    answers = ask(_safe_indexing(table.given[0], positions))
    if len(answers) != len(rows):
        raise InputError(
            f"The teacher must return one prediction per image. Got {len(answers)} predictions for {len(rows)} images."
        )
    bad = np.flatnonzero(~np.isfinite(answers).all(axis=1))
    if len(bad):
        raise InputError(
            f"The teacher returned non-finite values for image {positions[bad[0]]}: {answers[bad[0]].tolist()}. Fix "
            "the teacher or drop that image."
        )
    return answers


def network_of(teacher: Any) -> FittedPart:
    """Return the part of a teacher that has a network.

    Raises
    ------
    InputError
        If no part has a network, or several have.
    """
    part = find_fitted(teacher, "backbone_")
    if part is None:
        raise InputError(
            "The 'teacher' parameter must contain exactly one sktl network to learn from its layers. Got "
            f"{teacher!r} instead. Use knowledge='response' or, for a classifier, knowledge='decoupled'."
        )
    return part


def identity(teacher: Any) -> Any:
    """Return a value that is equal for teachers whose fits are equivalent.

    This is the teacher itself if it is frozen, and a digest of its parameters
    otherwise.
    """
    digest = None if is_frozen(teacher) else content_digest((clone(teacher, safe=False), _weights_files(teacher)))
    return teacher if digest is None else digest


def _check_frozen(teacher: FrozenEstimator) -> None:
    try:
        check_is_fitted(teacher.estimator)
    except NotFittedError:
        raise NotFittedError(
            shortened(
                f"teacher={teacher!r} is frozen but not fitted. Fit it first, or pass it without FrozenEstimator. A "
                "fitted student is pickled without its teacher; to refit it, pass one with set_params(teacher=...)."
            )
        ) from None


def _fitted(teacher: Any, table: LabeledImages, y: "np.ndarray | None", fit_params: dict[str, Any]) -> Any:
    """Return the fitted teacher, from memory if it was fitted on the same rows."""
    key = None
    if _is_repeatable(teacher):
        known_by = (_unfitted(teacher), _weights_files(teacher), row_digests(table))
        key = content_digest((known_by, None if y is None else y.tolist(), fit_params))
    if key is None:
        return _fit(teacher, table, y, fit_params)
    with _FITTED_LOCK:
        known, digest, size = _FITTED.pop(key, (None, None, 0))
    if known is None or digest != content_digest(known):  # it may have been modified since
        known = _fit(teacher, table, y, fit_params)
        digest, size = digest_and_size(known)
    if digest is not None and size <= _FITTED_BYTES:  # a larger one would only evict the others
        with _FITTED_LOCK:
            _FITTED[key] = known, digest, size
            while sum(size for _, _, size in _FITTED.values()) > _FITTED_BYTES:
                _FITTED.popitem(last=False)
    return known


def _fit(teacher: Any, table: LabeledImages, y: "np.ndarray | None", fit_params: dict[str, Any]) -> Any:
    """Return a fitted clone of the teacher; an interrupted fit raises an error."""
    unfitted = _unfitted(teacher)
    with noticed_interrupts():
        return unfitted.fit(table.as_given(), y, **fit_params)


def _weights_files(teacher: Any) -> dict[str, bytes]:
    """Return digests of the weights files of a teacher, whose contents may change."""
    paths = {os.path.expanduser(path) for path in _paths(teacher)}
    return {path: file_digest(Path(path)) for path in sorted(paths) if os.path.isfile(path)}


def _paths(value: Any) -> Iterator[str]:
    """Yield the paths of weights in a parameter, a container or nested estimators."""
    if isinstance(value, str | os.PathLike):
        yield from [os.fspath(value)] if is_weights_name(os.fsdecode(value)) else []
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_paths, value))
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_paths, value.values()))
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield from chain.from_iterable(map(_paths, value.get_params(deep=False).values()))


def _unfitted(teacher: Any) -> Any:
    """Return an unfitted clone."""
    with shortened_errors():
        return clone(teacher)


def _repetitions(teacher: Any, table: LabeledImages) -> np.ndarray:
    """Return the rows with repetitions, for a teacher that does not take weights."""
    rows, counts = np.arange(len(table.y)), table.sample_weight.astype(int)
    if np.all(counts == table.sample_weight) and counts.sum() <= 100 * len(counts):
        return np.repeat(rows, counts)
    warn(
        f"The teacher {type(teacher).__name__} does not take sample_weight. Only the student uses the weights.",
        TrainingWarning,
    )
    return rows


def classes_of(teacher: Any) -> np.ndarray:
    """Return the classes of a fitted teacher.

    Raises
    ------
    InputError
        If the teacher is not a classifier, or has several outputs.
    """
    if is_regressor(teacher) or not hasattr(teacher, "classes_"):
        raise InputError(
            f"The 'teacher' parameter of DistilledClassifier must be a classifier. Got {teacher!r} instead, which "
            "does not predict classes. Use DistilledRegressor for regression."
        )
    if isinstance(teacher.classes_, list) and np.ndim(teacher.classes_[0]):
        raise InputError(
            f"The 'teacher' parameter must have a single output. Got {teacher!r} instead, which has several."
        )
    return np.asarray(teacher.classes_)


def class_columns(teacher: Any, classes: np.ndarray) -> list[int]:
    """Return the position of each class of the student in the teacher's classes.

    Raises
    ------
    InputError
        If the classes differ.
    """
    known = classes_of(teacher).tolist()
    missing = [label for label in classes.tolist() if label not in known]
    more = [label for label in known if label not in classes.tolist()]
    if missing or more:
        raise InputError(
            f"The teacher and y have different classes: missing from the teacher: {missing[:5]}; not in y: {more[:5]}. "
            + (
                "Pass labels of all classes, or fit(X, y, classes=teacher.classes_)."
                if more and not missing
                else "If one of these marks unlabeled rows, set the 'unlabeled' parameter. Otherwise, fit the teacher "
                "on all classes and pass it inside a FrozenEstimator."
            )
        )
    return [known.index(label) for label in classes.tolist()]


def _kind_of_answers(teacher: Any, few: Any) -> str:
    """Return the most informative kind of predictions, determined on a few images."""
    has_probabilities = hasattr(teacher, "predict_proba")
    if not hasattr(teacher, "decision_function"):
        return "probabilities" if has_probabilities else "labels"
    logits = _from_decision(teacher.decision_function(few))
    # One-vs-one decision values may happen to have as many columns as there are classes.
    chosen = logits.argmax(axis=1)
    classes = np.asarray(teacher.classes_)
    is_by_class = logits.shape[1] == len(teacher.classes_)
    # Not all images have to agree: a support vector machine predicts by votes of the pairs.
    if not is_by_class or np.mean(classes[chosen] == np.asarray(teacher.predict(few))) < 0.75:
        return "probabilities" if has_probabilities else "labels"
    if not has_probabilities:
        return "decision values"
    # Logits for networks and logistic regression, but distances to a margin for others.
    probabilities = np.asarray(teacher.predict_proba(few))
    implied = softmax(logits, axis=1)
    is_logits = probabilities.shape == implied.shape and np.allclose(probabilities, implied, rtol=1e-3, atol=1e-6)
    return "logits" if is_logits else "probabilities"


def _logits(teacher: Any, X: Any, kind: str) -> np.ndarray:
    """Return logits (n, n_classes) from the given kind of predictions."""
    if kind in ("logits", "decision values"):
        return _from_decision(teacher.decision_function(X))
    if kind == "probabilities":
        probabilities = np.asarray(teacher.predict_proba(X), np.float64)
    else:
        probabilities = (np.asarray(teacher.predict(X))[:, np.newaxis] == teacher.classes_).astype(np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(teacher.classes_):
        raise InputError(
            f"The teacher must return one column per class. Got an array of shape {probabilities.shape} for "
            f"{len(teacher.classes_)} classes."
        )
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY))  # keeps NaN, which raises an error later


def _from_decision(values: Any) -> np.ndarray:
    """Return logits from decision values; a single column is split into two halves."""
    values = np.asarray(values, np.float64)
    return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values


def _is_repeatable(teacher: Any) -> bool:
    """Return whether all ``random_state`` parameters of a teacher are integers."""
    params = teacher.get_params(deep=True) if hasattr(teacher, "get_params") else {"random_state": None}
    seeds = [value for name, value in params.items() if name.rpartition("__")[2] == "random_state"]
    return all(isinstance(seed, int | np.integer) for seed in seeds)
