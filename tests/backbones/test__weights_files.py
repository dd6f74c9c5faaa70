"""Weights files are read without running code, whatever is in them, and what is wrong with one is said."""

import argparse
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sktl.backbones import _weights_files, load_backbone
from sktl.exceptions import BackboneError, WeightsMismatchError


def network(n_classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, n_classes))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".PT"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_read_state_dict(tmp_path, suffix, dtype):
    """All kinds of files give the same tensors, as float32, and integers as they are."""
    expected = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(expected, path) if suffix == ".safetensors" else torch.save(expected, path)
    state = _weights_files.read_state_dict(path)
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype == (torch.float32 if expected[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    """The tensors are no windows into the file: writing zeros over it leaves them alone."""
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    state = _weights_files.read_state_dict(path)
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
    with pytest.raises(WeightsMismatchError, match="not loaded because it could run code"):
        _weights_files.read_state_dict(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(malicious))
    assert victim.exists(), "the pickle is a dangerous one"


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_a_training_program_keeps_beside_the_weights(tmp_path, is_zip):
    """The error names the class that is not read, and the way out."""
    path = tmp_path / "epoch.ckpt"
    content = {"state_dict": network().state_dict(), "hyper_parameters": argparse.Namespace(lr=0.1)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsMismatchError, match=r"it contains argparse\.Namespace, .*Save only the weights"):
        _weights_files.read_state_dict(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", bytes(1000)])
def test_broken_files(tmp_path, suffix, content):
    """A file that is empty, or text, or zeros, is refused with the way to save one."""
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        _weights_files.read_state_dict(path)


def test_a_truncated_file(tmp_path):
    """The first half of a file is refused."""
    path = tmp_path / "weights.safetensors"
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsMismatchError):
        _weights_files.read_state_dict(path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(1)])
def test_something_else_than_a_state_dict(tmp_path, content):
    """A file of harmless contents that map no names to tensors is refused."""
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(WeightsMismatchError, match="must contain a state dict"):
        _weights_files.read_state_dict(path)


def test_as_weights_path(tmp_path):
    """A word that is no path is an unknown name, and the message lists the known; a path has to be there."""
    (tmp_path / "weights.pt").touch()
    known = {"backbone": "resnet18", "choices": "'V1' or 'V2'"}
    assert _weights_files.as_weights_path(str(tmp_path / "weights.pt"), **known) == tmp_path / "weights.pt"
    with pytest.raises(BackboneError, match=r"weights='V3' is unknown.*Use 'V1' or 'V2', or the path"):
        _weights_files.as_weights_path("V3", **known)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        _weights_files.as_weights_path(tmp_path / "missing.pt", **known)


PATHS = {
    "too long": ("x" * 100_000 + ".pt", "cannot be opened"),
    "NUL": ("a\0b.pt", "cannot be opened"),
    "folder": ("folder.pt", "is a directory"),
    "pipe": ("pipe.pt", "is not a regular file, but a pipe"),
    "no home": ("~nobody-of-this-name/a.pt", "weights="),
}


@pytest.mark.parametrize("kind", PATHS)
def test_paths_of_other_things(tmp_path, monkeypatch, kind):
    """What is not a file, or no path, is an error that begins with it; nothing waits for a pipe."""
    path, message = PATHS[kind]
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMismatchError, match=message) as raised:
        load_backbone("sktl_mini", weights=path)
    assert str(raised.value).startswith("weights='")
    assert len(str(raised.value)) <= 600


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, suffix):
    """It is named, with what the system says, and not called missing."""
    path = tmp_path / f"weights{suffix}"
    save_file({"a": torch.ones(1)}, path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for read in (_weights_files.read_state_dict, _weights_files.file_digest):
        with pytest.raises(WeightsMismatchError, match=rf"weights{suffix}' cannot be read \(Permission denied\)"):
            read(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.filterwarnings("default")  # torch says of damaged pickles what it does not know
def test_damaged_files(tmp_path, kind):
    """Cut anywhere, or with bits changed, a file is read or refused by name; no other error ever comes."""
    state, path = network().state_dict(), tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole, chance = path.read_bytes(), random.Random(0)
    messages = []
    for trial in range(150):
        damaged = bytearray(whole)
        if trial % 2:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            for _ in range(chance.choice([1, 3, 10])):
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            _weights_files.read_state_dict(path)
        except WeightsMismatchError as error:
            messages.append(str(error))
    assert len(messages) >= 75  # each that was cut
    assert [message for message in messages if str(path) not in message or "weights_only" in message] == []


def test_what_would_fill_the_memory(tmp_path):
    """A small archive of many zeros, a view that repeats a number, a header that promises more than there is."""
    path, bomb = tmp_path / "weights.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(25_000_000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for entry in archive.infolist():
            packed.writestr(entry.filename, archive.read(entry))
    with pytest.raises(WeightsMismatchError, match=r"bomb\.pt' declares 100,0.* bytes of content, but the file has"):
        _weights_files.read_state_dict(bomb)
    torch.save({"many": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(WeightsMismatchError, match=r"the tensor 'many' is .*a view that repeats"):
        _weights_files.read_state_dict(path)
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(10)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsMismatchError, match=r"declares .* It is truncated"):
        _weights_files.read_state_dict(path)


def test_tensors_that_are_no_tables(tmp_path):
    """Complex ones, and ones without numbers, are named."""
    for tensor in (torch.zeros(3, dtype=torch.complex64), torch.empty(2, device="meta")):
        torch.save({"fine": torch.ones(1), "odd": tensor}, tmp_path / "weights.pt")
        with pytest.raises(WeightsMismatchError, match="the tensor 'odd' is sparse"):
            _weights_files.read_state_dict(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model_state_dict": state, "loss": 0.5},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"epoch": 1, "state_dict_ema": state},
        lambda state: {"model_ema": {name: tensor + 1 for name, tensor in state.items()}, "model": state},
    ],
)
def test_checkpoints_are_unwrapped(wrap):
    """What training programs put around a state dict is taken off; of two the one that was trained counts."""
    state = network().state_dict()
    found = _weights_files.as_state_dict(wrap(state), origin="file")
    assert found.keys() == state.keys()
    assert torch.equal(found["0.weight"], state["0.weight"])


def test_the_content_of_a_file_decides(tmp_path):
    """Neither its size nor the times that a program can set: what was written again is another file."""
    path = tmp_path / "weights.safetensors"
    digests = set()
    for value in (1.0, 2.0):
        save_file({"a": torch.full((3,), value)}, path)
        os.utime(path, (10**9, 10**9))
        digests |= {_weights_files.file_digest(path), _weights_files.file_digest(path)}
    assert len(digests) == 2
    copy = tmp_path / "copy.pt"
    copy.write_bytes(path.read_bytes())
    assert _weights_files.file_digest(copy) in digests


def test_a_file_that_stays_is_read_once(tmp_path, monkeypatch):
    """What was written long ago has its digest by its identity; what was written just now may still change."""
    path = tmp_path / "weights.pt"
    path.write_bytes(b"content")
    read = []
    digest = _weights_files._digest
    monkeypatch.setattr(_weights_files, "_digest", lambda file: read.append(1) or digest(file))
    _weights_files.file_digest(path), _weights_files.file_digest(path)
    assert len(read) == 2
    monkeypatch.setattr(_weights_files.time, "time", lambda: path.stat().st_ctime + 10)
    _weights_files.file_digest(path), _weights_files.file_digest(path)
    assert len(read) == 3
