"""The network's names in a checkpoint, behind those of training programs."""

import pytest
import torch
from torch import nn

from sktl.backbones import load_backbone
from sktl.backbones._checkpoint_names import named_as
from sktl.backbones._mini import sktl_mini
from sktl.exceptions import WeightsMismatchError

EXPECTED = list(sktl_mini().state_dict())


def prefixed(prefix, state=None):
    state = sktl_mini().state_dict() if state is None else state
    return {prefix + name: tensor for name, tensor in state.items()}


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "backbone.", "encoder."]


@pytest.mark.parametrize("prefix", [*PREFIXES, "model.backbone.", "module.encoder_q.", "student."])
def test_prefixes(prefix):
    """Whatever stands in front of all names is taken off, once or several times."""
    state = sktl_mini().state_dict()
    named = named_as(prefixed(prefix, state), EXPECTED, dict)
    assert list(named) == EXPECTED
    assert all(named[name] is state[name] for name in EXPECTED)


def test_other_parts_of_the_program():
    """Weights of a loss, the count of an average, and a moving average beside the network are left out."""
    state, average = sktl_mini().state_dict(), sktl_mini().state_dict()
    content = {
        **prefixed("ema.module.", average),
        **prefixed("model.", state),
        "criterion.weight": torch.ones(3),
        "n_averaged": torch.tensor(5),
    }
    named = named_as(content, EXPECTED, dict)
    assert named["stem.0.weight"] is state["stem.0.weight"]
    assert list(named) == EXPECTED
    averaged = {"n_averaged": torch.tensor(5), **prefixed("module.", average)}
    assert list(named_as(averaged, EXPECTED, dict)) == EXPECTED


@pytest.mark.parametrize("prefixes", [("a.model.", "b.model."), ("teacher.", "student."), ("ema_1.", "ema_2.")])
def test_several_networks_of_the_same_names(prefixes):
    """None of them is taken for the others, whatever their order, unless they are the same."""
    state = sktl_mini().state_dict()
    other = {name: tensor + 1 for name, tensor in state.items()}
    with pytest.raises(
        WeightsMismatchError, match=rf"(?s)^weights='file'.*the prefixes '{prefixes[0]}', '{prefixes[1]}'.*only one"
    ):
        named_as({**prefixed(prefixes[0], other), **prefixed(prefixes[1], state)}, EXPECTED, dict, origin="file")
    again = {name: tensor.clone() for name, tensor in state.items()}
    same = {**prefixed(prefixes[0], again), **prefixed(prefixes[1], state)}
    assert list(named_as(same, EXPECTED, dict)) == EXPECTED


def test_the_average_of_momentum_contrast_comes_last():
    """What was trained is meant, in whatever order the two are in the file."""
    state = sktl_mini().state_dict()
    average = {name: tensor + 1 for name, tensor in state.items()}
    named = named_as({**prefixed("module.encoder_k.", average), **prefixed("module.encoder_q.", state)}, EXPECTED, dict)
    assert named["stem.0.weight"] is state["stem.0.weight"]


def test_layers_that_are_wrapped_one_by_one():
    """torch.compile and FSDP put their names into the middle too."""
    content = {name.replace("layer2.", "layer2._orig_mod."): value for name, value in prefixed("net.").items()}
    assert list(named_as(content, EXPECTED, dict)) == EXPECTED


def test_names_of_old_files_are_adjusted():
    """Behind the prefix, where the patterns begin."""
    content = prefixed("module.old.", {"0.weight": torch.ones(1)})
    adjust = lambda state: {name.removeprefix("old."): tensor for name, tensor in state.items()}  # noqa: E731
    assert list(named_as(content, ["0.weight"], adjust)) == ["0.weight"]


@pytest.mark.parametrize("prefix", ["module.", "backbone."])
def test_a_network_from_a_checkpoint(tmp_path, prefix):
    """By its name, and as a network of one's own, whose names may begin with such words themselves."""
    state = load_backbone("sktl_mini", weights=None, random_state=1).module.state_dict()
    expected = load_backbone("sktl_mini", weights=None, random_state=1).fingerprint("layer4")
    torch.save({"state_dict": prefixed(prefix, state), "epoch": 3}, tmp_path / "last.ckpt")
    assert load_backbone("sktl_mini", weights=tmp_path / "last.ckpt").fingerprint("layer4") == expected
    own = load_backbone(sktl_mini(), weights=tmp_path / "last.ckpt")
    assert torch.equal(own.module.fc.weight, state["fc.weight"])

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = sktl_mini()

        def forward(self, x):
            return self.backbone(x)

    torch.save(prefixed("model.backbone.", state), tmp_path / "last.bin")
    own = load_backbone(Wrapped(), weights=tmp_path / "last.bin")
    assert torch.equal(own.module.backbone.fc.weight, state["fc.weight"])


def test_a_vision_transformer_has_a_prefix_of_its_own(tmp_path):
    """Its names begin with "encoder.", and its image size is read behind the prefix."""
    state = load_backbone("vit_b_32", weights=None, random_state=0, preprocessing={"crop_size": 64, "resize_size": 64})
    torch.save(prefixed("module.", state.module.state_dict()), tmp_path / "vit.pth.tar")
    loaded = load_backbone(
        "vit_b_32", weights=tmp_path / "vit.pth.tar", preprocessing={"crop_size": 64, "resize_size": 64}
    )
    assert torch.equal(loaded.module.conv_proj.weight, state.module.conv_proj.weight)


def test_what_does_not_match_is_said(tmp_path):
    """Of the part that matches best, behind its prefix."""
    state = sktl_mini().state_dict()
    state["layer1.conv9.weight"] = state.pop("layer1.conv1.weight")
    torch.save(prefixed("module.", state), tmp_path / "odd.pt")
    with pytest.raises(
        WeightsMismatchError, match=r"1 missing \(layer1\.conv1.*1 unexpected \(layer1\.conv9\.weight\)"
    ):
        load_backbone("sktl_mini", weights=tmp_path / "odd.pt")
