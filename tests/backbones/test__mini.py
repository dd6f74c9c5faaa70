"""sktl_mini's weights are small and sound, fit their network and serve linear models better than pixels."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktl.backbones._mini import MINI_PREPROCESSING, sktl_mini

WEIGHTS = Path(str(files("sktl.backbones") / "sktl_mini.safetensors"))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    module = sktl_mini()
    module.load_state_dict(load_file(WEIGHTS))
    return module.eval()


@torch.inference_mode()
def last_stage(network: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """The averaged last stage of grey uint8 pictures of any size, resized as MINI_PREPROCESSING says."""
    side = (MINI_PREPROCESSING.crop_size,) * 2
    resized = np.stack([np.asarray(Image.fromarray(p).resize(side, Image.Resampling.BILINEAR)) for p in pictures])
    x = (torch.from_numpy(resized).float()[:, None] / 255).expand(-1, 3, -1, -1)
    x = (x - torch.tensor(MINI_PREPROCESSING.mean).view(3, 1, 1)) / torch.tensor(MINI_PREPROCESSING.std).view(3, 1, 1)
    for stage in (network.stem, network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
    return x.mean((2, 3)).numpy()


def test_weights_are_small_half_precision_and_finite():
    assert WEIGHTS.stat().st_size <= 4_000_000
    state = load_file(WEIGHTS)
    assert {v.dtype for v in state.values()} == {torch.float16, torch.int64}
    assert all(v.isfinite().all() for v in state.values())


def test_network_has_a_resnets_children_and_is_traceable():
    names = [name for name, _ in sktl_mini().named_children()]
    assert names == ["stem", "layer1", "layer2", "layer3", "layer4", "avgpool", "flatten", "fc"]
    torch.fx.symbolic_trace(sktl_mini()).graph.lint()


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (1, 3), (75, 130)])
def test_any_picture_size_gives_finite_output(network, size):
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        out = network(torch.randn(2, 3, *size, generator=generator))
    assert out.shape == (2, 256)
    assert out.isfinite().all()


def test_features_of_two_pictures_differ(network):
    features = last_stage(network, (load_digits().images[:2] * 255 / 16).astype(np.uint8))
    assert np.abs(features[0] - features[1]).max() > 0.1


def test_most_features_are_alive(network):
    features = last_stage(network, (load_digits().images[:200] * 255 / 16).astype(np.uint8))
    assert (features.std(0) > 1e-3).mean() > 0.9


def test_linear_probe_on_digits_beats_pixels_and_random_weights(network):
    digits, labels = load_digits(return_X_y=True)
    digits, labels = digits[:1000], labels[:1000]
    pictures = (digits * 255 / 16).round().astype(np.uint8).reshape(-1, 8, 8)
    torch.manual_seed(0)
    tables = {
        "pixels": digits,
        "random": last_stage(sktl_mini().eval(), pictures),
        "sktl_mini": last_stage(network, pictures),
    }
    scores = {}
    for name, table in tables.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        scores[name] = model.fit(table[:200], labels[:200]).score(table[200:], labels[200:])
    assert scores["sktl_mini"] > scores["pixels"]
    assert scores["sktl_mini"] > scores["random"]
