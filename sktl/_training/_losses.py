"""Losses per row, weighted losses, and the score that belongs to each loss."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor, nn
from torch.nn import functional


class WeightedLoss(nn.Module, ABC):
    """Base class of losses: mean over a batch of weight times loss.

    The weights have a mean of one over the whole table, and the sum over a batch is
    divided by its number of rows. Each batch is therefore an unbiased estimate of the
    loss of the whole table, and a weight of 2 equals repeating the row.

    Subclasses must define ``per_row``. They override ``predict`` if predictions differ
    from outputs, and ``score`` if scikit-learn has a score for them.
    """

    def forward(self, outputs: Tensor, y: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        outputs : Tensor of shape (n, n_outputs), or a tuple that begins with it
            Output of `RestNetwork.forward`.
        y : Tensor of shape (n,) or (n, n_outputs)
            Targets.
        batch : dict of str to Tensor
            Columns of the batch, including ``"weight"`` of shape (n,).
        """
        losses = self.per_row(outputs, y)
        return (losses * batch["weight"].to(losses.device)).mean()

    @abstractmethod
    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row, shape (n,)."""

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return predictions for outputs (n, n_outputs), by default the outputs."""
        return outputs

    def forget(self) -> bool:
        """Drop modules needed only for training, and return whether there were any."""
        return False

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the score (greater is better), by default minus the mean loss."""
        with torch.no_grad():
            losses = self.per_row(torch.from_numpy(outputs), torch.from_numpy(y))
        return -float(np.average(losses.numpy(), weights=weight))


class ClassificationLoss(WeightedLoss):
    """Cross-entropy, with label smoothing in training mode only.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        Fraction of each target that is spread evenly over all classes.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR
    2016, section 7.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of logits (n, n_classes) and class indices (n,)."""
        smoothing = self.label_smoothing if self.training else 0.0
        return functional.cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return class indices (n,)."""
        return outputs.argmax(1)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the accuracy."""
        return float(accuracy_score(y, self.predict(outputs), sample_weight=weight))


class RegressionLoss(WeightedLoss):
    """Squared error, averaged over the targets."""

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error of each row of (n, n_targets)."""
        return torch.square(outputs - y).mean(1)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Return R², or NaN for fewer than two rows or infinite outputs."""
        if len(y) < 2 or not np.isfinite(outputs).all():
            return float("nan")
        return float(r2_score(y, outputs, sample_weight=weight))
