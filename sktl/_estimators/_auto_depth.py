"""The way to use a pretrained network that suits pictures and labels, as it can be told before anything is trained.

The table of cells is the well-known one (much or little data, similar or different pictures); what stands in its cells,
and where its lines are, was measured: see benchmarks/strategies.py.
"""

from typing import Any, NamedTuple

import numpy as np

from sktl._estimators._norm_shift import near_line, source_distance
from sktl._images import Images

MUCH = 100  # pictures per class
_LOOKED_AT = 64  # pictures: a dozen have the same distance but for 0.07


class Situation(NamedTuple):
    """How much there is to learn from, and how near it is to what the network knows.

    Parameters
    ----------
    n_pictures : int
        Different ones.
    n_classes : int or None
        None for a regression.
    distance : float or None
        See `NormShift.distance`; None where there are no norms to tell it by.
    line : float or None
        The greatest distance of known pictures; None where nobody has measured it for the network's weights.
    """

    n_pictures: int
    n_classes: "int | None"
    distance: "float | None"
    line: "float | None"

    @property
    def per_class(self) -> float:
        """Pictures of each class on average; of a regression those for each tenth of its targets' range."""
        return self.n_pictures / (self.n_classes or 10)

    @property
    def amount(self) -> str:
        """``"little"`` or ``"much"``."""
        return "little" if self.per_class < MUCH else "much"

    @property
    def domain(self) -> str:
        """``"similar"`` to what the network knows, or ``"different"``, or ``"unknown"``."""
        if self.distance is None or self.line is None:
            return "unknown"
        return "similar" if self.distance < self.line else "different"

    @property
    def strategy(self) -> str:
        """What suits this cell, as far as it alone can say."""
        return "last_stages" if self.amount == "much" or self.domain == "different" else "freeze_all"


def assess_situation(owner: Any, images: Images, n_classes: "int | None") -> Situation:
    """See how near some of the pictures are to what the network knows.

    Parameters
    ----------
    owner : estimator
        As in `source_distance`.
    images : Images
        All pictures, different ones; 64 of them are looked at, the same ones each time.
    n_classes : int or None
        None for a regression.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(images))[:_LOOKED_AT])
    distance = source_distance(owner, images.take(some)) if len(some) > 1 else None
    return Situation(len(images), n_classes, distance, near_line(owner.backbone_))


def strategy_params(strategy: str, n_stages: int) -> dict[str, Any]:
    """The parameters of a fine-tuning estimator that carry a strategy out, where they are not the default ones."""
    params: dict[str, dict[str, Any]] = {
        "freeze_all": {"freeze_depth": "all"},
        "earlier_layer": {"freeze_depth": "all"},
        "last_stages": {"freeze_depth": -max(1, round(n_stages / 3))},
        "train_all": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
        "no_transfer": {"freeze_depth": 0, "lr_decay": 1.0, "weights": None},
    }
    return params[strategy]
