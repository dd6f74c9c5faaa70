"""The extractor as scikit-learn's users see it."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl.self_supervised import SelfSupervisedExtractor


@parametrize_with_checks([SelfSupervisedExtractor()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the extractor passes every common check of scikit-learn; none is excluded."""
    check(estimator)
