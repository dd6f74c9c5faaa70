"""Kinds of knowledge, their weights, and the combined loss."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktl._training._losses import ClassificationLoss, RegressionLoss, WeightedLoss
from sktl._training._rest_network import linear_layer
from sktl._training._soft_targets import soft_target_loss
from sktl.backbones import Backbone
from sktl.distillation._distillation_losses import (
    attention_loss,
    attention_map,
    decoupled_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
)
from sktl.distillation._layers import LayerPair, as_map
from sktl.exceptions import InputError

LEAST_PROBABILITY = 1e-7  # probabilities are clipped before the logarithm
ANSWERS = ("response", "decoupled")  # compare the outputs of teacher and student
MAPS = ("feature", "attention")  # compare pairs of layers
RELATIONS = ("relation", "similarity")  # compare features before the head between the rows of a batch
ANGLE_WEIGHT = 2.0  # weight of the angle loss relative to the distance loss, as in the RKD paper


def check_knowledge(knowledge: Any, kinds: Sequence[str]) -> dict[str, float]:
    """Return the weights of the kinds of knowledge that are greater than zero.

    Parameters
    ----------
    knowledge : str or mapping of str to float
        One kind, or the weights of several.
    kinds : sequence of str
        All valid kinds.

    Raises
    ------
    InputError
        If a kind is unknown, a weight is negative or not finite, or all weights are
        zero.
    """
    weights: Any = {knowledge: 1.0} if isinstance(knowledge, str) else knowledge
    is_mapping = isinstance(weights, Mapping) and all(name in kinds for name in weights)
    if not is_mapping or not all(isinstance(x, Real) and 0 <= float(x) < float("inf") for x in weights.values()):
        raise InputError(
            f"The 'knowledge' parameter must be one of {list(kinds)}, or a dict from these to non-negative weights, "
            f"such as {{'response': 1.0, 'feature': 0.5}}. Got {knowledge!r} instead."
        )
    kept = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not kept:
        raise InputError(
            f"The 'knowledge' parameter must have at least one weight greater than 0. Got {knowledge!r} instead."
        )
    return kept


class DistillationLoss(WeightedLoss):
    """Weighted sum of the teacher loss (``alpha``) and the label loss (``1 - alpha``).

    Rows without a label only have the teacher loss.

    Parameters
    ----------
    labels : WeightedLoss
        Loss of labeled rows.
    knowledge : dict of str to float
        Kinds of knowledge and their weights.
    alpha : float
        Weight of the teacher loss.
    pairs : sequence of LayerPair
        Pairs of layers to compare. The teacher's activations are the columns
        ``"feature0"``, ``"attention0"``, ... of a batch, in the order of the taps.
    student : Backbone
        The student's network.
    seed : int
        Seed of the learned maps to the teacher's channels.
    """

    def __init__(
        self,
        labels: WeightedLoss,
        knowledge: dict[str, float],
        *,
        alpha: float,
        pairs: Sequence[LayerPair],
        student: Backbone,
        seed: int,
    ):
        super().__init__()
        self.labels = labels
        self.knowledge = knowledge
        self.alpha = alpha
        self.layouts = [(student.channel_axis(x.student), student.has_cls_token(x.student)) for x in pairs]
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ModuleList(
            linear_layer(pair.n_student, pair.n_teacher, generator) for pair in pairs if "feature" in knowledge
        )

    def forward(self, outputs: Any, y: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch.

        The columns of the batch are the teacher's outputs (``"teacher"``), its features
        before the head (``"embedding"``), its activations (``"feature0"``,
        ``"attention0"``, ...), the weights of the rows (``"teacher_weight"``), and the
        weights of the labels (``"weight"``), which include class weights.
        """
        outputs, features, *seen = outputs
        batch = {name: column.to(outputs.device) for name, column in batch.items() if name != "x"}
        taught = torch.zeros_like(outputs[:, 0])
        for kind, weight in self.knowledge.items():
            if kind in ANSWERS:
                taught = taught + weight * self.answers(kind, outputs, y, batch["teacher"])
            elif kind in RELATIONS:
                taught = taught + weight * _related(kind, features, batch["embedding"], batch["teacher_weight"])
            else:
                taught = taught + weight * self._mapped(kind, seen, batch)
        rows = self.alpha * taught * batch["teacher_weight"]
        if self.alpha < 1:
            rows = rows + (1 - self.alpha) * self.per_row(outputs, y) * batch["weight"]
        return rows.mean()

    @abstractmethod
    def answers(self, kind: str, outputs: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance of each row's outputs to the teacher's, shape (n,)."""

    def forget(self) -> bool:
        """Discard the learned maps, which are used only in training."""
        self.maps = nn.ModuleList()
        return True

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return the predictions of the label loss."""
        return self.labels.predict(outputs)

    def _mapped(self, kind: str, seen: Sequence[Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over the pairs of layers."""
        losses = []
        for number, (activation, layout) in enumerate(zip(seen, self.layouts, strict=True)):
            student, teacher = as_map(activation, *layout), batch[f"{kind}{number}"]
            if kind == "feature":
                mapped = self.maps[number](student.movedim(1, -1)).movedim(-1, 1)
                losses.append(hint_loss(mapped, teacher))
            else:
                # Sum over the positions: a mean would shrink with their number.
                losses.append(teacher.shape[1] * attention_loss(attention_map(student), teacher))
        return torch.stack(losses).mean(0)


class ClassifierDistillationLoss(DistillationLoss):
    """Distillation loss on logits. A label of -1 marks an unlabeled row.

    Parameters
    ----------
    *args, **kwargs : object
        As in `DistillationLoss`.
    label_smoothing : float
        Amount of label smoothing.
    temperature : float
        Temperature by which logits are divided before they are compared.
    beta : float
        Weight of the other classes in ``"decoupled"``.
    class_weight : ndarray of shape (n_classes,)
        Factors of the teacher's probabilities. They make the teacher consistent with
        weighted labels.
    """

    log_class_weight: Tensor

    def __init__(
        self,
        *args: Any,
        label_smoothing: float,
        temperature: float,
        beta: float,
        class_weight: np.ndarray,
        **kwargs: Any,
    ):
        super().__init__(ClassificationLoss(label_smoothing), *args, **kwargs)
        log_weight = torch.from_numpy(class_weight).float().clamp(min=LEAST_PROBABILITY).log()
        self.register_buffer("log_class_weight", log_weight)
        self.temperature = temperature
        self.beta = beta

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of labeled rows, and zero for the others."""
        return torch.where(y >= 0, self.labels.per_row(outputs, y.clamp(min=0)), 0.0)

    def answers(self, kind: str, outputs: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        """Return the divergence between the softened predictions."""
        teacher = teacher + self.log_class_weight
        if kind == "response":
            return soft_target_loss(outputs, teacher, self.temperature)
        target = torch.where(y >= 0, y, teacher.argmax(1))  # unlabeled rows take the teacher's class
        return decoupled_loss(outputs, teacher, target, self.temperature, self.beta)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the accuracy on labeled rows, or NaN if all rows are unlabeled."""
        known = y >= 0
        return self.labels.score(outputs[known], y[known], weight[known]) if known.any() else float("nan")


class RegressorDistillationLoss(DistillationLoss):
    """Distillation loss on standardized targets. NaN marks a missing target."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(RegressionLoss(), *args, **kwargs)

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the squared error of the known targets."""
        return self.labels.per_row(outputs, torch.where(torch.isnan(y), outputs, y))

    def answers(self, kind: str, outputs: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference of the predictions."""
        return hint_loss(outputs, teacher)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Return R² on rows with all targets, or NaN for fewer than two such rows."""
        known = ~np.isnan(y).any(axis=1)
        return self.labels.score(outputs[known], y[known], weight[known]) if known.any() else float("nan")


def _related(kind: str, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the relational loss of each row."""
    if kind == "similarity":  # the published mean over pairs shrinks as the batch grows
        return len(student) * similarity_loss(student, teacher, weight)
    distance = relational_distance_loss(student, teacher, weight)
    return distance + ANGLE_WEIGHT * relational_angle_loss(student, teacher, weight)
