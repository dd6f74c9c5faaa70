"""The extractor as scikit-learn's users see it, and what training without labels must not do."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import EarlyStopping
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.anomaly import AnomalyDetector
from sktl.exceptions import BackboneError, ImageWarning, InputError, TrainingWarning
from sktl.self_supervised import SelfSupervisedExtractor, _monitor, vicreg_loss

pytestmark = pytest.mark.filterwarnings("ignore:The features collapsed")


@parametrize_with_checks([SelfSupervisedExtractor()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the extractor passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def make(tiny):
    """Makes an extractor with a network of three small stages."""

    def make(**params):
        own = {"freeze_depth": 0, "projector": (8, 8), "max_epochs": 2, "batch_size": 16, "random_state": 0}
        return SelfSupervisedExtractor(tiny, **{**own, **params})

    return make


def weights(model) -> dict[str, torch.Tensor]:
    return model.backbone_.module.state_dict()


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))


TASKS = {
    "vicreg": {"task": "vicreg"},
    "simclr": {"task": "simclr"},
    "rotation": {"task": "rotation"},
    "rotation of plain images": {"task": "rotation", "augment": None},
    "callable": {"task": lambda first, second: (first - second).square().mean()},
    "callable augment": {"augment": lambda image: image.flip(2)},
    "trivial": {"augment": "trivial"},
    "behind frozen stages": {"freeze_depth": 1},
    "rotation behind frozen stages": {"task": "rotation", "freeze_depth": 1},
    "without a cache": {"cache": None, "freeze_depth": 1},
    "own projector": {"projector": nn.Linear(8, 3)},
}


@pytest.mark.parametrize("name", TASKS)
def test_tasks(digits, make, name):
    """Each task trains the network: its weights change, features are finite, and the history tells of each epoch."""
    model = make(**TASKS[name]).fit(digits[0])
    assert not same(model, make(max_epochs=0).fit(digits[0]))
    assert np.isfinite(model.transform(digits[0])).all()
    assert model.transform(digits[0]).shape == (30, 8)
    assert len(model.history_) == model.n_iter_ == model.best_epoch_ == 2
    assert all({"train_loss", "lr", "dur", "std", "effective_rank"} <= row.keys() for row in model.history_)
    assert "knn_accuracy" not in model.history_[-1]


def test_training_helps(digits, make):
    """Rotations are learned, and the loss of two views falls."""
    for task in ("vicreg", "simclr", "rotation"):
        losses = make(task=task, max_epochs=30, lr=0.01).fit(digits[0]).history_[:, "train_loss"]
        assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("task", ["vicreg", "rotation"])
def test_frozen_stages_do_not_move(digits, make, tiny, task):
    """Neither weights nor statistics of batch norms change, to the bit, while later stages learn both."""
    before = copy.deepcopy(tiny.module.state_dict())
    after = weights(make(task=task, freeze_depth=2, lr=0.1).fit(digits[0]))
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"layer2"}
    assert not torch.equal(before["layer2.1.running_mean"], after["layer2.1.running_mean"])
    kept = weights(make(freeze_bn=True).fit(digits[0]))
    assert torch.equal(before["layer2.1.running_mean"], kept["layer2.1.running_mean"])


def test_labels_are_watched_but_not_learned(digits, make):
    """With labels of all, of some or of no images, the weights are the same to the bit; only the history differs."""
    X, y = digits
    some = np.where(np.arange(30) % 3 == 0, -1, y)
    plain, known, partly = make().fit(X), make().fit(X, y), make(unlabeled=-1).fit(X, some)
    assert same(plain, known)
    assert same(plain, partly)
    for model in (known, partly):
        assert 0 <= model.history_[-1]["knn_accuracy"] <= 1
        assert model.history_[:, ("std", "effective_rank")] == plain.history_[:, ("std", "effective_rank")]
    texts = make().fit(X, np.array(["zero", "one", "two"])[y])
    assert texts.history_[-1]["knn_accuracy"] == known.history_[-1]["knn_accuracy"]
    assert "knn_accuracy" not in make().fit(X, np.zeros(30)).history_[-1]  # one class
    assert "knn_accuracy" not in make().fit(X, np.linspace(0, 1, 30)).history_[-1]  # numbers


def test_the_history_is_of_the_features(digits, make):
    """What is recorded last is what the features of the fitted extractor give."""
    X, y = digits
    model = make().fit(X, y)
    features = model.transform(X)
    assert model.history_[-1]["std"] == pytest.approx(_monitor.feature_std(features), rel=1e-4)
    assert model.history_[-1]["effective_rank"] == pytest.approx(_monitor.effective_rank(features), rel=1e-4)
    assert model.history_[-1]["knn_accuracy"] == pytest.approx(_monitor.knn_accuracy(features, y), abs=0.05)


def test_few_images_are_watched(digits, make, monkeypatch):
    """However many images there are, the features of a bounded number are computed after an epoch."""
    monkeypatch.setattr(_monitor, "N_WATCHED", 6)
    seen = []
    monkeypatch.setattr(_monitor, "feature_std", lambda features: seen.append(len(features)) or 1.0)
    model = make().fit(digits[0])
    assert seen == [6, 6]
    assert model.history_[-1]["std"] == 1


def test_collapse_warns_once(digits, make):
    """A loss that asks for equal features gets them, and one warning says what to change."""
    model = make(
        task=lambda first, second: (first**2 + second**2).mean(), projector=nn.Identity(), lr=0.3, max_epochs=30
    )
    with pytest.warns(TrainingWarning, match="The features collapsed") as caught:
        model.fit(digits[0])
    assert len([warning for warning in caught if warning.category is TrainingWarning]) == 1


def test_equal_images_count_once(digits, make):
    """Repeating images, or another order of them, changes nothing."""
    X = digits[0]
    order = np.random.RandomState(0).permutation(60)
    assert same(make().fit(X), make().fit(np.concatenate([X, X])[order]))


def test_seeds(digits, make):
    """The same seed gives the same weights, another one others, and torch's global generator is left alone."""
    before = torch.get_rng_state()
    first, again, other = make().fit(digits[0]), make().fit(digits[0]), make(random_state=1).fit(digits[0])
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_views_of_an_image_differ(digits, make, monkeypatch):
    """Both views of a row are drawn anew in each epoch, and the same ones for the same seed."""
    seen = []

    def task(first, second):
        seen.append((first.detach().clone(), second.detach().clone()))
        return vicreg_loss(first, second)

    for _ in range(2):
        make(task=task, lr=1e-12, batch_size=64, projector=(4,)).fit(digits[0])
    assert not torch.allclose(*seen[0])
    assert not torch.allclose(seen[0][0].sum(0), seen[1][0].sum(0))
    assert torch.equal(seen[0][0], seen[2][0])
    assert torch.equal(seen[1][1], seen[3][1])


@pytest.mark.parametrize("batch_size", [64, 29], ids=["larger than the data", "one row is left"])
def test_batch_sizes(digits, make, batch_size):
    """A batch may be larger than the table, and a last one of one row joins the one before it."""
    model = make(batch_size=batch_size).fit(digits[0])
    assert model.history_[:, "train_batch_count"] == [1, 1]


BAD = {
    "all frozen": (
        {"freeze_depth": "all"},
        r"freeze_depth='all' leaves no stage .* Use -1 .*PretrainedFeatureExtractor",
    ),
    "all frozen, by number": ({"freeze_depth": 3}, "freeze_depth=3 leaves no stage"),
    "all frozen, by name": ({"freeze_depth": "layer2"}, "freeze_depth='layer2' leaves no stage"),
    "no views": ({"augment": None}, r"equal with augment=None. Use augment='simclr', or task='rotation'"),
    "no views, simclr": ({"augment": None, "task": "simclr"}, "equal with augment=None"),
    "one image, vicreg": ({"batch_size": 1}, "task='vicreg' compares .* Got batch_size=1 instead"),
    "one image, simclr": ({"batch_size": 1, "task": "simclr"}, "task='simclr' compares .* Got batch_size=1 instead"),
    "recipe": ({"augment": "mixup"}, "augment must be one of .*'simclr'"),
    "projector": ({"projector": (512, 0)}, r"The 'projector' parameter .* Got \(512, 0\) instead"),
    "task": ({"task": "byol"}, "The 'task' parameter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parameters(digits, make, case):
    """Each is refused with what was given and what to use instead."""
    params, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make(**params).fit(digits[0])


def test_bad_depth(digits, make):
    """A stage that does not exist, or "auto", which needs labels, is refused with the stages."""
    for depth in ("layer9", "auto"):
        with pytest.raises(BackboneError, match="layer1"):
            make(freeze_depth=depth).fit(digits[0])


def test_one_image(digits, make):
    """Images cannot be told apart if there is one, or all are equal."""
    for X in (digits[0][:1], np.repeat(digits[0][:1], 5, axis=0)):
        with pytest.raises(InputError, match="at least two different images"):
            make().fit(X)


def test_partial_fit(digits, make):
    """Each call is an epoch at a constant rate that continues the last one."""
    X, y = digits
    model = make()
    for _ in range(3):
        model.partial_fit(X, y)
    assert model.history_[:, "lr"] == [0.001] * 3
    assert len(model.history_[:, "knn_accuracy"]) == 3
    assert model.history_[-1, "train_loss"] != model.history_[0, "train_loss"]
    frozen = weights(model.set_params(freeze_depth="all").partial_fit(X))  # counts from the next fit on
    assert not same(model, make().partial_fit(X))
    assert all(tensor.isfinite().all() for tensor in frozen.values())


def test_warm_start(digits, make):
    """A second fit continues with the same projector, and another task begins a head of its own."""
    model = make(warm_start=True).fit(digits[0])
    projector = copy.deepcopy(model.net_.module_.head.state_dict())
    model.set_params(max_epochs=0).fit(digits[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(projector.values(), model.net_.module_.head.state_dict().values(), strict=True)
    )
    model.set_params(max_epochs=1, task="rotation", freeze_depth=-1).fit(digits[0])
    assert len(model.history_) == 3
    assert model.net_.module_.head[0].out_features == 4


def test_pickle(digits, make):
    """A fitted extractor, and a clone of it, survive; the pickle holds the trained network and no images."""
    model = make(freeze_depth=1).fit(digits[0])
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.transform(digits[0]), model.transform(digits[0]))
    assert other.history_ == model.history_
    assert not hasattr(clone(model), "backbone_")
    other.partial_fit(digits[0])


def test_features(digits, make):
    """They are those of an extractor with the trained network, alone as in a table, with the names of columns."""
    X = digits[0]
    model = make().fit(X)
    features = model.transform(X)
    np.testing.assert_array_equal(PretrainedFeatureExtractor(model).fit(X).transform(X), features)
    np.testing.assert_allclose(model.transform(X[3:4]), features[3:4], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(make().fit_transform(X), features, rtol=1e-6)
    frame = make().set_output(transform="pandas").fit_transform(X)
    assert frame.columns.tolist() == model.get_feature_names_out().tolist()
    assert frame.columns[0].endswith("_layer2_0")


def test_unreadable_images(digits, make, tmp_path):
    """With on_error="nan" they are left out of fit and have rows of NaN."""
    X = [*(255 * digits[0][:8]).astype(np.uint8), b"no image"]
    with pytest.warns(ImageWarning, match="left out"):
        model = make(on_error="nan").fit(X)
    with pytest.warns(ImageWarning, match="rows of NaN"):
        features = model.transform(X)
    assert np.isnan(features).all(1).tolist() == [False] * 8 + [True]


def test_in_scikit_learn(digits, make):
    """A search over a pipeline tunes it, by labels of the last step."""
    X, y = digits
    pipe = make_pipeline(make(), LogisticRegression())
    search = GridSearchCV(pipe, {"selfsupervisedextractor__task": ["vicreg", "rotation"]}, cv=2).fit(X, y)
    assert search.predict(X).shape == (30,)


def test_callbacks_of_the_user(digits, make):
    """skorch's early stopping sees what is watched."""
    stop = EarlyStopping(
        monitor="effective_rank", patience=1, lower_is_better=False, threshold=1e9, threshold_mode="abs"
    )
    assert make(max_epochs=9, callbacks=[stop]).fit(digits[0]).n_iter_ < 9


# --- where the trained network goes -----------------------------------------------------------------------------------


def test_goes_wherever_a_fitted_estimator_goes(digits, make):
    """Its network is fine-tuned, extracts, learns from a teacher and detects anomalies."""
    X, y = digits
    encoder = FrozenEstimator(make().fit(X))
    tuned = FineTunedClassifier(encoder, freeze_depth=-2, max_epochs=2, random_state=0).fit(X, y)
    assert torch.equal(weights(tuned)["stem.0.weight"], weights(encoder)["stem.0.weight"])
    assert not torch.equal(weights(tuned)["layer2.0.weight"], weights(encoder)["layer2.0.weight"])
    student = DistilledClassifier(LogisticRegression(), encoder, max_epochs=1, random_state=0)
    assert student.fit(X.reshape(30, -1), y).predict(X.reshape(30, -1)).shape == (30,)
    assert AnomalyDetector(encoder).fit(X).predict(X).shape == (30,)
    further = SelfSupervisedExtractor(encoder, max_epochs=1, projector=(4,))
    assert further.fit(X).transform(X).shape == (30, 8)


def test_an_auxiliary_task_with_labels(digits):
    """A network trained from its beginning on another task is fine-tuned on the task with few labels."""
    X, y = digits
    other = FineTunedClassifier(weights=None, freeze_depth=0, head_init="random", max_epochs=1, random_state=0)
    model = FineTunedClassifier(FrozenEstimator(other.fit(X, y > 0)), max_epochs=1, random_state=0).fit(X[::2], y[::2])
    assert torch.equal(weights(model)["stem.0.weight"], weights(other)["stem.0.weight"])
    assert not torch.equal(weights(model)["layer4.conv1.weight"], weights(other)["layer4.conv1.weight"])
    assert model.classes_.tolist() == [0, 1, 2]


def test_random_weights(digits):
    """From random weights, running statistics follow quickly, so that features differ between images."""
    model = SelfSupervisedExtractor(weights=None, freeze_depth=0, max_epochs=1, random_state=0).fit(digits[0])
    norms = [part for part in model.net_.module_.stages.modules() if isinstance(part, nn.BatchNorm2d)]
    assert min(norm.momentum for norm in norms) >= 0.1
    assert model.history_[-1]["std"] > 0
