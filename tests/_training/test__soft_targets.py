"""Answers of another network beside the labels: what they add to the loss of a batch."""

import pytest
import torch
from torch.nn import functional

from sktl._training._soft_targets import SoftTargets


@pytest.mark.parametrize("has_taps", [False, True])
def test_the_mixed_loss(has_taps):
    """Each part has its share; the answers count as their rows weigh, and rows with equal answers not at all."""
    generator = torch.Generator().manual_seed(0)
    outputs, theirs = torch.randn(2, 6, 3, generator=generator)
    theirs[:2] = outputs[:2] + 5  # a constant is no other answer
    weight = torch.tensor([9.0, 9.0, 0.0, 1.0, 2.0, 3.0])
    batch = {"soft_target": theirs, "soft_target_weight": weight, "weight": torch.full((6,), torch.nan)}
    temperature, alpha = 3.0, 0.3
    log_ours, log_theirs = (functional.log_softmax(x / temperature, 1) for x in (outputs, theirs))
    per_row = functional.kl_div(log_ours, log_theirs, reduction="none", log_target=True).sum(1)
    expected = 0.7 * 2.5 + 0.3 * temperature**2 * (per_row * weight).sum() / 6
    seen = (outputs, "what reaches the head") if has_taps else outputs
    mixed = SoftTargets(alpha, temperature).mix(torch.tensor(2.5), seen, batch)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(SoftTargets(0.0, 1.0).mix(torch.tensor(2.5), seen, batch), torch.tensor(2.5))
    assert SoftTargets(1.0, 1.0).mix(torch.tensor(torch.inf), seen, batch).isfinite()  # 0 * inf would be no number
