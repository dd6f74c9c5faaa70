"""Activations of a teacher, computed before the training of the student."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sktl._estimators._network_estimator import fitted_pooling
from sktl._frozen._activations import RowStore
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._training._data import LabeledImages
from sktl.distillation._layers import LayerPair, as_map, teacher_map
from sktl.distillation._teacher import network_of

_N_SCALED = 256  # images that determine the scale of a layer


class TeacherLayers:
    """Activations of a teacher as columns of the rows.

    Parameters
    ----------
    teacher : fitted estimator
        Estimator that contains a network.
    pairs : sequence of LayerPair
        Pairs of layers to compare.
    kinds : sequence of {"feature", "attention"}
        Kinds of maps to compute.
    has_embedding : bool
        Whether to include the features before the head.
    cache : "auto", path-like or None
        Where to keep the outputs of the network.
    """

    def __init__(
        self, teacher: Any, pairs: Sequence[LayerPair], kinds: Sequence[str], *, has_embedding: bool, cache: Any
    ):
        self._teacher = teacher
        self._pairs = pairs
        self._kinds = kinds
        self._has_embedding = has_embedding
        self._cache = cache
        self._scales: list[float] = []

    def columns(self, table: LabeledImages) -> dict[str, Any]:
        """Return ``"embedding"`` and a column such as ``"feature0"`` per kind and pair.

        Features are divided by the standard deviation of their layer in the first
        table, so that weights of knowledge are comparable across layers and networks.
        """
        found = network_of(self._teacher)
        part = found.estimator
        images = check_images(part, found.reached_by(table.as_given()), reset=False)
        runtime = Runtime.of(part, cache=self._cache)
        columns: dict[str, Any] = {}
        if self._has_embedding:
            pooling = fitted_pooling(part)
            pooling = "avg" if pooling in ("none", "flatten") else pooling
            last = PrefixSpec(part.backbone_, [part.backbone_.stages[-1].name], pooling)
            columns["embedding"] = torch.from_numpy(FrozenPrefix(last, runtime).run(images)[0])
        if self._kinds:
            layers = list(dict.fromkeys(pair.teacher for pair in self._pairs))
            shrunk = [_Shrunk(part.backbone_, layer, self._wanted(layer), len(images)) for layer in layers]
            FrozenPrefix(PrefixSpec(part.backbone_, layers, "none"), runtime).run(images, out=shrunk)
            columns.update(column for store in shrunk for column in store.columns.items())
            self._scale([column for name, column in columns.items() if name.startswith("feature")])
        return columns

    def _wanted(self, layer: str) -> list[tuple[str, str, LayerPair]]:
        """Return the kind, column name and pair of each map to compute from a layer."""
        pairs = [(number, pair) for number, pair in enumerate(self._pairs) if pair.teacher == layer]
        return [(kind, f"{kind}{number}", pair) for number, pair in pairs for kind in self._kinds]

    def _scale(self, hints: "Sequence[_StoredColumn]") -> None:
        if not self._scales:
            samples = [hint[torch.arange(min(len(hint), _N_SCALED))] for hint in hints]
            self._scales = [float(sample.std()) or 1.0 for sample in samples]
        for hint, scale in zip(hints, self._scales, strict=True):
            hint.scale = scale


class _Shrunk:
    """Writer that reduces the rows of one teacher layer to the maps to compare."""

    def __init__(self, backbone: Any, layer: str, wanted: list, n_rows: int):
        (shape,) = PrefixSpec(backbone, [layer], "none").shapes
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
    """Column of rows that may be on disk, indexed by positions like a tensor."""

    def __init__(self, store: RowStore):
        self.store = store
        self.scale = 1.0

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.store.take(positions.numpy())) / self.scale
