"""What a network is to learn: the outputs of its head, their loss, and where the head starts.

A new kind of learner is an objective of its own, beside a target coding (`sktl._estimators._target_coding`) if it
learns from targets, and is trained by the one `Trainer`.
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
    """What a network is to learn; ``loss`` is what a subclass has to say.

    Parameters
    ----------
    n_outputs : int
        How many outputs the head has.
    """

    def __init__(self, n_outputs: int):
        self.n_outputs = n_outputs

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """The loss of the outputs of this network, newly made."""
        raise NotImplementedError

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """The linear map to start the head with, fitted to the features (n, n_features) of some of the rows."""
        raise InputError("head_init='probe' fits the head to targets, and there are none. Use head_init='random'.")

    def taps(self, backbone: Backbone) -> "Sequence[str] | None":
        """The layers behind the cut whose output the loss sees beside the head's; None if it sees the head's alone."""
        return None

    def targets(self, table: LabeledImages) -> torch.Tensor:
        """The target of each row, (n,) or (n, n_outputs): what the coding made of it, or the objective's own."""
        return torch.from_numpy(table.y)

    def columns(self, table: LabeledImages) -> dict[str, Any]:
        """What the loss wants to know of each row beside its target and its weight, as columns of `RowDataset`."""
        return {}


class ClassificationObjective(Objective):
    """A logit for each class.

    Parameters
    ----------
    n_outputs : int
        Number of classes.
    label_smoothing : float
        Share of a target that is spread over all classes.
    """

    def __init__(self, n_outputs: int, label_smoothing: float):
        super().__init__(n_outputs)
        self.label_smoothing = label_smoothing

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Cross-entropy."""
        return ClassificationLoss(self.label_smoothing)

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Logistic regression."""
        y, weight = data.table.y[positions], data.table.weight[positions]
        return classification_probe(features, y, weight, self.n_outputs)


class RegressionObjective(Objective):
    """An output for each target, in standard deviations."""

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Squared error."""
        return RegressionLoss()

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Ridge regression."""
        y, weight = data.table.y[positions], data.table.weight[positions]
        return regression_probe(features, y, weight, data.groups_of(positions))
