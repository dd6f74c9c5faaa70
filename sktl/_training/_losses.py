"""Losses: per row, weighted, and the score that goes with each."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor, nn
from torch.nn import functional


class WeightedLoss(nn.Module, ABC):
    """Mean over a batch of weight times loss.

    The weights have a mean of one over the whole table, and a batch is divided by its number of rows: so every batch
    gives an unbiased estimate of the whole table's loss, and a weight of 2 counts as a row that is there twice.

    Subclass contract: ``per_row``; and ``predict`` and ``score`` where targets are not outputs, or scikit-learn has a
    score.
    """

    def forward(self, outputs: Tensor, y: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_outputs), or a tuple that begins with it
            What the network gave, see `RestNetwork.forward`.
        y : Tensor of shape (n,) or (n, n_outputs)
            Targets.
        batch : dict of str to Tensor
            What else is known of the rows: ``"weight"``, of shape (n,).
        """
        return (self.per_row(outputs, y) * batch["weight"].to(outputs.device)).mean()

    @abstractmethod
    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, shape (n,)."""

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Targets, as they are given to `forward`, of outputs (n, n_outputs); the outputs themselves."""
        return outputs

    def forget(self) -> bool:
        """Throw away what only training needs; whether there was something of that kind."""
        return False

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """The score that scikit-learn would give, greater is better; minus the mean loss where it has none."""
        with torch.no_grad():
            losses = self.per_row(torch.from_numpy(outputs), torch.from_numpy(y))
        return -float(np.average(losses.numpy(), weights=weight))


class ClassificationLoss(WeightedLoss):
    """Cross-entropy with label smoothing in training, and without it where the network is judged.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        Share of a target that is spread over all classes.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of logits (n, n_classes) and class numbers (n,)."""
        smoothing = self.label_smoothing if self.training else 0.0
        return functional.cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Class numbers (n,)."""
        return outputs.argmax(1)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Accuracy."""
        return float(accuracy_score(y, self.predict(outputs), sample_weight=weight))


class RegressionLoss(WeightedLoss):
    """Squared error, mean over the targets."""

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of each row of (n, n_targets)."""
        return torch.square(outputs - y).mean(1)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Coefficient of determination; NaN where there are fewer than two rows, or outputs that are no numbers."""
        if len(y) < 2 or not np.isfinite(outputs).all():
            return float("nan")
        return float(r2_score(y, outputs, sample_weight=weight))
