"""How near pictures are to what a network knows: what is measured, on which pictures, and what is said of it."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._estimators._norm_shift import norm_shift
from sktl.backbones import load_backbone
from sktl.backbones._backbone import up_to
from sktl.exceptions import ImageError, ImageWarning, InputError
from sktl.selection import BackboneSelector, DomainDistance, domain_distance, recommend_strategy


@pytest.fixture(scope="module")
def digits():
    """Forty digits as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:40] / 16, y[:40]


def make_network():
    """Two stages with a batch norm each, whose means have moved, and a head."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(n, 4, 3), nn.BatchNorm2d(4), nn.ReLU()) for n in (3, 4)]
    for stage in stages:
        stage[1].running_mean += 0.1
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def extractor(network):
    return PretrainedFeatureExtractor(network, preprocessing={"resize_size": 16, "crop_size": 16})


def test_the_distance(digits):
    """It is that of the batch norms on the pictures as the network sees them; of a network that nobody has measured no
    verdict is given, and a head that may be no classifier has no confidence."""
    X, y = digits
    reader = extractor(make_network())
    found = domain_distance(X, reader)
    images = [Image.fromarray(np.repeat((x * 255).round().astype(np.uint8).reshape(8, 8, 1), 3, 2)) for x in X]
    pictures = np.stack([np.asarray(x.resize((16, 16), Image.Resampling.BILINEAR)) for x in images])
    assert found.distance == pytest.approx(norm_shift(reader.fit(X).backbone_, pictures).distance, rel=0.02)
    assert found.n_images == 40
    assert (found.confidence, found.is_near) == (None, None)
    assert "compare with the distance of familiar images" in repr(found)
    assert domain_distance(X).confidence is None
    fitted = domain_distance(X, FineTunedClassifier(max_epochs=0).fit(X, y))
    assert fitted.distance == pytest.approx(domain_distance(X).distance)


def test_what_is_not_there(digits):
    """Without batch norms there is no distance and no verdict, nor where weights are random."""
    X, _ = digits
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    for reader in (extractor(plain), PretrainedFeatureExtractor(weights=None, random_state=0)):
        found = domain_distance(X, reader)
        assert (found.distance, found.confidence, found.is_near) == (None, None, None)
        assert "unknown" in repr(found)


def test_a_sample(digits):
    """As many pictures as asked for are looked at, the same for the same seed; all of them where there are fewer."""
    X, _ = digits
    first, second, other = (domain_distance(X, max_samples=8, random_state=seed) for seed in (0, 0, 1))
    assert first.n_images == 8
    assert first.distance == second.distance != other.distance
    assert domain_distance(X, max_samples=1000).n_images == 40


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
    assert "similar to the pretraining images" in repr(found["photo"])
    assert "different from the pretraining images" in repr(found["sketch"])
    classes = PretrainedFeatureExtractor("mobilenet_v3_small", weights=weights, layers="classifier.3")
    logits = torch.from_numpy(classes.fit_transform(paths))
    assert found["sketch"].confidence == pytest.approx(logits.softmax(1).max(1).values.mean().item(), rel=1e-4)


def test_what_cannot_be_measured(digits, tmp_path):
    """One picture has no variance; a broken one is named."""
    X, _ = digits
    with pytest.raises(ValueError, match=r"must contain at least 2 images, .* Got 1 instead"):
        domain_distance(X[:1])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        domain_distance([str(tmp_path / "broken.png")] * 2, PretrainedFeatureExtractor(on_error="nan"))


def test_the_verdict():
    """A distance is near below the line that was measured; without either there is no verdict."""
    assert DomainDistance("mobilenet_v2", 5, 0.24, None, 0.25).is_near
    assert DomainDistance("mobilenet_v2", 5, 0.25, 0.5, 0.25).is_near is False
    assert DomainDistance("mobilenet_v2", 5, 0.1, None).is_near is None
    assert DomainDistance("mobilenet_v2", 5, None, None, 0.25).is_near is None


def test_the_line_belongs_to_the_weights(digits):
    """Not to the name: what was fine-tuned, truncated or loaded from other weights has none, wherever it is used."""
    X, y = digits
    assert domain_distance(X).line == 0.42
    tuned = FineTunedClassifier(freeze_depth=-1, max_epochs=1, lr=0.01, random_state=0).fit(X, y)
    short = up_to(load_backbone("sktl_mini"), 4)
    for backbone in (tuned, short):
        found = domain_distance(X, backbone)
        assert (found.backbone, found.line, found.is_near) == ("sktl_mini", None, None)
        assert "no threshold is known for these weights: compare" in repr(found)
        advice = recommend_strategy(X, y, backbone)
        assert (advice.domain, advice.line) == ("unknown", None)
        assert "no threshold is known for these weights" in " ".join(repr(advice).split())
    assert recommend_strategy(X, y).line == 0.42


def test_a_file_without_a_head_has_no_classes(digits, tmp_path):
    """Its features are no probabilities: there is no confidence, and no score of a head, but an error that says why."""
    X, y = digits
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save(state, tmp_path / "whole.pt")
    torch.save({name: value for name, value in state.items() if "classifier" not in name}, tmp_path / "body.pt")
    whole, body = (PretrainedFeatureExtractor("squeezenet1_1", weights=tmp_path / f"{n}.pt") for n in ("whole", "body"))
    assert 0 < domain_distance(X[:4], whole).confidence < 1
    assert domain_distance(X[:4], load_backbone("squeezenet1_1", weights=tmp_path / "whole.pt")).confidence > 0
    assert domain_distance(X[:4], body).confidence is None
    for score in ("leep", "nce"):
        with pytest.raises(
            InputError, match=r"squeezenet1_1 has none\. .* a weights file without a head have none\. Use "
        ):
            BackboneSelector(body, score_func=score).fit(X, y)


@pytest.mark.parametrize("max_samples", [1, -1, 2.5])
def test_bad_parameters(digits, max_samples):
    """So few pictures have no variance."""
    with pytest.raises(ValueError, match="max_samples"):
        domain_distance(digits[0], max_samples=max_samples)


def test_a_fitted_extractor_reads_as_it_has_learnt_to(digits):
    """Pictures of its range 0-255 that are nearly black are not taken for ones in 0-1; it is as it was."""
    X, _ = digits
    reader = PretrainedFeatureExtractor().fit(X * 255)
    before = dict(vars(reader))
    with pytest.warns(ImageWarning, match="nearly black"):
        found = domain_distance(X, reader)
    assert found.distance != pytest.approx(domain_distance(X).distance, rel=0.1)
    assert vars(reader) == before
