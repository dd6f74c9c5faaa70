"""``device=`` means a torch device, and what cannot be had is said before anything is computed."""

import pytest
import torch

from sktl._device import resolve_device


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine one with or without CUDA, in a forked worker or not."""

    def become(cuda: bool, forked: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: forked)

    return become


@pytest.mark.parametrize(
    ("cuda", "forked", "expected"), [(True, False, "cuda"), (False, False, "cpu"), (True, True, "cpu")]
)
def test_auto_takes_what_can_be_used(machine, cuda, forked, expected):
    """CUDA where there is one, but not in a forked worker, which cannot initialise it again."""
    machine(cuda, forked)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", torch.device("cuda", 0)])
def test_a_device_is_taken_at_its_word(machine, device):
    """Names and torch devices come back as the device they are."""
    machine(cuda=True)
    assert resolve_device(device) == torch.device(device)


@pytest.mark.parametrize(
    ("device", "cuda", "forked", "words"),
    [
        ("gpu", True, False, r"device='gpu' is not a torch device\. Use 'auto'"),
        (
            "cuda",
            False,
            False,
            r"device='cuda' is not available, because torch finds no CUDA device\. Use device='auto'",
        ),
        ("cuda:0", True, True, r"device='cuda:0' cannot be used in a forked process.*n_jobs=1"),
    ],
)
def test_what_cannot_be_had(machine, device, cuda, forked, words):
    """The error restates the device and names a way out."""
    machine(cuda, forked)
    with pytest.raises(ValueError, match=words):
        resolve_device(device)
