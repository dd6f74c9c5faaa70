"""Low rank networks: smaller layers behind the cut, trained; what was frozen and what was given stay what they were."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._training._trainer import trained_backbone
from sktl.compression import LowRankClassifier
from sktl.exceptions import CompressionError

# What is checked is the compressor: the classifier in it learns the same in small images.
SMALL_IMAGES = {"resize_size": 16, "crop_size": 16}


@parametrize_with_checks([LowRankClassifier(FineTunedClassifier(max_epochs=1, preprocessing=SMALL_IMAGES))])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_of_check_estimator(estimator, check):
    """Around a classifier, the estimator passes every common check of scikit-learn; none is excluded."""
    check(estimator)


class Small(nn.Module):
    """A network of four stages: plain, depthwise with a pointwise one behind, and grouped convolutions."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = self.block(nn.Conv2d(3, 16, 3, padding=1))
            self.plain = self.block(nn.Conv2d(16, 24, 3, stride=2, padding=1))
            self.depthwise = self.block(nn.Conv2d(24, 24, 5, padding=2, groups=24), nn.Conv2d(24, 32, 1))
            self.grouped = self.block(nn.Conv2d(32, 48, 3, stride=(1, 2), padding="valid", groups=2))

    @staticmethod
    def block(*convolutions):
        return nn.Sequential(*convolutions, nn.BatchNorm2d(convolutions[-1].out_channels), nn.ReLU())

    def forward(self, x):
        return self.grouped(self.depthwise(self.plain(self.stem(x)))).mean((2, 3))


@pytest.fixture(scope="module")
def make(quick):
    """Makes a classifier around the small network that fits in no time."""
    network = {"freeze_depth": 1, "head": (40,), "head_init": "random", "preprocessing": {"crop_size": 8}}
    return lambda **params: FineTunedClassifier(Small(), **{**quick, **network, **params})


@pytest.fixture(scope="module")
def fitted(digits, make):
    """One that has learnt three digits."""
    return make(max_epochs=30, lr=0.003, lr_decay=1.0).fit(*digits)


def parameters(estimator):
    return sum(parameter.numel() for parameter in estimator.net_.module_.parameters())


def layer_at(estimator, path):
    network = estimator.net_.module_
    return network.get_submodule(path if path.startswith("head") else f"stages.{path}")


@pytest.mark.parametrize("method", ["spatial", "tucker"])
def test_the_network_keeps_to_its_share(digits, fitted, method):
    """The layers behind the cut have at most that many parameters together, the one of the outputs not counted."""
    model = LowRankClassifier(FrozenEstimator(fitted), rank=0.6, method=method, max_epochs=0).fit(*digits)
    paths = ["plain.0", "depthwise.0", "depthwise.1", "grouped.0", "head.0"]
    assert set(model.ranks_) <= set(paths)
    assert len(model.ranks_) >= 3
    assert "depthwise.0" not in model.ranks_ or method == "spatial"
    models = fitted, model.estimator_
    before, after = (sum(tensor.numel() for path in paths for tensor in layer_at(x, path).parameters()) for x in models)
    assert 0.5 * before < after <= 0.6 * before
    for path, rank in model.ranks_.items():
        factors = list(layer_at(model.estimator_, path).children())
        widths = [len(factor.weight) // getattr(factor, "groups", 1) for factor in factors[:-1]]
        assert widths[::-1] == list(rank if isinstance(rank, tuple) else (rank,))
    assert type(layer_at(model.estimator_, "head.2")) is nn.Linear
    costs = model.footprint_.to_dict()
    for name, share in {"parameters": 0.7, "macs": 0.9, "nbytes": 0.9}.items():
        assert costs[name][1] < share * costs[name][0]


def test_a_network_of_low_rank_is_found(digits, make, monkeypatch):
    """Where all of the energy is in few directions, little is left of the network, and its outputs stay the same."""
    X, y = digits
    model = make(max_epochs=1).fit(X, y)
    network = model.net_.module_
    with torch.no_grad():
        for layer in map(network.get_submodule, ["stages.plain.0", "stages.depthwise.1", "head.0"]):
            u, s, v = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
            layer.weight.copy_((u[:, :3] * s[:3] @ v[:3]).unflatten(1, layer.weight.shape[1:]))
    model.backbone_ = trained_backbone(model.backbone_, model.net_, model.freeze_depth_)
    monkeypatch.setattr(LowRankClassifier, "_retrain", lambda self, *args: None)
    smaller = LowRankClassifier(FrozenEstimator(model), energy=1.0, method="tucker", max_epochs=0).fit(X, y)
    assert smaller.ranks_ == {"plain.0": 3, "depthwise.1": 3, "head.0": 3}
    np.testing.assert_allclose(smaller.decision_function(X), model.decision_function(X), rtol=1e-4, atol=1e-4)


def test_training_brings_back_what_was_lost(digits, fitted):
    """A rank that is too low for the weights is enough for the pictures, once all factors have been trained."""
    X, y = digits
    scores = []
    for n_epochs in (0, 30):
        model = LowRankClassifier(FrozenEstimator(fitted), rank=2, max_epochs=n_epochs).fit(X, y)
        scores.append(np.log(model.predict_proba(X)[range(len(y)), y]).mean())
        assert model.ranks_["plain.0"] == 2
    assert scores[1] > 0.5 * scores[0]
    assert model.score(X, y) > 0.9


def test_what_is_frozen_and_what_was_given_stay(digits, fitted):
    """Frozen stages are the same to the bit, and the original predicts what it did."""
    X, y = digits
    before = fitted.decision_function(X)
    model = LowRankClassifier(FrozenEstimator(fitted), rank=0.3, max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(fitted.decision_function(X), before)
    backbones = fitted.backbone_, model.estimator_.backbone_
    assert backbones[0].fingerprint("stem") == backbones[1].fingerprint("stem")
    assert "stem.0" not in model.ranks_
    # Less may be frozen than the estimator froze.
    whole = LowRankClassifier(FrozenEstimator(fitted), rank=0.3, freeze_depth=0, max_epochs=1).fit(X, y)
    assert "stem.0" in whole.ranks_
    assert whole.estimator_.freeze_depth_ == 0


def test_stages_are_the_same_places(digits, fitted):
    """The smaller network can be cut where the larger one could: for features, and to be trained again."""
    X, y = digits
    model = LowRankClassifier(FrozenEstimator(fitted), rank=0.5, max_epochs=1).fit(X, y)
    backbone = model.estimator_.backbone_
    assert [stage.name for stage in backbone.stages] == [stage.name for stage in fitted.backbone_.stages]
    assert backbone.macs("grouped") < 0.8 * fitted.backbone_.macs("grouped")
    features = PretrainedFeatureExtractor(model, layers=["plain", "grouped"]).fit_transform(X)
    assert features.shape == (30, 24 + 48)
    again = FineTunedClassifier(model, freeze_depth=-1, max_epochs=1, random_state=0).fit(X, y)
    assert again.backbone_.fingerprint("depthwise") == backbone.fingerprint("depthwise")


def test_ranks_of_a_stack(digits, fitted):
    """A network of factors can be made smaller once more: its layers are layers like others."""
    X, y = digits
    once = LowRankClassifier(FrozenEstimator(fitted), rank=0.8, max_epochs=0)
    twice = LowRankClassifier(once, rank=0.8, max_epochs=0).fit(X, y)
    once.fit(X, y)
    assert parameters(twice.estimator_) < parameters(once.estimator_)
    assert any(path.startswith("plain.0.") for path in twice.ranks_)


def test_a_fit_can_be_repeated_and_pickled(digits, fitted):
    """Two fits, and a reloaded one, predict the same to the bit."""
    X, y = digits
    models = [LowRankClassifier(FrozenEstimator(fitted), rank=4, max_epochs=2).fit(X, y) for _ in range(2)]
    models.append(pickle.loads(pickle.dumps(models[0])))
    expected = models[0].predict_proba(X)
    for model in models[1:]:
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert models[2].ranks_ == models[0].ranks_


def test_ranks_are_searched_over(digits, make):
    """A grid search tunes ranks of both kinds, and numpy's numbers are numbers."""
    X, y = digits
    grid = [{"rank": [np.int64(2), 0.5]}, {"energy": np.array([0.3, 0.5])}]
    search = GridSearchCV(LowRankClassifier(make(), max_epochs=1), grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.ranks_
    assert len(search.cv_results_["params"]) == 4


def test_without_a_rank_it_is_half(digits, fitted):
    """Where neither rank nor energy is given, half of the parameters are kept."""
    ranks = [LowRankClassifier(FrozenEstimator(fitted), rank=x, max_epochs=0).fit(*digits).ranks_ for x in (None, 0.5)]
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize(
    ("params", "match"),
    [
        (
            {"rank": 1000, "method": "tucker"},
            r"rank=1000 is not smaller than the rank of any layer \(the largest of 5 layers, 'head.0', has rank 40\)\.",
        ),
        ({"rank": 1000}, r"\(the largest of 5 layers, 'plain.0', has rank 48\)\. Use a smaller rank\."),
        (
            {"rank": 0.001},
            r"rank=0.001 does not make any layer smaller .*\. Use a larger rank or freeze fewer stages\.",
        ),
        ({"energy": 1.0}, r"energy=1.0 does not make any layer smaller .*\. Use a smaller energy\."),
        ({"rank": 47}, r"rank=47 does not make any layer smaller .*\. Use a smaller rank\."),
    ],
)
def test_no_layer_would_shrink(digits, fitted, params, match):
    """That is an error which says how far one can go."""
    with pytest.raises(CompressionError, match=match):
        LowRankClassifier(FrozenEstimator(fitted), **params).fit(*digits)


def test_nothing_behind_the_cut(digits, quick):
    """A linear head alone has nothing to factorize."""
    with pytest.raises(
        CompressionError,
        match="freeze_depth=None leaves no convolution or linear layer to factorize besides the output",
    ):
        LowRankClassifier(FineTunedClassifier(**quick)).fit(*digits)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        (
            {"rank": 0.5, "energy": 0.9},
            r"The 'rank' and 'energy' .* both be set\. Got rank=0\.5 and energy=0\.9\. Set one of them to None\.",
        ),
        ({"rank": 0}, "The 'rank' parameter"),
        ({"rank": 1.0}, "The 'rank' parameter"),
        ({"energy": 0.0}, "The 'energy' parameter"),
        ({"method": "cp"}, "The 'method' parameter"),
    ],
)
def test_parameters_that_mean_nothing(digits, make, params, match):
    """They are refused before the estimator is fitted."""
    X, _ = digits
    with pytest.raises(ValueError, match=match):
        LowRankClassifier(make(), **params).fit(X, None)


def test_an_estimator_that_is_not_fitted(digits, make):
    """A frozen one has to be; any other one is cloned and fitted, and stays as it is."""
    X, y = digits
    with pytest.raises(NotFittedError, match="is frozen and not fitted"):
        LowRankClassifier(FrozenEstimator(make())).fit(X, y)
    inner = make()
    model = clone(LowRankClassifier(inner, max_epochs=1)).fit(X, y)
    assert not hasattr(inner, "net_")
    assert model.score(X, y) > 0.3
