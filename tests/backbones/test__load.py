"""Whatever names a network is loaded as asked, once, without touching anything else."""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sktl.backbones import Preprocessing, _load, load_backbone
from sktl.backbones._load import _MEMO_SIZE
from sktl.exceptions import BackboneError, WeightsMismatchError

SMALL = {"resize_size": 64, "crop_size": 64}
NET = "shufflenet_v2_x0_5"


class OwnNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu, self.fc = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        return self.fc(self.relu(self.bn(self.conv(x))).mean((2, 3)))


def test_random_weights_follow_random_state():
    """The same seed gives the same weights, another seed or a drawn one gives others."""
    load = lambda random_state: load_backbone(NET, weights=None, random_state=random_state).fingerprint("fc")  # noqa: E731
    assert load(0) == load(0) == load(np.random.RandomState(0)) != load(1)
    assert load(np.random.RandomState(0)) != load(None)


@pytest.mark.parametrize("weights", [None, "default"])
def test_global_generators_are_not_touched(weights):
    """Neither torch's nor NumPy's global state moves, whatever is drawn while a network is built."""
    numpy_generator = np.random.mtrand._rand
    torch_state, numpy_state = torch.get_rng_state(), numpy_generator.get_state()[1].copy()
    load_backbone("sktl_mini", weights=weights, in_channels=1, preprocessing={"resize_size": 70}, random_state=5)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(numpy_generator.get_state()[1], numpy_state)


def test_the_packaged_weights():
    """The default of the default backbone needs no network, and is float32, frozen and in eval mode."""
    backbone = load_backbone("sktl_mini")
    assert backbone.name == "sktl_mini"
    assert {p.dtype for p in backbone.module.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in backbone.module.parameters())
    assert not any(m.training for m in backbone.module.modules())
    assert load_backbone("sktl_mini", weights="SKTL_V1") is backbone


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file(tmp_path, suffix):
    """A state dict in half precision is the network's, and the network does not need the file any more."""
    state = load_backbone(NET, weights=None, random_state=3).module.state_dict()
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    path = tmp_path / f"weights{suffix}"
    save_file(half, path) if suffix == ".safetensors" else torch.save(half, path)
    backbone = load_backbone(NET, weights=path)
    pickled = pickle.dumps(backbone)
    path.unlink()
    for found in (backbone, pickle.loads(pickled)):
        assert all(torch.equal(t, half[name].to(t.dtype)) for name, t in found.module.state_dict().items())


def test_a_file_that_changed_is_read_again(tmp_path):
    """The memo knows a file by its time and size, not by its name alone."""
    path = tmp_path / "weights.pt"
    for seed in (1, 2):
        expected = load_backbone(NET, weights=None, random_state=seed)
        torch.save(expected.module.state_dict(), path)
        os.utime(path, ns=(seed, seed))
        assert load_backbone(NET, weights=path).fingerprint("fc") == expected.fingerprint("fc")
        assert load_backbone(NET, weights=str(path)) is load_backbone(NET, weights=path)


def test_a_file_that_is_written_while_it_is_read_is_not_remembered(tmp_path, monkeypatch):
    """Whatever was read of it, the next call reads it again; one that stays is remembered, for gray images too."""
    path = tmp_path / "weights.pt"
    states = [load_backbone("sktl_mini", weights=None, random_state=seed).module.state_dict() for seed in (5, 6)]
    torch.save(states[0], path)
    read = _load._weights_files.read_state_dict

    def read_late(path):
        torch.save(states[1], path)
        return {name: tensor.clone() for name, tensor in states[0].items()}

    monkeypatch.setattr(_load._weights_files, "read_state_dict", read_late)
    load_backbone("sktl_mini", weights=path)
    monkeypatch.setattr(_load._weights_files, "read_state_dict", read)
    assert torch.equal(load_backbone("sktl_mini", weights=path).module.fc.bias, states[1]["fc.bias"])
    gray = load_backbone("sktl_mini", weights=path, in_channels=1)
    assert load_backbone("sktl_mini", weights=path, in_channels=1) is gray


def test_a_file_that_is_removed_while_it_is_read(tmp_path, monkeypatch):
    """What was read is loaded, and not remembered."""
    path = tmp_path / "weights.pt"
    state = load_backbone("sktl_mini", weights=None, random_state=5).module.state_dict()
    torch.save(state, path)
    read = _load._weights_files.read_state_dict

    def read_and_remove(path):
        found = read(path)
        path.unlink()
        return found

    monkeypatch.setattr(_load._weights_files, "read_state_dict", read_and_remove)
    assert torch.equal(load_backbone("sktl_mini", weights=path).module.fc.bias, state["fc.bias"])
    with pytest.raises(FileNotFoundError, match=r"weights='.*': the file does not exist\."):
        load_backbone("sktl_mini", weights=path)


def test_a_file_of_the_same_size_and_time_is_another_one(tmp_path):
    """What copies files may set their times: the content decides."""
    path, other = tmp_path / "weights.safetensors", {}
    for seed in (3, 4):
        other[seed] = load_backbone("sktl_mini", weights=None, random_state=seed)
        save_file(other[seed].module.state_dict(), path)
        os.utime(path, (10**9, 10**9))
        loaded = load_backbone("sktl_mini", weights=path)
        assert loaded.fingerprint("layer4") == other[seed].fingerprint("layer4")
    copied = path.with_name("copy.safetensors")
    copied.write_bytes(path.read_bytes())
    assert load_backbone("sktl_mini", weights=copied).fingerprint("layer4") == loaded.fingerprint("layer4")


def test_a_file_for_another_network(tmp_path):
    """The error names the file, the network, and what does not fit."""
    torch.save(load_backbone("sktl_mini").module.state_dict(), tmp_path / "mini.pt")
    with pytest.raises(
        WeightsMismatchError, match=r"mini\.pt' do not match the network ShuffleNetV2: .* missing \(.*unexpected \("
    ):
        load_backbone(NET, weights=tmp_path / "mini.pt")


def test_a_file_with_another_head(tmp_path):
    """Weights fine-tuned for five classes make a backbone: its stages are the same, its head is theirs."""
    module = copy.deepcopy(load_backbone(NET, weights=None, random_state=1).module)
    module.fc = nn.Linear(1024, 5)
    torch.save(module.state_dict(), tmp_path / "five.pt")
    backbone = load_backbone(NET, weights=tmp_path / "five.pt")
    assert backbone.output_shape("fc") == (5,)
    assert backbone.fingerprint("conv5") == load_backbone(NET, weights=None, random_state=1).fingerprint("conv5")


def test_the_same_object_for_the_same_request():
    """Loaded again with the same settings it is the same object, with others another one."""
    settings = {"weights": None, "preprocessing": SMALL, "random_state": 7}
    backbone = load_backbone(NET, **settings)
    assert load_backbone(NET, **settings) is backbone
    assert load_backbone(NET, **{**settings, "preprocessing": Preprocessing(**SMALL)}) is backbone
    for other in (
        {"in_channels": 1},
        {"random_state": 8},
        {"preprocessing": {"crop_size": 64}},
        {"random_state": None},
    ):
        assert load_backbone(NET, **{**settings, **other}) is not backbone


def test_few_objects_are_kept():
    """The memo holds the four most recently used networks, and lets go of the others."""

    def load(seed):
        return load_backbone("sktl_mini", weights=None, random_state=seed)

    first, second, *_ = [load(seed) for seed in range(_MEMO_SIZE)]
    assert load(0) is first
    load(_MEMO_SIZE)
    assert load(0) is first, "it was used since"
    assert load(1) is not second, "it was used longest ago"


def test_an_own_network_is_copied():
    """It keeps its mode, its gradients and its in-place layers; the copy is in eval mode and has weights of its own."""
    module = OwnNetwork().train()
    backbone = load_backbone(module, preprocessing=SMALL)
    assert backbone.name == "OwnNetwork"
    assert module.training
    assert module.relu.inplace
    assert all(p.requires_grad for p in module.parameters())
    assert backbone.module.conv.weight.data_ptr() != module.conv.weight.data_ptr()
    before = backbone.fingerprint("fc")
    nn.init.zeros_(module.conv.weight)
    assert backbone.fingerprint("fc") == before
    assert backbone.preprocessing == Preprocessing(**SMALL)
    assert load_backbone(OwnNetwork()).preprocessing == Preprocessing()


def test_hooks_stay_behind():
    """A hook that looks at the user's network neither sees our images nor prevents pickling."""
    module, seen = OwnNetwork(), []
    module.relu.register_forward_hook(lambda *args: seen.append(args))
    module.register_forward_pre_hook(lambda *args: seen.append(args))
    backbone = load_backbone(module, preprocessing=SMALL)
    backbone.feature_graph("relu")(torch.zeros(1, 3, 64, 64))
    assert seen == []
    assert pickle.loads(pickle.dumps(backbone)).fingerprint("fc") == backbone.fingerprint("fc")
    module(torch.zeros(1, 3, 8, 8))
    assert len(seen) == 2, "the user's own network still has them"


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_parametrised_weights(wrap):
    """Weights that are computed from others (spectral norm, weight norm) are computed in the copy too."""
    module = OwnNetwork()
    wrap(module.conv)
    module.eval()
    pictures = torch.randn(1, 3, 64, 64)
    (found,) = load_backbone(module, preprocessing=SMALL).feature_graph("fc")(pictures)
    torch.testing.assert_close(found, module(pictures))


def test_a_backbone_is_returned_as_it_is():
    """What is loaded already is not loaded again."""
    backbone = load_backbone("sktl_mini", in_channels=1)
    same = {"weights": None, "in_channels": 1, "preprocessing": {"crop_size": backbone.preprocessing.crop_size}}
    assert load_backbone(backbone, in_channels=1) is load_backbone(backbone, **same) is backbone


@pytest.mark.parametrize("other", [{"weights": "weights.pt"}, {"in_channels": 1}, {"preprocessing": {"crop_size": 17}}])
def test_a_backbone_is_not_another(other):
    """Settings that a loaded network does not have are refused, not passed over."""
    with pytest.raises(BackboneError, match=rf"^{next(iter(other))}=.* the given network"):
        load_backbone(load_backbone("sktl_mini"), **other)


def test_an_own_network_with_a_file(tmp_path):
    """The file's weights are in the copy, and the network given keeps its own."""
    module, other = OwnNetwork(), OwnNetwork()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    backbone = load_backbone(module, weights=tmp_path / "other.pt", preprocessing=SMALL)
    assert torch.equal(backbone.module.conv.weight, other.conv.weight)
    assert not torch.equal(module.conv.weight, other.conv.weight)
    assert not any(m.training for m in backbone.module.modules())
    for weights in ("default", None):
        backbone = load_backbone(module, weights=weights, preprocessing=SMALL)
        assert torch.equal(backbone.module.conv.weight, module.conv.weight)


def test_an_own_network_with_a_wrong_file(tmp_path):
    """A file that is not there, one for another network, and a published name are refused."""
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsMismatchError, match=r"other\.pt' do not match the network OwnNetwork"):
        load_backbone(OwnNetwork(), weights=tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        load_backbone(OwnNetwork(), weights="missing.pt")
    with pytest.raises(BackboneError, match=r"'IMAGENET1K_V1' is unknown for backbone='OwnNetwork'\. Use 'default' or"):
        load_backbone(OwnNetwork(), weights="IMAGENET1K_V1")


def test_half_precision_becomes_single():
    """A network of the user's in half precision or double is float32 afterwards."""
    for module in (OwnNetwork().half(), OwnNetwork().double()):
        assert {p.dtype for p in load_backbone(module).module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"backbone": "resnet8"}, r"backbone='resnet8' is unknown\. Did you mean 'resnet18'"),
        ({"backbone": "zzz"}, r"backbone='zzz' is unknown\. Use a name listed by sktl\.backbones\.list_backbones\(\)"),
        ({"backbone": 3}, r"backbone=3 is of type int"),
        ({"backbone": nn.Conv2d}, r"is of type type\..* instead of the class: Conv2d\("),
        ({"backbone": NET, "weights": "IMAGENET1K_V9"}, r"weights='IMAGENET1K_V9' is unknown .*\['IMAGENET1K_V1'\]"),
        ({"backbone": NET, "weights": None, "preprocessing": {"size": 3}}, r"preprocessing=\{'size': 3\}"),
        (
            {"backbone": "mnasnet0_5", "weights": "nowhere/weights.npz"},
            r"or the path of a weights file \(\.safetensors",
        ),
    ],
)
def test_requests_that_are_not_understood(request_, message):
    """The message restates the parameter, what came, and the way out."""
    with pytest.raises(BackboneError, match=message):
        load_backbone(request_.pop("backbone"), **request_)


def test_a_picture_too_small_for_the_network():
    """The message says that the size comes from the preprocessing."""
    backbone = load_backbone("alexnet", weights=None, preprocessing={"crop_size": 16}, random_state=0)
    with pytest.raises(BackboneError, match=r"'alexnet' cannot process images .*\(3, 16, 16\).*crop_size"):
        _ = backbone.stages


def test_random_weights_are_those_of_their_seed_in_threads_too():
    """torch has one generator per process; networks that are built at the same time do not share its numbers."""

    def stem(seed):
        _load._MEMO.clear()
        return load_backbone("resnet18", weights=None, random_state=seed).module.conv1.weight

    before = torch.get_rng_state()
    expected = [stem(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(stem, range(4)))
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_default_dtype_changes_no_network():
    """Random weights are float32 whatever torch's default is, as the pictures are."""
    torch.set_default_dtype(torch.float64)
    try:
        backbone = load_backbone("sktl_mini", weights=None, random_state=123)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in backbone.module.parameters()} == {torch.float32}


class Views(nn.Module):
    """Changes a part of a tensor, or all of it, through a view."""

    def __init__(self, change):
        super().__init__()
        self.conv, self.fc, self.change = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), change

    def forward(self, x):
        x = self.conv(x)
        self.change(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.view(x.size(0), -1).mul_(2),
        lambda x: x.chunk(2, 1)[0].mul_(3),
        lambda x: x[:, :2].mul_(3),
        lambda x: torch.clamp(x[:, :2], 0, 1, out=x[:, :2]),
        lambda x: nn.functional.relu(x[:, 1:], inplace=True),
    ],
)
def test_a_change_through_a_view_is_refused(change):
    """A graph would lose it, so that features and trained rests would be another network's."""
    with pytest.raises(
        BackboneError, match=r"'Views' and its traced graph give different outputs.*in-place operations on views"
    ):
        load_backbone(Views(change), preprocessing=SMALL)


@pytest.mark.parametrize("change", [lambda x: x.mul_(2), lambda x: torch.clamp(x, 0, 1, out=x)])
def test_a_change_of_the_tensor_itself_is_kept(change):
    """In-place operations on a tensor that is no view, and results written over it, are understood."""
    backbone = load_backbone(Views(change), preprocessing=SMALL)
    picture = torch.randn(2, 3, 64, 64)
    expected = backbone.module.conv(picture)
    prefix, rest = backbone.cut(1)
    torch.testing.assert_close(rest(prefix(picture)), backbone.module(picture))
    found, _ = backbone.feature_graph(["conv", "fc"])(picture)
    torch.testing.assert_close(found, expected)
