"""The flow of a fit: what is frozen, what is cached, what is random, when it ends."""

import contextlib
import copy
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from sktl import FineTunedClassifier, FineTunedRegressor
from sktl._estimators import _network_estimator
from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import Seeds, prepare_training
from sktl._frozen import _pass
from sktl._frozen._cache import open_cache
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError, TrainingWarning

STAGES = ["stem", "layer1", "layer2", "layer3", "layer4"]


def tuner(**params):
    return FineTunedClassifier(**{"max_epochs": 2, "lr": 0.01, "random_state": 0, **params})


def state_of(model):
    return model.backbone_.module.state_dict()


def moved_stages(model, source=None):
    """The stages with a parameter or a buffer that is not what it was, to the bit."""
    source = (source or load_backbone("sktl_mini")).module.state_dict()
    return {key.partition(".")[0] for key, value in state_of(model).items() if not torch.equal(value, source[key])}


class Bright(nn.Module):
    """A small network of a user's own, with batch norms."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        return self.last(self.body(self.stem(x)))


def own_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Bright()


OWN_SIZE = {"preprocessing": {"resize_size": 16, "crop_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}}


# --- frozen means frozen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze_bn", [True, False])
@pytest.mark.parametrize(
    ("depth", "n_frozen"), [(0, 0), (2, 2), (-1, 4), (-2, 3), (-5, 0), ("all", 5), ("layer2", 3), ("layer4", 5)]
)
def test_frozen_stages_are_bit_identical_after_fit(digits, depth, n_frozen, freeze_bn):
    """Whatever way the depth is given, all tensors in front of it stay as they are, and all stages behind it learn."""
    settings = {"optimizer": "sgd", "weight_decay": 0.1, "freeze_bn": freeze_bn, "max_epochs": 1}
    model = tuner(freeze_depth=depth, **settings).fit(*digits)
    assert model.freeze_depth_ == n_frozen
    assert moved_stages(model) == set(STAGES[n_frozen:])


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_statistics_of_the_stages_that_learn(digits, freeze_bn):
    """freeze_bn=True keeps their running statistics to the bit, while scales and shifts learn; False moves them."""
    source = load_backbone("sktl_mini").module.state_dict()
    model = tuner(freeze_depth=-2, freeze_bn=freeze_bn).fit(*digits)
    state, parts = state_of(model), dict(model.backbone_.module.named_modules())
    norms = [
        name for name in parts if isinstance(parts[name], nn.BatchNorm2d) and name.startswith(("layer3", "layer4"))
    ]
    assert norms
    for name in norms:
        for part, is_kept in (("running_mean", freeze_bn), ("running_var", freeze_bn), ("weight", False)):
            assert torch.equal(state[f"{name}.{part}"], source[f"{name}.{part}"]) == is_kept, (name, part)


BOTH = {"layer3", "layer4"}


@pytest.mark.parametrize("freeze_bn", [True, False])
@pytest.mark.parametrize(
    ("every", "n_epochs", "moved"),
    [(1, 1, set()), (1, 2, {"layer4"}), (1, 3, BOTH), (1, 6, BOTH), (2, 2, set()), (2, 3, {"layer4"}), (2, 5, BOTH)],
)
def test_gradual_unfreezing(digits, every, n_epochs, moved, freeze_bn):
    """Stages learn one by one until freeze_depth, no other one moves, and a fit that ends before then warns."""
    settings = {"unfreeze_every": every, "optimizer": "sgd", "weight_decay": 0.1, "freeze_bn": freeze_bn}
    model = tuner(freeze_depth=3, max_epochs=n_epochs, lr_schedule="constant", **settings)
    is_short = n_epochs <= 2 * every
    with pytest.warns(TrainingWarning, match="unfreeze_every") if is_short else contextlib.nullcontext():
        model.fit(*digits)
    assert moved_stages(model) == moved
    assert model.history_[:, "n_frozen_stages"] == [max(3, 5 - epoch // every) for epoch in range(n_epochs)]


@pytest.mark.parametrize("depth", [0, 1, "all"])
@pytest.mark.parametrize("cache", ["auto", None])
def test_a_network_and_a_head_of_the_users_are_not_changed(digits, depth, cache):
    """The user's modules keep values, mode, gradients and hooks; what learns is a copy of them."""
    network, head = own_network().train(), nn.Linear(8, 3)
    before = copy.deepcopy(network.state_dict()), copy.deepcopy(head.state_dict())
    model = tuner(backbone=network, head=head, freeze_depth=depth, freeze_bn=False, cache=cache, **OWN_SIZE)
    model.fit(*digits).predict(digits[0])
    for module, state in zip((network, head), before, strict=True):
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in module.parameters())
        assert all(part.training and not part._forward_hooks for part in module.modules())
    assert not torch.equal(model.net_.module_.head.weight, head.weight)
    assert moved_stages(model, load_backbone(network)) == set(["stem", "body", "last"][model.freeze_depth_ :])


def test_what_one_fit_learns_does_not_reach_the_next(digits):
    """Loaded networks are shared in the process, and no fit writes into them."""
    first = tuner(freeze_depth=0, max_epochs=1).fit(*digits)
    assert moved_stages(first)
    assert moved_stages(tuner(freeze_depth=0, max_epochs=0).fit(*digits)) == set()


# --- the cached prefix ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze_bn", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, "all"])
def test_cached_and_live_training_are_the_same(digits, tmp_path, depth, freeze_bn):
    """From one seed, with the prefix kept in memory, in a directory or not at all: same losses and labels."""
    X, y = digits
    settings = {"freeze_depth": depth, "freeze_bn": freeze_bn, "dropout": 0.1, "batch_size": 16, "lr": 0.001}
    settings["preprocessing"] = {"resize_size": 32, "crop_size": 32}
    cached, stored, live = (tuner(cache=c, **settings).fit(X, y) for c in ("auto", tmp_path, None))
    for other in (stored, live):
        np.testing.assert_allclose(other.history_[:, "train_loss"], cached.history_[:, "train_loss"], rtol=1e-4)
        np.testing.assert_array_equal(other.predict(X), cached.predict(X))
        np.testing.assert_allclose(other.predict_proba(X), cached.predict_proba(X), atol=1e-3)


def test_the_prefix_runs_once_per_picture(digits, n_run):
    """Over epochs, candidates, folds, refit and predictions each picture goes through once; again with cache=None."""
    X, y = digits
    grid = {"lr": [0.001, 0.01], "freeze_depth": [-1]}
    GridSearchCV(tuner(), grid, cv=3).fit(X, y).predict(X)
    assert n_run == [30]
    tuner(cache=None).fit(X, y)
    assert n_run == [30 + 30 * 4]  # the probe, two epochs, and whether the outputs are numbers in the end


def test_the_engine_goes_by_the_table_and_not_by_its_blocks(digits, monkeypatch):
    """Predictions come block by block; all of them run in the engine that the whole table asks for."""
    X, y = digits
    sizes = []
    resolve = _pass.resolve_engine
    monkeypatch.setattr(
        _pass,
        "resolve_engine",
        lambda spec, runtime, n_images: sizes.append(n_images) or resolve(spec, runtime, n_images),
    )
    monkeypatch.setattr(_network_estimator, "_PREDICTED_TOGETHER", 10)
    tuner(cache=None).fit(X, y).predict(X)
    assert set(sizes) == {30}


def test_a_second_search_with_a_directory_runs_no_prefix(digits, n_run, tmp_path):
    """What an earlier run left in the directory is all that the same search needs."""
    X, y = digits
    search = GridSearchCV(tuner(cache=tmp_path, max_epochs=1), {"freeze_depth": ["all", -1, -2]}, cv=2)
    first = search.fit(X, y).cv_results_["mean_test_score"]
    assert n_run[0] >= 30
    n_run[0] = 0
    open_cache("auto").clear()
    np.testing.assert_array_equal(search.fit(X, y).cv_results_["mean_test_score"], first)
    assert n_run == [0]


def test_stored_views_of_every_epoch_are_live_augmentation(digits):
    """n_views >= max_epochs trains as augmenting live does; fewer views do not."""
    settings = {"augment": "crop_flip", "freeze_depth": -1, "max_epochs": 3}
    live = tuner(**settings).fit(*digits).history_[:, "train_loss"]
    for n_views in (3, 4):
        got = tuner(n_views=n_views, **settings).fit(*digits).history_[:, "train_loss"]
        np.testing.assert_allclose(got, live, rtol=1e-4)
    one = tuner(n_views=1, **settings).fit(*digits).history_[:, "train_loss"]
    np.testing.assert_allclose(one[0], live[0], rtol=1e-4)
    assert abs(one[1] - live[1]) > 1e-3 * live[1]


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.parametrize("n_views", [None, 2])
def test_only_rows_that_are_learnt_from_are_augmented(digits, cache, n_views):
    """Rows to judge on and pictures to predict never are."""
    X, y = digits
    seen = []

    def invert(picture):
        seen.append(picture.numpy().tobytes())
        return 255 - picture

    settings = {"augment": invert, "n_views": n_views, "cache": cache, "head_init": "random"}
    model = tuner(early_stopping=True, validation_fraction=0.2, **settings).fit(X, y)
    assert len(set(seen)) == 24
    n_seen = len(seen)
    model.predict(X)
    assert len(seen) == n_seen >= 24


# --- early stopping ---------------------------------------------------------------------------------------------------


def test_the_best_weights_are_put_back(digits):
    """After it has stopped, the network is the one of the best epoch, not of the last one."""
    X, y = digits
    X_val, y_val = X[20:], y[20:].copy()
    y_val[:3] = (y_val[:3] + 1) % 3  # wrong, so that becoming too sure is punished
    model = tuner(early_stopping=True, n_iter_no_change=3, freeze_depth="all", head_init="random", max_epochs=50)
    model.fit(X[:20], y[:20], X_val=X_val, y_val=y_val)
    losses = model.history_[:, "valid_loss"]
    assert model.best_epoch_ == np.argmin(losses) + 1
    assert model.n_iter_ == len(losses) == model.best_epoch_ + 3
    assert log_loss(y_val, model.predict_proba(X_val)) == pytest.approx(min(losses), rel=1e-4)
    assert model.history_[model.best_epoch_ - 1, "valid_score"] == pytest.approx(model.score(X_val, y_val))


def test_a_start_that_training_only_harms_is_kept(digits):
    """The untouched start is judged too: every tensor is as before, and the head is the probe."""
    model = tuner(lr=100.0, early_stopping=True, n_iter_no_change=2, max_epochs=9, freeze_depth=-2).fit(*digits)
    assert model.best_epoch_ == 0
    assert model.n_iter_ == 2
    assert moved_stages(model) == set()
    assert model.score(*digits) > 0.9


def test_a_given_validation_set_is_all_that_is_judged_on(digits):
    """X_val takes the place of a share of the rows, has its own weights, and stops nothing by itself."""
    X, y = digits
    with_all = tuner(early_stopping=True, n_iter_no_change=9).fit(X, y, X_val=X[:5], y_val=y[:5])
    assert with_all.history_[:, "train_loss"] == tuner().fit(X, y).history_[:, "train_loss"]
    judged = tuner(max_epochs=3, lr=30.0).fit(X, y, X_val=X[:9], y_val=y[:9])
    assert judged.n_iter_ == judged.best_epoch_ == 3
    weighted = tuner(max_epochs=3, lr=30.0)
    weighted.fit(X, y, X_val=X, y_val=y, sample_weight_val=np.r_[np.full(9, 2.5), np.zeros(21)])
    assert weighted.history_[:, "valid_loss"] == judged.history_[:, "valid_loss"]


def test_a_class_with_one_row_and_early_stopping(digits):
    """It is a class like the others in what is learnt."""
    X, y = digits
    kept = np.r_[np.flatnonzero(y != 2), np.flatnonzero(y == 2)[:1]]
    model = tuner(early_stopping=True, freeze_depth="all").fit(X[kept], y[kept])
    assert model.predict_proba(X).shape == (30, 3)
    with pytest.raises(ValueError, match="a class with at least two rows"):
        tuner(early_stopping=True).fit(X[kept[-2:]], y[kept[-2:]])


def test_a_validation_fraction_that_leaves_nothing(digits):
    """The error says the fraction, the number of pictures, and what to do."""
    with pytest.raises(
        ValueError, match=r"fraction=0\.99 of 30 different rows leaves no rows for training.*early_stopping=False"
    ):
        tuner(early_stopping=True, validation_fraction=0.99).fit(*digits)


class SeenRows(Callback):
    """Keeps the rows that a training learnt from and was judged on."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.learnt = X.activations.batch(range(len(X)), 0).flatten(1).numpy()
        valid = net._valid
        self.judged = valid.activations.batch(range(len(valid)), 0).flatten(1).numpy()


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("kind", [FineTunedClassifier, FineTunedRegressor])
def test_a_picture_is_on_one_side(digits, kind, n_targets):
    """Neither copies nor rows that differ in their target alone leak into the rows that are judged on."""
    X, y = digits
    seen = SeenRows()
    settings = {"early_stopping": True, "validation_fraction": 0.3, "max_epochs": 1, "random_state": 0}
    kind(callbacks=[seen], **settings).fit(np.tile(X, (4, 1, 1)), np.r_[y, y, y, (y + n_targets - 1) % 3])
    assert (len(seen.learnt), len(seen.judged)) == (21 * n_targets, 9 * n_targets)
    assert np.abs(seen.learnt[:, None] - seen.judged[None]).max(axis=2).min() > 0


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)], ids=["number", "none", "instance"])
def test_warm_starts_judge_on_the_same_rows(digits, random_state):
    """What was learnt before a warm start is not judged on after it; a fit that begins anew may split anew."""
    seen = SeenRows()
    settings = {"early_stopping": True, "validation_fraction": 0.3, "freeze_depth": "all", "max_epochs": 1}
    model = tuner(warm_start=True, callbacks=[seen], **{**settings, "random_state": random_state})
    first, second = (model.fit(*digits) and np.unique(seen.judged, axis=0) for _ in range(2))
    np.testing.assert_array_equal(second, first)
    model.set_params(warm_start=False).fit(*digits)
    assert np.array_equal(np.unique(seen.judged, axis=0), first) == (random_state == 0)


# --- one seed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze_depth": 0},
        {"dropout": 0.5, "head": (8,)},
        {"augment": "trivial", "head_init": "random"},
        {"early_stopping": True, "validation_fraction": 0.3, "cache": None, "head_init": "random"},
        {"net_params": {"iterator_train__num_workers": 1}, "batch_size": 8},
    ],
    ids=str,
)
def test_one_seed_gives_one_result_and_leaves_the_global_generators(digits, settings):
    """Two fits are equal to the bit, another seed is another result, and nobody else's randomness is touched."""
    X, y = digits
    before = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    first = tuner(**settings).fit(X, y).predict_proba(X)
    after = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    assert after == before
    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    np.testing.assert_array_equal(tuner(**settings).fit(X, y).predict_proba(X), first)
    assert not np.array_equal(tuner(**settings | {"random_state": 1}).fit(X, y).predict_proba(X), first)


def test_a_random_state_instance_goes_on_from_fit_to_fit(digits):
    """Equal instances give equal fits, and the next fit of one instance is another one."""
    X, y = digits
    settings = {"freeze_depth": "all", "head_init": "random"}
    model = tuner(random_state=np.random.RandomState(0), **settings)
    first, second = (model.fit(X, y).predict_proba(X) for _ in range(2))
    again = tuner(random_state=np.random.RandomState(0), **settings).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(second, first)


def test_the_order_of_the_rows_does_not_matter(digits):
    """A shuffled table gives the same network, to the bit: with early stopping and several batches too."""
    X, y = digits
    order = np.random.default_rng(0).permutation(30)
    settings = {"batch_size": 8, "early_stopping": True, "dropout": 0.2}
    expected = tuner(**settings).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(tuner(**settings).fit(X[order], y[order]).predict_proba(X), expected)


def test_one_picture_is_its_row_of_the_table(digits):
    """A prediction does not depend on what else is predicted, to the bit."""
    X, y = digits
    for depth in (0, -1, "all"):
        model = tuner(freeze_depth=depth, batch_size=29).fit(X, y)
        alone = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(30)])
        np.testing.assert_array_equal(model.predict_proba(X), alone)


# --- going on, stopping, failing --------------------------------------------------------------------------------------


def test_warm_start_goes_on(digits):
    """The history grows and the weights start from where they were, with the optimizer's new settings."""
    X, y = digits
    once = tuner(max_epochs=2).fit(X, y)
    learnt, loss = once.predict_proba(X), once.history_[-1, "train_loss"]
    untouched = once.set_params(warm_start=True, max_epochs=0).fit(X, y)
    np.testing.assert_array_equal(untouched.predict_proba(X), learnt)
    more = untouched.set_params(max_epochs=3, lr=1e-4).fit(X, y)
    assert more.n_iter_ == len(more.history_) == more.best_epoch_ == 5
    assert more.history_[2, "train_loss"] < loss
    assert more.history_[2, "lr"] == pytest.approx(1e-4)


def test_warm_start_can_train_deeper(digits):
    """First the head alone, then the last stages too, slowly: the parameters are taken as they are at each fit."""
    X, y = digits
    model = tuner(freeze_depth="all", warm_start=True, head_init="random", max_epochs=20, lr=0.1).fit(X, y)
    assert moved_stages(model) == set()
    head = model.net_.module_.head[-1].weight.clone()
    model.set_params(freeze_depth=-2, lr=1e-5, max_epochs=1).fit(X, y)
    assert moved_stages(model) == {"layer3", "layer4"}
    torch.testing.assert_close(model.net_.module_.head[-1].weight, head, atol=1e-4, rtol=0)
    assert model.history_[-1, "train_loss"] < 1.5 * model.history_[-2, "train_loss"]


def test_without_warm_start_each_fit_begins_anew(digits):
    """A second fit equals the first to the bit, with a history of its own."""
    X, y = digits
    model = tuner(freeze_depth=-2)
    first = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)
    assert model.n_iter_ == 2


def test_no_epochs_leave_the_probe(digits):
    """max_epochs=0 is a linear probe: nothing is trained, and it predicts well."""
    model = tuner(max_epochs=0, freeze_depth=0).fit(*digits)
    assert (len(model.history_), model.n_iter_, model.best_epoch_) == (0, 0, 0)
    assert moved_stages(model) == set()
    assert model.score(*digits) > 0.9


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_search_goes_on_where_a_candidate_diverges(digits):
    """The candidate has a score of NaN, the others have theirs."""
    search = GridSearchCV(tuner(max_epochs=4), {"lr": [0.001, 1e30]}, cv=2).fit(*digits)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] > 0.8
    assert np.isnan(scores[1])
    assert search.best_params_ == {"lr": 0.001}


def test_after_a_failed_fit_it_is_not_fitted(digits):
    """Also where it was fitted before: old weights would meet new classes."""
    X, y = digits
    model = tuner(max_epochs=0).fit(X, y)
    with pytest.raises(BackboneError):
        model.set_params(freeze_depth="layer9").fit(X, y + 1)
    with pytest.raises(NotFittedError):
        model.predict(X)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_predict_the_same_and_hold_no_data(digits, tmp_path):
    """Pickled or deep-copied it predicts alike, trains on alike, and is not much larger than its tensors."""
    X, y = digits
    files = [tmp_path / f"{i}.png" for i in range(30)]
    for file, picture in zip(files, X, strict=True):
        Image.fromarray((picture * 255).astype(np.uint8)).resize((64, 64)).save(file)
    model = tuner(freeze_depth="all").fit(files, y)
    stored = pickle.dumps(model)
    n_bytes = sum(value.nbytes for value in state_of(model).values())
    assert len(stored) < 1.1 * n_bytes
    for other in (pickle.loads(stored), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(files), model.predict_proba(files))
        expected = copy.deepcopy(model).partial_fit(files, y).predict_proba(files)
        np.testing.assert_array_equal(other.partial_fit(files, y).predict_proba(files), expected)


def test_norms_of_random_networks_learn(digits):
    """With a name and weights=None batch norms learn what their input looks like, whatever freeze_bn says."""
    X, y = digits
    model = tuner(weights=None, freeze_depth=0, freeze_bn=True, batch_size=10).fit(X, y)
    means = [norm.running_mean for norm in model.net_.module_.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert all(mean.abs().max() > 0 for mean in means)
    kept = tuner(freeze_depth=0, freeze_bn=True, batch_size=10).fit(X, y)
    assert not any(module.training for module in kept.net_.module_.modules() if isinstance(module, nn.BatchNorm2d))
    before, after = load_backbone("sktl_mini").module.state_dict(), kept.backbone_.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)


# --- what a training is made of ---------------------------------------------------------------------------------------


def test_seeds_come_in_order():
    """The first is that of the split, then one for each training; no fit draws more or others."""
    random = np.random.RandomState(3)
    expected = [random.randint(2**31 - 1) for _ in range(3)]
    seeds = Seeds(3)
    assert [seeds.split, seeds.draw(), seeds.draw()] == expected
    assert seeds.split == expected[0]


def test_a_training_is_prepared_and_nothing_is_trained(digits):
    """Trainer and data go by the parameters and the seeds; rows are set aside where somebody asks for it."""
    model, given = tuner(freeze_depth="all", validation_fraction=0.2), FitInput(*digits)
    trainer, data = prepare_training(model, given, is_new=True)
    assert (data.valid, data.depth, len(data.rows), trainer.settings.lr) == (None, 5, 30, 0.01)
    seeds = Seeds(0)
    assert data.seed == seeds.draw()
    _, split = prepare_training(model, given, is_new=True, set_aside_by="Lottery")
    assert (len(split.rows), len(split.valid)) == (24, 6)
    assert split.seed == data.seed
    _, again = prepare_training(model, given, is_new=False, set_aside_by="Lottery")
    assert again.table.images.positions.tolist() == split.table.images.positions.tolist()
    assert again.seed == seeds.draw()
    assert not hasattr(model, "net_")
    with pytest.raises(
        ValueError,
        match=r"^Lottery holds out validation rows and needs a class with at least two rows.*or X_val and y_val",
    ):
        prepare_training(model, FitInput(digits[0][:3], [0, 1, 2]), is_new=True, set_aside_by="Lottery")
