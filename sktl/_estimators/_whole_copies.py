"""Copies of an estimator in memory, which are whole where its pickles are not."""

import copy
from typing import Any


class WholeCopies:
    """Copies have all attributes: what ``__getstate__`` leaves behind, it leaves behind in pickles only."""

    _shared_by_copies: tuple[str, ...] = ()  # attributes that an independent copy need not have for itself

    def __copy__(self) -> Any:
        """Another object with the same attributes; callbacks of scikit-learn make one in each epoch."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict) -> Any:
        """Another object with copies of the attributes."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied


def independent_copy(estimator: Any) -> Any:
    """A copy that shares a teacher with the original, which may be larger than it by far and is not touched here."""
    names = getattr(estimator, "_shared_by_copies", ())
    shared = [value for name in names if (value := vars(estimator).get(name)) is not None]
    return copy.deepcopy(estimator, {id(value): value for value in shared})
