"""What a fit is given, as a checked table: the rows to learn from, and those to judge on."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state, indexable
from sklearn.utils.validation import _check_sample_weight

from sktl._estimators._groups import check_groups
from sktl._estimators._labeled_images import LabeledImages, as_targets, distinct, hold_out
from sktl._frozen._readable import readable_rows
from sktl._images import check_images
from sktl._messages import shortened_errors
from sktl._params import Estimator, check_consistent_length
from sktl.exceptions import InputError


class Validation(NamedTuple):
    """What `fit` was told of the rows to judge on: these themselves, or which of its own rows belong together."""

    X: Any = None
    y: Any = None
    sample_weight: Any = None
    groups: Any = None


class Enrolls(Estimator):
    """Makes a table of what `fit` is given, and splits it; for `NetworkEstimator`, which says what targets are."""

    _judged_by = ""  # who holds out rows though nothing is decided by them
    _tells_unreadable = True  # whether a warning names the images of `fit` that cannot be read
    _without_y = ""  # how it would go without

    def _draw_seed(self):
        return int(self._random_state.randint(2**31 - 1))

    def _check(self, X, y, sample_weight, *, reset, classes=None, groups=None):
        """The table that ``X``, ``y`` and the weights are, without rows of weight zero or that cannot be read."""
        if reset:
            self._random_state = check_random_state(self.random_state)
            self._split_seed = self._draw_seed()  # a warm start judges on the rows that it has always judged on
        images = check_images(self, X, reset=reset)
        if y is None:
            y = self._missing_targets(len(images))
        check_consistent_length(range(len(images)), y)
        with shortened_errors():
            rows = np.empty(len(images))
            weight = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        groups = check_groups(groups, len(images))
        kept = readable_rows(self, images, np.flatnonzero(weight), is_told=self._tells_unreadable)
        y = as_targets(y)
        targets = y.iloc[kept] if hasattr(y, "iloc") else y[kept]
        targets, class_weight = self._check_targets(targets, weight[kept], reset=reset, classes=classes)
        table = LabeledImages(images.take(kept), targets, weight[kept] * class_weight, weight[kept], indexable(X, y))
        table = table._replace(beside=self._beside(X), groups=None if groups is None else groups[kept])
        return distinct(table.take(np.flatnonzero(class_weight)))  # a class may weigh nothing too

    def _beside(self, X):
        """What stands for what each row of the table holds beside its image; nothing here."""
        return ()

    def _missing_targets(self, n_rows):
        """What stands for the targets where none were given; here they are needed."""
        raise InputError(
            f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.{self._without_y}"
        )

    def _split(self, table, validation):
        """What to learn from, and what to judge on, where anything is judged."""
        if (validation.X is None) != (validation.y is None):
            raise InputError("X_val and y_val come together: give both or neither.")
        if validation.X is not None:
            return table, self._check(validation.X, validation.y, validation.sample_weight, reset=False)
        if not (self.early_stopping or self._judged_by):
            return table, None
        by = self._judged_by or "early_stopping=True"
        return hold_out(table, self._stratification(table.y), self.validation_fraction, self._split_seed, by=by)
