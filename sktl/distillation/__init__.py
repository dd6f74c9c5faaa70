"""Distillation of a teacher into a small network."""

from sktl._training._soft_targets import soft_target_loss
from sktl.distillation._classifier import DistilledClassifier
from sktl.distillation._distillation_losses import (
    attention_loss,
    attention_map,
    decoupled_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
)
from sktl.distillation._regressor import DistilledRegressor

__all__ = [
    "DistilledClassifier",
    "DistilledRegressor",
    "attention_loss",
    "attention_map",
    "decoupled_loss",
    "hint_loss",
    "relational_angle_loss",
    "relational_distance_loss",
    "similarity_loss",
    "soft_target_loss",
]
