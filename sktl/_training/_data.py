"""Training data of a network."""

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
    """Validated rows: images, encoded targets and weights.

    ``weight`` includes the class weights; ``sample_weight`` does not. ``given`` is the
    whole table as passed to `fit`, (X, y), and is indexed by ``images.positions``.
    ``beside`` holds the other columns of each row, if there are any. ``groups`` holds
    the group number of each row, if groups were passed. ``is_weighted`` tells whether
    sample weights were passed.
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
        """Return the rows at these positions."""
        names = ("y", "weight", "sample_weight", "beside", "groups")
        columns = {name: column[positions] for name in names if (column := getattr(self, name)) is not None}
        return self._replace(images=self.images.take(positions), **columns)

    def as_given(self, n_rows: "int | None" = None) -> Any:
        """Return the images of all rows, or of the first ones, as passed to `fit`."""
        return _safe_indexing(self.given[0], self.images.positions[:n_rows])

    def dataset(self, activations: Activations, targets: torch.Tensor, columns: "dict[str, Any]") -> RowDataset:
        """Return a dataset of the rows, with targets and columns for the loss."""
        own = {"weight": unit_mean(self.weight), "sample_weight": torch.from_numpy(self.sample_weight)}
        return RowDataset(activations, targets, **{**own, **columns})


class TrainingData(NamedTuple):
    """Training rows with the outputs of the frozen stages.

    Attributes
    ----------
    table : LabeledImages
        The training rows with their images.
    rows : RowDataset
        The training rows with the activations that the trainable rest takes.
    valid : RowDataset or None
        Rows on which to evaluate after each epoch.
    depth : int
        Number of frozen stages.
    seed : int
        Seed of all randomness in training.
    soft_targets : SoftTargets or None
        How the soft targets in ``rows`` enter the loss.
    """

    table: LabeledImages
    rows: RowDataset
    valid: "RowDataset | None"
    depth: int
    seed: int
    soft_targets: "SoftTargets | None" = None

    def groups_of(self, positions: np.ndarray) -> "np.ndarray | None":
        """Return the group numbers of the rows at these positions, or None."""
        return None if self.table.groups is None else self.table.groups[positions]

    def with_answers(self, logits: np.ndarray, soft_targets: SoftTargets) -> "TrainingData":
        """Return the same data with a teacher's logits added to the training rows."""
        self.rows.columns[LOGITS] = torch.from_numpy(logits)
        # Class weights apply to labels only.
        self.rows.columns[WEIGHT] = unit_mean(self.table.sample_weight)
        return self._replace(soft_targets=soft_targets)


def unit_mean(weight: np.ndarray) -> torch.Tensor:
    """Scale the weights of rows to a mean of one, as `WeightedLoss` requires."""
    return torch.from_numpy(weight / weight.mean()).float()
