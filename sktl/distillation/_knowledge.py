"""Which knowledge a student gets: its kinds and weights, and the loss of all of it."""

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

LEAST_PROBABILITY = 1e-7  # one of zero has no logarithm
ANSWERS = ("response", "decoupled")  # of the teacher's answers
MAPS = ("feature", "attention")  # of pairs of layers
RELATIONS = ("relation", "similarity")  # of what reaches the heads, between the rows of a batch
ANGLE_WEIGHT = 2.0  # of RKD's angles beside its distances, as in the paper


def check_knowledge(knowledge: Any, kinds: Sequence[str]) -> dict[str, float]:
    """The kinds of knowledge that ``knowledge=`` names, with their weights.

    Parameters
    ----------
    knowledge : str or mapping of str to float
        One kind, or weights of several.
    kinds : sequence of str
        What there is.

    Raises
    ------
    InputError
        Where a kind is unknown, a weight is negative, or all are zero.
    """
    weights: Any = {knowledge: 1.0} if isinstance(knowledge, str) else knowledge
    is_mapping = isinstance(weights, Mapping) and all(name in kinds for name in weights)
    if not is_mapping or not all(isinstance(x, Real) and 0 <= float(x) < float("inf") for x in weights.values()):
        raise InputError(
            f"knowledge={knowledge!r} is not understood. Use one of {list(kinds)}, or weights of several, zero or "
            "more: {'response': 1.0, 'feature': 0.5}."
        )
    kept = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not kept:
        raise InputError(f"knowledge={knowledge!r} gives no kind a weight: nothing would come from the teacher.")
    return kept


class DistillationLoss(WeightedLoss):
    """``alpha`` times what the teacher says, and ``1 - alpha`` times what the labels say.

    Rows without a label have the teacher's part only.

    Parameters
    ----------
    labels : WeightedLoss
        The loss of a row with a label.
    knowledge : dict of str to float
        Kinds of knowledge and their weights.
    alpha : float
        The teacher's share.
    pairs : sequence of LayerPair
        What the maps of a batch, ``"feature0"``, ``"attention0"``, …, are compared to, in the order of the taps.
    student : Backbone
        Whose layers the student's are.
    seed : int
        Of the learned maps into the teacher's space.
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
        """The loss of a batch, whose columns are the teacher's.

        ``"teacher"`` are its answers, ``"teacher_weight"`` the weights of the rows, ``"embedding"`` what reaches its
        head, ``"feature0"``, ``"attention0"`` and so on its maps; ``"weight"`` weighs the labels, with the weights of
        their classes.
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
        """How far outputs (n, n_outputs) are from the teacher's answers, for each row."""

    def forget(self) -> bool:
        """Throw away the maps, which only training needed."""
        self.maps = nn.ModuleList()
        return True

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """As the loss of the labels does."""
        return self.labels.predict(outputs)

    def _mapped(self, kind: str, seen: Sequence[Tensor], batch: dict[str, Tensor]) -> Tensor:
        """The mean over the pairs of layers."""
        losses = []
        for number, (activation, layout) in enumerate(zip(seen, self.layouts, strict=True)):
            student, teacher = as_map(activation, *layout), batch[f"{kind}{number}"]
            if kind == "feature":
                mapped = self.maps[number](student.movedim(1, -1)).movedim(-1, 1)
                losses.append(hint_loss(mapped, teacher))
            else:
                # The sum over the places: a mean would weigh less the more places there are.
                losses.append(teacher.shape[1] * attention_loss(attention_map(student), teacher))
        return torch.stack(losses).mean(0)


class ClassifierDistillationLoss(DistillationLoss):
    """With logits; a label of -1 is none.

    Parameters
    ----------
    *args : object
        As in `DistillationLoss`.
    label_smoothing : float
        Of the labels.
    temperature : float
        What logits are divided by before they are compared.
    beta : float
        Weight of the other classes in ``"decoupled"``.
    class_weight : ndarray of shape (n_classes,)
        What the teacher's probabilities are multiplied by: then they and weighted labels want the same.
    **kwargs : object
        As in `DistillationLoss`.
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
        """Cross-entropy where there is a label, and zero elsewhere."""
        return torch.where(y >= 0, self.labels.per_row(outputs, y.clamp(min=0)), 0.0)

    def answers(self, kind: str, outputs: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        """Divergence of the softened logits."""
        teacher = teacher + self.log_class_weight
        if kind == "response":
            return soft_target_loss(outputs, teacher, self.temperature)
        target = torch.where(y >= 0, y, teacher.argmax(1))  # without a label the teacher's word is taken for it
        return decoupled_loss(outputs, teacher, target, self.temperature, self.beta)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Accuracy on the rows with a label; NaN where there are none."""
        known = y >= 0
        return self.labels.score(outputs[known], y[known], weight[known]) if known.any() else float("nan")


class RegressorDistillationLoss(DistillationLoss):
    """With standardised targets; a target that is NaN is none."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(RegressionLoss(), *args, **kwargs)

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Squared error of the targets that are there."""
        return self.labels.per_row(outputs, torch.where(torch.isnan(y), outputs, y))

    def answers(self, kind: str, outputs: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared difference of the predictions."""
        return hint_loss(outputs, teacher)

    def score(self, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        """Coefficient of determination on the rows with all targets; NaN where there are fewer than two."""
        known = ~np.isnan(y).any(axis=1)
        return self.labels.score(outputs[known], y[known], weight[known]) if known.any() else float("nan")


def _related(kind: str, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """How far the rows' relations to each other differ, for each row."""
    if kind == "similarity":  # as published it is a mean over pairs of rows of length 1: it would shrink with the batch
        return len(student) * similarity_loss(student, teacher, weight)
    distance = relational_distance_loss(student, teacher, weight)
    return distance + ANGLE_WEIGHT * relational_angle_loss(student, teacher, weight)
