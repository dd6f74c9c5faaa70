"""A backbone answers questions, gives parts of itself, and stays what it is."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import nn

from sktl.backbones import Backbone, Preprocessing, load_backbone
from sktl.exceptions import BackboneError

PICTURES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = {"resize_size": 64, "crop_size": 64}


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("resnet18", weights=None, preprocessing=SMALL, random_state=0)


def activations(module: nn.Module, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every submodule's last output, copied before anything can write over it."""
    found = {}
    handles = [
        layer.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output.clone()))
        for name, layer in module.named_modules()
    ]
    with torch.inference_mode():
        module(pictures)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "squeezenet1_1"])
def test_features_are_those_of_a_plain_forward(name):
    """Networks full of in-place layers give the same activations as a forward pass whose hooks copy at once."""
    backbone = load_backbone(name, weights=None, preprocessing=SMALL, random_state=0)
    expected = activations(copy.deepcopy(backbone.module), PICTURES)
    layers = [layer for layer in backbone.layers if layer in expected and f"{layer}_1" not in backbone.layers]
    assert len(layers) > 20
    with torch.inference_mode():
        features = backbone.feature_graph(layers)(PICTURES)
    for layer, feature in zip(layers, features, strict=True):
        torch.testing.assert_close(feature, expected[layer], rtol=1e-5, atol=1e-6, msg=layer)


def test_a_layer_that_is_used_twice(resnet):
    """The first use has the layer's name, the second "_1"; the block's name means its last layer."""
    block = resnet.module.layer1[0]
    first, second, last = resnet.feature_graph(["layer1.0.relu", "layer1.0.relu_1", "layer1.0"])(PICTURES)
    (stem,) = resnet.feature_graph("stem")(PICTURES)
    torch.testing.assert_close(first, F.relu(block.bn1(block.conv1(stem))))
    torch.testing.assert_close(second, block(stem))
    torch.testing.assert_close(last, second, rtol=0, atol=0)


def test_nothing_behind_the_deepest_layer(resnet):
    """The part holds no later layers, and none beside the way."""
    part = resnet.feature_graph(["stem", "layer1"])
    assert dict(part.named_children()).keys() == {"conv1", "bn1", "relu", "maxpool", "layer1"}
    assert sum(p.numel() for p in part.parameters()) == sum(stage.n_parameters for stage in resnet.stages[:2])


def test_questions(resnet):
    """Shapes, work and the names of the stages' ends are those of the network."""
    assert resnet.output_shape("layer4") == (512, 2, 2)
    assert resnet.output_shape("flatten") == (512,)
    assert resnet.channel_axis("layer2.0.conv1") == 1
    assert not resnet.has_cls_token("layer4")
    assert resnet.macs("conv1") == 64 * 32 * 32 * 3 * 49
    assert resnet.macs("fc") - resnet.macs("flatten") == 512 * 1000
    assert [stage.node for stage in resnet.stages] == ["maxpool", *(f"layer{n}.1.relu_1" for n in (1, 2, 3, 4))]


@pytest.mark.parametrize(
    ("freeze_depth", "expected"),
    [(0, 0), (1, 1), (5, 5), (-1, 4), (-5, 0), ("all", 5), ("stem", 1), ("layer4", 5), (np.int64(2), 2)],
)
def test_stage_index(resnet, freeze_depth, expected):
    """Numbers from either end, "all" and names mean what they say."""
    assert resnet.stage_index(freeze_depth) == expected


@pytest.mark.parametrize("freeze_depth", [6, -6, "layer9", "fc", 1.5, None, True])
def test_stage_index_refuses(resnet, freeze_depth):
    """Anything else gets the range and the names."""
    with pytest.raises(BackboneError, match=r"freeze_depth=.* from -5 to 5, 'all', or .*'layer4'"):
        resnet.stage_index(freeze_depth)


@pytest.mark.parametrize(
    ("layer", "near"), [("layer5", "'layer4'"), ("layer1.0.rellu", "'layer1.0.relu'"), ("", "stages")]
)
def test_unknown_layers(resnet, layer, near):
    """The message names the nearest layers."""
    for ask in (resnet.feature_graph, resnet.fingerprint, resnet.channel_axis, resnet.output_shape, resnet.macs):
        with pytest.raises(BackboneError, match=f"is no layer of 'resnet18'.*{near}"):
            ask(layer)


def test_no_layers(resnet):
    """An empty list is refused."""
    with pytest.raises(BackboneError, match="layers is empty"):
        resnet.feature_graph([])


@pytest.mark.parametrize("freeze_depth", [0, 2, "all"])
def test_cut_without_the_head(resnet, freeze_depth):
    """Without the source's head the rest ends with the last stage, also where everything or nothing is frozen."""
    prefix, rest = resnet.cut(freeze_depth, head=False)
    (expected,) = resnet.feature_graph("layer4")(PICTURES)
    torch.testing.assert_close(rest(prefix(PICTURES)), expected, rtol=0, atol=0)


def test_training_the_rest_leaves_the_backbone_alone(resnet):
    """The rest's weights are its own and ask for gradients; the prefix's do not."""
    before = copy.deepcopy(resnet.module.state_dict())
    prefix, rest = resnet.cut(3)
    assert not any(p.requires_grad for p in prefix.parameters())
    assert all(p.requires_grad for p in rest.parameters())
    rest.train()
    optimizer = torch.optim.SGD(rest.parameters(), lr=1.0)
    rest(prefix(PICTURES)).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in resnet.module.state_dict().items())
    torch.testing.assert_close(resnet.cut(3)[1](prefix(PICTURES)), resnet.module(PICTURES), rtol=0, atol=0)


def test_moving_a_part_leaves_the_backbone_alone(resnet):
    """A part shares the memory of the weights, yet may be cast (or moved) on its own."""
    part = resnet.feature_graph("stem")
    assert part.conv1.weight.data_ptr() == resnet.module.conv1.weight.data_ptr()
    part.half()
    assert resnet.module.conv1.weight.dtype == torch.float32
    assert resnet.feature_graph("stem").conv1.weight.dtype == torch.float32


def test_parts_are_gone_when_nobody_holds_them(resnet):
    """Nothing waits for the garbage collector: a grid search cuts often, and every rest is a copy of the weights."""
    gc.collect()
    gc.disable()
    try:
        watched = [weakref.ref(part) for part in (*resnet.cut(2), resnet.feature_graph("layer4"))]
        watched += [weakref.ref(resnet.cut(2)[1].layer4)]
        assert [part() for part in watched] == [None] * 4
    finally:
        gc.enable()


def test_parts_do_not_change_what_they_are_given(resnet):
    """Cached features can be given to the rest again and again: none of its layers writes into them."""
    prefix, rest = resnet.cut("layer1")
    features = prefix(PICTURES)
    before = features.clone()
    rest(features)
    assert torch.equal(features, before)


def test_a_picture_does_not_depend_on_its_batch(resnet):
    """Nothing runs in training mode: one picture alone gives what it gives among others."""
    part = resnet.feature_graph("layer4")
    torch.testing.assert_close(part(PICTURES)[0][:1], part(PICTURES[:1])[0], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in part.modules())


def test_training_mode_is_noticed():
    """Whoever puts the network into training mode hears of it before the next features."""
    backbone = load_backbone(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), preprocessing=SMALL)
    backbone.feature_graph("0")
    backbone.module.train()
    with pytest.raises(BackboneError, match=r"training mode.*backbone\.module\.eval\(\)"):
        backbone.feature_graph("0")
    with pytest.raises(BackboneError, match="training mode"):
        backbone.cut(0)
    assert not hasattr(backbone, "train")


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda backbone: pickle.loads(pickle.dumps(backbone))])
def test_copies(resnet, again, used_before):
    """Copied or pickled, before or after its graph was read, it is the same network with weights of its own."""
    backbone = Backbone(copy.deepcopy(resnet.module), name="net", preprocessing=Preprocessing(**SMALL))
    if used_before:
        assert backbone.fingerprint("layer2")
    found = again(backbone)
    assert found.fingerprint("layer2") == resnet.fingerprint("layer2")
    assert found.preprocessing == backbone.preprocessing
    assert torch.equal(found.feature_graph("layer2")(PICTURES)[0], resnet.feature_graph("layer2")(PICTURES)[0])
    assert found.module.conv1.weight.data_ptr() != backbone.module.conv1.weight.data_ptr()
    assert not any(p.requires_grad for p in found.module.parameters())


def test_repr(resnet):
    """The short form says which network it is."""
    assert repr(resnet) == "<Backbone resnet18: 5 stages, 3 channels>"


def test_real_weights(shared_data):
    """With the real MobileNetV2 and a real photo, the features pass through every cut unchanged to the right class."""
    from PIL import Image

    backbone = load_backbone("mobilenet_v2", weights=shared_data / "mobilenet_v2_imagenet" / "model.safetensors")
    photos = sorted((shared_data / "imagenet_sample" / "images").glob("*.jpg"))[:20]
    mean, std = (
        torch.tensor(values).reshape(3, 1, 1) for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    pictures = [backbone.preprocessing.apply(np.asarray(Image.open(photo).convert("RGB"))) for photo in photos]
    batch = torch.stack([(torch.tensor(p).permute(2, 0, 1) / 255 - mean) / std for p in pictures])
    with torch.inference_mode():
        prefix, rest = backbone.cut(-2)
        classes = rest(prefix(batch)).argmax(1)
    # The photos are one per class, in the order of the classes; the published network gets about 3 in 4 right.
    assert (classes == torch.arange(20)).sum() >= 12


def test_a_clone_is_the_same_object(resnet):
    """scikit-learn's clone of an estimator that holds a backbone shares it: nothing is copied or read again."""
    assert clone(resnet, safe=False) is resnet
