"""Maps of evidence: Grad-CAM against class activation maps and finite differences, occlusion against a slow loop."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torch.nn.functional import interpolate
from torchvision.models import SwinTransformer, VisionTransformer

from sktl import DistilledClassifier, FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._images import check_images
from sktl._training._rest_network import last_linear
from sktl.backbones import load_backbone
from sktl.compression import LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.exceptions import BackboneError
from sktl.inspection import _saliency_maps
from sktl.inspection._network_and_images import network_inputs
from sktl.inspection._saliency_maps import (
    _enlarged,
    _WatchedNetwork,
    class_probabilities,
    find_network,
    grad_cam,
    gradient_maps,
    occlusion_maps,
    places,
)


@pytest.fixture(scope="module")
def pictures():
    """Twelve pictures of the size that the small network sees, three classes of colours and stripes; their labels."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 60, (12, 64, 64, 3), dtype=np.uint8)
    y = np.arange(12) % 3
    for picture, label in zip(X, y, strict=True):
        row, column = rng.integers(0, 40, 2)
        picture[row : row + 24, column : column + 24 : 1 + label, label] = 255
    return X, np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module", params=["all", -1, 0])
def fitted(request, pictures):
    """Classifiers of which all stages are frozen, all but one, and none."""
    model = FineTunedClassifier(freeze_depth=request.param, max_epochs=1, random_state=0)
    return model.fit(*pictures)


def vision_transformer(**kwargs):
    torch.manual_seed(0)
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, **kwargs)


def fitted_transformer(pictures, pooling):
    size = {"resize_size": 32, "crop_size": 32}
    network = vision_transformer()
    params = {"preprocessing": size, "pooling": pooling, "max_epochs": 1, "random_state": 0}
    return FineTunedClassifier(network, **params).fit(*pictures)


def shrunk(pictures):
    return pictures[:, ::2, ::2].copy()


def test_grad_cam_is_cam_behind_a_mean_and_a_linear_head():
    """There it is the class activation map (Zhou et al., CVPR 2016), zero or more, divided by the number of places."""
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(3, 5, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    logits = activations.mean((2, 3)) @ weight.T
    (gradients,) = torch.autograd.grad(logits[:, 1].sum(), activations)
    cam = torch.einsum("k,nkhw->nhw", weight[1], activations)
    assert_allclose(grad_cam(activations, gradients).detach(), cam.clamp(min=0).detach() / 24)


def test_grad_cam_takes_maps_alone():
    """Values of other shapes are refused, not broadcast."""
    with pytest.raises(
        ValueError, match=r"shape \(n, channels, height, width\)\. Got \(2, 3, 4, 4\) and \(2, 3, 4, 1\) instead"
    ):
        grad_cam(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 1))
    with pytest.raises(ValueError, match=r"^activations and gradients must both have the shape"):
        grad_cam(torch.ones(2, 3), torch.ones(2, 3))


def test_of_a_fitted_classifier_it_is_cam(fitted, pictures):
    """The same of a whole classifier, whatever is frozen: from the weights of its head, without any gradient."""
    X, classes = pictures[0], np.arange(12) % 3
    maps, layer = gradient_maps(fitted, X, classes)
    inputs = (torch.from_numpy(X).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        (activations,) = fitted.backbone_.feature_graph("layer4")(inputs)
        weight = last_linear(fitted.net_.module_.head).weight[torch.from_numpy(classes)]
        cam = torch.einsum("nk,nkhw->nhw", weight, activations).clamp(min=0) / 16
        cam = interpolate(cam[:, None], size=(64, 64), mode="bicubic")[:, 0].clamp(min=0)
    assert layer == "layer4"
    assert_allclose(maps, cam, atol=1e-5 * float(cam.max()))
    assert maps.max() > 0


@pytest.mark.parametrize("layer", ["layer2", "layer3.bn1"])
def test_against_finite_differences(layer, pictures):
    """Also inside of stages, and on one of two branches: a weight is what the logit gains with the whole channel."""
    fitted = FineTunedClassifier(freeze_depth=-3, max_epochs=1, random_state=0).fit(*pictures)
    X, classes = pictures[0][:2], np.array([0, 2])
    network = _WatchedNetwork(fitted, layer)
    for part in (network._normalization, network._stages, network._head):
        part.double()
    activations, gradients = network.gradients(X, classes)
    raised = _raised_logits(network, X, classes, activations.shape[1])
    weights = raised / np.prod(activations.shape[2:])
    expected = np.einsum("nk,nkhw->nhw", weights, activations).clip(0)
    assert_allclose(grad_cam(activations, gradients), expected, atol=1e-4 * expected.max())


def _raised_logits(network, X, classes, n_channels, step=1e-7):
    """(n, channels): how fast each logit grows with all places of a channel, by two runs of the network for each."""
    graph = network._stages.graph
    leaf = next(node for node in graph.nodes if getattr(node.target, "__name__", "") == "_as_leaf")
    rates = np.empty((len(X), n_channels))
    for channel in range(n_channels):
        both = []
        for sign in (1, -1):

            def shifted(activations, channel=channel, sign=sign):
                activations = activations.clone()
                activations[:, channel] += sign * step
                return activations

            leaf.target = shifted
            network._stages.recompile()
            with torch.no_grad():
                both.append(network.run(X)[1].numpy()[np.arange(len(X)), classes])
        rates[:, channel] = (both[0] - both[1]) / (2 * step)
    return rates


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_nothing_is_left_behind(fitted, pictures, method):
    """Weights and statistics are the same to the bit, nothing has a gradient or learns that did not, all is in eval."""
    X, classes = pictures[0][:2], np.array([0, 1])
    fitted.predict(X)
    networks = {"net": fitted.net_.module_, "backbone": fitted.backbone_.module}
    before = {name: {k: v.clone() for k, v in network.state_dict().items()} for name, network in networks.items()}
    asking = {name: [x.requires_grad for x in network.parameters()] for name, network in networks.items()}
    predicted = fitted.predict_proba(X)
    if method == "gradcam":
        gradient_maps(fitted, X, classes)
    else:
        occlusion_maps(fitted, X, classes, 32, 32)
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[name][key])
        assert [x.requires_grad for x in network.parameters()] == asking[name]
        assert all(x.grad is None for x in network.parameters())
        assert not any(module.training for module in network.modules())
    assert_array_equal(fitted.predict_proba(X), predicted)
    assert all(x.requires_grad for x in fitted.net_.module_.head.parameters())  # since `fit`


def test_occlusion_is_what_predictions_say(pictures):
    """Pictures that are covered by hand and predicted as any others give the same map, borders included."""
    model = FineTunedClassifier(max_epochs=1, random_state=0).fit(*pictures)
    X, classes = pictures[0][:2], np.array([2, 0])
    expected, covers = np.zeros((2, 64, 64)), np.zeros((64, 64))
    window = np.outer(*[[math.sin(math.pi * (i + 0.5) / 30) ** 2 for i in range(30)]] * 2)
    for row in [0, 15, 30, 34]:
        for column in [0, 15, 30, 34]:
            covered = X.copy()
            covered[:, row : row + 30, column : column + 30] = 128
            lost = model.predict_proba(X) - model.predict_proba(covered)
            expected[:, row : row + 30, column : column + 30] += window * lost[[0, 1], classes][:, None, None]
            covers[row : row + 30, column : column + 30] += window
    assert_allclose(occlusion_maps(model, X, classes, 30, 15), expected / covers, atol=1e-5)


def test_maps_have_no_edges():
    """A peak is round: as much as far to the side as diagonally, where bilinear interpolation draws a cross."""
    maps = torch.zeros(1, 1, 7, 7)
    maps[0, 0, 3, 3] = 1
    (enlarged,) = _enlarged(maps, (140, 140))
    assert enlarged.min() == 0
    middle, step = 70, 10
    diagonal = round(step / 2**0.5)
    straight, across = enlarged[middle, middle + step], enlarged[middle + diagonal, middle + diagonal]
    assert across == pytest.approx(straight, rel=0.1)
    (bilinear,) = interpolate(maps, size=(140, 140), mode="bilinear")[:, 0].numpy()
    bends = [np.abs(np.diff(one[middle, middle - 10 : middle + 10], 2)).max() for one in (enlarged, bilinear)]
    assert bends[0] < 0.3 * bends[1]  # no edge at the peak


def test_many_squares(fitted, pictures, monkeypatch):
    """They are judged some at a time, so that a small stride needs no more memory, with the same map."""
    X, classes = pictures[0][:2], np.array([2, 0])
    expected = occlusion_maps(fitted, X, classes, 32, 16)
    most = []
    judge = _saliency_maps.class_probabilities
    monkeypatch.setattr(_saliency_maps, "class_probabilities", lambda f, X: most.append(len(X)) or judge(f, X))
    monkeypatch.setattr(_saliency_maps, "_AT_ONCE", 4)
    assert_allclose(occlusion_maps(fitted, X, classes, 32, 16), expected, atol=1e-6)
    assert max(most) == 4


def test_squares_by_default(fitted, pictures):
    """A square is a seventh of the picture, and overlaps half of the next one."""
    X, classes = pictures[0][:1], np.array([0])
    assert_array_equal(occlusion_maps(fitted, X, classes, None, None), occlusion_maps(fitted, X, classes, 9, 4))


def test_oblong_pictures(pictures):
    """The shorter side says how large a square is; maps have the sides of the pictures, rows first."""
    size = {"resize_size": 64, "crop_size": (64, 32)}
    model = FineTunedClassifier(preprocessing=size, max_epochs=0, random_state=0).fit(*pictures)
    X, classes = network_inputs(model, check_images(model, pictures[0][:2], reset=False)), np.array([0, 1])
    maps = occlusion_maps(model, X, classes, None, None)
    assert maps.shape == (2, 64, 32)
    assert_array_equal(maps, occlusion_maps(model, X, classes, 4, 2))
    with pytest.raises(ValueError, match=r"'patch_size' parameter must be an int from 1 to 32 .*Got 33 instead"):
        occlusion_maps(model, X, classes, 33, None)
    assert gradient_maps(model, X, classes)[0].shape == (2, 64, 32)


def test_numerics_of_a_map_are_those_of_predictions(pictures):
    """What is lost is lost by the precision in which the classifier predicts."""
    model = FineTunedClassifier(precision="bfloat16", max_epochs=0, random_state=0).fit(*pictures)
    probabilities = class_probabilities(model, pictures[0])
    assert_array_equal(probabilities, model.predict_proba(pictures[0]))
    assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    exact = FineTunedClassifier(max_epochs=0, random_state=0).fit(*pictures)
    assert np.abs(probabilities - class_probabilities(exact, pictures[0])).max() > 1e-6


@pytest.mark.parametrize(
    ("patch_size", "stride", "message"),
    [
        (0, None, r"must be an int from 1 to 64 \(the shorter side of the image\)\. Got 0 instead"),
        (65, None, "'patch_size' parameter must be .*Got 65 instead"),
        (1.5, None, r"'patch_size' parameter must be .*Got 1\.5 instead"),
        (8, 9, r"'stride' parameter must be an int from 1 to 8 \(patch_size\)\. Got 9 instead"),
        (8, True, "'stride' parameter must be .*Got True instead"),
    ],
)
def test_squares_that_do_not_fit(fitted, pictures, patch_size, stride, message):
    """A square larger than the picture, or gaps between squares, are errors that say what would do."""
    with pytest.raises(ValueError, match=message):
        occlusion_maps(fitted, pictures[0][:1], np.array([0]), patch_size, stride)


INNER = {"freeze_depth": -2, "max_epochs": 1, "random_state": 0}


@pytest.mark.parametrize(
    "model",
    [
        FineTunedClassifier(**INNER, head=(8,), dropout=0.5, pooling="gem"),
        FineTunedClassifier(**INNER, freeze_bn=False, pooling="flatten"),
        DistilledClassifier(FineTunedClassifier(**INNER), **INNER),
        PrunedClassifier(FineTunedClassifier(**INNER), max_epochs=1),
        LowRankClassifier(FineTunedClassifier(**INNER), max_epochs=1),
        QuantizedClassifier(FineTunedClassifier(**INNER), scheme="float16"),
        QuantizedClassifier(FineTunedClassifier(**INNER), scheme="codebook", max_epochs=1),
    ],
    ids=["hidden layer", "norms", "distilled", "pruned", "low rank", "float16", "codebook"],
)
def test_the_whole_network_is_the_one_that_predicts(model, pictures):
    """What is put together of frozen and trained stages gives the logits that the classifier gives, whatever it is."""
    model.fit(*pictures)
    fitted, X = find_network(model, pictures[0], "")
    fitted.net_.module_.train()  # as a training that was interrupted may leave it
    network = _WatchedNetwork(fitted, "layer3")
    assert_allclose(network.run(X)[1].detach(), model.decision_function(X), rtol=1e-3, atol=1e-3)
    assert_allclose(class_probabilities(fitted, X), model.predict_proba(X), atol=1e-5)
    assert gradient_maps(fitted, X, np.zeros(12, int))[0].any()


def test_integers(pictures):
    """A network of integers has no gradients, which is said; squares over its pictures work."""
    pytest.importorskip("onnxruntime")
    model = QuantizedClassifier(FineTunedClassifier(**INNER)).fit(*pictures)
    fitted, X = find_network(model, pictures[0], "")
    # The last bit of a feature may decide to which of 256 values it is rounded.
    assert_allclose(class_probabilities(fitted, X), model.predict_proba(X), atol=5e-3)
    assert occlusion_maps(fitted, X[:1], np.array([0]), 32, 16).any()
    with pytest.raises(ValueError, match=r"a quantized network does not have\. Use method='occlusion'"):
        gradient_maps(fitted, X, np.zeros(12, int))


def test_a_transformer_that_uses_its_class_token(pictures):
    """Of the last stage only that token is used, which is no place: the stage before is taken."""
    fitted = fitted_transformer(pictures, "cls")
    X, classes = shrunk(pictures[0]), np.zeros(12, int)
    stages = [stage.name for stage in fitted.backbone_.stages]
    maps, layer = gradient_maps(fitted, X, classes)
    assert layer in stages[:-1]
    assert maps.shape == (12, 32, 32)
    with pytest.raises(ValueError, match=f"does not support layer='{stages[-1]}' of .*Use an earlier layer"):
        gradient_maps(fitted, X, classes, stages[-1])


def test_tokens_lie_row_by_row(pictures):
    """The map of a transformer's tokens is theirs in rows and columns, without the class token."""
    fitted = fitted_transformer(pictures, "avg")
    X, classes = shrunk(pictures[0]), np.zeros(12, int)
    maps, layer = gradient_maps(fitted, X, classes)
    assert layer == fitted.backbone_.stages[-1].name
    network = _WatchedNetwork(fitted, layer)
    with torch.no_grad():
        tokens, _ = network.run(X)
        cam = (tokens[:, 1:] @ last_linear(fitted.net_.module_.head).weight[0]).clamp(min=0) / 16
        cam = interpolate(cam.reshape(12, 1, 4, 4), size=(32, 32), mode="bicubic")[:, 0].clamp(min=0)
    assert_allclose(maps, cam, atol=1e-5)


class ChannelsLast(nn.Module):
    """Maps of shape (n, height, width, channels), as inside of a Swin Transformer."""

    def __init__(self):
        super().__init__()
        self.patches, self.mix, self.fc = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.mix(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_channels_last(pictures):
    """Where channels are the last axis, the map is that of the places all the same."""
    torch.manual_seed(0)
    size = {"resize_size": 32, "crop_size": 32}
    model = FineTunedClassifier(ChannelsLast(), preprocessing=size, max_epochs=0, random_state=0).fit(*pictures)
    X, classes = shrunk(pictures[0]), np.arange(12) % 3
    maps, _ = gradient_maps(model, X, classes, "mix")
    inputs = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    as_learnt = model.backbone_.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (as_learnt.mean, as_learnt.std))
    with torch.no_grad():
        (values,) = model.backbone_.feature_graph("mix")((inputs - mean) / std)
        weight = last_linear(model.net_.module_.head).weight[torch.from_numpy(classes)]
        cam = torch.einsum("nk,nhwk->nhw", weight, values).clamp(min=0) / 16
        cam = interpolate(cam[:, None], size=(32, 32), mode="bicubic")[:, 0].clamp(min=0)
    assert_allclose(maps, cam, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_nobody_wants_gradients(fitted, pictures, mode):
    """A user's mode without gradients changes nothing, and is still on afterwards; a stage may be named by number."""
    X, classes = pictures[0][:2], np.array([0, 1])
    expected, layer = gradient_maps(fitted, X, classes, "layer3")
    with mode():
        maps, found = gradient_maps(fitted, X, classes, 3)
        assert not torch.is_grad_enabled()
    assert layer == found == "layer3"
    assert_array_equal(maps, expected)


def test_places():
    """Rows and columns of maps, of tokens, of maps with channels last, of oblong pictures; a vector has one place."""
    mini = load_backbone("sktl_mini", preprocessing={"crop_size": (64, 32)})
    assert [places(mini, stage.name) for stage in mini.stages] == [(32, 16), (32, 16), (16, 8), (8, 4), (4, 2)]
    size = {"resize_size": 32, "crop_size": 32}
    vit = load_backbone(vision_transformer(), preprocessing=size)
    assert {places(vit, stage.name) for stage in vit.stages} == {(4, 4)}
    swin = SwinTransformer([4, 4], 8, [1, 1], [1, 1], [2, 2])
    swin = load_backbone(swin, preprocessing={"resize_size": 32, "crop_size": (32, 48)})
    assert [places(swin, stage.name) for stage in swin.stages][-1] == (4, 6)
    layers = nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 4)
    vector = load_backbone(nn.Sequential(*layers), preprocessing=size)
    assert {places(vector, stage.name) for stage in vector.stages} == {(1, 1)}


def test_tokens_that_are_no_grid():
    """Where there are more tokens than places, nobody knows where they lie."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.mix = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 8)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.mix(torch.cat([tokens, tokens[:, :2]], 1))

    backbone = load_backbone(Tokens(), preprocessing={"resize_size": 32, "crop_size": 32})
    assert places(backbone, "mix") == (1, 1)


def test_layers_without_places(pictures):
    """A layer that is a vector, and a network of such, are errors that name the way out; so is an unknown layer."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 4))
    size = {"resize_size": 32, "crop_size": 32}
    fitted = FineTunedClassifier(network, preprocessing=size, max_epochs=1, random_state=0).fit(*pictures)
    X, classes = shrunk(pictures[0]), np.zeros(12, int)
    with pytest.raises(
        ValueError, match=r"does not support any stage of .*has no rows and columns.*method='occlusion'"
    ):
        gradient_maps(fitted, X, classes)
    with pytest.raises(ValueError, match=r"does not support layer='2', of shape \(8,\), of .*has no rows and columns"):
        gradient_maps(fitted, X, classes, "2")
    with pytest.raises(BackboneError, match=r"^'nowhere' is not a layer of "):
        gradient_maps(fitted, X, classes, "nowhere")
    with pytest.raises(BackboneError, match="does not name layers"):
        gradient_maps(fitted, X, classes, 9)
    with pytest.raises(
        ValueError, match=r"'layer' parameter must be the index or name of one stage.*Got \['1'\] instead"
    ):
        gradient_maps(fitted, X, classes, ["1"])
    assert occlusion_maps(fitted, X[:1], classes[:1], 16, 16).shape == (1, 32, 32)


def test_the_network_inside(pictures):
    """It is found in searches, frozen estimators and pipelines, whose earlier steps the pictures go through."""
    X, y = pictures
    model = FineTunedClassifier(**INNER).fit(X, y)
    assert find_network(FrozenEstimator(model), X, "")[0].net_ is model.net_
    search = GridSearchCV(FineTunedClassifier(**INNER), {"lr": [1e-3]}, cv=2).fit(X, y)
    assert find_network(search, X, "")[0] is search.best_estimator_
    pipe = make_pipeline(FunctionTransformer(lambda X: X[:, ::-1]), FineTunedClassifier(**INNER)).fit(X, y)
    for outer in (pipe, FrozenEstimator(pipe)):
        found, reaching = find_network(outer, X, "")
        assert found is pipe[-1]
        assert_array_equal(reaching, X[:, ::-1])


def test_no_network_inside(pictures):
    """Regressors, features in front of a classic model and what is not fitted are errors that say what would do."""
    X, y = pictures
    with pytest.raises(ValueError, match="FineTunedRegressor is a regressor"):
        find_network(FineTunedRegressor(**INNER).fit(X, np.arange(12.0)), X, "GradCAMDisplay")
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="Pipeline has no net_: it does not contain a network that predicts classes"):
        find_network(pipe, X, "GradCAMDisplay")
    with pytest.raises(NotFittedError):
        find_network(FineTunedClassifier(), X, "GradCAMDisplay")
