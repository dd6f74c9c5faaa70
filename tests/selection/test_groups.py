"""Groups in a selector: near-copies of an image are in one fold of a score that has some."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.pipeline import make_pipeline

from sktl.exceptions import InputError
from sktl.selection import BackboneSelector


def test_a_score_that_takes_groups_gets_them(digits):
    """Those of the rows that are looked at: the probe's folds are whole groups, also by routing in a pipeline."""
    X, y = digits
    groups = np.array([f"writer {number}" for number in np.arange(30) // 3])
    seen = []

    def score(features, y, groups=None):
        seen.append(None if groups is None else (len(features), len(np.unique(groups))))
        return 1.0

    BackboneSelector(score_func=score, layers=-1).fit(X, y, groups=groups)
    BackboneSelector(score_func=score, layers=-1, max_samples=29).fit(X, y, groups)
    BackboneSelector(score_func=score, layers=-1).fit(X, y)
    assert seen == [(30, 10), (29, 10), None]
    probe = BackboneSelector(score_func="probe", layers=-1)
    with pytest.raises(InputError, match="must have at least two groups"):
        probe.fit(X, y, groups=np.zeros(30))
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(BackboneSelector(score_func=score, layers=-1).set_fit_request(groups=True))
        pipe.fit(X, y, groups=groups)
    assert seen[3:] == [(30, 10)]
    assert BackboneSelector(layers=-1).fit(X, y, groups=groups).ranking_  # LogME sets nothing aside
