"""Networks and layers ranked by one pass over the pictures, and the best of them as an extractor."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.exceptions import BackboneError, ImageError
from sktl.selection import BackboneSelector, logme_score


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
    with pytest.raises(ValueError, match="gave NaN for 32 features of 60 pictures"):
        selector.set_params(score_func=lambda features, y: np.nan).fit(X, labels)


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
    selector.set_params(max_samples=10).fit(X, np.linspace(0, 1, 60))
    assert len(set(seen[3])) == 10


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


def test_pictures_that_cannot_be_read(tmp_path, digits):
    """With ``on_error="nan"`` a broken picture is no part of the score, and a row of NaN afterwards."""
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


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"backbones": []}, ValueError, "names no network"),
        ({"backbones": {}}, ValueError, "names no network"),
        ({"backbones": "no_such_network"}, BackboneError, "no_such_network"),
        ({"layers": "layer9"}, BackboneError, "layer9"),
        ({"layers": -9}, BackboneError, "-9"),
        ({"score_func": "accuracy"}, ValueError, "score_func"),
        ({"extractor": PretrainedFeatureExtractor(pooling="none")}, ValueError, "Use 'avg'"),
        ({"extractor": LogisticRegression()}, ValueError, "extractor"),
        ({"max_samples": 1}, ValueError, "max_samples"),
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


def test_a_module(digits):
    """A network of one's own is a candidate like others."""
    torch.manual_seed(0)
    own = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    extractor = PretrainedFeatureExtractor(preprocessing={"resize_size": 8, "crop_size": 8})
    selector = BackboneSelector([own], extractor=extractor).fit(*digits)
    assert selector.transform(digits[0]).shape[0] == 60
