"""Rows with noise: the noise is that of the training, and what is decoded is what such rows are decoded to."""

import numpy as np
import pytest
import torch

from sktl.autoencoders import Autoencoder
from sktl.autoencoders._denoising import denoised
from sktl.autoencoders._noise import NOISES


@pytest.mark.parametrize("noise", NOISES)
def test_rows(make, rows, noise):
    """A seed gives the same noise, and the reconstruction is that of the noisy rows."""
    model = make(noise=noise, noise_level=0.4).fit(rows)
    before = torch.get_rng_state()
    noisy, reconstruction = denoised(model.net_, rows, noise, 0.4, 0)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_allclose(reconstruction, model.reconstruct(noisy), atol=1e-5)
    np.testing.assert_array_equal(denoised(model.net_, rows, noise, 0.4, 0)[0], noisy)
    assert (denoised(model.net_, rows, noise, 0.4, 1)[0] != noisy).any()
    changed = np.mean(~np.isclose(noisy, rows, atol=1e-5))
    assert changed > 0.99 if noise == "gaussian" else 0.1 < changed < 0.5


def test_hidden_entries_have_the_mean(make, rows):
    """Masking knows nothing of an entry: it has the column's mean."""
    model = make(noise="masking").fit(rows)
    noisy, _ = denoised(model.net_, rows, "masking", 1.0, 0)
    np.testing.assert_allclose(noisy, np.broadcast_to(model.net_.module_.head.mean.numpy(), rows.shape), atol=1e-6)


def test_images():
    """Pixels of 0-1 in the size of the network; without any noise, all is as in `reconstruct`."""
    X = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    model = Autoencoder(2, backbone="sktl_mini", noise="gaussian", max_epochs=0, random_state=0).fit(X)
    noisy, reconstruction = denoised(model.net_, X, "gaussian", 0.0, 0)
    np.testing.assert_allclose(noisy, X / 255, atol=1e-6)
    np.testing.assert_allclose(reconstruction, model.reconstruct(X), atol=1e-5)
    assert np.std(denoised(model.net_, X, "gaussian", 0.5, 0)[0] - X / 255) > 0.01
