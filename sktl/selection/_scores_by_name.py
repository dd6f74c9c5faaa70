"""Scores of `BackboneSelector` by name."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from scipy.special import softmax

from sktl.selection._class_separability import gbc_score, h_score, transrate_score
from sktl.selection._leep_and_nce import leep_score, nce_score, nleep_score
from sktl.selection._linear_probe import probe_score
from sktl.selection._logme import logme_score

SCORES: dict[str, Callable[..., float]] = {
    "logme": logme_score,
    "h_score": h_score,
    "nleep": nleep_score,
    "transrate": partial(transrate_score, normalize=True),  # the scale differs between networks
    "gbc": gbc_score,
    "probe": probe_score,
}


def _leep_of_logits(logits: np.ndarray, y: Any) -> float:
    return leep_score(softmax(logits, axis=1), y)


def _nce_of_logits(logits: np.ndarray, y: Any) -> float:
    return nce_score(logits.argmax(axis=1), y)


HEAD_SCORES: dict[str, Callable[..., float]] = {"leep": _leep_of_logits, "nce": _nce_of_logits}


def has_parameter(function: Callable[..., float], name: str) -> bool:
    """Check whether a score has a parameter that no `functools.partial` has bound."""
    try:
        return name in signature(function).parameters and name not in getattr(function, "keywords", {})
    except (TypeError, ValueError):  # a function in C without a signature
        return False


def score_name(score_func: "str | Callable[..., float]") -> str:
    """Return the name of a score or function, also inside a `functools.partial`."""
    if isinstance(score_func, str):
        return score_func
    function = getattr(score_func, "func", score_func)
    return getattr(function, "__name__", type(function).__name__)
