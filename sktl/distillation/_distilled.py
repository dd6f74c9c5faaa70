"""Base class of distilled classifiers and regressors."""

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

_N_TIMED = 16  # images with which the footprint is measured
_N_AGREED = 512  # maximum number of images with which agreement is measured

DISTILLATION_CONSTRAINTS: dict = {
    **{name: allowed for name, allowed in NETWORK_CONSTRAINTS.items() if name != "backbone"},
    "teacher": [HasMethods(["fit"])],
    "student": "no_validation",  # checked by load_backbone
    "knowledge": [str, dict],
    "alpha": [Interval(Real, 0, 1, closed="both")],
    "layers": [str, list, tuple],
    "unlabeled": "no_validation",  # any label
}


class DistilledEstimator(WholeCopies, TakesTables, NetworkEstimator):
    """Base class of estimators that train a student on a teacher and on labels.

    If ``X`` is a table with several columns, the teacher gets all of them.

    Subclasses define, in addition to the requirements of `NetworkEstimator`, the
    parameters in ``DISTILLATION_CONSTRAINTS`` and

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
        """Cost of the teacher and the student, and their agreement.

        It is measured on images of the training data on first access, and requires the
        teacher, which is not included when a fitted student is pickled.

        Returns
        -------
        Footprints
            Table with one row for the teacher and one for the student. ``to_dict()``
            and ``to_frame()`` return the columns ``model``, ``parameters``,
            ``nonzero``, ``nbytes``, ``macs``, ``milliseconds`` and ``agreement``, which
            is NaN if `fit` was interrupted or diverged.
        """
        check_is_fitted(self, "net_")
        if self._footprints is None:
            if not hasattr(self, "teacher_"):
                raise AttributeError(
                    "footprint_ requires the teacher, which is not included when a fitted student is pickled. Access "
                    "footprint_ before pickling."
                )
            measured = footprints({"teacher": self.teacher_, "student": self}, self._sample)
            self._footprints = Footprints(measured, agreement=[1.0, self._agreed])
        return self._footprints

    def get_metadata_routing(self):
        """Get the metadata routing of this object.

        Returns
        -------
        MetadataRouter
            Routing of the metadata of `fit` between this estimator and its teacher; see
            the user guide of scikit-learn on metadata routing.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add_self_request(self).add(teacher=self.teacher, method_mapping=mapping)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of a classifier or the R² of a regressor on labeled rows.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images. Rows with a value equal to ``unlabeled``
            are left out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Accuracy of ``self.predict(X)``, or R² for a regressor.

        Raises
        ------
        InputError
            If all rows have missing labels.
        """
        if self.unlabeled is not None:
            refuse_single(X)
            check_consistent_length(X, y, sample_weight)  # before selecting rows, which would hide a wrong length
            y = as_targets(y)
            missing = find_unlabeled(y, self.unlabeled)
            missing = np.any(missing.reshape(len(missing), -1), axis=1)
            if len(missing) and missing.all():
                raise InputError(
                    f"All rows of y have missing labels (unlabeled={self.unlabeled!r}). Pass at least one labeled row."
                )
            if missing.any():
                rows = np.flatnonzero(~missing)
                X, y, sample_weight = (x if x is None else _safe_indexing(x, rows) for x in (X, y, sample_weight))
                # Numbers next to missing values have the dtype object.
                y = np.array(y.tolist()) if np.asarray(y).dtype.kind == "O" else y
        return super().score(X, y, sample_weight)

    def _check_parameters(self):
        """Validate the teacher and the knowledge before the teacher is fitted."""
        knowledge = check_knowledge(self.knowledge, self._kinds)
        check_teacher(self, is_answering=not set(ANSWERS).isdisjoint(knowledge))
        if set(knowledge) & set(MAPS) and self.augment is not None:
            raise InputError(
                f"knowledge={self.knowledge!r} compares activations at each position of an image, which "
                f"augment={self.augment!r} may change. Use augment=None, or another kind of knowledge such as "
                "'response' or 'relation'."
            )

    def _make_objective(self, coding, table, depth, seed):
        """Fit the teacher if necessary, and return the training objective."""
        knowledge = check_knowledge(self.knowledge, self._kinds)
        if depth == len(self.backbone_.stages) and not set(knowledge) <= set(ANSWERS):
            raise InputError(
                f"freeze_depth={self.freeze_depth!r} trains only the head, but knowledge={self.knowledge!r} compares "
                "layers, which are all frozen. Freeze fewer stages, or use knowledge='response'."
            )
        # A warm start keeps its fitted teacher unless the parameter has changed.
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
        """Measure the agreement of student and teacher on some training images."""
        some = np.random.default_rng(data.seed).permutation(len(data.rows))[:_N_AGREED]
        (activations,) = frozen_prefix(self, data.depth, self.cache).run(data.table.images.take(some))
        outputs = self.net_.outputs(activations)
        if np.isfinite(outputs).all():  # NaN for a student whose training diverged
            self._agreed = trainer.objective.agreement(outputs, data.rows.columns["teacher"][some].numpy())
        super()._finish(trainer, data)

    def __getstate__(self):
        """Return the state without the teacher, which is not needed for prediction."""
        state = super().__getstate__()
        if "net_" in state:
            for name in ("teacher_", "_teacher_given", "_sample"):
                state.pop(name, None)
            is_fixed = is_frozen(self.teacher)
            teacher = clone(self.teacher.estimator if is_fixed else self.teacher, safe=False)
            state["teacher"] = FrozenEstimator(teacher) if is_fixed else teacher
        return state
