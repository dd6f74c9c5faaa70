"""A distillation from end to end: the loss that is trained, what layers teach, students of all kinds, a fit's flow."""

import copy
import random

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch.callbacks import Callback
from torch import nn

from sktl import (
    DistilledClassifier,
    FineTunedClassifier,
    FineTunedRegressor,
)
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError, DivergenceError, ImageError, InputError

ALL_KINDS = ("response", "decoupled", "feature", "attention", "relation", "similarity")
LAYERS = ALL_KINDS[2:]


def state_of(model):
    return model.backbone_.module.state_dict()


def moved_stages(model, source=None):
    """The stages with a parameter or a buffer that is not what it was, to the bit."""
    source = (source or load_backbone("sktl_mini")).module.state_dict()
    return {key.partition(".")[0] for key, value in state_of(model).items() if not torch.equal(value, source[key])}


# --- the loss that is trained -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"freeze_depth": -1, "dropout": 0.3, "batch_size": 8},
        {"freeze_depth": 3, "early_stopping": True, "validation_fraction": 0.3, "head": (8,)},
        {"augment": "flip", "freeze_depth": -1},
        {"class_weight": {0: 3.0}, "label_smoothing": 0.1},
        {"knowledge": {"response": 1.0, "relation": 1.0, "feature": 1.0}, "freeze_depth": -1},
    ],
    ids=str,
)
def test_without_the_teachers_share_it_is_fine_tuning(rows, make, network, settings):
    """With alpha=0 the student is FineTunedClassifier with the same parameters, to the bit, and so is its history."""
    X, y = rows
    student = make(network, alpha=0.0, **settings).fit(X, y)
    own = set(FineTunedClassifier().get_params())
    alone = FineTunedClassifier(**{name: x for name, x in student.get_params(deep=False).items() if name in own})
    alone.fit(X, y)
    np.testing.assert_array_equal(student.predict_proba(X), alone.predict_proba(X))
    assert student.history_[:, "train_loss"] == alone.history_[:, "train_loss"]
    assert all(torch.equal(value, state_of(alone)[key]) for key, value in state_of(student).items())


def test_a_regressor_without_the_teachers_share(rows, make_regressor):
    """With alpha=0 the student is FineTunedRegressor with the same parameters, to the bit."""
    X, y = rows
    student = make_regressor(LinearRegression(), alpha=0.0, freeze_depth=-1).fit(X, y)
    alone = FineTunedRegressor(freeze_depth=-1, max_epochs=2, lr=0.001, random_state=0).fit(X, y)
    np.testing.assert_array_equal(student.predict(X), alone.predict(X))


def losses(student, teacher, y, temperature):
    """The divergence from softened answers times T², and the cross-entropy, of each row; logits given."""
    soft = [log_softmax(x / temperature, axis=1) for x in (student, teacher)]
    divergence = temperature**2 * (np.exp(soft[1]) * (soft[1] - soft[0])).sum(1)
    return divergence, -log_softmax(student, axis=1)[np.arange(len(y)), np.maximum(y, 0)]


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_hintons(rows, make, alpha, temperature):
    """The first epoch's loss, in one batch, is alpha * T² * KL + (1 - alpha) * CE of the student as it started."""
    X, y = rows
    settings = {"alpha": alpha, "temperature": temperature, "head_init": "random"}
    start = make(**settings, max_epochs=0).fit(X, y)
    divergence, cross_entropy = losses(start.decision_function(X), start.teacher_.decision_function(X), y, temperature)
    trained = make(**settings, max_epochs=1).fit(X, y, X_val=X, y_val=y)
    expected = alpha * divergence.mean() + (1 - alpha) * cross_entropy.mean()
    assert trained.history_[0, "train_loss"] == pytest.approx(expected, rel=1e-4)
    assert divergence.mean() > 0.01


@pytest.mark.parametrize("n_labelled", [30, 6])
def test_each_part_keeps_its_share(rows, make, n_labelled):
    """Rows without labels add to the teacher's part alone; the labels' part is a mean over those that have one.

    So it is with weights, and in a validation set, whatever the share of labels in
    each.
    """
    X, y = rows
    weight = np.random.default_rng(0).uniform(0.5, 2, 30)
    labels = np.where(np.arange(30) < n_labelled, y, -1)
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, y))
    settings = {"unlabeled": -1, "alpha": 0.4, "temperature": 2.0, "head_init": "random"}
    start = make(teacher, **settings, max_epochs=0).fit(X, labels, sample_weight=weight)
    logits = start.decision_function(X), teacher.decision_function(X)
    divergence, cross_entropy = losses(*logits, labels, 2.0)
    known = labels >= 0
    expected = 0.4 * np.average(divergence, weights=weight)
    expected += 0.6 * np.average(cross_entropy[known], weights=weight[known])
    trained = make(teacher, **settings, max_epochs=1, lr=1e-9)
    trained.fit(X, labels, sample_weight=weight, X_val=X, y_val=y)
    assert trained.history_[0, "train_loss"] == pytest.approx(expected, rel=1e-4)
    divergence, cross_entropy = losses(*logits, y, 2.0)
    judged = 0.4 * divergence.mean() + 0.6 * cross_entropy.mean()
    assert trained.history_[0, "valid_loss"] == pytest.approx(judged, rel=1e-4)


@pytest.mark.parametrize("freeze_depth", [0, -1])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_of_knowledge_is_learnt(rows, make, stranger, kind, freeze_depth):
    """The loss of each kind alone falls, all stages that may move do, and the frozen ones are equal to the bit."""
    settings = {"alpha": 1.0, "freeze_depth": freeze_depth, "lr": 0.003, "weight_decay": 0.0, "max_epochs": 8}
    student = make(stranger, knowledge=kind, head_init="random", layers=[("layer2", "layer4")], **settings)
    falling = student.fit(*rows).history_[:, "train_loss"]
    assert falling[-1] < 0.9 * falling[0]
    assert moved_stages(student) == set(["stem", "layer1", "layer2", "layer3", "layer4"][freeze_depth:])


@pytest.mark.parametrize("kind", ["feature", "attention"])
def test_gradients_reach_the_tapped_layers(rows, make, network, kind):
    """A hint in the third stage moves that and what is in front of it, and neither the last stage nor the head."""
    settings = {"alpha": 1.0, "freeze_depth": 2, "weight_decay": 0.0, "max_epochs": 1, "head_init": "random"}
    student = make(network, knowledge=kind, layers=[("layer2", "layer3")], **settings).fit(*rows)
    assert moved_stages(student) == {"layer2", "layer3"}
    untouched = make(network, **{**settings, "max_epochs": 0}).fit(*rows)
    assert torch.equal(student.net_.module_.head[-1].weight, untouched.net_.module_.head[-1].weight)


@pytest.mark.parametrize("kind", ["relation", "similarity"])
def test_relations_do_not_reach_the_head(rows, make, network, kind):
    """They are of what reaches the head: the last stage moves, the head does not."""
    settings = {"alpha": 1.0, "freeze_depth": -1, "weight_decay": 0.0, "max_epochs": 1, "head_init": "random"}
    student = make(network, knowledge=kind, pooling="max", **settings).fit(*rows)
    assert moved_stages(student) == {"layer4"}
    untouched = make(network, **{**settings, "max_epochs": 0}).fit(*rows)
    assert torch.equal(student.net_.module_.head[-1].weight, untouched.net_.module_.head[-1].weight)


@pytest.mark.parametrize("kind", LAYERS)
def test_knowledge_that_cannot_reach_the_student(rows, make, network, kind):
    """Where the head learns alone, or a layer is frozen, unknown, or the teacher has none, an error says what to do."""
    student = make(network, knowledge=kind)
    with pytest.raises(
        ValueError, match=r"trains only the head, but .*Freeze fewer stages, or use knowledge='response'"
    ):
        student.fit(*rows)
    with pytest.raises(ValueError, match=r"must contain exactly one sktl network .*knowledge='response'"):
        make(LogisticRegression(), knowledge=kind, freeze_depth=-1).fit(*rows)
    if kind not in ("feature", "attention"):
        return
    for layers, match in [
        ([("layer3", "layer2")], r"\['layer2'\] of 'sktl_mini' belong to the first 4 stages.*Freeze fewer stages"),
        ([("layer3", "layer9")], r"'layer9' is not a layer of 'sktl_mini'"),
        ([("layer9", "layer4")], r"'layer9' is not a layer of 'sktl_mini'"),
    ]:
        with pytest.raises(BackboneError, match=match):
            make(network, knowledge=kind, freeze_depth=-1, layers=layers).fit(*rows)
    with pytest.raises(ValueError, match="at each position of an image, which augment='flip' may change"):
        make(network, knowledge=kind, freeze_depth=-1, augment="flip").fit(*rows)


@pytest.mark.parametrize("kind", ["feature", "attention", "relation"])
def test_a_teacher_with_channels_last(rows, make, kind):
    """A Swin transformer of random weights teaches a convolutional student by its layers."""
    size = {"resize_size": 32, "crop_size": 32}
    teacher = FineTunedClassifier(
        "swin_t", weights=None, preprocessing=size, freeze_depth="all", max_epochs=0, random_state=0
    )
    student = make(teacher, knowledge=kind, freeze_depth=-1, alpha=1.0, max_epochs=1).fit(rows[0][:12], rows[1][:12])
    assert np.isfinite(student.history_[:, "train_loss"]).all()
    assert moved_stages(student) == {"layer4"}


# --- students ---------------------------------------------------------------------------------------------------------


def perceptron():
    """Hinton's own kind of student, for pictures of 8 x 8 with one channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


FLAT = {"in_channels": 1, "preprocessing": {"resize_size": 8, "crop_size": 8}}


@pytest.mark.parametrize("knowledge", ["response", "decoupled", "feature", "relation", "similarity"])
def test_a_perceptron_on_flat_rows(rows, make, knowledge):
    """Linear layers learn from rows of pixels, from another network of such layers, by each kind that vectors have."""
    X, y = rows
    teacher = FineTunedClassifier(perceptron(), **FLAT, freeze_depth=0, max_epochs=20, lr=0.01, random_state=0)
    student = make(teacher, perceptron(), **FLAT, freeze_depth=0, max_epochs=20, lr=0.01, knowledge=knowledge)
    assert student.fit(X, y).score(X, y) > 0.9
    assert student.footprint_.to_dict()["macs"][1] > 0


def test_students_of_every_kind(rows, make, network):
    """A name, a module, a backbone and a fitted estimator are trained; what was given is not changed."""
    X, y = rows
    module = load_backbone("sktl_mini").module
    backbone = load_backbone("sktl_mini")
    fitted = FineTunedClassifier(freeze_depth=-1, max_epochs=1, lr=0.01, random_state=0).fit(X, y)
    size = {"preprocessing": backbone.preprocessing}
    expected = make(network, freeze_depth=-1).fit(X, y).predict_proba(X)
    for student, settings in [(module, size), (backbone, {})]:
        before = copy.deepcopy(module.state_dict())
        got = make(network, student, freeze_depth=-1, **settings).fit(X, y)
        np.testing.assert_allclose(got.predict_proba(X), expected, rtol=1e-4)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    learnt = copy.deepcopy(state_of(fitted))
    for student in (fitted, FrozenEstimator(fitted)):
        second = make(network, student, max_epochs=0).fit(X, y)
        assert all(torch.equal(value, learnt[name]) for name, value in state_of(second).items())
        assert not np.allclose(second.predict_proba(X), expected, rtol=1e-2)
        assert moved_stages(make(network, student, freeze_depth=-1).fit(X, y), fitted.backbone_) == {"layer4"}
    assert all(torch.equal(value, learnt[name]) for name, value in state_of(fitted).items())
    chained = make(FrozenEstimator(make(network).fit(X, y))).fit(X, y)
    assert chained.teacher_answers_ == "logits"
    with pytest.raises(BackboneError, match="resnet18"):
        make(network, "resnet1").fit(X, y)


# --- the flow of a fit ------------------------------------------------------------------------------------------------


class Seen(Callback):
    """Notes how many parameters learn, and the stage names of the optimizer's groups."""

    def on_train_begin(self, net, **kwargs):
        self.groups = [group["stage"] for group in net.optimizer_.param_groups]


def test_what_the_loss_learns_is_trained_and_left_behind(rows, make, network):
    """Learned maps are in the optimizer while training lasts, and not in the net afterwards."""
    seen = Seen()
    student = make(network, knowledge="feature", freeze_depth=-1, callbacks=[seen], max_epochs=3).fit(*rows)
    assert seen.groups.count("loss") == 1
    assert len(student.history_) == student.n_iter_ == 3
    assert not list(student.net_.criterion_.parameters())
    assert "loss" not in [group["stage"] for group in student.net_.optimizer_.param_groups]
    assert not student.net_.optimizer_.state
    assert student.trainable_summary().to_dict()["layer"][-1] == "head"


def test_early_stopping_puts_the_best_weights_back(rows, make):
    """It judges by the whole loss on rows set aside, which the teacher that is fitted has not seen either."""
    X, y = rows
    settings = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "freeze_depth": -1}
    student = make(**settings, lr=1.0, max_epochs=30).fit(X, y)
    assert student.n_iter_ == len(student.history_) == student.best_epoch_ + 2
    assert 0 <= student.history_[-1, "valid_score"] <= 1
    assert student.score(X, y) > 0.8


def test_rows_set_aside_are_not_the_teachers(rows, make, watched, calls):
    """What is judged on is neither learnt nor taught: the teacher is fitted on the other rows, and asked about all."""
    X, y = rows
    make(watched, early_stopping=True, validation_fraction=0.3).fit(X, y)
    assert [len(asked) for asked in calls.asked] == [21, 9]
    (taught,) = [asked for asked in calls.asked if len(asked) == 21]
    (judged,) = [asked for asked in calls.asked if len(asked) == 9]
    assert calls.n_fits == 1
    assert not {row.tobytes() for row in np.asarray(taught)} & {row.tobytes() for row in np.asarray(judged)}


def test_a_given_validation_set(rows, make):
    """The teacher is asked about it too; its rows may have no labels, and then there is no score, but a loss."""
    X, y = rows
    teacher = FrozenEstimator(LogisticRegression(C=0.1).fit(X, y))
    student = make(teacher, unlabeled=-1, max_epochs=1).fit(X[:20], y[:20], X_val=X[20:], y_val=y[20:])
    assert student.history_[-1, "valid_score"] == student.score(X[20:], y[20:])
    student.fit(X[:20], y[:20], X_val=X[20:], y_val=np.full(10, -1))
    assert np.isfinite(student.history_[-1, "valid_loss"])
    assert np.isnan(student.history_[-1, "valid_score"])
    with pytest.raises(ValueError, match="X_val and y_val must be passed together"):
        student.fit(X, y, X_val=X)


def test_a_warm_start_goes_on(rows, make, watched, calls):
    """History and weights go on with the same teacher, which is neither fitted nor asked again; or with a new one."""
    X, y = rows
    student = make(watched, warm_start=True).fit(X, y)
    teacher = student.teacher_
    calls.forget()
    before = student.predict_proba(X)
    student.set_params(max_epochs=0).fit(X, y)
    np.testing.assert_array_equal(student.predict_proba(X), before)
    student.set_params(max_epochs=3, freeze_depth=-1, temperature=2.0, alpha=0.2).fit(X, y)
    assert len(student.history_) == 2 + 0 + 3
    assert student.teacher_ is teacher
    assert (calls.n_fits, calls.n_asked) == (0, 0)
    other = FrozenEstimator(LogisticRegression().fit(X, y))
    assert student.set_params(teacher=other).fit(X, y).teacher_ is other
    student.set_params(warm_start=False).fit(X, y)
    assert len(student.history_) == 3


@pytest.mark.parametrize("n_views", [None, 2])
@pytest.mark.parametrize("cache", ["auto", None])
def test_the_teacher_judges_pictures_as_they_are(rows, make, watched, calls, n_views, cache):
    """Augmented views are the student's affair: the teacher sees each picture once, as given."""
    X, y = rows
    teacher = FrozenEstimator(watched.fit(X, y))
    settings = {"augment": lambda picture: 255 - picture, "n_views": n_views, "cache": cache, "freeze_depth": -1}
    student = make(teacher, **settings, max_epochs=3).fit(X, y)
    asked = {row.tobytes() for table in calls.asked for row in np.asarray(table)}
    assert asked == {row.tobytes() for row in X}
    assert calls.n_asked == 30
    plain = make(teacher, freeze_depth=-1, max_epochs=3).fit(X, y)
    assert not np.allclose(plain.predict_proba(X), student.predict_proba(X), rtol=1e-2)


class Interrupted(nn.Linear):
    """A head at which the user presses Ctrl-C in the third batch."""

    n_batches = 0

    def forward(self, x):
        self.n_batches += self.training
        if self.n_batches == 3:
            self.n_batches += 1
            raise KeyboardInterrupt
        return super().forward(x)


def test_an_interruption_keeps_what_was_learnt(rows, make, network):
    """Ctrl-C in the third epoch leaves a whole student of two, and no learned maps; how far it agrees is not known."""
    X, y = rows
    settings = {"knowledge": {"response": 1.0, "feature": 1.0}, "freeze_depth": -1, "max_epochs": 9}
    student = make(network, head=Interrupted(512, 3), **settings)
    with pytest.raises(KeyboardInterrupt):
        student.fit(X, y)
    assert len(student.history_) == 2
    assert student.score(X, y) > 0.9
    assert not list(student.net_.criterion_.parameters())
    assert np.isnan(student.footprint_.to_dict()["agreement"][1])  # which takes time that nobody has now


def test_a_divergence_leaves_good_weights(rows, make, network):
    """After the error the student predicts as before the fatal step, holds no maps, and its footprint does not fail."""
    X, y = rows
    settings = {"knowledge": {"response": 1.0, "feature": 1.0}, "freeze_depth": -1, "max_epochs": 4}
    student = make(network, lr=1e30, **settings)
    with pytest.raises(DivergenceError, match=r"\(lr=1e\+30\) is too large"):
        student.fit(X, y)
    assert np.isfinite(student.predict_proba(X)).all()
    assert student.score(X, y) > 0.9
    assert not list(student.net_.criterion_.parameters())
    assert np.isnan(student.footprint_.to_dict()["agreement"][1])  # which takes time that nobody has now


def test_after_a_failed_fit_it_is_not_fitted(rows, make):
    """Old weights would meet new classes."""
    X, y = rows
    student = make().fit(X, y)
    with pytest.raises(BackboneError):
        student.set_params(freeze_depth="layer9").fit(X, y)
    with pytest.raises(NotFittedError):
        student.predict(X)


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze_depth": -1, "dropout": 0.3, "head": (8,)},
        {"knowledge": {"feature": 1.0, "relation": 1.0}, "freeze_depth": -1, "batch_size": 8, "head_init": "random"},
        {"augment": "trivial", "cache": None, "head_init": "random"},
    ],
    ids=str,
)
def test_one_seed_gives_one_result(rows, make, network, settings):
    """Two fits are equal to the bit, in any order of the rows; another seed is another; global generators rest."""
    X, y = rows
    before = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    first = make(network, **settings).fit(X, y).predict_proba(X)
    after = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    assert after == before
    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    order = np.random.default_rng(0).permutation(30)
    again = make(network, **settings).fit(X[order], y[order]).predict_proba(X)
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(make(network, **settings, random_state=1).fit(X, y).predict_proba(X), first)


@pytest.mark.parametrize("knowledge", ["response", {"feature": 1.0, "attention": 1.0, "relation": 1.0}])
def test_cached_and_live_are_the_same(rows, make, network, tmp_path, knowledge):
    """In memory, in a directory or not at all: the same losses and predictions."""
    X, y = rows
    settings = {"knowledge": knowledge, "freeze_depth": -1}
    kept, stored, live = (make(network, **settings, cache=cache).fit(X, y) for cache in ("auto", tmp_path, None))
    for other in (stored, live):
        np.testing.assert_allclose(other.history_[:, "train_loss"], kept.history_[:, "train_loss"], rtol=1e-4)
        np.testing.assert_allclose(other.predict_proba(X), kept.predict_proba(X), atol=1e-3)


def test_attention_needs_places(rows, make):
    """A student of vectors has no places that could be compared: an error that says what works."""
    X, y = rows
    network = FineTunedClassifier(freeze_depth="all", max_epochs=0, random_state=0).fit(X, y)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    size = {"resize_size": 8, "crop_size": 8, "mean": (0.5,), "std": (0.5,)}
    student = make(
        FrozenEstimator(network), student=mlp, knowledge="attention", in_channels=1, preprocessing=size, freeze_depth=0
    )
    with pytest.raises(ValueError, match=r"knowledge='attention' compares attention maps, .*Use 'feature' instead"):
        student.fit(X, y)


@pytest.mark.parametrize("spelling", [-1, np.nan])
def test_rows_without_a_label_are_not_scored(rows, spelling):
    """Neither right nor wrong: the score is that on the others, with their weights; of none there is an error."""
    X, y = rows
    some = np.arange(30) % 3 > 0
    given = np.where(some, y, spelling)
    student = DistilledClassifier(LogisticRegression(), unlabeled=spelling, max_epochs=0, random_state=0).fit(X, given)
    weight = np.arange(30.0)
    assert student.score(X, given, weight) == student.score(X[some], y[some], weight[some])
    assert student.score(list(X), given.tolist()) == pytest.approx(student.score(X[some], y[some]))
    with pytest.raises(InputError, match=r"All rows of y have missing labels \(unlabeled="):
        student.score(X, np.full(30, spelling))
    for other in (given[:20], np.resize(given, 40), given[:0]):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            student.score(X, other)
    with pytest.raises(ImageError, match="is neither a file nor a folder"):
        student.score("nowhere.png", given)


def test_a_search_scores_the_rows_with_labels(rows):
    """The best score is the accuracy on the labels of each fold."""
    X, y = rows
    given = np.where(np.arange(30) % 3 > 0, y, -1)
    student = DistilledClassifier(LogisticRegression(), unlabeled=-1, max_epochs=0, random_state=0)
    cv = StratifiedKFold(2)
    search = GridSearchCV(student, {"alpha": [0.5]}, cv=cv).fit(X, given)
    expected = []
    for train, test in cv.split(X, given):
        labeled = test[given[test] != -1]
        expected.append(np.mean(clone(student).fit(X[train], given[train]).predict(X[labeled]) == given[labeled]))
    assert search.best_score_ == pytest.approx(np.mean(expected))
    assert search.best_score_ > 0.5
