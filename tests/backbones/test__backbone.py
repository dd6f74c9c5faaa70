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


def test_stage_parts(resnet):
    """Every module that computes in a stage is listed with it, by its path, and what has no parameters as well."""
    parts = resnet.stage_parts
    assert list(parts) == [stage.name for stage in resnet.stages]
    assert parts["stem"] == ("conv1", "bn1", "relu", "maxpool")
    block = [f"layer1.{n}.{layer}" for n in (0, 1) for layer in ("conv1", "bn1", "relu", "conv2", "bn2")]
    assert parts["layer1"] == tuple(block)
    for stage in resnet.stages:
        modules = [resnet.module.get_submodule(path) for path in parts[stage.name]]
        assert sum(p.numel() for module in modules for p in module.parameters()) == stage.n_parameters


def test_stage_parts_of_tensors_and_shared_layers():
    """A bare tensor is a part by its path, and what several stages use is the first one's."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block1 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
            self.block2 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            x = self.block2(self.block1(x)) * self.scale
            return self.fc(self.block1(x).mean((2, 3)))

    backbone = load_backbone(Net(), preprocessing=SMALL)
    parts = backbone.stage_parts
    assert [stage.name for stage in backbone.stages] == list(parts)
    assert parts["block1"] == ("block1.0", "block1.1")
    later = [path for name, paths in parts.items() if name != "block1" for path in paths]
    assert sorted(later) == ["block2.0", "block2.1", "scale"]


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
        with pytest.raises(BackboneError, match=f"is not a layer of 'resnet18'.*{near}"):
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


@pytest.mark.parametrize(
    ("freeze_depth", "taps"),
    [(0, ["layer1"]), (2, ["layer4", "layer2", "layer3.1.relu"]), ("layer3", ["layer4.0"]), (0, ["layer2", "layer2"])],
)
@pytest.mark.parametrize("head", [True, False])
def test_taps_of_the_rest(resnet, freeze_depth, taps, head):
    """It gives what plain features are at the taps, in their order, the last stage's too, and its output at the end."""
    prefix, rest = resnet.cut(freeze_depth, head=head, taps=taps)
    *seen, output = rest(prefix(PICTURES))
    for got, expected in zip(seen, resnet.feature_graph(taps)(PICTURES), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    plain_prefix, plain = resnet.cut(freeze_depth, head=head)
    torch.testing.assert_close(output, plain(plain_prefix(PICTURES)), rtol=0, atol=0)
    assert {name for name, _ in rest.named_parameters()} == {name for name, _ in plain.named_parameters()}


def test_gradients_come_back_through_taps(resnet):
    """A loss of a tap alone reaches the layers up to it, and none behind it."""
    prefix, rest = resnet.cut(2, head=False, taps=["layer3"])
    rest(prefix(PICTURES))[0].square().mean().backward()
    reached = {name.partition(".")[0] for name, parameter in rest.named_parameters() if parameter.grad is not None}
    assert reached == {"layer2", "layer3"}


@pytest.mark.parametrize(("freeze_depth", "tap"), [(2, "layer1"), (2, "layer1.0.relu"), ("all", "layer4"), (1, "stem")])
def test_taps_in_front_of_the_cut(resnet, freeze_depth, tap):
    """What is frozen, the last frozen stage too, cannot be tapped: the error names the layer and the depth."""
    with pytest.raises(
        BackboneError, match=rf"The layers \['{tap}'\] of 'resnet18' belong to the first .*Freeze fewer stages"
    ):
        resnet.cut(freeze_depth, taps=["fc", tap])
    with pytest.raises(BackboneError, match="'layer9' is not a layer of 'resnet18'"):
        resnet.cut(0, taps=["layer9"])


def test_taps_behind_the_end(resnet):
    """Without its head the rest has no classifier that could be tapped."""
    with pytest.raises(BackboneError, match=r"\['fc'\] of 'resnet18' come after its last stage, 'layer4'\."):
        resnet.cut(2, head=False, taps=["layer4", "fc"])


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


def test_a_pickle_of_an_earlier_version(resnet):
    """One that does not say whether the network classifies is loaded, and pickled and copied again."""
    old = Backbone.__new__(Backbone)
    vars(old).update({name: value for name, value in resnet.__getstate__().items() if name != "has_classifier"})
    for found in (pickle.loads(pickle.dumps(old)), copy.deepcopy(old)):
        assert found.has_classifier is False
        assert found.fingerprint("layer2") == resnet.fingerprint("layer2")


def trained(backbone: Backbone, freeze_depth) -> nn.Module:
    """The rest behind a cut, every weight and statistic of it moved as training would."""
    rest = backbone.cut(freeze_depth, head=False)[1]
    with torch.no_grad():
        for name, tensor in rest.state_dict().items():
            if tensor.is_floating_point():
                tensor.mul_(1.1)
            elif name.endswith("num_batches_tracked"):
                tensor.add_(1)
    return rest


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "swin_t", "vit_b_32"])
def test_with_weights_computes_what_was_trained(name):
    """Given the trained rest's state, it computes rest(prefix(x)); the original computes what it did."""
    size = {"resize_size": 224, "crop_size": 224} if name == "vit_b_32" else SMALL
    backbone = load_backbone(name, weights=None, preprocessing=size, random_state=0)
    pictures = torch.randn(1, 3, *backbone.preprocessing.crop_shape, generator=torch.Generator().manual_seed(0))
    last = backbone.stages[-1].name
    rest = trained(backbone, -1)
    assert rest.state_dict().keys() <= backbone.module.state_dict().keys()
    with torch.inference_mode():
        (before,) = backbone.feature_graph(last)(pictures)
        expected = rest(backbone.cut(-1)[0](pictures))
        other = backbone.with_weights(rest.state_dict())
        torch.testing.assert_close(other.feature_graph(last)(pictures)[0], expected, rtol=0, atol=0)
        torch.testing.assert_close(backbone.feature_graph(last)(pictures)[0], before, rtol=0, atol=0)
    assert not torch.equal(before, expected)


def test_with_weights_shares_what_is_frozen(resnet):
    """Frozen stages keep their memory and fingerprints, later ones get others, and no graph is read again."""
    fingerprints = {stage.name: resnet.fingerprint(stage.name) for stage in resnet.stages}
    state = trained(resnet, 3).state_dict()
    other = resnet.with_weights(state)
    assert set(other._fingerprints) & {stage.node for stage in resnet.stages} == {
        stage.node for stage in resnet.stages[:3]
    }
    same = [name for name, fingerprint in fingerprints.items() if other.fingerprint(name) == fingerprint]
    assert same == ["stem", "layer1", "layer2"]
    assert (other.name, other.preprocessing, other.in_channels) == ("resnet18", resnet.preprocessing, 3)
    assert other.stages is resnet.stages
    assert other._full_graph is resnet._full_graph
    for name, tensor in other.module.state_dict().items():
        assert (tensor.data_ptr() == resnet.module.state_dict()[name].data_ptr()) == (name not in state)
        if name in state:
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
            assert tensor.data_ptr() != state[name].data_ptr()
    assert {name: resnet.fingerprint(name) for name in fingerprints} == fingerprints
    assert not any(p.requires_grad for p in other.module.parameters())


def test_with_weights_has_a_body_of_its_own(resnet):
    """Also where the original's body was asked for before: what lends its trained network lends no untrained one."""
    state = trained(resnet, -1).state_dict()
    for original in (resnet, resnet.body, resnet.body.body):
        _ = original.body
        learnt = original.with_weights(state).body.module.state_dict()
        assert all(torch.equal(learnt[name], value) for name, value in state.items() if name in learnt)
        assert any(name.startswith("layer4") for name in state.keys() & learnt.keys())


def test_with_weights_pickles_and_can_be_given_others(resnet):
    """It is a backbone like any other: sent to another process, and source of the next one."""
    other = resnet.with_weights(trained(resnet, -1).state_dict())
    arrived = pickle.loads(pickle.dumps(other))
    assert arrived.fingerprint("layer4") == other.fingerprint("layer4")
    again = other.with_weights({name: resnet.module.state_dict()[name] for name in trained(resnet, -1).state_dict()})
    assert again.fingerprint("layer4") == resnet.fingerprint("layer4")
    torch.testing.assert_close(again.module(PICTURES), resnet.module(PICTURES), rtol=0, atol=0)


def test_with_weights_takes_other_dtypes_and_keeps_its_own(resnet):
    """Values trained in another precision are rounded to the network's."""
    weight = resnet.module.layer4[0].conv1.weight
    other = resnet.with_weights({"layer4.0.conv1.weight": weight.double()})
    assert torch.equal(other.module.layer4[0].conv1.weight, weight)
    assert other.fingerprint("layer4") == resnet.fingerprint("layer4")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"layer9.weight": torch.zeros(1)}, "'layer9.weight' is not a tensor of 'resnet18'"),
        ({"conv1": torch.zeros(1)}, "'conv1' is not a tensor"),
        ({"fc.bias": torch.zeros(7)}, r"'fc.bias' .*\(1000,\).*\(7,\)"),
    ],
)
def test_with_weights_refuses(resnet, state, message):
    """Unknown names and other shapes are named."""
    with pytest.raises(BackboneError, match=message):
        resnet.with_weights(state)


def test_with_weights_of_a_network_with_constants():
    """A tensor made in forward() is in the rest's state too; it stays as it is, in the rest and here."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.register_buffer("shift", torch.ones(4, 1, 1), persistent=False)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = self.first(x)
            x = self.second(x * torch.tensor(2.0)) + self.shift
            return self.head(x.mean((2, 3)))

    backbone = load_backbone(Network(), preprocessing=SMALL)
    rest = backbone.cut(0)[1]
    assert not rest.state_dict().keys() <= backbone.module.state_dict().keys()
    with torch.no_grad():
        rest.second.weight.mul_(2)
    other = backbone.with_weights(rest.state_dict())
    torch.testing.assert_close(other.module(PICTURES), rest(PICTURES))
    assert copy.deepcopy(other).fingerprint("second") == other.fingerprint("second")


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
