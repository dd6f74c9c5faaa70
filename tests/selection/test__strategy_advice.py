"""The advice: the cell, the strategy, parameters that work, and when transfer is called useless."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

import sktl._estimators._auto_depth as engine_module
import sktl.selection._strategy_advice as strategy_module
from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._images import check_images
from sktl._training._head_probe import PROBE_PENALTY
from sktl.backbones import Backbone
from sktl.exceptions import ImageError, InputError, TransferWarning
from sktl.selection import domain_distance, logme_score, probe_score, recommend_strategy


@pytest.fixture(scope="module")
def table():
    """Two hundred digits as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:200] / 16, y[:200]


@pytest.fixture(scope="module")
def advice(table):
    """On those digits with the default network."""
    return recommend_strategy(*table)


@pytest.fixture
def near(monkeypatch):
    """Pictures are said to be of a kind that each network knows."""
    monkeypatch.setattr(engine_module, "source_distance", lambda owner, images: 0.1)


@pytest.fixture
def best_stage(monkeypatch):
    """Sets which of the four stages that are looked at has the highest LogME; the last one where nothing is set."""
    chosen, calls = [3], []

    def fake(features, y, **_):
        calls.append(features.shape)
        return float((len(calls) - 1) % 4 == chosen[0])

    monkeypatch.setattr(strategy_module, "logme_score", fake)
    monkeypatch.setattr(strategy_module, "_WORTH_IT", -1)  # digits are simple: pixels may do as well
    return chosen


def test_what_is_known(table, advice):
    """The numbers are those of the functions that give them, on all pictures."""
    X, y = table
    assert (advice.backbone, advice.n_images, advice.n_classes) == ("sktl_mini", 200, 10)
    assert (advice.amount, advice.domain) == ("little", "different")
    assert advice.distance == pytest.approx(domain_distance(X).distance, abs=0.1)
    assert list(advice.logme) == ["layer1", "layer2", "layer3", "layer4"]
    features = PretrainedFeatureExtractor(layers="layer3").fit_transform(X).astype(np.float64)
    assert advice.logme["layer3"] == pytest.approx(logme_score(features, y, task="classification"))
    best = max(advice.logme, key=advice.logme.get)
    assert set(advice.probes) == {best, "layer4"}
    last = PretrainedFeatureExtractor().fit_transform(X).astype(np.float64)
    assert advice.probes["layer4"] == pytest.approx(probe_score(last, y, C=1 / 30), abs=0.03)
    assert 0.8 < advice.pixels <= 1


def test_parameters_that_work(table, near, best_stage):
    """The estimator made of them freezes what is advised, with the settings of the extractor that was given."""
    X, y = table
    size = {"resize_size": 32, "crop_size": 32}
    own = PretrainedFeatureExtractor(preprocessing=size, cache=None)
    for strategy, labels, depth in (("freeze_all", y, 5), ("last_stages", y % 2, 3)):
        made = recommend_strategy(X, labels, own)
        assert made.strategy == strategy
        assert made.params.keys() == {"backbone", "preprocessing", "cache", "freeze_depth"}
        model = FineTunedClassifier(**made.params, max_epochs=0).fit(X[:30], labels[:30])
        assert model.freeze_depth_ == depth
        assert model.backbone_.preprocessing.crop_shape == (32, 32)
        assert made._call().startswith("FineTunedClassifier(backbone='sktl_mini'")


@pytest.mark.parametrize(("stage", "n_stages"), [(1, 3), (2, 4)])
def test_an_earlier_stage(table, best_stage, stage, n_stages):
    """Where few pictures of another kind suit an earlier stage better, the estimator's network ends there."""
    X, y = table
    size = {"resize_size": 48, "crop_size": 48}
    best_stage[0] = stage
    made = recommend_strategy(X, y, PretrainedFeatureExtractor(preprocessing=size))
    assert made.strategy == "earlier_layer"
    assert set(made.probes) == {f"layer{stage + 1}", "layer4"}
    cut = made.params["backbone"]
    assert isinstance(cut, Backbone)
    assert made.params == {"backbone": cut, "freeze_depth": "all"}
    model = FineTunedClassifier(**made.params, max_epochs=0, random_state=0).fit(X, y)
    assert model.freeze_depth_ == len(model.backbone_.stages) == n_stages
    features = PretrainedFeatureExtractor(layers=f"layer{stage + 1}", preprocessing=size).fit_transform(X)
    logits = model.net_.module_.head(torch.from_numpy(features)).softmax(1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), logits, rtol=1e-3, atol=1e-5)


def test_similar_pictures_keep_the_last_stage(table, near, best_stage):
    """Whatever LogME says of a few pictures of a kind that the network knows."""
    best_stage[0] = 1
    assert recommend_strategy(*table).strategy == "freeze_all"


def test_transfer_that_is_useless():
    """Labels that depend on a place, which pooled features know little of: it is said, and the network is not used."""
    rng = np.random.default_rng(0)
    X, y = rng.random((300, 8, 8)), np.arange(300) % 2
    X[:, 0, 3] = 0.2 + 0.6 * y
    with pytest.warns(TransferWarning, match="features of the network are not better than pixels"):
        made = recommend_strategy(X, y)
    assert made.strategy == "no_transfer"
    assert max(made.probes.values()) < made.pixels
    assert made.params == {"backbone": "sktl_mini", "freeze_depth": 0, "lr_decay": 1.0, "weights": None}
    FineTunedClassifier(**made.params, max_epochs=0).fit(X[:20], y[:20])
    network = PretrainedFeatureExtractor().fit(X).backbone_.body
    with pytest.warns(TransferWarning):
        given = recommend_strategy(X, y, network)
    assert given.params == {"backbone": network, "freeze_depth": 0, "lr_decay": 1.0}
    FineTunedClassifier(**given.params, max_epochs=0).fit(X[:20], y[:20])


@pytest.mark.parametrize(
    ("n", "features", "pixels", "is_useless"),
    [
        (20, 11, 15, False),  # four pictures of twenty
        (20, 5, 18, True),
        (20, 20, 20, False),
        (400, 200, 200, False),  # as good as pixels, and perhaps 7 points better
        (4000, 2000, 2000, True),
        (4000, 2001, 2000, False),  # better is better
        (4000, 4000, 4000, False),  # who makes no errors can save none
        (4000, 3990, 3990, False),  # a class of ten that neither knows
        (4000, 3600, 3900, True),
        (400, 0, 0, False),  # one of each class
    ],
)
def test_few_pictures_are_no_proof(monkeypatch, n, features, pixels, is_useless):
    """Transfer is called useless where it is no better, and that is not chance; near-copies prove nothing more."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation((np.arange(n) < count).astype(float)) for count in (features, pixels)]
    situation = engine_module.Situation(n, 2, 0.1, 0.3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        strategy = strategy_module._decide(situation, True, *rows)
        copied = [np.repeat(row, 9) for row in rows]
        same = strategy_module._decide(situation, True, *copied, groups=np.repeat(np.arange(n), 9))
    assert (strategy == "no_transfer") == is_useless == bool(said)
    assert same == strategy


def test_copies_and_the_order_make_no_difference(table):
    """Advice is about the different pictures, in an order of their own: else a copy would be known when it is held out,
    and an oversampled table had much data."""
    X, y = table[0][:60], table[1][:60] % 3
    first = recommend_strategy(X, y, max_samples=40)
    mixed = np.random.default_rng(0).permutation(120) % 60
    assert recommend_strategy(X[mixed], y[mixed], max_samples=40) == first
    assert first.n_images == 60


def test_numbers_do_not_depend_on_the_order_either(table):
    """Targets stay with their pictures."""
    X, y = table[0][:60], np.column_stack([table[1][:60], table[1][:60] ** 2])
    mixed = np.random.default_rng(0).permutation(60)
    assert recommend_strategy(X[mixed], y[mixed]) == recommend_strategy(X, y)


def test_pictures_with_more_channels():
    """The cut network and the whole one read as many as the extractor that was given."""
    X = np.random.default_rng(0).random((40, 16, 16, 5))
    y = np.arange(40) % 2
    made = recommend_strategy(X, y, PretrainedFeatureExtractor(in_channels=5))
    assert made.strategy == "earlier_layer"
    assert made.params.keys() == {"backbone", "in_channels", "freeze_depth"}
    assert FineTunedClassifier(**made.params, max_epochs=0).fit(X, y).predict(X).shape == (40,)


def test_how_it_reads(advice):
    """The cell is marked, the parameters can be copied, and the notebook's page says the same."""
    text, page = repr(advice), advice._repr_html_()
    assert "FineTunedClassifier(backbone='sktl_mini', freeze_depth=" in text
    (row,) = [line for line in text.splitlines() if "→" in line]
    assert row.startswith("little data")
    assert row.index("→") > row.index("freeze all")
    assert page.count("<b>→") == 1
    for said in ("on average 20 in each of 10 classes", "(similar images are below 0.42)", "pixels only"):
        assert said in " ".join(text.split())
        assert said in page


def test_names_are_escaped():
    """A network may be called anything."""
    made = strategy_module.StrategyAdvice(
        "freeze_all", {"backbone": "<x>"}, "<x>", 10, 2, "little", "unknown", 0.2, {"<s>": 0.1}, {"<s>": 0.5}, 0.4
    )
    assert "<x>" not in made._repr_html_()
    assert "&lt;s&gt;" in made._repr_html_()
    assert "no threshold is known" in " ".join(repr(made).split())
    assert "→" not in repr(made)


def test_a_network_is_not_printed_in_full():
    """Of a network that was given, whose own text is pages long, the kind is named."""
    made = strategy_module.StrategyAdvice(
        "freeze_all", {"backbone": nn.Sequential(nn.ReLU())}, "x", 10, 2, "little", "unknown", None, {}, {}, 0.4
    )
    assert made._call() == "FineTunedClassifier(backbone=Sequential(...))"


def test_numbers(table):
    """Targets of a regression, one or several, have R2 in place of accuracy, and the other estimator's parameters."""
    X, y = table
    for targets, task in (
        (y + 0.5, "auto"),
        ((y + 0.5).astype(object), "auto"),
        (np.column_stack([y, -y]), "auto"),
        (y, "regression"),
    ):
        made = recommend_strategy(X[:60], targets[:60], task=task)
        assert made.n_classes is None
        assert "FineTunedRegressor(" in repr(made)
        assert "R²" in repr(made)
        assert made.probes["layer4"] < 1
        FineTunedRegressor(**made.params, max_epochs=0).fit(X[:20], targets[:20])


def test_the_kind_of_labels_does_not_matter(table):
    """Texts, a Series, a tuple: the same advice."""
    X, y = table
    first = recommend_strategy(X[:60], y[:60] % 3)
    names = np.array(["a", "b", "c"])[y[:60] % 3]
    for labels in (names, pd.Series(names, index=range(100, 160)), tuple(names)):
        again = recommend_strategy(pd.DataFrame(X[:60]), labels)
        assert (again.strategy, again.params, again.logme) == (first.strategy, first.params, first.logme)


def test_a_sample(table, n_run):
    """As many pictures as asked for are looked at, with all classes among them; all are counted."""
    X, y = table
    y = (y == 0).astype(int)
    y[np.flatnonzero(y)[3:]] = 0
    made = recommend_strategy(X, y, max_samples=20)
    assert (made.n_images, made.n_classes) == (200, 2)
    assert n_run[0] <= 2 * 20 + 64
    assert made == recommend_strategy(X, y, max_samples=20)
    assert made.logme != recommend_strategy(X, y, max_samples=20, random_state=1).logme


def test_the_features_are_in_the_cache(table, n_run):
    """What the advice looked at, the head that it advises learns from without another pass."""
    X, y = table
    made = recommend_strategy(X[:50], y[:50])
    before = n_run[0]
    FineTunedClassifier(**(made.params | {"freeze_depth": "all"}), max_epochs=1).fit(X[:50], y[:50])
    assert n_run[0] == before


def test_a_fitted_estimator_lends_its_network_for_good(table):
    """The parameters hold its network, and not the estimator, which a search would clone and so make unfitted."""
    X, y = table
    model = FineTunedClassifier(max_epochs=1, random_state=0).fit(X[:60], y[:60])
    made = recommend_strategy(X, y, model)
    assert made.params["backbone"] is model.backbone_
    clone(FineTunedClassifier(**made.params, max_epochs=0)).fit(X[:20], y[:20])


def test_it_is_data(advice):
    """Advice pickles, and is equal to itself."""
    assert pickle.loads(pickle.dumps(advice)) == advice


def test_what_cannot_be_advised(table, tmp_path):
    """Random weights, one class, missing labels, a broken picture, labels that do not fit: each says what is wrong."""
    X, y = table
    with pytest.raises(ValueError, match="nothing to transfer"):
        recommend_strategy(X, y, PretrainedFeatureExtractor(weights=None))
    with pytest.raises(ValueError, match="only one class"):
        recommend_strategy(X, np.zeros(200, int))
    with pytest.raises(ValueError, match="missing"):
        recommend_strategy(X, np.where(y == 3, np.nan, y))
    with pytest.raises(ValueError, match="missing"):
        recommend_strategy(X, [None if label == 3 else "a" for label in y])
    with pytest.raises(ValueError, match="cannot be sorted"):
        recommend_strategy(X, ["a" if label == 3 else 1 for label in y])
    with pytest.raises(ValueError, match="y=None"):
        recommend_strategy(X, None)
    with pytest.raises(ValueError, match="same value"):
        recommend_strategy(X[:1], [0.5])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        recommend_strategy(X, y[:-1])
    with pytest.raises(ValueError, match="max_samples"):
        recommend_strategy(X, y, max_samples=1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        recommend_strategy([str(tmp_path / "broken.png")] * 4, [0, 1, 0, 1], PretrainedFeatureExtractor(on_error="nan"))


def test_a_network_without_norms(table):
    """How near the pictures are cannot be told; the rest can."""
    X, y = table
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(n, 8, 3), nn.ReLU()) for n in (3, 8, 8)]
    network = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    own = PretrainedFeatureExtractor(network, preprocessing={"resize_size": 16, "crop_size": 16})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferWarning)
        made = recommend_strategy(X, y, own)
    assert (made.distance, made.domain) == (None, "unknown")
    assert "cannot be measured, unknown domain" in " ".join(repr(made).split())


def test_how_the_probes_are_fitted(table, monkeypatch):
    """With the penalty of a head's start, and all of one advice in the same folds, which random_state gives."""
    told = []
    monkeypatch.setattr(strategy_module, "held_out_scores", lambda *_, **known: told.append(known) or np.ones(4))
    for seed in (0, 1):
        recommend_strategy(table[0][:20], table[1][:20], random_state=seed)
    assert {known["C"] for known in told} == {1 / PROBE_PENALTY}
    seeds = [known["random_state"] for known in told]
    assert len(set(seeds)) == 2
    assert seeds == sorted(seeds, key=seeds.index)


def test_of_many_stages_some_are_looked_at(table):
    """Five of the last two thirds, evenly, with the last one."""
    X, _ = table
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(n, 4, 3, padding=1), nn.ReLU()) for n in [3] + [4] * 8]
    network = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    own = PretrainedFeatureExtractor(network, preprocessing={"resize_size": 16, "crop_size": 16}).fit(X)
    names = [stage.name for stage in own.backbone_.stages]
    tables = strategy_module._stage_features(own, check_images(own, X[:4], reset=False))
    assert len(names) == 9
    assert list(tables) == [names[i] for i in (3, 4, 5, 7, 8)]


def test_real_photos(shared_data):
    """Few ants and bees are near to what MobileNetV3 learnt from, sketches are not."""
    weights = shared_data / "mobilenet_v3_small_imagenet" / "model.safetensors"
    reader = PretrainedFeatureExtractor("mobilenet_v3_small", weights=weights)
    found = {}
    for folder in ("hymenoptera/train", "pacs/sketch"):
        paths = sorted((shared_data / folder).glob("*/*.jpg"))[::8]
        made = recommend_strategy([str(path) for path in paths], [path.parent.name for path in paths], reader)
        found[folder] = made.domain
        assert made.params["weights"] == weights
    assert found == {"hymenoptera/train": "similar", "pacs/sketch": "different"}


def test_near_copies_are_held_out_together():
    """Labels of chance are known from near-copies, of the features and of the pixels; with groups they are not."""
    random = np.random.default_rng(0)
    originals = random.permutation(np.repeat(np.arange(24), 4))
    X = random.uniform(0.1, 0.9, size=(24, 8, 8))[originals] + random.uniform(-0.01, 0.01, size=(96, 8, 8))
    y = (np.arange(24) % 2)[originals]
    plain = recommend_strategy(X, y)
    assert min(*plain.probes.values(), plain.pixels) > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferWarning)  # noise has nothing to transfer
        grouped = recommend_strategy(X, y, groups=originals)
    assert max(*grouped.probes.values(), grouped.pixels) < 0.8
    with pytest.raises(InputError, match="must have at least two groups"):
        recommend_strategy(X, y, groups=np.zeros(96))
