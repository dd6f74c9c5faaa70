"""Copies of an estimator that are complete, unlike its pickles."""

import copy
from typing import Any


class WholeCopies:
    """Mixin whose copies keep attributes that are not pickled."""

    _shared_by_copies: tuple[str, ...] = ()  # attributes that an independent copy may share

    def __copy__(self) -> Any:
        """Return a shallow copy, as scikit-learn's callbacks do in each epoch."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict) -> Any:
        """Return a deep copy."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied


def independent_copy(estimator: Any) -> Any:
    """Return a deep copy that shares the teacher, which may be large."""
    names = getattr(estimator, "_shared_by_copies", ())
    shared = [value for name in names if (value := vars(estimator).get(name)) is not None]
    return copy.deepcopy(estimator, {id(value): value for value in shared})
