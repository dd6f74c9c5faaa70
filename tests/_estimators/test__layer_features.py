"""The layers of a feature extractor: what names them, and what they give."""

import numpy as np
import pytest

from sktl import PretrainedFeatureExtractor
from sktl._estimators._layer_features import extractor_prefix, joined_features, layer_features, name_layers
from sktl._images import check_images
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError


def test_names_of_layers():
    """Numbers of stages and names mean layers, each once, whatever is read of them."""
    backbone = load_backbone("sktl_mini")
    assert name_layers(backbone, -1) == ["layer4"]
    assert name_layers(backbone, [0, "layer1.bn1", "stem"]) == ["stem", "layer1.bn1"]
    with pytest.raises(BackboneError, match="class token"):
        name_layers(backbone, 0, "cls")


@pytest.mark.parametrize("layers", [7, -8, [], True])
def test_what_names_no_layer(layers):
    """The error restates it, and says which stages there are."""
    with pytest.raises(BackboneError, match=r"^layers=.* does not name layers of 'sktl_mini'. Use its stages \['stem'"):
        name_layers(load_backbone("sktl_mini"), layers)


def test_each_layer_has_a_table(digits, capsys):
    """Joined they are the features; the progress is told, and printed where the extractor is verbose."""
    extractor = PretrainedFeatureExtractor(layers=["stem", "layer4"], cache=None).fit(digits[0])
    images = check_images(extractor, digits[0], reset=False)
    told = []
    first, last = layer_features(extractor, images, lambda done, n: told.append((done, n)))
    assert told[-1] == (30, 30)
    features = extractor.transform(digits[0])
    np.testing.assert_array_equal(np.hstack([first, last]), features)
    assert not capsys.readouterr().out
    np.testing.assert_array_equal(joined_features(extractor.set_params(verbose=1), images), features)
    assert "PretrainedFeatureExtractor" in capsys.readouterr().out


def test_a_reader_in_front_is_tolerant():
    """Its word counts where the extractor itself would refuse what cannot be read."""
    extractor = PretrainedFeatureExtractor().fit(np.zeros((1, 8, 8)))
    assert extractor_prefix(extractor).runtime.on_error == "raise"
    assert extractor_prefix(extractor, "nan").runtime.on_error == "nan"
    assert extractor_prefix(extractor.set_params(on_error="nan")).runtime.on_error == "nan"
