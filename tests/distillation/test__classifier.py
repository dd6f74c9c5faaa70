"""Distilling a classifier: any teacher, labels or none; all of scikit-learn's checks."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import DistilledClassifier


@parametrize_with_checks([DistilledClassifier(LogisticRegression())])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_of_check_estimator(estimator, check):
    """Around a classifier, the estimator passes every common check of scikit-learn; none is excluded."""
    check(estimator)
