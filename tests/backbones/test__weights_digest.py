"""Weights that are known again by their values."""

import torch

from sktl.backbones import load_backbone
from sktl.backbones._backbone import up_to
from sktl.backbones._mini import sktl_mini
from sktl.backbones._weights_digest import weights_digest


def test_equal_weights_have_equal_digests(tmp_path):
    """By name, from a file, without a head, in a network of one's own, and for gray images."""
    mini = load_backbone("sktl_mini")
    torch.save(mini.module.state_dict(), tmp_path / "copy.pt")
    module = sktl_mini()
    module.load_state_dict(mini.module.state_dict())
    others = [
        load_backbone("sktl_mini", weights=tmp_path / "copy.pt"),
        mini.body,
        load_backbone(module, preprocessing=mini.preprocessing),
        load_backbone("sktl_mini", in_channels=1),
    ]
    assert {weights_digest(other) for other in others} == {weights_digest(mini)}


def test_other_weights_have_other_digests():
    """One number of a kernel or of a norm's statistics, a stage less, other channels, random weights."""
    mini = load_backbone("sktl_mini")
    state = mini.module.state_dict()
    others = [
        mini.with_weights({name: state[name] + torch.eye(1, state[name].numel()).reshape(state[name].shape)})
        for name in ("stem.0.weight", "layer4.bn2.running_mean", "layer4.bn2.running_var")
    ]
    others += [up_to(mini, 4), load_backbone("sktl_mini", in_channels=4)]
    others += [load_backbone("sktl_mini", weights=None, random_state=0)]
    assert len({weights_digest(other) for other in [mini, *others]}) == 7
