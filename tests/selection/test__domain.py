"""How near pictures are to what a network knows: what is measured, on which pictures, and what is said of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._engine._domain import norm_shift
from sktl.exceptions import ImageError
from sktl.selection import DomainDistance, domain_distance


@pytest.fixture(scope="module")
def digits():
    """Forty digits as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:40] / 16, y[:40]


class WithHead(nn.Module):
    """A stage with a batch norm, and a head of two classes that is as sure as its bias says."""

    def __init__(self, bias):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(4, 2)
        nn.init.zeros_(self.fc.weight)
        self.fc.bias.data = torch.tensor([float(bias), 0.0])

    def forward(self, x):
        """Logits."""
        return self.fc(self.flat(self.pool(self.layer1(self.stem(x)))))


def extractor(network):
    return PretrainedFeatureExtractor(network, preprocessing={"resize_size": 16, "crop_size": 16})


def test_both_numbers(digits):
    """The distance is that of the batch norms on the pictures as the network sees them, the confidence its head's."""
    X, _ = digits
    torch.manual_seed(0)
    for bias in (0.0, 2.0):
        reader = extractor(WithHead(bias))
        found = domain_distance(X, reader)
        images = [Image.fromarray(np.repeat((x * 255).round().astype(np.uint8).reshape(8, 8, 1), 3, 2)) for x in X]
        pictures = np.stack([np.asarray(x.resize((16, 16), Image.Resampling.BILINEAR)) for x in images])
        expected = norm_shift(reader.fit(X).backbone_, pictures).distance
        assert found.distance == pytest.approx(expected, rel=0.02)
        assert found.confidence == pytest.approx(1 / (1 + np.exp(-bias)), rel=1e-5)
        assert found.n_pictures == 40


def test_what_is_not_there(digits):
    """Without batch norms there is no distance and no verdict, without a source head no confidence."""
    X, y = digits
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = domain_distance(X, extractor(plain))
    assert (found.distance, found.is_near) == (None, None)
    assert found.confidence is not None
    assert "unknown" in repr(found)
    fitted = FineTunedClassifier(max_epochs=0).fit(X, y)
    found = domain_distance(X, fitted)
    assert found.confidence is None
    assert found.distance is not None


def test_a_sample(digits):
    """As many pictures as asked for are looked at, the same for the same seed; all of them where there are fewer."""
    X, _ = digits
    first, second, other = (domain_distance(X, max_samples=8, random_state=seed) for seed in (0, 0, 1))
    assert first.n_pictures == 8
    assert first.distance == second.distance != other.distance
    assert domain_distance(X, max_samples=1000).n_pictures == 40


def test_near_and_far(shared_data):
    """Photos are near to what MobileNetV3 learnt from, sketches are not."""
    weights = shared_data / "mobilenet_v3_small_imagenet" / "model.safetensors"
    reader = PretrainedFeatureExtractor("mobilenet_v3_small", weights=weights)
    found = {}
    for style in ("photo", "sketch"):
        paths = [str(path) for path in sorted((shared_data / "pacs" / style).glob("*/*.jpg"))[::30]]
        found[style] = domain_distance(paths, reader)
    assert found["photo"].is_near
    assert not found["sketch"].is_near
    assert "like those it learnt from" in repr(found["photo"])
    assert "of another kind" in repr(found["sketch"])


def test_what_cannot_be_measured(digits, tmp_path):
    """One picture has no variance; a broken one is named."""
    X, _ = digits
    with pytest.raises(ValueError, match="Give at least two"):
        domain_distance(X[:1])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        domain_distance([str(tmp_path / "broken.png")] * 2, PretrainedFeatureExtractor(on_error="nan"))


def test_the_verdict():
    """Below 0.3 standard deviations is near."""
    assert DomainDistance("net", 5, 0.29, None).is_near
    assert not DomainDistance("net", 5, 0.3, 0.5).is_near
