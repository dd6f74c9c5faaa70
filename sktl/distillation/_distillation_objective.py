"""Training objectives that combine a teacher's predictions, its layers, and labels."""

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
    """Base class of the objectives of distilled estimators.

    Parameters
    ----------
    owner : DistilledEstimator
        Estimator with a fitted ``teacher_``. Its ``alpha``, ``knowledge``, ``layers``
        and ``cache`` are read.
    coding : PartialTargets
        Coding of the targets.
    knowledge : dict of str to float
        Kinds of knowledge and their weights.
    table : LabeledImages
        The training rows.
    depth : int
        Number of frozen stages of the student.
    seed : int
        Seed of the learned maps of the loss.
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
        """Fitted attributes of the estimator, by name."""
        return {}

    def answers(self, table: LabeledImages) -> np.ndarray:
        """Return the teacher's outputs for a table, shape (n, n_outputs)."""
        raise NotImplementedError

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """Return the agreement of two arrays of outputs, 1 if they are equal."""
        raise NotImplementedError

    def columns(self, table: LabeledImages) -> dict[str, Any]:
        """Return the teacher's outputs and activations as columns of the rows."""
        known = np.average(self.coding.known(table.y), weights=table.weight)
        columns: dict[str, Any] = {
            # Without class weights, which the loss applies to the teacher itself.
            "teacher_weight": unit_mean(table.sample_weight),
            "teacher": torch.from_numpy(self.answers(table).astype(np.float32)),
        }
        if known > 0:  # the weight of the label loss does not depend on the share of labeled rows
            columns["weight"] = unit_mean(table.weight) / known
        if self._teacher_layers is not None:
            columns.update(self._teacher_layers.columns(table))
        return columns

    def taps(self, backbone: Backbone) -> Sequence[str]:
        """Return the student layers to compare."""
        return [pair.student for pair in self._pairs(backbone)]

    def settings(self, backbone: Backbone) -> dict[str, Any]:
        """Return the arguments that all distillation losses have in common."""
        return {
            "knowledge": self.knowledge,
            "alpha": self.alpha,
            "pairs": self._pairs(backbone),
            "student": backbone,
            "seed": self._seed,
        }

    def _pairs(self, backbone: Backbone) -> list[LayerPair]:
        """Return the pairs of teacher and student layers to compare."""
        if self._teacher_network is None or not set(MAPS) & set(self.knowledge):
            return []
        return pair_layers(self._layers, self._teacher_network, backbone, self._depth)

    def _look_into_teacher(self, student: Backbone, table: LabeledImages) -> None:
        """Find the teacher's network and select the layers to read."""
        self._teacher_network = network_of(self.teacher).estimator.backbone_
        maps, pairs = [kind for kind in MAPS if kind in self.knowledge], self._pairs(student)
        if "attention" in maps and all(pair.size == (1, 1) for pair in pairs):
            raise InputError(
                f"knowledge={self._given_knowledge!r} compares attention maps, but the student's layers "
                f"{[pair.student for pair in pairs]} have only one position. Use 'feature' instead of 'attention'."
            )
        has_embedding = bool(set(self.knowledge) & set(RELATIONS))
        self._teacher_layers = TeacherLayers(self.teacher, pairs, maps, has_embedding=has_embedding, cache=self.cache)


class ClassifierDistillation(DistillationObjective):
    """Objective of a classifier: match the teacher and the labels.

    Parameters
    ----------
    owner : DistilledClassifier
        As in `DistillationObjective`; ``label_smoothing``, ``temperature`` and ``beta``
        are read as well.
    coding : PartlyLabeledClasses
        Coding of the labels.
    *args : object
        As in `DistillationObjective`.

    Attributes
    ----------
    kind : str
        Kind of the teacher's predictions, one of `KINDS`.
    class_weight : ndarray of shape (n_classes,)
        Weights of the classes.
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
        self.kind = self.asked.kind(table)  # also for the validation rows

    @property
    def attributes(self) -> dict[str, Any]:
        """Kind of the teacher's predictions."""
        return {"teacher_answers_": self.kind}

    def answers(self, table: LabeledImages) -> np.ndarray:
        """Return the teacher's logits."""
        return self.asked.logits(table, self.kind)[:, self._columns]

    def loss(self, backbone: Backbone) -> DistillationLoss:
        """Return the loss of logits."""
        return ClassifierDistillationLoss(**self.settings(backbone), **self._of_loss, class_weight=self.class_weight)

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Fit a logistic regression to the labels.

        Rows that are unlabeled, or all rows if ``alpha=1``, take the teacher's labels.
        """
        log_weight = np.log(np.maximum(self.class_weight, LEAST_PROBABILITY))
        taught = (data.rows.columns["teacher"].numpy() + log_weight).argmax(1)
        is_own = (data.table.y >= 0) & (self.alpha < 1)
        y = np.where(is_own, data.table.y, taught)
        weight = np.where(is_own, data.table.weight, data.table.sample_weight * self.class_weight[y])
        return classification_probe(features, y[positions], weight[positions], self.n_outputs)

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """Return the share of images with the same predicted class."""
        return float((outputs.argmax(1) == answers.argmax(1)).mean())


class RegressorDistillation(DistillationObjective):
    """Objective of a regressor: match the teacher and standardized targets."""

    coding: PartlyKnownNumbers

    def __init__(self, owner: Any, coding: PartlyKnownNumbers, knowledge: Any, table: LabeledImages, *args: Any):
        super().__init__(owner, coding, knowledge, table, *args)
        if not coding.n_outputs:  # without y, the teacher's predictions define the targets
            values = self.asked.numbers(table)
            coding.is_flat = values.shape[1] == 1
            coding.learn(values, table.weight)
            self.n_outputs = coding.n_outputs

    def answers(self, table: LabeledImages) -> np.ndarray:
        """Return the teacher's predictions, standardized like the targets."""
        values = self.asked.numbers(table)
        if values.shape[1] != self.n_outputs:
            raise InputError(
                f"The teacher predicts {values.shape[1]} targets, but y has {self.n_outputs}. Fit the teacher to the "
                "same targets."
            )
        return (values - self.coding.mean) / self.coding.scale

    def loss(self, backbone: Backbone) -> DistillationLoss:
        """Return the loss of standardized targets."""
        return RegressorDistillationLoss(**self.settings(backbone))

    def probe(self, features: np.ndarray, data: TrainingData, positions: np.ndarray) -> Probe:
        """Fit a ridge regression to the targets.

        Missing targets, or all targets if ``alpha=1``, are those predicted by the
        teacher.
        """
        taught, y = data.rows.columns["teacher"].numpy(), data.table.y
        y = taught if self.alpha == 1 else np.where(np.isnan(y), taught, y)
        return regression_probe(features, y[positions], data.table.weight[positions], data.groups_of(positions))

    def agreement(self, outputs: np.ndarray, answers: np.ndarray) -> float:
        """Return R², or NaN for a single image."""
        return float(r2_score(answers, outputs)) if len(outputs) > 1 else float("nan")
