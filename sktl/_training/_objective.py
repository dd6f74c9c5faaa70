"""Training objectives: outputs of the head, their loss and the head's initialization.

A new kind of learner defines an objective (and, if it learns from targets, a target
coding in `sktl._estimators._target_coding`) and is trained by the same `Trainer`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sktl._training._data import LabeledImages, TrainingData
from sktl._training._head_probe import Probe, classification_probe, regression_probe
from sktl._training._losses import ClassificationLoss, RegressionLoss, WeightedLoss
from sktl.backbones import Backbone
from sktl.exceptions import InputError


class Objective:
    """Base class of objectives. Subclasses must define ``loss``.

    Parameters
    ----------
    n_outputs : int
        Number of outputs of the head.
    """

    def __init__(self, n_outputs: int):
        self.n_outputs = n_outputs

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Return a new loss for the outputs of this network."""
        raise NotImplementedError

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Fit the initial head to the features (n, n_features) of these rows."""
        raise InputError(
            "head_init='probe' fits the head to targets, but this estimator has none. Use head_init='random'."
        )

    def taps(self, backbone: Backbone) -> "Sequence[str] | None":
        """Return the layers whose outputs the loss takes, or None if it takes none."""
        return None

    def targets(self, table: LabeledImages) -> torch.Tensor:
        """Return the target of each row, of shape (n,) or (n, n_outputs)."""
        return torch.from_numpy(table.y)

    def columns(self, table: LabeledImages) -> dict[str, Any]:
        """Return further columns of `RowDataset` for the loss."""
        return {}


class ClassificationObjective(Objective):
    """Classification, with one logit per class.

    Parameters
    ----------
    n_outputs : int
        Number of classes.
    label_smoothing : float
        Fraction of each target that is spread evenly over all classes.
    """

    def __init__(self, n_outputs: int, label_smoothing: float):
        super().__init__(n_outputs)
        self.label_smoothing = label_smoothing

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Return the cross-entropy."""
        return ClassificationLoss(self.label_smoothing)

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Fit a logistic regression."""
        y, weight = data.table.y[positions], data.table.weight[positions]
        return classification_probe(features, y, weight, self.n_outputs)


class RegressionObjective(Objective):
    """Regression, with one standardized output per target."""

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Return the squared error."""
        return RegressionLoss()

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Fit a ridge regression."""
        y, weight = data.table.y[positions], data.table.weight[positions]
        return regression_probe(features, y, weight, data.groups_of(positions))
