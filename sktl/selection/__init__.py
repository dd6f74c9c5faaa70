"""Choosing before training: how well features of pretrained networks fit to a task."""

from sktl.selection._classes import gbc_score, h_score, transrate_score
from sktl.selection._domain import DomainDistance, domain_distance
from sktl.selection._evidence import logme_score
from sktl.selection._probe import probe_score
from sktl.selection._ranking import BackboneRanking
from sktl.selection._selector import BackboneSelector
from sktl.selection._source import leep_score, nce_score, nleep_score

__all__ = [
    "BackboneRanking",
    "BackboneSelector",
    "DomainDistance",
    "domain_distance",
    "gbc_score",
    "h_score",
    "leep_score",
    "logme_score",
    "nce_score",
    "nleep_score",
    "probe_score",
    "transrate_score",
]
