"""What a student is to learn: a teacher's answers, what its layers hold, and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import r2_score

from sktl._training._data import LabeledImages, TrainingData, unit_mean
from sktl._training._head_probe import Probe, classification_probe, regression_probe
from sktl._training._objective import Objective
from sktl.backbones import Backbone
from sktl.distillation._knowledge import (
    ANSWERS,
    LEAST_PROBABILITY,
    MAPS,
    RELATIONS,
    ClassifierDistillationLoss,
    DistillationLoss,
    RegressorDistillationLoss,
)
from sktl.distillation._layers import LayerPair, pair_layers
from sktl.distillation._partial_targets import PartlyKnownNumbers, PartlyLabeledClasses
from sktl.distillation._teacher import TeacherAnswers, class_columns, network_of
from sktl.distillation._teacher_layers import TeacherLayers
from sktl.exceptions import InputError


class DistillationObjective(Objective):
    """All that a student is to learn of its teacher and of labels; ``answers`` and the loss differ by kind.

    Parameters
    ----------
    owner : DistilledEstimator
        With its fitted ``teacher_``; ``alpha``, ``knowledge``, ``layers`` and ``cache`` are read.
    coding : PartialTargets
        What became of the targets.
    knowledge : dict of str to float
        The kinds of knowledge and their weights.
    table : LabeledImages
        The rows to learn from.
    depth : int
        How many stages of the student are frozen.
    seed : int
        Of the maps that the loss learns.
    """

    def __init__(
        self, owner: Any, coding: Any, knowledge: dict[str, float], table: LabeledImages, depth: int, seed: int
    ):
        super().__init__(coding.n_outputs)
        self.teacher = owner.teacher_
        self.asked = TeacherAnswers(owner.teacher_, owner.cache)
        self.coding = coding
        self.knowledge = knowledge
        self._given_knowledge = owner.knowledge
        self.alpha = owner.alpha
        self.cache = owner.cache
        self._layers = owner.layers
        self._depth = depth
        self._seed = seed
        self._teacher_network: Backbone | None = None
        self._teacher_layers: TeacherLayers | None = None
        if not set(knowledge) <= set(ANSWERS):
            self._look_into_teacher(owner.backbone_, table)

    @property
    def attributes(self) -> dict[str, Any]:
        """What an estimator keeps of it, by the attributes' names."""
        return {}

    def answers(self, table: LabeledImages) -> np.ndarray:
        """What the teacher says of a table, as the loss wants it, (n, n_outputs)."""
        raise NotImplementedError

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """How much two such arrays agree, 1 if they do."""
        raise NotImplementedError

    def columns(self, table: LabeledImages) -> dict[str, Any]:
        """What the teacher says of each row, and what its layers hold."""
        known = np.average(self.coding.known(table.y), weights=table.weight)
        columns: dict[str, Any] = {
            # Weights of classes weigh labels; what they mean for a teacher's answers the loss knows.
            "teacher_weight": unit_mean(table.sample_weight),
            "teacher": torch.from_numpy(self.answers(table).astype(np.float32)),
        }
        if known > 0:  # each part keeps its share of the loss, however many rows have no label
            columns["weight"] = unit_mean(table.weight) / known
        if self._teacher_layers is not None:
            columns.update(self._teacher_layers.columns(table))
        return columns

    def taps(self, backbone: Backbone) -> Sequence[str]:
        """The layers that are compared; perhaps none."""
        return [pair.student for pair in self._pairs(backbone)]

    def settings(self, backbone: Backbone) -> dict[str, Any]:
        """What every loss of a distillation is made of."""
        return {
            "knowledge": self.knowledge,
            "alpha": self.alpha,
            "pairs": self._pairs(backbone),
            "student": backbone,
            "seed": self._seed,
        }

    def _pairs(self, backbone: Backbone) -> list[LayerPair]:
        """Which layers of the teacher and of this network are compared."""
        if self._teacher_network is None or not set(MAPS) & set(self.knowledge):
            return []
        return pair_layers(self._layers, self._teacher_network, backbone, self._depth)

    def _look_into_teacher(self, student: Backbone, table: LabeledImages) -> None:
        """Find the teacher's network, and say what is to be read from it."""
        self._teacher_network = network_of(self.teacher).estimator.backbone_
        maps, pairs = [kind for kind in MAPS if kind in self.knowledge], self._pairs(student)
        if "attention" in maps and all(pair.size == (1, 1) for pair in pairs):
            raise InputError(
                f"knowledge={self._given_knowledge!r} compares where in a picture the numbers are large, and the "
                f"student's layers {[pair.student for pair in pairs]} have one place only. Use 'feature'."
            )
        has_embedding = bool(set(self.knowledge) & set(RELATIONS))
        self._teacher_layers = TeacherLayers(self.teacher, pairs, maps, has_embedding=has_embedding, cache=self.cache)


class ClassifierDistillation(DistillationObjective):
    """Logits, and the teacher's beside them.

    Parameters
    ----------
    owner : DistilledClassifier
        Whose ``label_smoothing``, ``temperature`` and ``beta`` are read as well.
    coding : PartlyLabeledClasses
        What became of the labels.
    *args : object
        As in `DistillationObjective`.

    Attributes
    ----------
    kind : str
        What the teacher's answers are.
    class_weight : ndarray of shape (n_classes,)
        What labels of each class weigh.
    """

    coding: PartlyLabeledClasses

    def __init__(self, owner: Any, coding: PartlyLabeledClasses, knowledge: Any, table: LabeledImages, *args: Any):
        super().__init__(owner, coding, knowledge, table, *args)
        known = table.y >= 0
        self.class_weight = np.ones(self.n_outputs)
        if known.any():
            self.class_weight = coding.weights(table.y[known], table.sample_weight[known])
        self._of_loss = {name: getattr(owner, name) for name in ("label_smoothing", "temperature", "beta")}
        self._columns = class_columns(self.teacher, coding.classes)
        self.kind = self.asked.kind(table)  # rows to evaluate on are asked about in the same way

    @property
    def attributes(self) -> dict[str, Any]:
        """What the teacher's answers are."""
        return {"teacher_answers_": self.kind}

    def answers(self, table: LabeledImages) -> np.ndarray:
        """The teacher's logits."""
        return self.asked.logits(table, self.kind)[:, self._columns]

    def loss(self, backbone: Backbone) -> DistillationLoss:
        """The weighted sum of all knowledge, and cross-entropy."""
        return ClassifierDistillationLoss(**self.settings(backbone), **self._of_loss, class_weight=self.class_weight)

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Logistic regression of labels; where there are none or they are not to be looked at, of the teacher's."""
        log_weight = np.log(np.maximum(self.class_weight, LEAST_PROBABILITY))
        taught = (data.rows.columns["teacher"].numpy() + log_weight).argmax(1)
        is_own = (data.table.y >= 0) & (self.alpha < 1)
        y = np.where(is_own, data.table.y, taught)
        weight = np.where(is_own, data.table.weight, data.table.sample_weight * self.class_weight[y])
        return classification_probe(features, y[positions], weight[positions], self.n_outputs)

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """The share of images of which both say the same class."""
        return float((outputs.argmax(1) == answers.argmax(1)).mean())


class RegressorDistillation(DistillationObjective):
    """Standardized targets, and the teacher's predictions in the same units."""

    coding: PartlyKnownNumbers

    def __init__(self, owner: Any, coding: PartlyKnownNumbers, knowledge: Any, table: LabeledImages, *args: Any):
        super().__init__(owner, coding, knowledge, table, *args)
        if not coding.n_outputs:  # no target was given: the teacher's answers say how many there are, in what units
            values = self.asked.numbers(table)
            coding.is_flat = values.shape[1] == 1
            coding.learn(values, table.weight)
            self.n_outputs = coding.n_outputs

    def answers(self, table: LabeledImages) -> np.ndarray:
        """The teacher's predictions."""
        values = self.asked.numbers(table)
        if values.shape[1] != self.n_outputs:
            raise InputError(
                f"The teacher predicts {values.shape[1]} targets, but y has {self.n_outputs}. Fit it on the same ones."
            )
        return (values - self.coding.mean) / self.coding.scale

    def loss(self, backbone: Backbone) -> DistillationLoss:
        """The weighted sum of all knowledge, and squared error."""
        return RegressorDistillationLoss(**self.settings(backbone))

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Ridge regression of targets; where there are none or they are not to be looked at, of the teacher's."""
        taught, y = data.rows.columns["teacher"].numpy(), data.table.y
        y = taught if self.alpha == 1 else np.where(np.isnan(y), taught, y)
        return regression_probe(features, y[positions], data.table.weight[positions], data.groups_of(positions))

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """R²; NaN for one image."""
        return float(r2_score(answers, outputs)) if len(outputs) > 1 else float("nan")
