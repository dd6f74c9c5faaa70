"""Weights files are read without running code, and fit or say why not."""

import pickle

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from sktl.backbones import _weights, load_backbone
from sktl.backbones._weights_files import as_state_dict
from sktl.exceptions import WeightsDownloadError, WeightsMismatchError


def network(n_classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, n_classes))


def test_load():
    """Every tensor of the file is in the network afterwards."""
    state = network().state_dict()
    module = network()
    _weights.load_state_dict(module, as_state_dict(state, origin="file"), origin="file")
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_a_head_of_another_size():
    """A file for five classes gives a network for five classes."""
    module, state = network(), network(5).state_dict()
    _weights.load_state_dict(module, state, origin="file")
    assert module[3].out_features == 5
    assert torch.equal(module[3].weight, state["3.weight"])


def test_a_head_that_is_a_convolution():
    """The same where the classifier is a convolution, as in SqueezeNet."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1))
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)).state_dict()
    _weights.load_state_dict(module, state, origin="file")
    assert module[1].out_channels == 5


def test_a_file_without_a_head():
    """Nothing is invented where the file has no head: the network ends in front of it."""
    module = network()
    state = {name: tensor for name, tensor in network().state_dict().items() if not name.startswith("3.")}
    _weights.load_state_dict(module, state, origin="file")
    assert isinstance(module[3], nn.Identity)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing \(0\.weight\)"),
        (lambda state: state.update({f"extra{i}": torch.zeros(1) for i in range(5)}), r"5 unexpected .*extra2; …\)"),
        (
            lambda state: state.update({"1.bias": torch.zeros(7)}),
            r"1 with another shape \(1\.bias is \(7,\), not \(4,\)\)",
        ),
        (
            lambda state: state.update({"0.weight": state["0.weight"].long()}),
            r"1 with another dtype \(0\.weight is int64, not float32\)",
        ),
        (lambda state: state.update({"3.bias": state["3.bias"] > 0}), r"3\.bias is bool, not float32"),
        (lambda state: state.update({"3.weight": torch.zeros(3, 9)}), r"3\.weight is \(3, 9\), not \(3, 4\)"),
    ],
)
def test_a_file_of_another_network(change, message):
    """The error lists what is missing, what is too much and what has another shape, a few of each."""
    state = network().state_dict()
    change(state)
    with pytest.raises(WeightsMismatchError, match=message):
        _weights.load_state_dict(network(), state, origin="file")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("0.weight", float("nan"), "has NaN or infinite values"),
        ("1.running_mean", float("inf"), "has NaN or infinite values"),
        ("3.bias", -float("inf"), "has NaN or infinite values"),
        ("0.bias", 1e38, r"has values from .* to 1e\+38"),
        ("1.running_var", -1.0, "has values from -1 to"),
    ],
)
def test_numbers_that_give_none(tmp_path, name, value, found):
    """One NaN, infinity or monstrous number is found before anything is computed, in a file and in a network given."""
    module = network()
    module.state_dict()[name].view(-1)[0] = value
    with pytest.raises(WeightsMismatchError, match=rf"^weights='file': the tensor '{name}' {found}"):
        _weights.load_state_dict(network(), module.state_dict(), origin="file")
    with pytest.raises(WeightsMismatchError, match=rf"^backbone=Sequential\(\.\.\.\): the tensor '{name}' {found}"):
        load_backbone(module)


def test_a_mask_may_hold_infinity():
    """A buffer that is no statistic is the network's own affair."""
    module = network()
    module.register_buffer("mask", torch.full((2,), -float("inf")))
    _weights.load_state_dict(module, {**network().state_dict(), "mask": module.mask}, origin="file")


def test_a_counter_of_another_time():
    """BatchNorm's counter, absent in old files and of shape (1,) in others, is no reason to refuse a file."""
    state = network().state_dict()
    state["1.num_batches_tracked"] = torch.ones(1, dtype=torch.int64)
    module = network()
    _weights.load_state_dict(module, state, origin="file")
    assert module[1].num_batches_tracked.shape == ()
    del state["1.num_batches_tracked"]
    _weights.load_state_dict(network(), state, origin="file")


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK" + bytes(1000)])
def test_a_broken_file_in_the_cache(tmp_path, monkeypatch, content):
    """A download that was cut short is named as the file to delete, and nobody is told to let a file run code."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(
        WeightsDownloadError, match=r"f37072fd\.pth', which is corrupt \(\w+\)\. Delete the file"
    ) as raised:
        load_backbone("resnet18")
    assert str(path) in str(raised.value)
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("error", [pickle.UnpicklingError("use weights_only=False"), SafetensorError("header")])
def test_a_broken_file_elsewhere(error):
    """So it is where the file is in a cache of somebody else's, whose place is not known."""

    def download():
        raise error

    with pytest.raises(WeightsDownloadError, match=r"downloaded from https://host/x \(") as raised:
        _weights.fetch(download, backbone="timm:x", weights="DEFAULT", url="https://host/x")
    assert "weights_only" not in str(raised.value)
