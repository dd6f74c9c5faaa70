"""Noise of denoising autoencoders: how much, where, and drawn from torch's generator."""

import pytest
import torch

from sktl.autoencoders._noise import NOISES

VALUES = torch.linspace(-1, 1, 20_000).reshape(200, 100)
LOW, HIGH = torch.full((100,), -3.0), torch.full((100,), 4.0)


@pytest.fixture
def drawn():
    """Noisy values of each kind, all from the same seed."""
    with torch.random.fork_rng(devices=[]):

        def draw(name, level=0.3):
            torch.manual_seed(0)
            return NOISES[name](VALUES, level, LOW, HIGH)

        yield draw


def test_gaussian_noise_has_the_level_as_deviation(drawn):
    """The differences are normal with mean zero."""
    noise = drawn("gaussian") - VALUES
    assert noise.std().item() == pytest.approx(0.3, abs=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_masking_hides_a_share(drawn):
    """That share of the entries becomes the mean, which is zero; all others stay."""
    noisy = drawn("masking")
    changed = noisy != VALUES
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert not noisy[changed].any()


def test_salt_and_pepper_are_the_extremes(drawn):
    """Half of the share becomes the smallest value of the column, half the largest."""
    noisy = drawn("salt_and_pepper")
    for extreme in (LOW, HIGH):
        assert (noisy == extreme).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (noisy == VALUES).float().mean().item() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_drawn_from_the_seed(drawn, name):
    """The same seed gives the same noise, and the values that were given stay as they are."""
    before = VALUES.clone()
    assert torch.equal(drawn(name), drawn(name))
    assert torch.equal(VALUES, before)
