"""Check that the estimator to compress is a classifier."""

from typing import Any

from sklearn.base import is_regressor

from sktl._messages import shortened


def refuse_regressor(compressor: Any) -> None:
    """Raise a TypeError if the estimator of a compressor is a regressor.

    Regressors inside a pipeline, a search or a `FrozenEstimator` are refused as well.
    """
    estimator, name = compressor.estimator, type(compressor).__name__
    if hasattr(estimator, "__sklearn_tags__") and is_regressor(estimator):
        sibling = name.replace("Classifier", "Regressor")
        raise TypeError(
            shortened(
                f"The 'estimator' parameter of {name} must be a classifier. Got {estimator!r} instead, which is a "
                f"regressor. {sibling} does not exist yet; use DistilledRegressor with a smaller student instead."
            )
        )
