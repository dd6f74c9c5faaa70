"""Weights files are read without running code, and fit or say why not."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from sktl.backbones import _weights, load_backbone
from sktl.exceptions import BackboneError, WeightsDownloadError, WeightsMismatchError


def network(n_classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, n_classes))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_read_state_dict(tmp_path, suffix, dtype):
    """All kinds of files give the same tensors, as float32, and integers as they are."""
    expected = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(expected, path) if suffix == ".safetensors" else torch.save(expected, path)
    state = _weights.read_state_dict(path)
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype == (torch.float32 if expected[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    """The tensors are no windows into the file: writing zeros over it leaves them alone."""
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    state = _weights.read_state_dict(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(state["a"], torch.ones(1000))


@pytest.mark.parametrize("save", ["torch.save", "torch.save in a state dict", "legacy torch.save", "pickle"])
def test_a_malicious_pickle_does_nothing(tmp_path, save):
    """A pickle that would create a file is refused, and the file is not there; read by Python, it would be."""
    path, victim = tmp_path / "weights.pt", tmp_path / "created"
    malicious = Malicious(victim)
    if save == "pickle":
        path.write_bytes(pickle.dumps(malicious, protocol=2))
    elif save == "legacy torch.save":
        torch.save(malicious, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({**network().state_dict(), "more": malicious} if "dict" in save else malicious, path)
    with pytest.raises(WeightsMismatchError, match="would run code"):
        _weights.read_state_dict(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(malicious))
    assert victim.exists(), "the pickle is a dangerous one"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", bytes(1000)])
def test_broken_files(tmp_path, suffix, content):
    """A file that is empty, or text, or zeros, is refused with the way to save one."""
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        _weights.read_state_dict(path)


def test_a_truncated_file(tmp_path):
    """The first half of a file is refused."""
    path = tmp_path / "weights.safetensors"
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsMismatchError):
        _weights.read_state_dict(path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(1)])
def test_something_else_than_a_state_dict(tmp_path, content):
    """A file of harmless contents that map no names to tensors is refused."""
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(WeightsMismatchError, match="something else than a state dict"):
        _weights.read_state_dict(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_checkpoints_are_unwrapped(wrapper, prefix):
    """What training scripts put around a state dict, and DataParallel and torch.compile before names, is taken off."""
    inner = {prefix + name: tensor for name, tensor in network().state_dict().items()}
    state = _weights.as_state_dict({wrapper: inner, "epoch": 3}, origin="file")
    assert state.keys() == network().state_dict().keys()


def test_load():
    """Every tensor of the file is in the network afterwards."""
    state = network().state_dict()
    module = network()
    _weights.load_state_dict(module, _weights.as_state_dict(state, origin="file"), origin="file")
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
            r"1 of another shape \(1\.bias is \(7,\), not \(4,\)\)",
        ),
        (lambda state: state.update({"3.weight": torch.zeros(3, 9)}), r"3\.weight is \(3, 9\), not \(3, 4\)"),
    ],
)
def test_a_file_of_another_network(change, message):
    """The error lists what is missing, what is too much and what has another shape, a few of each."""
    state = network().state_dict()
    change(state)
    with pytest.raises(WeightsMismatchError, match=message):
        _weights.load_state_dict(network(), state, origin="file")


def test_a_counter_of_another_time():
    """BatchNorm's counter, absent in old files and of shape (1,) in others, is no reason to refuse a file."""
    state = network().state_dict()
    state["1.num_batches_tracked"] = torch.ones(1, dtype=torch.int64)
    module = network()
    _weights.load_state_dict(module, state, origin="file")
    assert module[1].num_batches_tracked.shape == ()
    del state["1.num_batches_tracked"]
    _weights.load_state_dict(network(), state, origin="file")


def test_as_weights_path(tmp_path):
    """A word that is no path is an unknown name, and the message lists the known; a path has to be there."""
    (tmp_path / "weights.pt").touch()
    known = {"backbone": "resnet18", "choices": "'V1' or 'V2'"}
    assert _weights.as_weights_path(str(tmp_path / "weights.pt"), **known) == tmp_path / "weights.pt"
    with pytest.raises(BackboneError, match=r"weights='V3' is unknown.*Use 'V1' or 'V2', or the path"):
        _weights.as_weights_path("V3", **known)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        _weights.as_weights_path(tmp_path / "missing.pt", **known)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK" + bytes(1000)])
def test_a_broken_file_in_the_cache(tmp_path, monkeypatch, content):
    """A download that was cut short is named as the file to delete, and nobody is told to let a file run code."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(WeightsDownloadError, match=r"f37072fd\.pth', which is broken \(\w+\)\. Delete it") as raised:
        load_backbone("resnet18")
    assert str(path) in str(raised.value)
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("error", [pickle.UnpicklingError("use weights_only=False"), SafetensorError("header")])
def test_a_broken_file_elsewhere(error):
    """So it is where the file is in a cache of somebody else's, whose place is not known."""

    def download():
        raise error

    with pytest.raises(WeightsDownloadError, match=r"had from https://host/x") as raised:
        _weights.fetch(download, backbone="timm:x", weights="DEFAULT", url="https://host/x")
    assert "weights_only" not in str(raised.value)
