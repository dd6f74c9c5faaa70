"""The scores by name, of those that need features and labels alone."""

from collections.abc import Callable
from functools import partial

from sktl.selection._classes import gbc_score, h_score, transrate_score
from sktl.selection._evidence import logme_score
from sktl.selection._probe import probe_score
from sktl.selection._source import nleep_score

SCORES: dict[str, Callable[..., float]] = {
    "logme": logme_score,
    "h_score": h_score,
    "nleep": nleep_score,
    "transrate": partial(transrate_score, normalize=True),  # networks have scales of their own
    "gbc": gbc_score,
    "probe": probe_score,
}
