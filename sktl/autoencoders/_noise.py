"""Noise of denoising autoencoders.

References
----------
Vincent et al., "Stacked Denoising Autoencoders: Learning Useful Representations in a
Deep Network with a Local Denoising Criterion", JMLR 11, 2010, section 4.3.
"""

import torch
from torch import Tensor

NOISES = ("gaussian", "masking", "salt_and_pepper")


def gaussian(values: Tensor, level: float, generator: "torch.Generator | None") -> Tensor:
    """Add normal noise with a standard deviation of ``level``."""
    return values + level * torch.randn(values.shape, generator=generator, device=values.device)


def salt_and_pepper(
    values: Tensor, level: float, low: Tensor, high: Tensor, generator: "torch.Generator | None"
) -> Tensor:
    """Replace a share ``level`` of the entries with the extremes of their columns."""
    drawn = torch.rand(values.shape, generator=generator, device=values.device)
    return torch.where(drawn < level / 2, low, torch.where(drawn < level, high, values))


def hidden_entries(values: Tensor, level: float, generator: "torch.Generator | None") -> Tensor:
    """Return a mask of a share ``level`` of the entries."""
    return torch.rand(values.shape, generator=generator, device=values.device) < level
