"""Hyperparameters of a training."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from sktl._training._rest_network import Head


@dataclass(frozen=True)
class TrainingSettings:
    """Hyperparameters of a training, documented in `sktl.FineTunedClassifier`.

    Parameters
    ----------
    is_pretrained : bool, default=True
        Whether the network starts from trained weights. If not, batch normalization
        layers have no statistics to keep.
    **others : object
        Parameters of `sktl.FineTunedClassifier` with the same names.
    """

    freeze_depth: "int | str" = -1
    head: Head = "linear"
    head_init: str = "probe"
    dropout: float = 0.0
    max_epochs: int = 10
    lr: float = 0.0005
    lr_decay: float = 0.5
    lr_schedule: str = "cosine"
    optimizer: "str | type" = "adamw"
    weight_decay: float = 0.01
    batch_size: int = 64
    freeze_bn: bool = True
    unfreeze_every: "int | None" = None
    early_stopping: bool = False
    n_iter_no_change: int = 5
    callbacks: "Sequence[Any] | None" = None
    net_params: "dict[str, Any] | None" = None
    device: "str | torch.device" = "auto"
    verbose: int = 0
    is_pretrained: bool = True

    @classmethod
    def of(cls, estimator: Any, *, is_pretrained: bool) -> "TrainingSettings":
        """Read the training parameters that an estimator has; others get defaults."""
        names = [field.name for field in fields(cls) if hasattr(estimator, field.name)]
        return cls(**{name: getattr(estimator, name) for name in names}, is_pretrained=is_pretrained)

    def but(self, **settings: Any) -> "TrainingSettings":
        """Return a copy with some settings replaced."""
        return replace(self, **settings)

    @property
    def keeps_statistics(self) -> bool:
        """True if batch normalization layers keep their pretrained statistics."""
        return self.freeze_bn and self.is_pretrained
