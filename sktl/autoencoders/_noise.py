"""Noise of denoising autoencoders, drawn from torch's generator.

References
----------
Vincent et al., "Stacked Denoising Autoencoders: Learning Useful Representations in a
Deep Network with a Local Denoising Criterion", JMLR 11, 2010, section 4.3.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _gaussian(values: Tensor, level: float, low: Tensor, high: Tensor) -> Tensor:
    return values + level * torch.randn_like(values)


def _masking(values: Tensor, level: float, low: Tensor, high: Tensor) -> Tensor:
    return torch.where(torch.rand_like(values) < level, 0.0, values)


def _salt_and_pepper(values: Tensor, level: float, low: Tensor, high: Tensor) -> Tensor:
    drawn = torch.rand_like(values)
    return torch.where(drawn < level / 2, low, torch.where(drawn < level, high, values))


# Functions of centered and scaled rows (n, n_features), the level, and the smallest and
# the largest value of each feature.
NOISES: dict[str, Callable[[Tensor, float, Tensor, Tensor], Tensor]] = {
    "gaussian": _gaussian,
    "masking": _masking,
    "salt_and_pepper": _salt_and_pepper,
}
