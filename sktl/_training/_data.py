"""What a network is trained on, as one value."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import _safe_indexing

from sktl._frozen._activations import Activations
from sktl._images import Images
from sktl._training._dataset import RowDataset
from sktl._training._soft_targets import LOGITS, WEIGHT, SoftTargets


class LabeledImages(NamedTuple):
    """Checked rows: images, encoded targets, weights with those of the classes in them, and without.

    ``given`` is the whole table as it was given to `fit`, (X, y), and can be indexed by ``images.positions``.
    ``beside`` has what stands for the other columns of each row, if there are some, and ``groups`` the number of its
    group, if there are groups; ``is_weighted`` says whether weights were given.
    """

    images: Images
    y: np.ndarray
    weight: np.ndarray
    sample_weight: np.ndarray
    given: Sequence[Any] = ()
    beside: "np.ndarray | None" = None
    groups: "np.ndarray | None" = None
    is_weighted: bool = False

    def take(self, positions: np.ndarray) -> "LabeledImages":
        """Some of the rows."""
        names = ("y", "weight", "sample_weight", "beside", "groups")
        columns = {name: column[positions] for name in names if (column := getattr(self, name)) is not None}
        return self._replace(images=self.images.take(positions), **columns)

    def as_given(self, n_rows: "int | None" = None) -> Any:
        """The images of these rows, or of the first of them, of the kind that `fit` was given."""
        return _safe_indexing(self.given[0], self.images.positions[:n_rows])

    def dataset(self, activations: Activations, targets: torch.Tensor, columns: "dict[str, Any]") -> RowDataset:
        """The rows as the rest of a network sees them, with their targets, and what else its loss wants to know."""
        own = {"weight": unit_mean(self.weight), "sample_weight": torch.from_numpy(self.sample_weight)}
        return RowDataset(activations, targets, **{**own, **columns})


class TrainingData(NamedTuple):
    """What a network is trained on: rows behind its frozen stages.

    Attributes
    ----------
    table : LabeledImages
        The rows to learn from, with their images.
    rows : RowDataset
        The same as the trainable rest sees them.
    valid : RowDataset or None
        Those to evaluate on after each epoch.
    depth : int
        How many stages are frozen.
    seed : int
        Of all that is random in the training.
    soft_targets : SoftTargets or None
        Answers in the rows that are learned from as well.
    """

    table: LabeledImages
    rows: RowDataset
    valid: "RowDataset | None"
    depth: int
    seed: int
    soft_targets: "SoftTargets | None" = None

    def groups_of(self, positions: np.ndarray) -> "np.ndarray | None":
        """The number of the group of each of some rows, if there are groups."""
        return None if self.table.groups is None else self.table.groups[positions]

    def with_answers(self, logits: np.ndarray, soft_targets: SoftTargets) -> "TrainingData":
        """The same, with the answers of another network beside the rows to learn from."""
        self.rows.columns[LOGITS] = torch.from_numpy(logits)
        self.rows.columns[WEIGHT] = unit_mean(self.table.sample_weight)  # weights of classes weigh labels
        return self._replace(soft_targets=soft_targets)


def unit_mean(weight: np.ndarray) -> torch.Tensor:
    """Weights of rows with a mean of one over all of them, float32, as `WeightedLoss` wants them."""
    return torch.from_numpy(weight / weight.mean()).float()
