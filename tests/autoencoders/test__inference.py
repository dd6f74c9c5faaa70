"""Codes, reconstructions and scores are the same to the bit in any batch."""

import numpy as np
import pytest

from sktl.autoencoders._inference import decoded, encoded, scored


@pytest.mark.parametrize("function", [encoded, scored, lambda net, X: decoded(net, encoded(net, X))])
@pytest.mark.parametrize("n_rows", [1, 2, 63, 65])
def test_a_row_does_not_depend_on_the_others(make, rows, function, n_rows):
    """Alone, in a small table and in a large one, a row has the same numbers."""
    net = make().fit(rows).net_
    together = function(net, rows)
    assert len(together) == 120
    np.testing.assert_array_equal(function(net, rows[50 : 50 + n_rows]), together[50 : 50 + n_rows])


def test_scores_are_mean_squared_errors(make, ratings):
    """Over the observed entries of each row, in the unit of the input, from codes in the usual range."""
    net = make().fit(ratings).net_
    codes = encoded(net, ratings)
    head = net.module_.head
    usual = np.clip(codes, head.least_code.numpy(), head.greatest_code.numpy())
    assert 0 < (usual != codes).mean() < 0.06
    difference = decoded(net, usual) - ratings
    np.testing.assert_allclose(scored(net, ratings), -np.nanmean(difference**2, axis=1))
