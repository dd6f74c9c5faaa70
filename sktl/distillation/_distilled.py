"""What distilled classifiers and regressors share: a teacher in front of the flow of a fit, its knowledge beside it."""

import copy
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted

from sktl._engine._activations import RowStore
from sktl._engine._footprint import measure_footprint
from sktl._engine._network import output_shapes
from sktl._engine._prefix import FrozenPrefix
from sktl._engine._transfer import TRANSFER_CONSTRAINTS, TransferEstimator
from sktl._images import check_images
from sktl.distillation._footprints import Footprints
from sktl.distillation._knowledge import (
    MAPS,
    RELATIONS,
    LayerPair,
    as_map,
    check_knowledge,
    pair_layers,
    teacher_map,
)
from sktl.distillation._teacher import check_teacher, fit_teacher, is_frozen, network_of

_N_TIMED = 16  # pictures that the footprint is measured with
_N_AGREED = 512  # pictures that agreement is measured with, at most
_N_SCALED = 256  # pictures that say how large a layer's numbers are

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


class DistilledEstimator(TransferEstimator):
    """Trains a student on a teacher's answers, on what its layers hold, and on labels.

    Subclass contract: beside what `TransferEstimator` asks for, the parameters of `DISTILLATION_CONSTRAINTS`, and

    * ``_kinds``: the kinds of knowledge,
    * ``_known(y)``: which share of each row's encoded targets is known, from 0 to 1,
    * ``_teacher_targets(table)``: what a teacher is fitted to,
    * ``_answers(table)``: what the teacher says of a table, as the loss wants it, (n, n_outputs),
    * ``_agreement(outputs, answers)``: how much two such arrays agree, 1 where they do.
    """

    _network_parameter = "student"
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
            ``agreement``.
        """
        check_is_fitted(self, "net_")
        if self._footprints is None:
            if not hasattr(self, "teacher_"):
                raise AttributeError(
                    "footprint_ is measured beside the teacher, which a pickled student has left behind. Ask for it "
                    "before pickling."
                )
            measured = [measure_footprint(model, self._sample) for model in (self.teacher_, self)]
            self._footprints = Footprints(*measured, agreement=self._agreed)
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

    def _fit(self, X, y, sample_weight, validation, classes=None):
        """Check what can be checked, train, and see how much student and teacher agree."""
        self._check_parameters()
        self._has_weights = sample_weight is not None
        super()._fit(X, y, sample_weight, validation, classes)
        return self

    def _check_parameters(self):
        """Say what is wrong with the parameters before a teacher is fitted for hours."""
        check_teacher(self)
        knowledge = check_knowledge(self.knowledge, self._kinds)
        if set(knowledge) & set(MAPS) and self.augment is not None:
            raise ValueError(
                f"knowledge={self.knowledge!r} compares places of a picture, which augment={self.augment!r} moves. Use "
                "augment=None, or knowledge of answers and relations."
            )
        return knowledge

    def _missing_targets(self, n_rows):
        """No labels at all, with which a fitted teacher can do."""
        if not self._can_do_without_labels():
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None: the teacher "
                "has to be fitted. A fitted one inside a sklearn.frozen.FrozenEstimator needs no y."
            )
        return np.full(n_rows, _NO_LABEL)

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
        if labels.dtype != object and not _is_missing(self.unlabeled):
            return np.broadcast_to(labels == self.unlabeled, labels.shape)
        found = [_is_missing(x) if _is_missing(self.unlabeled) else x == self.unlabeled for x in labels.ravel()]
        return np.array([is_found is True or is_found is np.True_ for is_found in found]).reshape(labels.shape)

    def _prepare(self, learning, depth, seed):
        """Fit the teacher where it is not fitted, and find out what there is to learn from it."""
        knowledge = self._check_parameters()
        # A warm start goes on with the teacher that it has, unless it was given another one.
        if not hasattr(self, "teacher_") or self._teacher_given is not self.teacher:
            self.teacher_ = fit_teacher(self, self._lessons(learning), self._has_weights)
            self._teacher_given = self.teacher
        self._maps, self._relates = sorted(set(knowledge) & set(MAPS)), bool(set(knowledge) & set(RELATIONS))
        self._pairs: list[LayerPair] = []
        if self._maps or self._relates:
            self._look_into_teacher(learning, depth)
        self._scales: list[float] = []
        self._loss_seed = seed
        self._agreed = float("nan")
        self._footprints = None
        self._sample = learning.as_given(_N_TIMED)

    def _lessons(self, learning):
        """The rows that a teacher is fitted on: those with all their targets."""
        return learning.take(np.flatnonzero(self._known(learning.y) == 1))

    @property
    def _taps(self):
        """The layers whose output the loss sees; their names, or none."""
        return [pair.student for pair in self._pairs]

    def _look_into_teacher(self, table, depth):
        """Which layers of which network are compared."""
        if depth == len(self.backbone_.stages):
            raise ValueError(
                f"freeze_depth={self.freeze_depth!r} lets the head learn alone: knowledge={self.knowledge!r} is about "
                "layers, which could not follow. Freeze less, or use knowledge='response'."
            )
        part, _ = network_of(self.teacher_, table.as_given(1))
        pairs = pair_layers(self.layers, part.backbone_, self.backbone_, depth)
        self._pairs = pairs if self._maps else []

    def _rows(self, table, depth, augmentation=None):
        """The rows, with what the teacher says of each beside them."""
        rows = super()._rows(table, depth, augmentation)
        known = np.average(self._known(table.y), weights=table.weight)
        if known > 0:  # each part keeps its share of the loss, however many rows have no label
            rows.columns["weight"] /= known
        # Weights of classes weigh labels; what they mean for a teacher's answers the loss knows.
        rows.columns["teacher_weight"] = torch.from_numpy(table.sample_weight / table.sample_weight.mean()).float()
        rows.columns["teacher"] = torch.from_numpy(self._answers(table).astype(np.float32))
        if self._maps or self._relates:
            rows.columns.update(self._activations_of_teacher(table))
        return rows

    def _activations_of_teacher(self, table):
        """What the teacher's layers hold for each row, as far as it is compared."""
        part, X = network_of(self.teacher_, table.as_given())
        images = check_images(part, X, reset=False)
        settings = {name: getattr(part, name) for name in ("engine", "precision", "device", "n_jobs")}
        columns: dict[str, Any] = {}
        if self._relates:
            last = part.backbone_.stages[-1].name
            pooling = getattr(part, "_pooling", part.pooling)
            pooling = "avg" if pooling in ("none", "flatten") else pooling
            prefix = FrozenPrefix(part.backbone_, [last], pooling=pooling, cache=self.cache, **settings)
            columns["embedding"] = torch.from_numpy(prefix.run(images)[0])
        if self._maps:
            layers = list(dict.fromkeys(pair.teacher for pair in self._pairs))
            prefix = FrozenPrefix(part.backbone_, layers, pooling="none", cache=self.cache, **settings)
            shrunk = [_Shrunk(part.backbone_, layer, self._wanted(layer), len(images)) for layer in layers]
            prefix.run(images, out=shrunk)
            columns.update(column for store in shrunk for column in store.columns.items())
            self._scale(columns)
        return columns

    def _wanted(self, layer):
        """What is kept of a layer of the teacher: the kind, the name of the column, and the student's resolution."""
        return [
            (kind, f"{kind}{number}", pair)
            for number, pair in enumerate(self._pairs)
            if pair.teacher == layer
            for kind in self._maps
        ]

    def _scale(self, columns):
        """Measure hints in units of the teacher's own size, so that a weight means the same for every layer."""
        names = [name for name in columns if name.startswith("feature")]
        if not self._scales:  # the rows that are learnt from come first
            samples = [columns[name][torch.arange(min(len(columns[name]), _N_SCALED))] for name in names]
            self._scales = [float(sample.std()) or 1.0 for sample in samples]
        for name, scale in zip(names, self._scales, strict=True):
            columns[name].scale = scale

    def _loss_settings(self):
        """What every loss of a distillation is made of."""
        return {
            "knowledge": check_knowledge(self.knowledge, self._kinds),
            "alpha": self.alpha,
            "pairs": self._pairs,
            "student": self.backbone_,
            "seed": self._loss_seed,
        }

    def _train(self, rows, valid, seed, tasks, is_step=False):
        """Train, and leave behind what only training needed."""
        try:
            super()._train(rows, valid, seed, tasks, is_step)
        finally:
            self.net_.criterion_.forget_maps()
            self.net_.initialize_optimizer()

    def _finish(self, learning, rows, seed):
        """How much student and teacher agree on some of the pictures, as they are."""
        some = np.random.default_rng(seed).permutation(len(rows))[:_N_AGREED]
        prefix = self._prefix(self.freeze_depth_, self.cache)
        outputs = self.net_.outputs(prefix.run(learning.images.take(some))[0])
        self._agreed = self._agreement(outputs, rows.columns["teacher"][some].numpy())

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

    def __deepcopy__(self, memo):
        """A copy in memory keeps its teacher."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


def _is_missing(label: Any) -> bool:
    return label is None or is_pandas_na(label) or is_scalar_nan(label)


class _Shrunk:
    """Takes the rows of one layer of the teacher, and keeps what is compared of them."""

    def __init__(self, backbone: Any, layer: str, wanted: list, n_rows: int):
        (shape,) = output_shapes(backbone, [layer], "none")
        self.shape = (n_rows, *shape)
        self._layout = backbone.channel_axis(layer), backbone.has_cls_token(layer)
        self._wanted = wanted
        self.columns: dict[str, _StoredColumn] = {}
        for kind, name, pair in wanted:
            size = (pair.n_teacher, *pair.size) if kind == "feature" else (pair.size[0] * pair.size[1],)
            self.columns[name] = _StoredColumn(RowStore((n_rows, *size), np.float32))

    def __setitem__(self, position: int, row: np.ndarray) -> None:
        activation = as_map(torch.tensor(np.ascontiguousarray(row)).unsqueeze(0), *self._layout)
        for kind, name, pair in self._wanted:
            self.columns[name].store[position] = teacher_map(kind, activation, pair.size)[0].numpy()


class _StoredColumn:
    """A column of rows that may lie in a file; asked by positions as a tensor is."""

    def __init__(self, store: RowStore):
        self.store = store
        self.scale = 1.0

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.store.take(positions.numpy())) / self.scale
