"""A network and the pictures as it reads them, whatever form it was given in."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._estimators._backbone_parameter import has_random_weights
from sktl.exceptions import ImageError
from sktl.selection._extractors import class_layer, fitted_extractor, read_images, run_layers


def test_a_fitted_extractor_is_used_as_it_is(digits):
    """By itself where a function takes it, and inside a FrozenEstimator everywhere; any other one is cloned."""
    X, _ = digits
    fitted = PretrainedFeatureExtractor(pooling="max").fit(X)
    assert read_images(X, fitted)[0] is fitted
    assert read_images(X, FrozenEstimator(fitted))[0] is fitted
    assert fitted_extractor(FrozenEstimator(fitted), X) is fitted
    other = fitted_extractor(fitted, X)
    assert other is not fitted
    assert other.pooling == "max"
    with pytest.raises(NotFittedError):
        fitted_extractor(FrozenEstimator(PretrainedFeatureExtractor()), X)


def test_other_networks_get_an_extractor(digits):
    """A name, a network, an estimator that lends its own; with the settings of a common extractor."""
    X, y = digits
    model = FineTunedClassifier(max_epochs=0, random_state=0).fit(X, y)
    common = PretrainedFeatureExtractor(pooling="max")
    for backbone in ("sktl_mini", model.backbone_, model):
        made = fitted_extractor(backbone, X, common)
        assert (made.backbone_.name, made.pooling) == ("sktl_mini", "max")
    assert not hasattr(common, "backbone_")


def test_what_runs(digits, tmp_path):
    """Layers are as the extractor would give them, without layers there are pictures, and a broken one is an error."""
    X, _ = digits
    extractor, images = read_images(X, PretrainedFeatureExtractor(engine="torch"))  # two engines round differently
    early, late = run_layers(extractor, ["layer1", "layer4"], images)
    np.testing.assert_array_equal(late, extractor.transform(X))
    assert early.shape == (30, extractor.backbone_.output_shape("layer1")[0])
    (pictures,) = run_layers(extractor, (), images)
    assert pictures.shape == (30, *extractor.backbone_.preprocessing.crop_shape, 3)
    assert pictures.dtype == np.uint8
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lenient, broken = read_images([str(tmp_path / "broken.png")], PretrainedFeatureExtractor(on_error="nan"))
    with pytest.raises(ImageError, match=r"broken\.png"):
        run_layers(lenient, ["layer4"], broken)


def test_whose_head_knows_classes(digits, tmp_path):
    """That of weights with a head, and neither sktl_mini's, nor that of an own network, nor one of random weights."""
    X, _ = digits
    named = {"weights": None, "random_state": 0}
    mini, rival = PretrainedFeatureExtractor().fit(X), PretrainedFeatureExtractor("squeezenet1_1", **named).fit(X)
    assert not has_random_weights(mini)
    assert has_random_weights(rival)
    assert not has_random_weights(PretrainedFeatureExtractor(mini.backbone_, weights=None).fit(X))  # it has its own
    assert class_layer(mini) is class_layer(rival) is None
    assert class_layer(PretrainedFeatureExtractor(rival.backbone_).fit(X)) is None
    torch.save(rival.backbone_.module.state_dict(), tmp_path / "file.pt")
    learnt = PretrainedFeatureExtractor("squeezenet1_1", weights=tmp_path / "file.pt").fit(X)
    assert class_layer(learnt) == learnt.backbone_.layers[-1]
    assert class_layer(PretrainedFeatureExtractor(learnt.backbone_).fit(X)) == class_layer(learnt)
    assert class_layer(PretrainedFeatureExtractor(learnt.backbone_.module).fit(X)) is None
