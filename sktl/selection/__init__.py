"""Selection of backbones, layers and transfer strategies before training."""

from sktl.selection._class_separability import gbc_score, h_score, transrate_score
from sktl.selection._domain_distance import DomainDistance, domain_distance
from sktl.selection._leep_and_nce import leep_score, nce_score, nleep_score
from sktl.selection._linear_probe import probe_score
from sktl.selection._logme import logme_score
from sktl.selection._ranking import BackboneRanking
from sktl.selection._selector import BackboneSelector
from sktl.selection._strategy_advice import StrategyAdvice, recommend_strategy

__all__ = [
    "BackboneRanking",
    "BackboneSelector",
    "DomainDistance",
    "StrategyAdvice",
    "domain_distance",
    "gbc_score",
    "h_score",
    "leep_score",
    "logme_score",
    "nce_score",
    "nleep_score",
    "probe_score",
    "recommend_strategy",
    "transrate_score",
]
