"""Noise of denoising autoencoders: how much, where, and from which generator."""

import pytest
import torch

from sktl.autoencoders._noise import gaussian, hidden_entries, salt_and_pepper

VALUES = torch.linspace(-1, 1, 20_000).reshape(200, 100)
LOW, HIGH = torch.full((100,), -3.0), torch.full((100,), 4.0)
KINDS = {
    "gaussian": lambda generator: gaussian(VALUES, 0.3, generator),
    "salt and pepper": lambda generator: salt_and_pepper(VALUES, 0.3, LOW, HIGH, generator),
    "hidden": lambda generator: hidden_entries(VALUES, 0.3, generator),
}


def seeded():
    return torch.Generator().manual_seed(0)


def test_gaussian_noise_has_the_level_as_deviation():
    """The differences are normal with mean zero."""
    noise = KINDS["gaussian"](seeded()) - VALUES
    assert noise.std().item() == pytest.approx(0.3, abs=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_salt_and_pepper_are_the_extremes():
    """Half of the share becomes the smallest value of the column, half the largest."""
    noisy = KINDS["salt and pepper"](seeded())
    for extreme in (LOW, HIGH):
        assert (noisy == extreme).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (noisy == VALUES).float().mean().item() == pytest.approx(0.7, abs=0.01)


def test_a_share_is_hidden():
    """In all rows and columns alike."""
    hidden = KINDS["hidden"](seeded()).float()
    assert hidden.mean().item() == pytest.approx(0.3, abs=0.01)
    assert hidden.mean(0).std() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_drawn_from_the_generator(kind):
    """The same generator gives the same noise, none is torch's global one, and given values stay as they are."""
    before = VALUES.clone()
    assert torch.equal(KINDS[kind](seeded()), KINDS[kind](seeded()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert torch.equal(KINDS[kind](None), KINDS[kind](seeded()))
    assert torch.equal(VALUES, before)
