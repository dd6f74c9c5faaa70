"""Layers that are compared: by resolution or by name, as maps of one size, whatever the network gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sktl._frozen._prefix_network import PrefixNetwork
from sktl.backbones import load_backbone
from sktl.distillation import (
    attention_map,
)
from sktl.distillation._layers import as_map, channels, pair_layers, resolution, teacher_map
from sktl.exceptions import BackboneError

SMALL = {"resize_size": 64, "crop_size": 64}


@pytest.fixture(scope="module")
def networks():
    """Networks by name, random where they are not ours; each is read once."""
    known = {"sktl_mini": load_backbone("sktl_mini")}

    def get(name):
        if name not in known:
            known[name] = load_backbone(name, weights=None, preprocessing=SMALL, random_state=0)
        return known[name]

    return get


@pytest.mark.parametrize(
    ("teacher", "depth", "expected"),
    [
        ("sktl_mini", 0, [("layer4", "layer4"), ("layer3", "layer3"), ("layer2", "layer2"), ("layer1", "layer1")]),
        ("sktl_mini", 3, [("layer4", "layer4"), ("layer3", "layer3")]),
        ("sktl_mini", 4, [("layer4", "layer4")]),
        ("resnet18", 0, [("layer4", "layer4"), ("layer3", "layer3"), ("layer2", "layer2"), ("layer1", "layer1")]),
        ("mobilenet_v2", 3, [("stage19", "layer4"), ("stage14", "layer3")]),
    ],
)
def test_pairs_by_resolution(networks, teacher, depth, expected):
    """The last stages of each resolution are paired, the smallest first, as far as the student's learn."""
    teacher, student = networks(teacher), networks("sktl_mini")
    pairs = pair_layers("auto", teacher, student, depth)
    ends = [stage.name for stage in teacher.stages]
    if teacher.name == "mobilenet_v2":  # its stages have other names; what matters is their size
        sizes = [resolution(teacher, pair.teacher) for pair in pairs]
        assert sizes == [(2, 2), (4, 4)]
        assert pairs[0].teacher == ends[-1]
        assert [pair.student for pair in pairs] == [name for _, name in expected]
    else:
        assert [(pair.teacher, pair.student) for pair in pairs] == expected
    for pair in pairs:
        assert pair.n_teacher == teacher.output_shape(pair.teacher)[0]
        assert (pair.n_student, *pair.size) == student.output_shape(pair.student)
        later = [name for name in ends if ends.index(name) > ends.index(pair.teacher)]
        assert all(resolution(teacher, name) != resolution(teacher, pair.teacher) for name in later)


@pytest.mark.parametrize(
    "layers", [[("layer3", "layer4"), ("layer1.0", "layer3")], (["layer3", "layer4"], ["layer1.0", "layer3"])]
)
def test_pairs_by_name(networks, layers):
    """Stages and layers of either network, in the order given, of any resolution."""
    mini = networks("sktl_mini")
    pairs = pair_layers(layers, networks("resnet18"), mini, 0)
    assert [pair[:2] for pair in pairs] == [("layer3", "layer4"), ("layer1.0", "layer3")]
    assert [pair.n_teacher for pair in pairs] == [256, 64]
    assert [(pair.n_student, *pair.size) for pair in pairs] == [mini.output_shape(x) for x in ("layer4", "layer3")]


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        (
            "last",
            ValueError,
            r"must be 'auto' or a list of pairs \(teacher layer, student layer\)\. Got 'last' instead\.$",
        ),
        ([], ValueError, r"'layers' parameter must be 'auto' or a list of one or more pairs .*Got \[\] instead\.$"),
        ([("layer3",)], ValueError, r"list of one or more pairs .*Got \[\('layer3',\)\] instead\.$"),
        (["layer3"], ValueError, r"list of one or more pairs .*Got \['layer3'\] instead\.$"),
        ([("layer9", "layer4")], BackboneError, "'layer9' is not a layer of 'resnet18'"),
        ([("layer4", "layer9")], BackboneError, "'layer9' is not a layer of 'sktl_mini'"),
    ],
)
def test_pairs_that_are_none(networks, layers, error, match):
    """What is no list of pairs, or names a layer that a network does not have, is said so."""
    with pytest.raises(error, match=match):
        pair_layers(layers, networks("resnet18"), networks("sktl_mini"), 0)


def fake(shape, axis, has_cls_token=False):
    return SimpleNamespace(
        name="fake",
        output_shape=lambda layer: shape,
        channel_axis=lambda layer: axis,
        has_cls_token=lambda layer: has_cls_token,
    )


@pytest.mark.parametrize(
    ("shape", "axis", "has_cls_token", "expected"),
    [
        ((8, 3, 5), 1, False, (8, 3, 5)),
        ((3, 5, 8), -1, False, (8, 3, 5)),
        ((9, 8), -1, False, (8, 3, 3)),
        ((10, 8), -1, True, (8, 3, 3)),
        ((8,), 1, False, (8, 1, 1)),
    ],
    ids=["channels first", "channels last", "tokens", "class token", "vector"],
)
def test_any_layer_as_a_map(shape, axis, has_cls_token, expected):
    """Channels first, height and width, whatever the layout; each place keeps its numbers, the class token goes."""
    backbone = fake(shape, axis, has_cls_token)
    assert (channels(backbone, "x"), *resolution(backbone, "x")) == expected
    plain = torch.arange(2 * np.prod(expected)).reshape(2, *expected).float()
    given = {
        1: plain.flatten(1),
        2: plain.flatten(2).transpose(1, 2),
        3: plain if axis == 1 else plain.movedim(1, -1),
    }[len(shape)]
    if has_cls_token:
        given = torch.cat([torch.full((2, 1, 8), -1.0), given], 1)
    assert given.shape[1:] == shape
    assert torch.equal(as_map(given, axis, has_cls_token), plain)


def test_tokens_that_form_no_square():
    """There is no saying where in the picture they lie."""
    with pytest.raises(ValueError, match="Layer 'x' of 'fake' has 12 tokens, which do not form a square map"):
        resolution(fake((12, 8), -1), "x")


def test_maps_of_a_network_with_channels_last(networks):
    """Of a Swin transformer: heights and widths halve from pair to pair, and the map is what the layer gave, turned."""
    swin = networks("swin_t")
    pairs = pair_layers("auto", swin, networks("sktl_mini"), 0)
    assert [resolution(swin, pair.teacher) for pair in pairs] == [(2, 2), (4, 4), (8, 8), (16, 16)]
    layer = pairs[1].teacher  # the last stage's are turned by the network itself
    x = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    (activation,) = PrefixNetwork(swin, [layer], "none")(x)
    turned = as_map(activation, swin.channel_axis(layer), swin.has_cls_token(layer))
    assert turned.shape == (1, pairs[1].n_teacher, 4, 4)
    torch.testing.assert_close(turned[0, :, 0, 3], activation[0, 0, 3])


def test_what_is_kept_of_a_teachers_map():
    """Features are averaged to the student's places, attention is taken before that; small maps are spread."""
    activation = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    blocks = activation.reshape(2, 3, 2, 2, 3, 2)
    torch.testing.assert_close(teacher_map("feature", activation, (2, 3)), blocks.mean((3, 5)))
    expected = blocks.square().sum(1).mean((2, 4)).flatten(1)
    torch.testing.assert_close(teacher_map("attention", activation, (2, 3)), expected)
    torch.testing.assert_close(teacher_map("attention", activation, (4, 6)), attention_map(activation))
    spread = teacher_map("feature", activation, (8, 12))
    torch.testing.assert_close(spread, activation.repeat_interleave(2, 2).repeat_interleave(2, 3))
