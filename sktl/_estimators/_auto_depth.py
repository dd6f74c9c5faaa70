"""Choice of a transfer strategy from the data, before anything is trained.

The rules are the well-known table of little or much data and similar or different
images. The recommendations in its cells and the thresholds between them were measured
with benchmarks/strategies.py.
"""

from typing import Any, NamedTuple

import numpy as np

from sktl._estimators._norm_shift import near_line, source_distance
from sktl._images import Images

MUCH = 100  # images per class
_LOOKED_AT = 64  # images; with a dozen, the distance varies by 0.07


class Situation(NamedTuple):
    """Amount of data and its distance from the pretraining images.

    Parameters
    ----------
    n_images : int
        Number of distinct images.
    n_classes : int or None
        Number of classes. None for regression.
    distance : float or None
        See `NormShift.distance`. None if the network has no batch normalization layers.
    line : float or None
        Largest distance of similar images. None if it was not measured for the weights
        of the network.
    """

    n_images: int
    n_classes: "int | None"
    distance: "float | None"
    line: "float | None"

    @property
    def per_class(self) -> float:
        """Mean number of images per class, or per tenth of the range of the targets."""
        return self.n_images / (self.n_classes or 10)

    @property
    def amount(self) -> str:
        """Amount of data: ``"little"`` or ``"much"``."""
        return "little" if self.per_class < MUCH else "much"

    @property
    def domain(self) -> str:
        """Domain of the images: ``"similar"``, ``"different"`` or ``"unknown"``."""
        if self.distance is None or self.line is None:
            return "unknown"
        return "similar" if self.distance < self.line else "different"

    @property
    def strategy(self) -> str:
        """Recommended strategy for this cell of the table."""
        return "last_stages" if self.amount == "much" or self.domain == "different" else "freeze_all"


def assess_situation(owner: Any, images: Images, n_classes: "int | None") -> Situation:
    """Measure the amount of data and its distance from the pretraining images.

    Parameters
    ----------
    owner : estimator
        As in `source_distance`.
    images : Images
        All distinct images. The distance is measured on the same 64 of them each time.
    n_classes : int or None
        Number of classes. None for regression.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(images))[:_LOOKED_AT])
    distance = source_distance(owner, images.take(some)) if len(some) > 1 else None
    return Situation(len(images), n_classes, distance, near_line(owner.backbone_))


def strategy_params(strategy: str, n_stages: int) -> dict[str, Any]:
    """Return the parameters of a fine-tuning estimator that implement a strategy."""
    params: dict[str, dict[str, Any]] = {
        "freeze_all": {"freeze_depth": "all"},
        "earlier_layer": {"freeze_depth": "all"},
        "last_stages": {"freeze_depth": -max(1, round(n_stages / 3))},
        "train_all": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
        "no_transfer": {"freeze_depth": 0, "lr_decay": 1.0, "weights": None},
    }
    return params[strategy]
