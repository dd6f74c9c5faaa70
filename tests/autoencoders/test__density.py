"""The density of codes: what is drawn is distributed as they are, and no global generator moves."""

import numpy as np
import pytest
import torch

from sktl.autoencoders._density import CodeDensity


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_samples_are_distributed_as_the_codes(scale):
    """Two clusters come back, in any unit, in random order and the same for the same seed."""
    generator = np.random.default_rng(0)
    codes = scale * (generator.normal(size=(600, 2)) + np.where(np.arange(600) < 200, 10, -5)[:, np.newaxis])
    drawn = CodeDensity(codes, 0).sample(4000, 1)
    assert (drawn[:, 0] > 0).mean() == pytest.approx(1 / 3, abs=0.03)
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.3 * scale)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), rtol=0.1)
    assert (drawn[:2000, 0] > 0).mean() == pytest.approx(1 / 3, abs=0.05)
    np.testing.assert_array_equal(drawn, CodeDensity(codes, 0).sample(4000, 1))


def test_few_codes():
    """One code, or codes that are all equal, have a density too."""
    assert CodeDensity(np.ones((1, 3)), 0).sample(2, 0).shape == (2, 3)
    np.testing.assert_allclose(CodeDensity(np.full((9, 2), 7.0), 0).sample(2, 0), 7, atol=0.1)


def test_global_generators_stay():
    """Neither NumPy's nor torch's is touched."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    CodeDensity(np.random.default_rng(0).normal(size=(50, 2)), 0).sample(5, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_codes_in_extreme_units(scale):
    """Their squares are outside the range of float32, in which the network computes them."""
    codes = np.random.default_rng(0).normal(size=(500, 2)) * scale
    drawn = CodeDensity(codes.astype(np.float32), 0).sample(2000, 1)
    np.testing.assert_allclose(drawn.std(0), codes.std(0), rtol=0.1)
