"""Kinds of knowledge: their weights, the pairs of layers, and the loss of a batch, against sums made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sktl._engine._network import PrefixNetwork
from sktl.backbones import load_backbone
from sktl.distillation import (
    attention_loss,
    attention_map,
    decoupled_loss,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
    soft_target_loss,
)
from sktl.distillation._knowledge import (
    ClassifierDistillationLoss,
    LayerPair,
    RegressorDistillationLoss,
    as_map,
    channels,
    check_knowledge,
    pair_layers,
    resolution,
    teacher_map,
)
from sktl.exceptions import BackboneError

KINDS = ("response", "feature")
SMALL = {"resize_size": 64, "crop_size": 64}


# --- which kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knowledge", "expected"),
    [
        ("response", {"response": 1.0}),
        ({"feature": 2}, {"feature": 2.0}),
        ({"response": 1, "feature": 0}, {"response": 1.0}),
        ({"response": np.float64(0.5), "feature": 0.25}, {"response": 0.5, "feature": 0.25}),
    ],
)
def test_kinds_and_their_weights(knowledge, expected):
    """A name is a weight of one, and what weighs nothing is not there."""
    assert check_knowledge(knowledge, KINDS) == expected


@pytest.mark.parametrize(
    "knowledge", ["relation", "", {"relation": 1}, {"response": -1}, {"response": np.nan}, {"response": np.inf}, ["x"]]
)
def test_kinds_that_are_not_understood(knowledge):
    """The error repeats what was given and says what there is."""
    with pytest.raises(ValueError, match=r"is not understood. Use one of \['response', 'feature'\]"):
        check_knowledge(knowledge, KINDS)


@pytest.mark.parametrize("knowledge", [{}, {"response": 0.0}])
def test_no_kind_at_all(knowledge):
    """Nothing of the teacher is alpha=0, and not an empty dict."""
    with pytest.raises(ValueError, match="no kind a weight"):
        check_knowledge(knowledge, KINDS)


# --- which layers ----------------------------------------------------------------------------------------------------


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
        ("last", ValueError, "layers='last' is neither 'auto' nor pairs"),
        ([], ValueError, "has to be pairs of layers"),
        ([("layer3",)], ValueError, "has to be pairs of layers"),
        (["layer3"], ValueError, "has to be pairs of layers"),
        ([("layer9", "layer4")], BackboneError, "'layer9' is no layer of 'resnet18'"),
        ([("layer4", "layer9")], BackboneError, "'layer9' is no layer of 'sktl_mini'"),
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
    with pytest.raises(ValueError, match="Layer 'x' of 'fake' has 12 tokens, which form no square map"):
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


# --- the loss of a batch ---------------------------------------------------------------------------------------------

WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.5, 1.0])  # of the labels, with classes
TEACHER_WEIGHT = torch.tensor([1.0, 2.0, 0.5, 0.5, 1.0])
Y = torch.tensor([2, 0, -1, 1, -1])


def drawn(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def criterion(knowledge="response", *, alpha=0.7, pairs=(), student=None, **params):
    settings = {"label_smoothing": 0.0, "temperature": 3.0, "beta": 8.0, "class_weight": np.ones(3), **params}
    knowledge = check_knowledge(knowledge, ("response", "decoupled", "feature", "attention", "relation", "similarity"))
    return ClassifierDistillationLoss(knowledge, alpha=alpha, pairs=pairs, student=student, seed=0, **settings)


def cross_entropies(outputs, y):
    logs = outputs.log_softmax(1)
    return torch.stack([-logs[row, label] if label >= 0 else torch.tensor(0.0) for row, label in enumerate(y.tolist())])


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["response", "decoupled"])
def test_answers_and_labels(kind, alpha):
    """alpha * T² * KL and (1 - alpha) * CE, each with its weights; a row without a label has the first part only."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    batch = {"x": None, "teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    logs = [(x / 3.0).log_softmax(1) for x in (outputs, teacher)]
    said = 9 * functional.kl_div(*logs, reduction="none", log_target=True).sum(1)
    if kind == "decoupled":  # what has no label takes the teacher's word for it
        said = decoupled_loss(outputs, teacher, torch.where(Y >= 0, Y, teacher.argmax(1)), 3.0, 8.0)
    expected = (alpha * said * TEACHER_WEIGHT + (1 - alpha) * cross_entropies(outputs, Y) * WEIGHT).mean()
    torch.testing.assert_close(criterion(kind, alpha=alpha)((outputs, features), Y, batch), expected)


def test_label_smoothing_is_of_labels_alone():
    """It changes the labels' part while it learns, and not the teacher's, and nothing where it judges."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones}
    smooth = criterion(alpha=0.0, label_smoothing=0.3)
    labelled = functional.cross_entropy(outputs[Y >= 0], Y[Y >= 0], reduction="sum", label_smoothing=0.3) / 5
    torch.testing.assert_close(smooth((outputs, features), Y, batch), labelled)
    torch.testing.assert_close(smooth.eval()((outputs, features), Y, batch), cross_entropies(outputs, Y).mean())
    plain, smooth = (criterion(alpha=1.0, label_smoothing=share)((outputs, features), Y, batch) for share in (0, 0.3))
    assert torch.equal(plain, smooth)


def test_classes_that_weigh_more():
    """The teacher's probabilities are multiplied by the weights; a class of none is as good as never there."""
    outputs, teacher, features = drawn((5, 3), (5, 3), (5, 7))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones}
    weights = np.array([2.0, 0.5, 1.0])
    shifted = (teacher.softmax(1) * torch.tensor(weights).float()).log()
    expected = soft_target_loss(outputs, shifted, 1.0).mean()
    got = criterion(alpha=1.0, temperature=1.0, class_weight=weights)((outputs, features), Y, batch)
    torch.testing.assert_close(got, expected)
    never = criterion(alpha=1.0, temperature=1.0, class_weight=np.array([0.0, 1, 1]))((outputs, features), Y, batch)
    assert never.isfinite()
    two = (outputs[:, 1:].log_softmax(1), teacher[:, 1:].log_softmax(1))
    without = functional.kl_div(*two, reduction="batchmean", log_target=True)
    missing = -(1 - outputs.softmax(1)[:, 0]).log().mean()  # what the student gives to the class that is none
    torch.testing.assert_close(never, without + missing, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["relation", "similarity"])
def test_relations_between_rows(kind):
    """RKD's distances and twice its angles; similarities times the rows, so that the batch's size does not matter."""
    outputs, teacher, features, embedding = drawn((5, 3), (5, 3), (5, 7), (5, 9))
    batch = {"teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT, "embedding": embedding}
    if kind == "relation":
        parts = (relational_distance_loss, relational_angle_loss)
        distance, angle = (part(features, embedding, TEACHER_WEIGHT) for part in parts)
        said = distance + 2 * angle
    else:
        said = 5 * similarity_loss(features, embedding, TEACHER_WEIGHT)
    got = criterion(kind, alpha=1.0)((outputs, features), Y, batch)
    torch.testing.assert_close(got, (said * TEACHER_WEIGHT).mean())
    assert got > 1e-3


@pytest.fixture
def pairs():
    """Two pairs of layers, and a student whose second one has its channels last."""
    student = SimpleNamespace(channel_axis={"a": 1, "b": -1}.get, has_cls_token=lambda layer: False)
    return [LayerPair("A", "a", 6, 4, (3, 3)), LayerPair("B", "b", 5, 2, (1, 2))], student


def test_maps_of_layers(pairs):
    """Hints after a learned map at each place, attention summed over the places; the mean over the pairs of each."""
    pairs, student = pairs
    outputs, teacher, features, a, b = drawn((5, 3), (5, 3), (5, 7), (5, 4, 3, 3), (5, 1, 2, 2))
    hints = drawn((5, 6, 3, 3), (5, 5, 1, 2))
    looks = [x.square() for x in drawn((5, 9), (5, 2))]
    batch = {"teacher": teacher, "teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    batch |= {f"feature{i}": x for i, x in enumerate(hints)} | {f"attention{i}": x for i, x in enumerate(looks)}
    loss = criterion({"feature": 0.5, "attention": 2.0}, alpha=0.4, pairs=pairs, student=student)
    assert [tuple(layer.weight.shape) for layer in loss.maps] == [(6, 4), (5, 2)]
    b_first = b.movedim(-1, 1)
    mapped = [
        torch.einsum("oc,nchw->nohw", layer.weight, x) + layer.bias[:, None, None]
        for layer, x in zip(loss.maps, (a, b_first), strict=True)
    ]
    hint = (hint_loss(mapped[0], hints[0]) + hint_loss(mapped[1], hints[1])) / 2
    look = (9 * attention_loss(attention_map(a), looks[0]) + 2 * attention_loss(attention_map(b_first), looks[1])) / 2
    labels = cross_entropies(outputs, Y) * WEIGHT
    expected = (0.4 * (0.5 * hint + 2 * look) * TEACHER_WEIGHT + 0.6 * labels).mean()
    torch.testing.assert_close(loss((outputs, features, a, b), Y, batch), expected)


def test_learned_maps(pairs):
    """They come from the seed alone, ask for gradients, belong to hints only, and are gone when training has ended."""
    pairs, student = pairs
    before = torch.get_rng_state()
    first, again = (criterion("feature", pairs=pairs, student=student) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(first.parameters(), again.parameters(), strict=True))
    assert len(list(first.parameters())) == 4
    assert all(parameter.requires_grad for parameter in first.parameters())
    assert not list(criterion("attention", pairs=pairs, student=student).parameters())
    first.forget_maps()
    assert not list(first.parameters())


def test_a_weight_of_none_costs_nothing():
    """Kinds are weighed against each other: twice the weights is twice the teacher's part."""
    outputs, teacher, features, embedding = drawn((5, 3), (5, 3), (5, 7), (5, 9))
    ones = torch.ones(5)
    batch = {"teacher": teacher, "teacher_weight": ones, "weight": ones, "embedding": embedding}
    single = [criterion(kind, alpha=1.0)((outputs, features), Y, batch) for kind in ("response", "relation")]
    both = criterion({"response": 0.5, "relation": 3.0}, alpha=1.0)((outputs, features), Y, batch)
    torch.testing.assert_close(both, 0.5 * single[0] + 3 * single[1])
    none = criterion({"response": 1.0, "relation": 0.0}, alpha=1.0)((outputs, features), Y, batch)
    assert torch.equal(none, single[0])


def test_gradients_reach_the_student_and_not_the_teacher(pairs):
    """Of all kinds at once, what the student gave gets gradients, all finite; what the teacher gave gets none."""
    pairs, student = pairs
    given = drawn((5, 3), (5, 7), (5, 4, 3, 3), (5, 1, 2, 2))
    given = [x.requires_grad_() for x in given]
    teacher = drawn((5, 3), (5, 9), (5, 6, 3, 3), (5, 5, 1, 2), (5, 9), (5, 2))
    names = ["teacher", "embedding", "feature0", "feature1", "attention0", "attention1"]
    batch = dict(zip(names, teacher, strict=True)) | {"teacher_weight": TEACHER_WEIGHT, "weight": WEIGHT}
    kinds = ("response", "decoupled", "feature", "attention", "relation", "similarity")
    loss = criterion(dict.fromkeys(kinds, 1.0), pairs=pairs, student=student)
    loss(tuple(given), Y, batch).backward()
    for x in (*given, *loss.parameters()):
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 1e-6
    assert all(x.grad is None for x in teacher)


def test_scores_are_of_labelled_rows():
    """Accuracy and R² with the rows' weights, where something is known; NaN where nothing is."""
    outputs = np.eye(3, dtype=np.float32)
    score = criterion().score
    assert score(outputs, np.array([0, 2, -1]), np.array([3.0, 1.0, 9.0])) == 0.75
    assert np.isnan(score(outputs, np.full(3, -1), np.ones(3)))
    assert criterion().predict(outputs).tolist() == [0, 1, 2]
    regression = RegressorDistillationLoss({"response": 1.0}, alpha=0.5, pairs=(), student=None, seed=0)
    y = np.array([[1.0], [2.0], [np.nan], [3.0]])
    outputs = np.array([[1.0], [2.5], [9.0], [3.0]])
    assert regression.score(outputs, y, np.ones(4)) == pytest.approx(1 - 0.25 / 2)
    assert np.isnan(regression.score(outputs, np.full((4, 1), np.nan), np.ones(4)))


def test_numbers_that_are_missing():
    """A target that is NaN adds nothing and gives no gradient; the others and the teacher's part keep their share."""
    outputs, teacher, features = drawn((4, 2), (4, 2), (4, 7))
    outputs.requires_grad_()
    y = torch.tensor([[1.0, 2.0], [float("nan"), 1.0], [float("nan"), float("nan")], [0.0, 1.0]])
    weight, teacher_weight = torch.tensor([1.0, 2, 3, 1]), torch.tensor([1.0, 1, 2, 1])
    batch = {"teacher": teacher, "teacher_weight": teacher_weight, "weight": weight}
    loss = RegressorDistillationLoss({"response": 1.0}, alpha=0.25, pairs=(), student=None, seed=0)
    rows = []
    for row in range(4):
        known = ~torch.isnan(y[row])
        labels = (outputs[row, known] - y[row, known]).square().sum() / 2
        said = (outputs[row] - teacher[row]).square().mean()
        rows.append(0.25 * said * teacher_weight[row] + 0.75 * labels * weight[row])
    got = loss((outputs, features), y, batch)
    torch.testing.assert_close(got, torch.stack(rows).mean())
    got.backward()
    assert outputs.grad.isfinite().all()


def test_the_loss_is_a_module_of_its_device():
    """What it holds beside the maps moves with it and is no parameter that an optimizer would find."""
    loss = criterion()
    assert isinstance(loss, nn.Module)
    assert not list(loss.parameters())
    assert {tensor.device.type for tensor in loss.to("meta").buffers()} <= {"meta"}
