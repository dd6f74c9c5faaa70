"""What is for classifiers says so to regressors."""

from typing import Any

from sklearn.base import is_regressor

from sktl._messages import shortened


def refuse_regressor(compressor: Any) -> None:
    """Refuse to compress a regressor, alone or in a pipeline, a search or a `FrozenEstimator`.

    Parameters
    ----------
    compressor : estimator
        Its ``estimator`` is looked at.

    Raises
    ------
    TypeError
        Where that is a regressor.
    """
    estimator, name = compressor.estimator, type(compressor).__name__
    if hasattr(estimator, "__sklearn_tags__") and is_regressor(estimator):
        sibling = name.replace("Classifier", "Regressor")
        raise TypeError(
            shortened(
                f"The 'estimator' parameter of {name} must be a classifier. Got {estimator!r} instead, a regressor. "
                f"There is no {sibling} yet. A DistilledRegressor with a smaller student makes a regressor smaller."
            )
        )
