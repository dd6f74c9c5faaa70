"""What distilled classifiers and regressors share: a teacher in front of the flow of a fit, its knowledge beside it."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._checked_table import as_targets
from sktl._estimators._footprint import Footprints, footprints
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS, NetworkEstimator, frozen_prefix
from sktl._estimators._whole_copies import WholeCopies
from sktl._images import TakesTables, refuse_single
from sktl._params import check_consistent_length
from sktl.distillation._distillation_objective import DistillationObjective
from sktl.distillation._knowledge import ANSWERS, MAPS, check_knowledge
from sktl.distillation._partial_targets import find_unlabeled
from sktl.distillation._teacher import check_teacher, fit_teacher, identity, is_frozen
from sktl.exceptions import InputError

_N_TIMED = 16  # pictures that the footprint is measured with
_N_AGREED = 512  # pictures that agreement is measured with, at most

DISTILLATION_CONSTRAINTS: dict = {
    **{name: allowed for name, allowed in NETWORK_CONSTRAINTS.items() if name != "backbone"},
    "teacher": [HasMethods(["fit"])],
    "student": "no_validation",  # load_backbone says what it may be
    "knowledge": [str, dict],
    "alpha": [Interval(Real, 0, 1, closed="both")],
    "layers": [str, list, tuple],
    "unlabeled": "no_validation",  # any label
}


class DistilledEstimator(WholeCopies, TakesTables, NetworkEstimator):
    """Trains a student on a teacher's answers, on what its layers hold, and on labels.

    Of a table of images and other things the teacher sees all.

    Subclass contract: beside what `NetworkEstimator` asks for, the parameters of `DISTILLATION_CONSTRAINTS`, and

    * ``_kinds``: the kinds of knowledge,
    * ``_objective_type``: a `DistillationObjective`.
    """

    _shared_by_copies = ("teacher", "teacher_")
    _network_parameter = "student"
    _kinds: Sequence[str] = ()
    _objective_type: "type[DistillationObjective]"
    _footprints: "Footprints | None" = None
    _sample: Any = None
    _teacher_given: Any = None

    @property
    def footprint_(self):
        """What the teacher and the student cost, and how much they agree.

        Measured when it is first asked for, with pictures of the fit; the teacher's only while it is at hand, which it
        is not in a student that was pickled.

        Returns
        -------
        Footprints
            One row for the teacher and one for the student. It prints as a table; ``to_dict()`` and ``to_frame()`` give
            the columns ``model``, ``parameters``, ``nonzero``, ``nbytes``, ``macs``, ``milliseconds`` and
            ``agreement``, which is NaN after a fit that was interrupted or diverged.
        """
        check_is_fitted(self, "net_")
        if self._footprints is None:
            if not hasattr(self, "teacher_"):
                raise AttributeError(
                    "footprint_ is measured beside the teacher, which a pickled student has left behind. Ask for it "
                    "before pickling."
                )
            measured = footprints({"teacher": self.teacher_, "student": self}, self._sample)
            self._footprints = Footprints(measured, agreement=[1.0, self._agreed])
        return self._footprints

    def get_metadata_routing(self):
        """Who gets what of the metadata given to `fit`: this estimator, and the teacher that it fits.

        Returns
        -------
        MetadataRouter
            See the user guide of scikit-learn.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add_self_request(self).add(teacher=self.teacher, method_mapping=mapping)

    def score(self, X, y, sample_weight=None):
        """Accuracy of a classifier, R² of a regressor, on the rows that have all their labels.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            Their true labels or targets; rows with one that equals ``unlabeled`` are left out.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Greater is better.

        Raises
        ------
        InputError
            If no row has all its labels.
        """
        if self.unlabeled is not None:
            refuse_single(X)
            check_consistent_length(X, y, sample_weight)  # before rows are taken, which hides a wrong length
            y = as_targets(y)
            missing = find_unlabeled(y, self.unlabeled)
            missing = np.any(missing.reshape(len(missing), -1), axis=1)
            if len(missing) and missing.all():
                raise InputError(f"All of y is unlabeled={self.unlabeled!r}: there is nothing to score.")
            if missing.any():
                rows = np.flatnonzero(~missing)
                X, y, sample_weight = (x if x is None else _safe_indexing(x, rows) for x in (X, y, sample_weight))
                y = np.array(y.tolist()) if np.asarray(y).dtype.kind == "O" else y  # numbers, beside a gap
        return super().score(X, y, sample_weight)

    def _check_parameters(self):
        """Say what is wrong with teacher and knowledge before a teacher is fitted for hours."""
        knowledge = check_knowledge(self.knowledge, self._kinds)
        check_teacher(self, is_answering=not set(ANSWERS).isdisjoint(knowledge))
        if set(knowledge) & set(MAPS) and self.augment is not None:
            raise InputError(
                f"knowledge={self.knowledge!r} compares places of a picture, which augment={self.augment!r} moves. Use "
                "augment=None, or knowledge of answers and relations."
            )

    def _make_objective(self, coding, table, depth, seed):
        """Fit the teacher if it is not fitted, and find out what there is to learn from it."""
        knowledge = check_knowledge(self.knowledge, self._kinds)
        if depth == len(self.backbone_.stages) and not set(knowledge) <= set(ANSWERS):
            raise InputError(
                f"freeze_depth={self.freeze_depth!r} lets the head learn alone: knowledge={self.knowledge!r} is about "
                "layers, which could not follow. Freeze less, or use knowledge='response'."
            )
        # A warm start goes on with the teacher that it has, unless it was given another one.
        given = identity(self.teacher)
        if not hasattr(self, "teacher_") or self._teacher_given != given:
            self.teacher_ = fit_teacher(self, *coding.teacher_data(table))
            self._teacher_given = given
        self._agreed, self._footprints, self._sample = float("nan"), None, table.as_given(_N_TIMED)
        objective = self._objective_type(self, coding, knowledge, table, depth, seed)
        for name, value in objective.attributes.items():
            setattr(self, name, value)
        return objective

    def _finish(self, trainer, data):
        """How much student and teacher agree on some of the images, as they are."""
        some = np.random.default_rng(data.seed).permutation(len(data.rows))[:_N_AGREED]
        (activations,) = frozen_prefix(self, data.depth, self.cache).run(data.table.images.take(some))
        outputs = self.net_.outputs(activations)
        if np.isfinite(outputs).all():  # with broken weights there is no number, and nothing agrees
            self._agreed = trainer.objective.agreement(outputs, data.rows.columns["teacher"][some].numpy())
        super()._finish(trainer, data)

    def __getstate__(self):
        """A fitted student is pickled without its teacher, which predicting does not need."""
        state = super().__getstate__()
        if "net_" in state:
            for name in ("teacher_", "_teacher_given", "_sample"):
                state.pop(name, None)
            is_fixed = is_frozen(self.teacher)
            teacher = clone(self.teacher.estimator if is_fixed else self.teacher, safe=False)
            state["teacher"] = FrozenEstimator(teacher) if is_fixed else teacher
        return state
