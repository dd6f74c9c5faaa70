"""Networks and layers ranked by one pass over the pictures, and the best of them as an extractor."""

import gc
import pickle
import weakref
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sktl.selection._selector as selector_module
from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.exceptions import BackboneError, ImageError
from sktl.selection import BackboneSelector, leep_score, logme_score, nce_score


@parametrize_with_checks([BackboneSelector()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """It passes every common check of scikit-learn, none is excluded."""
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Sixty digits of three kinds as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:60] / 16, y[:60]


def test_the_ranking(digits):
    """Each layer has the score of its own features; the best is first, and is what the selector gives."""
    X, y = digits
    selector = BackboneSelector().fit(X, y)
    ranking = selector.ranking_.to_dict()
    assert sorted(ranking["layer"]) == ["layer1", "layer2", "layer3", "layer4", "stem"]
    assert ranking["score"] == sorted(ranking["score"], reverse=True)
    for layer, score, n_features in zip(ranking["layer"], ranking["score"], ranking["n_features"], strict=True):
        features = PretrainedFeatureExtractor(layers=layer).fit_transform(X)
        assert features.shape[1] == n_features
        assert logme_score(features, y) == pytest.approx(score, rel=1e-6)
    assert selector.layers_ == [ranking["layer"][0]]
    expected = PretrainedFeatureExtractor(layers=ranking["layer"][0]).fit(X)
    np.testing.assert_array_equal(selector.transform(X), expected.transform(X))
    assert selector.get_feature_names_out().tolist() == expected.get_feature_names_out().tolist()


def test_one_pass(digits, n_run):
    """Each picture goes through each network once, for all its layers, all scores, and the transform after it."""
    X, y = digits
    networks = ["sktl_mini", PretrainedFeatureExtractor(weights=None, random_state=0)]
    selector = BackboneSelector(networks).fit(X, y)
    assert n_run[0] == 2 * len(X)
    assert len(selector.ranking_.to_dict()["layer"]) == 10
    selector.transform(X)
    selector.set_params(score_func="h_score").fit(X, y)
    assert n_run[0] == 2 * len(X)


def test_pretrained_before_random(digits):
    """Networks have the names that they were given; one with random weights comes after a trained one."""
    random = PretrainedFeatureExtractor(weights=None, random_state=0)
    selector = BackboneSelector({"random": random, "trained": "sktl_mini"}, layers=-1).fit(*digits)
    assert selector.ranking_.to_dict()["backbone"] == ["trained", "random"]
    assert selector.ranking_.to_dict()["layer"] == ["layer4", "layer4"]


def test_a_random_network_stays_itself(digits):
    """A network with random weights and no seed is the one that was ranked."""
    X, y = digits
    seen = []
    extractor = PretrainedFeatureExtractor(weights=None)
    selector = BackboneSelector(extractor, layers=-1, score_func=lambda a, y: seen.append(a) or 1.0).fit(X, y)
    np.testing.assert_array_equal(selector.transform(X), seen[0].astype(np.float32))


@pytest.mark.parametrize("layers", [["layer2", -1], ("layer2", "layer4")])
def test_some_layers(digits, layers):
    """Layers are named as an extractor names them; each is a candidate of its own."""
    assert sorted(BackboneSelector(layers=layers).fit(*digits).ranking_.to_dict()["layer"]) == ["layer2", "layer4"]


@pytest.mark.parametrize("score_func", ["logme", "h_score", "nleep", "transrate", "gbc", "probe"])
def test_every_score(digits, score_func):
    """Each score ranks by name, and twice the same where there is a seed."""
    first, second = (BackboneSelector(score_func=score_func, random_state=0).fit(*digits) for _ in range(2))
    assert np.isfinite(first.ranking_.to_dict()["score"]).all()
    assert first.ranking_.to_dict()["score"] == second.ranking_.to_dict()["score"]


def test_a_score_of_ones_own(digits):
    """A function sees float64 features of one layer and the labels; of equal scores the cheaper layer wins."""
    X, y = digits
    labels = np.array(["a", "b", "c"])[y]
    calls = []
    selector = BackboneSelector(score_func=lambda features, y: calls.append((features.dtype, list(y))) or 0.5)
    selector.fit(X, labels)
    assert calls == [(np.float64, labels.tolist())] * 5
    assert selector.layers_ == ["stem"]
    assert " by <lambda> (a score for ranking" in repr(selector.ranking_)
    for number in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"Got {number} for 32 features of 60 images .sktl_mini, layer stem"):
            selector.set_params(score_func=lambda features, y, number=number: number).fit(X, labels)


def test_some_pictures(digits):
    """A sample has each class in its share, is drawn by the seed, and the best network still learns all of ``X``."""
    X, y = digits
    y = np.where(np.arange(60) < 40, 0, np.where(np.arange(60) < 55, 1, 2))
    seen = []
    selector = BackboneSelector(
        layers=-1, max_samples=12, random_state=0, score_func=lambda a, y: seen.append(y) or 1.0
    )
    for _ in range(2):
        selector.fit(X, y)
    assert np.bincount(seen[0]).tolist() == [8, 3, 1]
    assert seen[0].tolist() == seen[1].tolist()
    selector.set_params(max_samples=1000).fit(X, y)
    assert len(seen[2]) == 60
    features = []
    selector.set_params(max_samples=10, score_func=lambda a, y: features.append(a) or seen.append(y) or 1.0)
    selector.fit(X, np.arange(60) / 7)
    assert len(set(seen[3])) == 10
    drawn = np.round(7 * seen[3]).astype(int)
    np.testing.assert_array_equal(features[0], PretrainedFeatureExtractor().fit_transform(X)[drawn])


def test_rare_classes_are_in_the_sample(digits):
    """Each class has a row at least; labels may be a column, and several targets are drawn by chance."""
    X, _ = digits
    y = np.r_[np.zeros(57, int), 1, 2, 2]
    seen = []
    selector = BackboneSelector(layers=-1, max_samples=6, score_func=lambda features, y: seen.append(y) or 1.0)
    for labels in (y, y.reshape(-1, 1), np.c_[y, y[::-1]]):
        selector.fit(X, labels)
    assert np.bincount(seen[0]).tolist() == [4, 1, 1]
    assert np.bincount(seen[1].ravel()).tolist() == [4, 1, 1]
    assert seen[2].shape == (6, 2)
    for labels, match in (
        (["a"] * 59 + [None], r"y has missing values \(1 of 60\)"),
        (np.array(["a", 1] * 30, object), "has labels of types"),
    ):
        with pytest.raises(ValueError, match=match):
            selector.fit(X, labels)


def test_a_second_fit_forgets_the_first(digits):
    """What was learnt of columns is gone when the next table has none."""
    X, y = digits
    selector = BackboneSelector(layers=-1).fit(X, y)
    assert selector.n_features_in_ == 64
    selector.fit([row.reshape(8, 8) for row in X], y)
    assert not hasattr(selector, "n_features_in_")


def test_in_a_search_and_a_pipeline(digits):
    """Its settings are tuned like any others, and labels reach it through a pipeline."""
    X, y = digits
    pipe = make_pipeline(BackboneSelector(), StandardScaler(), LogisticRegression(C=0.1))
    grid = {"backboneselector__score_func": ["logme", "gbc"], "backboneselector__layers": ["all", -1]}
    search = GridSearchCV(pipe, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    assert search.predict(X).shape == (60,)


def test_a_backbone_for_others(digits):
    """A fitted selector lends the network that it found; it pickles, and its clone is unfitted."""
    X, y = digits
    selector = BackboneSelector().fit(X, y)
    assert FineTunedClassifier(FrozenEstimator(selector), max_epochs=1).fit(X, y).score(X, y) > 0.8
    again = pickle.loads(pickle.dumps(selector))
    np.testing.assert_array_equal(again.transform(X), selector.transform(X))
    assert repr(again.ranking_) == repr(selector.ranking_)
    assert not hasattr(clone(selector), "ranking_")


def test_pictures_that_cannot_be_read(tmp_path, digits, monkeypatch):
    """With ``on_error="nan"`` a broken image is no part of the score; one that breaks after a network is named too."""
    from PIL import Image

    X, y = digits
    for i, row in enumerate(X):
        Image.fromarray((row * 255).astype(np.uint8).reshape(8, 8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes(b"broken")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    seen = []

    def score(features, y):
        seen.append((features, list(y)))
        return 1.0

    selector = BackboneSelector(layers=-1, score_func=score, extractor=PretrainedFeatureExtractor(on_error="nan"))
    with pytest.warns(UserWarning, match="07.png"):
        selector.fit(paths, y)
    assert np.isfinite(seen[0][0]).all()
    assert seen[0][1] == np.delete(y, 7).tolist()
    strict = BackboneSelector(layers=-1, max_samples=59, random_state=0)
    with pytest.raises(ImageError, match=r"position 7.*07\.png|07\.png.*position 7|Image 7"):
        strict.fit(paths, y)
    (tmp_path / "07.png").write_bytes((tmp_path / "06.png").read_bytes())
    add, broken = selector_module.CandidateScores.add, tmp_path / "08.png"
    monkeypatch.setattr(
        selector_module.CandidateScores, "add", lambda *args: (add(*args), broken.write_bytes(b"broken"))
    )
    with pytest.warns(UserWarning, match=r"08\.png"):
        selector.set_params(backbones=["sktl_mini"] * 2, extractor__cache=None).fit(paths, y)


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"backbones": []}, ValueError, "must contain at least one network"),
        ({"backbones": {}}, ValueError, "must contain at least one network"),
        ({"backbones": "no_such_network"}, BackboneError, "no_such_network"),
        ({"layers": "layer9"}, BackboneError, "layer9"),
        ({"layers": -9}, BackboneError, "-9"),
        ({"score_func": "accuracy"}, ValueError, "score_func"),
        ({"extractor": PretrainedFeatureExtractor(pooling="none")}, ValueError, "Use 'avg'"),
        ({"extractor": LogisticRegression()}, ValueError, "extractor"),
        ({"max_samples": 1}, ValueError, "max_samples"),
        ({"task": "ranking"}, ValueError, "task"),
        (
            {"task": "regression", "score_func": "gbc"},
            ValueError,
            "'gbc' does not support task='regression'. Use 'logme' or 'probe'",
        ),
        ({"score_func": "leep"}, ValueError, "'leep' needs a published classifier, but sktl_mini has none"),
        (
            {"score_func": "nce", "layers": "stem"},
            ValueError,
            "pretrained head and does not support layers='stem'. Use layers='all'",
        ),
        ({"backbones": FrozenEstimator(PretrainedFeatureExtractor())}, NotFittedError, "not fitted"),
    ],
)
def test_bad_parameters(digits, params, error, match):
    """What cannot be ranked is said, with what was given."""
    with pytest.raises(error, match=match):
        BackboneSelector(**params).fit(*digits)


def test_bad_labels(digits):
    """Labels are needed, as many as pictures, of two kinds at least."""
    X, y = digits
    for labels, match in ((None, "requires y"), (y[:-1], "inconsistent numbers of samples"), (np.zeros(60), "class")):
        with pytest.raises(ValueError, match=match):
            BackboneSelector().fit(X, labels)


def small_network(scale=1.0):
    """A network of one convolution, and an extractor of one's own around it."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    with torch.no_grad():
        network[0].weight *= scale
    return network, PretrainedFeatureExtractor(preprocessing={"resize_size": 8, "crop_size": 8})


def test_a_module(digits):
    """A network of one's own is a candidate like others, but for scores that want a classifier."""
    own, extractor = small_network()
    selector = BackboneSelector([own], extractor=extractor).fit(*digits)
    assert selector.transform(digits[0]).shape[0] == 60
    with pytest.raises(ValueError, match=r"a published classifier, but .* has none"):
        selector.set_params(score_func="nce").fit(*digits)


def test_a_network_that_gives_no_numbers(digits, monkeypatch):
    """It is said which layer of which network, and that the pictures are not at fault; also where these may be."""
    monkeypatch.setattr("sktl.backbones._weights._LARGEST", np.inf)  # such weights are refused when they are loaded
    own, extractor = small_network(scale=2e38)
    for on_error, looked_at in (("raise", "60"), ("nan", r"\d+")):
        extractor.set_params(on_error=on_error)
        with pytest.raises(
            ValueError, match=r"own, layer 0, are NaN or infinite for \d+ of " + looked_at + " images.*float32"
        ):
            BackboneSelector({"own": own}, layers="0", extractor=extractor).fit(*digits)


def test_one_network_at_a_time(digits):
    """When the next one comes, of those that were ranked only the best is still in memory."""
    alive, seen = [], []

    class Watched(PretrainedFeatureExtractor):
        def fit(self, X, y=None):
            gc.collect()
            seen.append([name for name, backbone in alive if backbone() is not None])
            super().fit(X, y)
            alive.append((self.random_state, weakref.ref(self.backbone_)))
            return self

    networks = [
        Watched(small_network(scale)[0], random_state=i, preprocessing={"resize_size": 8, "crop_size": 8})
        for i, scale in enumerate([1.0, 3.0, 2.0, 4.0, 1.0])
    ]
    selector = BackboneSelector(networks, layers="0", score_func=lambda features, y: features.mean()).fit(*digits)
    assert seen == [[], [0], [1], [1], [3]]
    assert selector.extractor_.random_state == 3


@pytest.mark.parametrize(
    ("own", "expected"),
    [("layer2", ["layer2"]), (["layer3", "stem"], ["layer3", "stem"]), ([-1], ["layer4"]), (-1, ["layer1"])],
)
def test_layers_of_ones_own(digits, own, expected):
    """An extractor that names layers has these as its candidates, each by itself; with the default all others' ones."""
    selector = BackboneSelector(PretrainedFeatureExtractor(layers=own), layers="layer1").fit(*digits)
    assert sorted(selector.ranking_.to_dict()["layer"]) == sorted(expected)


def test_two_settings_of_one_network(digits):
    """They are told apart by a number, in the order in which they were given."""
    networks = ["sktl_mini", *(PretrainedFeatureExtractor(pooling=pooling) for pooling in ("max", "gem"))]
    selector = BackboneSelector(networks, layers=[-1, -2], score_func=lambda features, y: -features.mean())
    ranking = selector.fit(*digits).ranking_.to_dict()
    assert sorted(zip(ranking["backbone"], ranking["layer"], strict=True)) == [
        (f"sktl_mini{number}", layer) for number in ("", " (2)", " (3)") for layer in ("layer3", "layer4")
    ]
    assert (ranking["backbone"][0], selector.extractor_.pooling) == ("sktl_mini", "avg")
    assert ranking["backbone"][-1] == "sktl_mini (2)"  # the maximum is the greatest


def test_a_frozen_extractor_is_used_as_it_is(digits):
    """Its pooling and what it has learnt of its pictures stay, and nothing of it is changed."""
    X, y = digits
    frozen = PretrainedFeatureExtractor(pooling="max", weights=None).fit(X)
    network, image_format = frozen.backbone_, frozen.image_format_
    selector = BackboneSelector(FrozenEstimator(frozen), layers="layer1").fit(X, y)
    assert selector.backbone_ is frozen.backbone_ is network
    assert selector.image_format_ is frozen.image_format_ is image_format
    assert selector.extractor_.pooling == "max"
    assert frozen.layers_ == ["layer4"]
    frozen.layers_ = ["layer1"]
    np.testing.assert_array_equal(selector.transform(X), frozen.transform(X))


def test_whole_numbers_as_targets(digits):
    """With ``task="regression"`` they are numbers, to the score and to who draws; a partial keeps what it has bound."""
    X, _ = digits
    y = np.arange(60) // 2
    features = PretrainedFeatureExtractor().fit_transform(X)
    for score_func, task, expected in (
        ("logme", "auto", logme_score(features, y, task="classification")),
        ("logme", "regression", logme_score(features, y, task="regression")),
        (logme_score, "regression", logme_score(features, y, task="regression")),
        (partial(logme_score, task="regression"), "auto", logme_score(features, y, task="regression")),
        (partial(logme_score, task="regression"), "classification", logme_score(features, y, task="regression")),
        (lambda features, y: 7.0, "regression", 7.0),
    ):
        selector = BackboneSelector(layers=-1, score_func=score_func, task=task).fit(X, y)
        assert selector.ranking_.to_dict()["score"] == [pytest.approx(expected, rel=1e-6)]
    seen = []
    y = np.where(np.arange(60) < 59, 0, 1)
    selector = BackboneSelector(
        layers=-1, score_func=lambda features, y: seen.append(y) or 1.0, max_samples=5, random_state=1
    )
    selector.fit(X, y).set_params(task="regression").fit(X, y)
    assert [1 in drawn for drawn in seen] == [True, False]


def test_the_global_generator_is_asked_where_something_is_drawn(digits):
    """Without a seed NumPy's generator moves for a sample and for a score that draws, and for nothing else."""
    states = []
    for settings in ({}, {"max_samples": 60}, {"max_samples": 59}, {"score_func": "probe"}):
        np.random.seed(0)  # noqa: NPY002, the global one is what is watched
        before = np.random.get_state()[2]  # noqa: NPY002
        BackboneSelector(layers=-1, **settings).fit(*digits)
        states.append(np.random.get_state()[2] != before)  # noqa: NPY002
    assert states == [False, False, True, True]


def test_one_seed_for_all_candidates(digits):
    """A score that draws has the same seed for each of them, another one in the next fit, and the same with a seed."""
    seeds = []

    def score(features, y, random_state=None):
        seeds.append(random_state)
        return 1.0

    selector = BackboneSelector(layers=[-1, -2], score_func=score)
    selector.fit(*digits).fit(*digits).set_params(random_state=0).fit(*digits).fit(*digits)
    assert seeds[::2] == seeds[1::2]
    assert seeds[0] != seeds[2]
    assert seeds[4] == seeds[6]


def test_tables_are_as_the_selector_says(digits):
    """Its own output setting counts, whatever the global one is."""
    X, y = digits
    selector = BackboneSelector(layers=-1).fit(X, y)
    with config_context(transform_output="pandas"):
        assert isinstance(selector.transform(X), pd.DataFrame)
        assert isinstance(selector.set_output(transform="default").transform(X), np.ndarray)
        selector.set_params(score_func=lambda features, y: float(type(features) is np.ndarray)).fit(X, y)
    assert selector.ranking_.to_dict()["score"] == [1.0]
    assert selector.set_output(transform="pandas").transform(X).columns[0] == "sktl_mini_layer4_0"


class Recorder:
    """A callback of scikit-learn's protocol that notes the tasks it hears of, and may stop after a network."""

    def __init__(self, last=99):
        self.tasks, self.last = [], last

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "network" and self.tasks.count("network") == self.last


def test_callbacks_hear_of_each_network(digits):
    """One task for each, with the pass over the pictures in it, from the cache too; one may stop, and all is there."""
    recorder = Recorder()
    selector = BackboneSelector({"a": "sktl_mini", "b": "sktl_mini"}).set_callbacks(recorder).fit(*digits)
    assert recorder.tasks == ["setup", "fit", *["network", *["images"] * 20] * 2, "teardown"]
    selector.set_callbacks(Recorder(last=1)).fit(*digits)
    assert set(selector.ranking_.to_dict()["backbone"]) == {"a"}
    assert selector.transform(digits[0]).shape[0] == 60


def test_a_progress_bar(digits, capsys):
    """It shows the selector alone and in a search."""
    pytest.importorskip("rich")
    BackboneSelector(["sktl_mini"]).set_callbacks(ProgressBar()).fit(*digits)
    assert "network" in capsys.readouterr().out
    pipe = make_pipeline(BackboneSelector(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipe, {"backboneselector__layers": [-1]}, cv=2)  # as many bars as a terminal has lines for
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*digits)
    assert "BackboneSelector - network" in capsys.readouterr().out


# --- answers of the network's own head --------------------------------------------------------------------------------


def test_scores_of_the_heads_answers(digits, monkeypatch, n_run):
    """LEEP and NCE judge what the head says, in one pass, and the last stage is the candidate, for `transform` too."""
    X, y = digits
    monkeypatch.setattr(selector_module, "class_layer", lambda extractor: extractor.backbone_.layers[-1])
    logits = PretrainedFeatureExtractor(layers="fc", cache=None).fit_transform(X).astype(np.float64)
    n_run[0] = 0
    for score_func, layers, expected in (
        ("leep", "all", leep_score(softmax(logits, axis=1), y)),
        ("nce", -1, nce_score(logits.argmax(axis=1), y)),
    ):
        selector = BackboneSelector(score_func=score_func, layers=layers).fit(X, y)
        ranking = selector.ranking_.to_dict()
        assert ranking["score"] == [pytest.approx(expected, rel=1e-6)]
        assert (ranking["layer"], ranking["n_features"]) == (["layer4"], [512])
        assert f" by {score_func} (" in repr(selector.ranking_)
        np.testing.assert_array_equal(selector.transform(X), PretrainedFeatureExtractor().fit_transform(X))
    assert n_run[0] == len(X)
    with pytest.raises(ValueError, match=r"does not support layers=\[-1\]"):
        selector.set_params(backbones=PretrainedFeatureExtractor(layers=[-1])).fit(X, y)


@pytest.mark.parametrize(("score_func", "score"), [("leep", leep_score), ("nce", nce_score)])
def test_a_published_classifier(shared_data, score_func, score):
    """MobileNetV3 names ants and bees well; without its weights it is refused by name."""
    paths = [
        str(path)
        for kind in ("ants", "bees")
        for path in sorted((shared_data / f"hymenoptera/val/{kind}").glob("*"))[:8]
    ]
    y = ["ant"] * 8 + ["bee"] * 8
    weights = shared_data / "mobilenet_v3_small_imagenet" / "model.safetensors"
    extractor = PretrainedFeatureExtractor("mobilenet_v3_small", weights=weights)
    selector = BackboneSelector({"MobileNetV3": extractor}, score_func=score_func).fit(paths, y)
    (found,) = selector.ranking_.to_dict()["score"]
    logits = clone(extractor).set_params(layers="classifier.3").fit_transform(paths).astype(np.float64)
    answers = softmax(logits, axis=1) if score_func == "leep" else logits.argmax(axis=1)
    assert found == pytest.approx(score(answers, y), rel=1e-6)
    assert found > -0.4
    assert selector.transform(paths[:2]).shape == (2, 576)
    random = PretrainedFeatureExtractor("mobilenet_v3_small", weights=None, random_state=0)
    with pytest.raises(ValueError, match="published classifier, but mobilenet_v3_small has none"):
        BackboneSelector(random, score_func=score_func).fit(paths, y)
