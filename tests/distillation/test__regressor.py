"""Distilling a regressor, or features; all of scikit-learn's checks."""

import pytest
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import DistilledRegressor


@parametrize_with_checks([DistilledRegressor(LinearRegression())])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Around a regressor, the estimator passes every common check of scikit-learn; none is excluded."""
    check(estimator)
