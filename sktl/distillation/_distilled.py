"""What distilled classifiers and regressors share: a teacher in front of the flow of a fit, its knowledge beside it."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._footprint import Footprints, footprints
from sktl._estimators._labeled_images import as_targets
from sktl._estimators._network_estimator import TRANSFER_CONSTRAINTS, NetworkEstimator
from sktl._estimators._whole_copies import WholeCopies
from sktl._images import TakesTables, is_missing, refuse_single
from sktl._params import check_consistent_length
from sktl._training._dataset import unit_mean
from sktl.distillation._digests import beside_digests
from sktl.distillation._knowledge import ANSWERS, MAPS, RELATIONS, check_knowledge
from sktl.distillation._layers import LayerPair, pair_layers
from sktl.distillation._teacher import check_teacher, fit_teacher, identity, is_frozen, network_of
from sktl.distillation._teacher_layers import TeacherLayers
from sktl.exceptions import InputError

_N_TIMED = 16  # pictures that the footprint is measured with
_N_AGREED = 512  # pictures that agreement is measured with, at most

DISTILLATION_CONSTRAINTS: dict = {
    **{name: allowed for name, allowed in TRANSFER_CONSTRAINTS.items() if name != "backbone"},
    "teacher": [HasMethods(["fit"])],
    "student": "no_validation",  # load_backbone says what it may be
    "knowledge": [str, dict],
    "alpha": [Interval(Real, 0, 1, closed="both")],
    "layers": [str, list, tuple],
    "unlabeled": "no_validation",  # any label
}

_NO_LABEL = object()  # stands for a label where no y was given


class DistilledEstimator(WholeCopies, TakesTables, NetworkEstimator):
    """Trains a student on a teacher's answers, on what its layers hold, and on labels.

    Of a table of images and other things the teacher sees all.

    Subclass contract: beside what `NetworkEstimator` asks for, the parameters of `DISTILLATION_CONSTRAINTS`, and

    * ``_kinds``: the kinds of knowledge,
    * ``_known(y)``: which share of each row's encoded targets is known, from 0 to 1,
    * ``_teacher_targets(table)``: what a teacher is fitted to,
    * ``_answers(table)``: what the teacher says of a table, as the loss wants it, (n, n_outputs),
    * ``_agreement(outputs, answers)``: how much two such arrays agree, 1 where they do.
    """

    _shared_by_copies = ("teacher", "teacher_")
    _network_parameter = "student"
    _without_y = " A teacher that is fitted already, inside a sklearn.frozen.FrozenEstimator, needs none."
    _kinds: Sequence[str] = ()
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
            missing = self._find_unlabeled(y)
            missing = missing.reshape(len(missing), -1).any(axis=1)
            if len(missing) and missing.all():
                raise InputError(f"All of y is unlabeled={self.unlabeled!r}: there is nothing to score.")
            if missing.any():
                rows = np.flatnonzero(~missing)
                X, y, sample_weight = (x if x is None else _safe_indexing(x, rows) for x in (X, y, sample_weight))
                y = np.array(y.tolist()) if np.asarray(y).dtype.kind == "O" else y  # numbers, beside a gap
        return super().score(X, y, sample_weight)

    def _enroll(self, X, y, sample_weight, validation, *, reset, classes=None):
        """Check what can be checked before a teacher is fitted for hours, and go on."""
        self._check_parameters()
        self._has_weights = sample_weight is not None
        return super()._enroll(X, y, sample_weight, validation, reset=reset, classes=classes)

    def _check_parameters(self):
        """Say what is wrong with teacher and knowledge."""
        check_teacher(self)
        self._weights_of_kinds = check_knowledge(self.knowledge, self._kinds)
        if set(self._weights_of_kinds) & set(MAPS) and self.augment is not None:
            raise InputError(
                f"knowledge={self.knowledge!r} compares places of a picture, which augment={self.augment!r} moves. Use "
                "augment=None, or knowledge of answers and relations."
            )

    def _beside(self, X):
        """What stands for what the teacher sees of each row and the student does not."""
        column = getattr(self, "image_column_", None)
        return () if column is None or np.ndim(X) < 2 or X.shape[1] < 2 else beside_digests(X, column)

    def _missing_targets(self, n_rows):
        """No labels at all, with which a fitted teacher can do."""
        if not self._can_do_without_labels():
            super()._missing_targets(n_rows)
        return np.full(n_rows, _NO_LABEL)

    def _check_can_do_without_labels(self):
        if not self._can_do_without_labels():
            raise InputError(
                f"All of y is unlabeled={self.unlabeled!r}: there is nothing to fit the teacher on. Fit it first, and "
                "give it inside a sklearn.frozen.FrozenEstimator."
            )

    def _can_do_without_labels(self):
        """Whether the teacher is fitted already."""
        return is_frozen(self.teacher)

    def _find_unlabeled(self, y):
        """Which of the labels as they were given are none."""
        labels = np.asarray(y)
        if labels.dtype == object and len(labels) and labels.flat[0] is _NO_LABEL:
            return np.ones(len(labels), bool)
        if self.unlabeled is None:
            return np.zeros(labels.shape, bool)
        if labels.dtype.kind == "U" and not isinstance(self.unlabeled, str) and str(self.unlabeled) in labels:
            raise InputError(
                f"y is an array of texts, in which NumPy has made unlabeled={self.unlabeled!r} the text "
                f"{str(self.unlabeled)!r}. Give y as a list or with dtype=object, or say unlabeled="
                f"{str(self.unlabeled)!r}."
            )
        if labels.dtype != object and not is_missing(self.unlabeled):
            return np.broadcast_to(labels == self.unlabeled, labels.shape)
        if is_missing(self.unlabeled):
            found = [is_missing(label) for label in labels.ravel()]
        else:  # what is missing equals nothing, and pandas.NA does not even say so
            found = [not is_missing(label) and bool(label == self.unlabeled) for label in labels.ravel()]
        return np.array(found, bool).reshape(labels.shape)

    def _weight_of_unlabeled(self, labeled):
        """What a row without a label weighs: nothing, where nothing of the teacher is wanted."""
        if self.alpha == 0 and not labeled.any():
            raise InputError(
                "alpha=0 leaves nothing to learn from rows without labels. Use a greater alpha, or labels."
            )
        return float(self.alpha > 0)

    def _prepare(self, learning, depth, seed):
        """Fit the teacher where it is not fitted, and find out what there is to learn from it."""
        self._check_depth(depth)
        # A warm start goes on with the teacher that it has, unless it was given another one.
        given = identity(self.teacher)
        if not hasattr(self, "teacher_") or self._teacher_given != given:
            self.teacher_ = fit_teacher(self, self._lessons(learning), self._has_weights)
            self._teacher_given = given
        self._teacher_layers = None
        self._pairs: list[LayerPair] = []
        if not set(self._weights_of_kinds) <= set(ANSWERS):
            self._look_into_teacher(learning, depth)
        self._loss_seed = seed
        self._agreed = float("nan")
        self._footprints = None
        self._sample = learning.as_given(_N_TIMED)

    def _look_into_teacher(self, table, depth):
        """Which layers of which network are compared."""
        knowledge = self._weights_of_kinds
        teacher = network_of(self.teacher_).estimator
        maps = [kind for kind in MAPS if kind in knowledge]
        if maps:
            self._pairs = pair_layers(self.layers, teacher.backbone_, self.backbone_, depth)
        if "attention" in maps and all(pair.size == (1, 1) for pair in self._pairs):
            raise InputError(
                f"knowledge={self.knowledge!r} compares where in a picture the numbers are large, and the student's "
                f"layers {[pair.student for pair in self._pairs]} have one place only. Use 'feature'."
            )
        self._teacher_layers = TeacherLayers(
            self.teacher_, self._pairs, maps, has_embedding=bool(set(knowledge) & set(RELATIONS)), cache=self.cache
        )

    def _lessons(self, learning):
        """The rows that a teacher is fitted on: those with all their targets."""
        return learning.take(np.flatnonzero(self._known(learning.y) == 1))

    @property
    def _taps(self):
        """The layers whose output the loss sees; their names, or none."""
        return [pair.student for pair in self._pairs]

    def _check_depth(self, depth):
        """Refuse knowledge that could not move anything."""
        if depth == len(self.backbone_.stages) and not set(self._weights_of_kinds) <= set(ANSWERS):
            raise InputError(
                f"freeze_depth={self.freeze_depth!r} lets the head learn alone: knowledge={self.knowledge!r} is about "
                "layers, which could not follow. Freeze less, or use knowledge='response'."
            )

    def _rows(self, table, depth, augmentation=None):
        """The rows, with what the teacher says of each beside them."""
        rows = super()._rows(table, depth, augmentation)
        known = np.average(self._known(table.y), weights=table.weight)
        if known > 0:  # each part keeps its share of the loss, however many rows have no label
            rows.columns["weight"] /= known
        # Weights of classes weigh labels; what they mean for a teacher's answers the loss knows.
        rows.columns["teacher_weight"] = unit_mean(table.sample_weight)
        rows.columns["teacher"] = torch.from_numpy(self._answers(table).astype(np.float32))
        if self._teacher_layers is not None:
            rows.columns.update(self._teacher_layers.columns(table))
        return rows

    def _loss_settings(self):
        """What every loss of a distillation is made of."""
        return {
            "knowledge": self._weights_of_kinds,
            "alpha": self.alpha,
            "pairs": self._pairs,
            "student": self.backbone_,
            "seed": self._loss_seed,
        }

    def _train(self, course, tasks, is_step=False, start=None, callbacks=()):
        """Train, and leave behind what only training needed."""
        try:
            super()._train(course, tasks, is_step, start, callbacks)
        finally:
            self._teacher_layers = None
            self.net_.criterion_.forget_maps()
            self.net_.initialize_optimizer()

    def _finish(self, course):
        """How much student and teacher agree on some of the pictures, as they are."""
        some = np.random.default_rng(course.seed).permutation(len(course.rows))[:_N_AGREED]
        prefix = self._prefix(self.freeze_depth_, self.cache)
        outputs = self.net_.outputs(prefix.run(course.table.images.take(some))[0])
        if np.isfinite(outputs).all():  # with broken weights there is no number, and nothing agrees
            self._agreed = self._agreement(outputs, course.rows.columns["teacher"][some].numpy())

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
