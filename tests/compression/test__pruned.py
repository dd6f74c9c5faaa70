"""Pruned classifiers: as many zeros as asked for, kept by whoever trains next; and networks with fewer filters."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.backbones import Backbone
from sktl.compression import PrunedClassifier
from sktl.exceptions import CompressionError

# What is checked is the compressor: the classifier in it learns the same in small images.
SMALL_IMAGES = {"resize_size": 16, "crop_size": 16}


@parametrize_with_checks([PrunedClassifier(FineTunedClassifier(max_epochs=1, preprocessing=SMALL_IMAGES))])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults around a classifier, it passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def prune(fitted):
    """Makes a compressor around the fitted classifier that trains for an epoch."""
    return lambda estimator=None, **params: PrunedClassifier(
        FrozenEstimator(fitted) if estimator is None else estimator, **{"max_epochs": 1, "random_state": 0, **params}
    )


@pytest.fixture
def zeros(zeros):
    """Gives where the weights are zero, but for the layer that gives the outputs, unless there is no other."""

    def find(model):
        found = zeros(model)
        return dict(list(found.items())[:-1]) if len(found) > 1 else found

    return find


def n_zeros(found):
    return sum(int(mask.sum()) for mask in found.values())


def n_weights(found):
    return sum(mask.size for mask in found.values())


# --- zeros ------------------------------------------------------------------------------------------------------------

TRAININGS = {
    "momentum": {"optimizer": "sgd", "lr": 0.005, "weight_decay": 0.1},
    "decay": {"optimizer": "adamw", "weight_decay": 0.5, "dropout": 0.2, "freeze_bn": False},
    "schedule": {"lr_schedule": "cosine", "lr_decay": 0.5, "head": (7,)},
}


@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize(("n_rounds", "criterion"), [(1, "magnitude"), (3, "magnitude"), (2, "taylor"), (2, "random")])
def test_exactly_so_many_zeros(make, table, prune, zeros, settings, n_rounds, criterion):
    """After training with momentum or decay the share that was asked for is zero, of all weights together."""
    model = prune(make(**settings), amount=0.85, n_rounds=n_rounds, criterion=criterion, max_epochs=2).fit(*table)
    found = zeros(model)
    assert n_zeros(found) == round(0.85 * n_weights(found))
    for tensor in model.estimator_.net_.module_.state_dict().values():
        assert not (torch.signbit(tensor) & (tensor == 0)).any()


@pytest.mark.parametrize("scope", ["auto", "global", "layer"])
@pytest.mark.parametrize("amount", [0.001, 0.25, 0.5, 0.999])
def test_counts_where_all_weights_are_equal(backbone, make, table, prune, zeros, scope, amount):
    """With ties everywhere, the counts are those that were asked for: together, or in each layer."""
    equal = {
        f"{path}.weight": torch.full_like(layer.weight, 0.01)
        for path, layer in backbone.module.named_modules()
        if type(layer) is nn.Conv2d
    }
    head = nn.Linear(16, 3)
    nn.init.constant_(head.weight, 0.01)
    estimator = make(backbone=backbone.with_weights(equal), head=head, head_init="random", max_epochs=0)
    found = zeros(prune(estimator, amount=amount, scope=scope, max_epochs=0).fit(*table))
    if scope == "layer":
        assert [int(mask.sum()) for mask in found.values()] == [round(amount * mask.size) for mask in found.values()]
    else:
        assert n_zeros(found) == round(amount * n_weights(found))


def test_the_smallest_go(make, prune, table, zeros, state):
    """Without training, what is left is what it was, and nothing that went was larger: NumPy's percentile says so."""
    fitted = make(head=(7,)).fit(*table)
    found = zeros(prune(FrozenEstimator(fitted), amount=0.4, max_epochs=0, freeze_depth="all").fit(*table))
    assert list(found) == ["head.0"]
    weight = np.abs(state(fitted)["head.0.weight"])
    np.testing.assert_array_equal(found["head.0"], weight <= np.percentile(weight, 40, method="lower"))
    model = prune(amount=0.4, max_epochs=0, criterion="random")
    first, again = (zeros(clone(model).fit(*table)) for _ in range(2))
    other = zeros(clone(model).set_params(random_state=1).fit(*table))
    assert all(np.array_equal(first[path], again[path]) for path in first)
    assert not all(np.array_equal(first[path], other[path]) for path in first)


def test_rounds_are_nested(table, prune, zeros, monkeypatch):
    """In each round the same share of what is left goes, and what is gone stays gone."""
    seen = []
    retrain = PrunedClassifier._retrain

    def watched(self, inner, *args, **kwargs):
        goes_on = retrain(self, inner, *args, **kwargs)
        seen.append(zeros(inner))
        return goes_on

    monkeypatch.setattr(PrunedClassifier, "_retrain", watched)
    prune(amount=0.875, n_rounds=3, criterion="random").fit(*table)
    total = n_weights(seen[0])
    assert [n_zeros(found) for found in seen] == [round(share * total) for share in (0.5, 0.75, 0.875)]
    for earlier, later in itertools.pairwise(seen):
        assert all((later[path] >= earlier[path]).all() for path in later)


@pytest.mark.parametrize(("amount", "n_rounds"), [(0.5, 1), (0.3, 2)])
def test_an_amount_that_is_there_already(table, prune, zeros, amount, n_rounds):
    """Pruning what was pruned by more keeps all its zeros and adds none."""
    first = prune(amount=0.8).fit(*table)
    second = prune(FrozenEstimator(first), amount=amount, n_rounds=n_rounds).fit(*table)
    for path, mask in zeros(first).items():
        np.testing.assert_array_equal(zeros(second)[path], mask)


# --- zeros in company -------------------------------------------------------------------------------------------------


LATER = {
    "partial_fit": lambda model, X, y: model.estimator_.partial_fit(X, y).partial_fit(X, y),
    "deepcopy": lambda model, X, y: copy.deepcopy(model).estimator_.partial_fit(X, y),
    "pickle": lambda model, X, y: pickle.loads(pickle.dumps(model)).estimator_.partial_fit(X, y),
    "warm start": lambda model, X, y: copy.deepcopy(model).estimator_.set_params(warm_start=True).fit(X, y),
    "fine-tuned": lambda model, X, y: FineTunedClassifier(model, freeze_depth=0, max_epochs=2, lr=0.01).fit(X, y),
    "a clone of it": lambda model, X, y: clone(FineTunedClassifier(FrozenEstimator(model), freeze_depth=1)).fit(X, y),
    "student": lambda model, X, y: DistilledClassifier(FrozenEstimator(model), model, freeze_depth=0).fit(X, y),
    "backbone": lambda model, X, y: FineTunedClassifier(model.estimator_.backbone_, freeze_depth=2).fit(X, y),
}


@pytest.mark.parametrize("how", LATER)
def test_later_training_keeps_them(table, prune, zeros, how):
    """Whoever trains the network next has the zeros of its stages in the end, and no others."""
    model = prune(amount=0.7).fit(*table)
    before = {path: mask for path, mask in zeros(model).items() if path.startswith("stages")}
    later = LATER[how](model, *table)
    assert isinstance(later.backbone_, Backbone)
    stages = later.backbone_.module
    for path, mask in before.items():
        weight = stages.get_submodule(path.removeprefix("stages.")).weight
        np.testing.assert_array_equal((weight == 0).numpy(), mask)
        assert not torch.signbit(weight[weight == 0]).any()


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"n_rounds": 2}, {"unit": "macs"}, {"scope": "global", "criterion": "taylor"}]
)
def test_filters_leave_the_network(fitted, make, table, prune, settings):
    """Work, numbers and file shrink; stages keep their names and the head its outputs; it goes on being a backbone."""
    pytest.importorskip("torch_pruning")
    X, y = table
    model = prune(make(), granularity="filter", amount=0.5, **settings).fit(X, y)
    rows = model.footprint_.to_dict()
    for column in ("parameters", "nonzero", "macs", "nbytes"):
        assert rows[column][1] < 0.9 * rows[column][0]
    before, after = fitted.backbone_, model.estimator_.backbone_
    assert [stage.name for stage in after.stages] == [stage.name for stage in before.stages]
    assert after.stages[0].output_shape == before.stages[0].output_shape
    assert model.estimator_.net_.module_.head[-1].out_features == 3
    assert model.predict_proba(X).shape == (40, 3)
    assert model.score(X, y) > 0.5
    features = PretrainedFeatureExtractor(backbone=model, layers=["stem", "layer2"]).fit_transform(X)
    assert features.shape == (40, 8 + after.stages[-1].output_shape[0])
    again = FineTunedClassifier(model, freeze_depth="all", max_epochs=1).fit(X, y)
    assert again.predict(X).shape == (40,)


@pytest.mark.parametrize("amount", [0.3, 0.5])
def test_as_many_filters_as_asked_for(table, make, prune, amount):
    """Of the filters of the two layers behind the cut the share is taken, in one round or in two."""
    pytest.importorskip("torch_pruning")
    for n_rounds in (1, 2):
        model = prune(make(), granularity="filter", amount=amount, n_rounds=n_rounds).fit(*table)
        widths = [
            layer.out_channels for layer in model.estimator_.backbone_.module.modules() if type(layer) is nn.Conv2d
        ]
        assert widths[0] == 8
        assert sum(widths[1:]) == pytest.approx((1 - amount) * 28, abs=2)


def test_filters_and_weights(table, prune, zeros):
    """Zeros of a network whose filters go are zeros afterwards, as many as were in the filters that stay at least."""
    pytest.importorskip("torch_pruning")
    sparse = prune(amount=0.8).fit(*table)
    model = prune(FrozenEstimator(sparse), granularity="filter", amount=0.3, max_epochs=2).fit(*table)
    found = zeros(model)
    assert n_weights(found) < n_weights(zeros(sparse))
    assert n_zeros(found) / n_weights(found) > 0.6
    assert model.score(*table) > 0.5


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0, 1, 0.0, 1.0, -0.1, 1.5])
def test_amounts_of_nothing_and_all(table, make, amount):
    """An amount of 0 or 1 is refused, with the range."""
    with pytest.raises(ValueError, match=r"'amount' parameter.*\(0\.0, 1\.0\)"):
        PrunedClassifier(make(), amount=amount).fit(*table)


def test_multiply_accumulates_of_zeros(table, make):
    """Weights save no multiply-accumulates: the error says what does, before anything is fitted."""
    with pytest.raises(ValueError, match=r"^unit='macs' cannot be used with .* Use granularity='filter' to save"):
        PrunedClassifier(make(lr=1e30), unit="macs").fit(*table)


class Scale(nn.Module):
    """A head without a layer that could be pruned."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x[:, :3] * self.weight


def test_nothing_to_prune(table, make):
    """Where no layer learns but the one that gives the outputs, or none at all, the error says what would help."""
    for head in (Scale(), "linear"):
        estimator = make(freeze_depth="all", head=head, head_init="random", max_epochs=0)
        model = PrunedClassifier(estimator)
        with pytest.raises(CompressionError, match=r"^freeze_depth=None leaves no .*Freeze fewer stages"):
            model.fit(*table)
        assert not hasattr(model, "estimator_")  # it would predict, and is not what was asked for
