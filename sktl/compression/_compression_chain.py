"""Models from which a compressed classifier was made, step by step."""

import re
from typing import Any

from sklearn.frozen import FrozenEstimator

from sktl._estimators._find_fitted import find_fitted


class MadeOfAnother:
    """Base class of estimators that keep their original until they are pickled."""

    _original: Any = None


def original_of(estimator: Any) -> Any:
    """Return the original of a compressor or of a search over one, or None."""
    compressor = find_fitted(estimator, MadeOfAnother)
    return None if compressor is None else compressor.estimator._original


def compression_chain(compressed: Any) -> dict[str, Any]:
    """Return the original and every model made from it, up to the given one, by name.

    Parameters
    ----------
    compressed : estimator
        A fitted compressor, or a search over one.

    Returns
    -------
    dict of str to estimator
        The first one is named "original", the others after their step, such as
        "pruned", "low rank" or "int8". A model that was pickled has no original and is
        returned alone, as "original".
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
    """Return the name of a step: "low rank" for `LowRankClassifier`, or the scheme."""
    found = find_fitted(model, MadeOfAnother)
    compressor = None if found is None else found.estimator
    words = re.findall(r"[A-Z]+[a-z0-9]*", type(compressor).__name__.removesuffix("Classifier"))
    return getattr(compressor, "scheme", " ".join(words).lower())
