"""What a compressed classifier was made of, step by step."""

import re
from typing import Any

from sklearn.frozen import FrozenEstimator

from sktl._estimators._find_fitted import find_fitted


class MadeOfAnother:
    """What was made of another estimator, its original, which it has beside it until it is pickled."""

    _original: Any = None


def original_of(estimator: Any) -> Any:
    """What a compressor, or the one that a search over compressors has found, was made of; None where it has none."""
    compressor = find_fitted(estimator, MadeOfAnother)
    return None if compressor is None else compressor.estimator._original


def compression_chain(compressed: Any) -> dict[str, Any]:
    """The original, called so, and every model that was made of it, up to the one given.

    Parameters
    ----------
    compressed : estimator
        A fitted compressor, or a search over one.

    Returns
    -------
    dict of str to estimator
        Named by what was done: "pruned", say, "low rank" or "int8". Of one that was pickled, and so has no original
        beside it, only itself, as "original".
    """
    chain: list[tuple[str, Any]] = []
    model = compressed
    while model is not None:
        chain.append((_name(model), model))
        model = original_of(model)
        model = model.estimator if isinstance(model, FrozenEstimator) else model
    chain[-1] = ("original", chain[-1][1])
    models: dict[str, Any] = {}
    for name, model in reversed(chain):
        n_before = sum(other.partition(" (")[0] == name for other in models)
        models[f"{name} ({n_before + 1})" if n_before else name] = model
    return models


def _name(model: Any) -> str:
    """What a compressor does, in words: "low rank" for a `LowRankClassifier`, "int8" for one of that scheme."""
    found = find_fitted(model, MadeOfAnother)
    compressor = None if found is None else found.estimator
    words = re.findall(r"[A-Z]+[a-z0-9]*", type(compressor).__name__.removesuffix("Classifier"))
    return getattr(compressor, "scheme", " ".join(words).lower())
