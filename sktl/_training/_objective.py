"""Training objectives: the network that is trained, its loss and its initialization.

A new kind of learner defines an objective (and, if it learns from targets, a target
coding in `sktl._estimators._target_coding`) and is trained by the same `Trainer`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sktl._training._data import LabeledImages, TrainingData
from sktl._training._head_probe import Probe, classification_probe, probe_rows, regression_probe
from sktl._training._losses import ClassificationLoss, RegressionLoss, WeightedLoss
from sktl._training._rest_network import RestNetwork, last_linear, make_head
from sktl._training._settings import TrainingSettings
from sktl._training._skorch_net import TransferNet
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

    def loss(self, backbone: Any) -> WeightedLoss:
        """Return a new loss for the outputs of this network."""
        raise NotImplementedError

    def head(
        self, n_features: int, settings: TrainingSettings, seed: int, previous: "nn.Module | None" = None
    ) -> nn.Module:
        """Return a new head, or a copy of the head of a previous training.

        Parameters
        ----------
        n_features : int
            Number of inputs of the head; 0 for a learner without a backbone.
        settings : TrainingSettings
            Hyperparameters of the training.
        seed : int
            Seed of the initial weights.
        previous : nn.Module or None, default=None
            Head of the previous training.
        """
        kind = settings.head if previous is None else previous
        return make_head(kind, n_features, self.n_outputs, dropout=settings.dropout, generator_seed=seed)

    def network(
        self, backbone: "Backbone | None", depth: int, head: nn.Module, *, pooling: str, freeze_bn: bool
    ) -> RestNetwork:
        """Return the network to train, which ends with the head."""
        taps = None if backbone is None else self.taps(backbone)
        return RestNetwork(backbone, depth, head, pooling=pooling, freeze_bn=freeze_bn, taps=taps)

    def start(self, net: TransferNet, data: TrainingData) -> None:
        """Initialize the new net from the training rows: fit the last layer to them."""
        head = net.module_.head
        linear = last_linear(head)
        if linear is None:
            raise InputError(
                f"head_init='probe' needs a head that ends with a linear layer. Got {type(head).__name__} instead. Use "
                "head_init='random', or an nn.Sequential that ends with an nn.Linear."
            )
        positions = probe_rows(len(data.rows), linear.in_features, data.seed)
        features = net.linear_inputs(data.rows, positions.tolist(), linear)
        probe = self.probe(features.astype(np.float64), data, positions)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(probe.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(probe.bias))

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
