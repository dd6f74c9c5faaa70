"""Which function a prefix is: its key, its shapes and its work."""

import numpy as np
import pytest

from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("sktl_mini")


def test_the_key_is_what_earlier_versions_wrote(backbone):
    """A cache directory is read by later versions: no letter of a key may change."""
    preprocessing = backbone.preprocessing
    stem, last = backbone.fingerprint("stem"), backbone.fingerprint("layer4")
    assert PrefixSpec(backbone, ["stem", "layer4"], "max").key == f"{stem},{last}|{preprocessing.key}|max"
    assert PrefixSpec(backbone, (), "max").key == f"pictures|{preprocessing.pixels_key}"


def test_equal_networks_have_one_key(backbone):
    """It goes by weights up to the layer, not by objects; another pooling or layer is another function."""
    other = backbone.with_weights({name: 2 * x for name, x in backbone.cut(-1)[1].state_dict().items()})
    keys = {PrefixSpec(network, ["layer3"]).key for network in (backbone, other)}
    assert len(keys) == 1
    keys |= {
        PrefixSpec(other, ["layer4"]).key,
        PrefixSpec(backbone, ["layer4"]).key,
        PrefixSpec(other, ["layer3"], "gem").key,
    }
    assert len(keys) == 4


def test_each_output_is_a_prefix_of_its_own(backbone):
    """In order, also where one is asked for twice; the images are one output."""
    spec = PrefixSpec(backbone, ["layer2", "stem", "layer2"], "max")
    assert spec.outputs == [PrefixSpec(backbone, [layer], "max") for layer in ("layer2", "stem", "layer2")]
    assert PrefixSpec(backbone, ()).outputs == [PrefixSpec(backbone, ())]


def test_shapes_types_and_work(backbone):
    """Layers are floats and pooled; the images are bytes, as large as the network sees them, and no work."""
    spec = PrefixSpec(backbone, ["stem", "layer4"])
    assert spec.shapes == [(backbone.output_shape("stem")[0],), (512,)]
    assert spec.dtype == np.float32
    assert spec.macs == backbone.macs("layer4") > backbone.macs("stem")
    assert PrefixSpec(backbone, ["stem"], "none").shapes == [backbone.output_shape("stem")]
    images = PrefixSpec(backbone, [], "max")
    assert images.shapes == [images.image_shape] == [(64, 64, 3)]
    assert images.dtype == np.uint8
    assert images.macs == 0
