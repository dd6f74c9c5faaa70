"""The detector as scikit-learn's users see it."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.anomaly import AnomalyDetector
from sktl.exceptions import BackboneError, ImageError, ImageWarning, InputError


@parametrize_with_checks([AnomalyDetector()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the detector passes every common check of scikit-learn; none is excluded."""
    check(estimator)


MIXTURE = make_pipeline(StandardScaler(), GaussianMixture(reg_covar=1.0, random_state=0))
METHODS = {
    "knn": {},
    "mahalanobis": {"method": "mahalanobis"},
    "patchcore": {"method": "patchcore", "max_patches": 300},
    "padim": {"method": "padim", "n_components": 20},
    "mixture": {"method": MIXTURE},
}
PATCHES = ["patchcore", "padim"]


def detector(name, **params):
    return AnomalyDetector(**{"random_state": 0, **METHODS[name], **params})


@pytest.fixture(scope="module")
def zeros():
    """Forty zeros to learn from, as images of 0 to 1; forty more, and forty other digits."""
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8) / 16
    zeros = X[y == 0][np.random.default_rng(0).permutation((y == 0).sum())]
    return zeros[:40], zeros[40:80], X[y != 0][:40]


@pytest.fixture(scope="module", params=METHODS)
def fitted(request, zeros):
    """A detector of each method."""
    return detector(request.param).fit(zeros[0])


# --- scores and labels ------------------------------------------------------------------------------------------------


def test_other_digits_are_anomalies(fitted, zeros):
    """New zeros are mostly normal, other digits are not, and labels, decisions and scores agree."""
    _, new, others = zeros
    X = np.concatenate([new, others])
    scores, decision, labels = fitted.score_samples(X), fitted.decision_function(X), fitted.predict(X)
    assert roc_auc_score(np.repeat([1, 0], 40), scores) > 0.95
    np.testing.assert_array_equal(decision, scores - fitted.offset_)
    np.testing.assert_array_equal(labels, np.where(decision < 0, -1, 1))
    assert (labels[:40] == 1).mean() >= 0.75
    assert (labels[40:] == -1).mean() >= 0.75


def test_a_share_of_the_training_rows(fitted, zeros):
    """With a number, that share of the training images is flagged, by fit_predict as by fit and predict."""
    share = clone(fitted).set_params(contamination=0.1)
    labels = share.fit_predict(zeros[0])
    assert (labels == -1).sum() == 4
    np.testing.assert_array_equal(share.predict(zeros[0]), labels)
    np.testing.assert_array_equal(share.score_samples(zeros[0]), share.training_scores_)


def test_training_rows_score_as_new_rows_do(fitted, zeros):
    """They are known by their content: the threshold for them is the threshold for new ones."""
    known, new = fitted.training_scores_, fitted.score_samples(zeros[1])
    assert abs(np.median(known) - np.median(new)) < 0.8 * new.std()


def test_an_image_alone_has_its_score_in_the_table(fitted, zeros):
    """To 1e-7, with and without the other images, known and new ones."""
    X = np.concatenate([zeros[0][:5], zeros[2][:10]])
    alone = [fitted.score_samples(X[i : i + 1])[0] for i in range(15)]
    np.testing.assert_allclose(fitted.score_samples(X), alone, rtol=1e-7)


def test_the_order_of_the_table_does_not_matter(fitted, zeros):
    """Neither for the threshold nor for any score."""
    order = np.random.default_rng(1).permutation(40)
    shuffled = clone(fitted).fit(zeros[0][order])
    np.testing.assert_array_equal(shuffled.training_scores_, fitted.training_scores_[order])
    np.testing.assert_array_equal(shuffled.score_samples(zeros[2]), fitted.score_samples(zeros[2]))
    assert shuffled.offset_ == pytest.approx(fitted.offset_, rel=1e-12)


def test_equal_images_are_one_image_and_count_twice(fitted, zeros):
    """A copy is no neighbor: scores stay what they are. In the share of images to flag, each copy counts."""
    X = np.concatenate([zeros[0], np.repeat(zeros[0][:1], 30, axis=0)])
    doubled = clone(fitted).set_params(contamination=0.2).fit(X)
    np.testing.assert_array_equal(doubled.score_samples(zeros[2]), fitted.score_samples(zeros[2]))
    np.testing.assert_array_equal(doubled.training_scores_[:40], fitted.training_scores_)
    assert (doubled.training_scores_[40:] == doubled.training_scores_[0]).all()
    assert doubled.offset_ == pytest.approx(np.percentile(doubled.training_scores_, 20))


def test_fits_and_pickles_are_repeatable(fitted, zeros):
    """Same seed, same numbers, in another fit and in a copy."""
    expected = fitted.score_samples(zeros[2])
    np.testing.assert_array_equal(clone(fitted).fit(zeros[0]).score_samples(zeros[2]), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).score_samples(zeros[2]), expected)


# --- thresholds on new rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "padim", "mixture"])
def test_five_percent_of_new_normal_images_are_flagged(method, shared_clothes):
    """On images that it has never seen, whereas the quantile of scores that know their rows flags most of them."""
    X, new = shared_clothes
    fitted = detector(method).fit(X)
    assert 0.01 <= (fitted.predict(new) == -1).mean() <= 0.1
    if method in ("knn", "mahalanobis"):
        features = PretrainedFeatureExtractor().fit_transform(X)
        naive = -fitted._scorer.distances(features, np.full(len(X), -1))
        assert (fitted.score_samples(new) < np.quantile(naive, 0.05)).mean() > 0.5


@pytest.fixture(scope="module")
def shared_clothes(shared_data):
    """A hundred shirts of Fashion-MNIST, and 400 new ones."""
    import gzip

    folder = shared_data / "fashion_mnist" / "FashionMNIST" / "raw"
    pixels = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    shirts = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)[labels == 0]
    return shirts[:100], shirts[100:500]


# --- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATCHES)
def test_the_map_shows_the_defect(name, zeros):
    """Where a part of an image was changed, the map is highest; its maximum is minus the score, of known images too."""
    X = np.kron(zeros[0], np.ones((4, 4)))
    fitted = detector(name).fit(X)
    bad = np.kron(zeros[1], np.ones((4, 4)))
    bad[:, 4:12, 20:28] = np.random.default_rng(0).random((40, 8, 8))
    maps = fitted.anomaly_map(bad)
    assert maps.shape == (40, 64, 64)
    assert maps.dtype == np.float32
    row, column = np.divmod(maps.reshape(40, -1).argmax(axis=1), 64)
    assert np.mean((row >= 4) & (row < 28) & (column >= 36)) > 0.9  # the defect is at 8 to 24, 40 to 56
    np.testing.assert_array_equal(-maps.max(axis=(1, 2)), fitted.score_samples(bad))
    np.testing.assert_allclose(-fitted.anomaly_map(X).max(axis=(1, 2)), fitted.training_scores_, rtol=1e-6)


@pytest.mark.parametrize("method", ["knn", "mahalanobis", IsolationForest()])
def test_pooled_features_have_no_map(method, zeros):
    """There is no such method, and an error says which methods have one."""
    fitted = AnomalyDetector(method=method).fit(zeros[0])
    assert not hasattr(fitted, "anomaly_map")
    with pytest.raises(AttributeError) as caught:
        fitted.anomaly_map(zeros[1])
    assert "needs a method that scores patches, 'patchcore' or 'padim'. Got method=" in str(caught.value.__cause__)


def test_maps_after_a_change_of_method(zeros):
    """They are those of the last fit: none by a fit for pooled features, whatever the parameter says since then."""
    fitted = AnomalyDetector().fit(zeros[0]).set_params(method="padim")
    with pytest.raises(AttributeError) as caught:
        fitted.anomaly_map(zeros[1])
    assert "'patchcore' or 'padim'. Got a fit with another method instead." in str(caught.value.__cause__)
    assert fitted.fit(zeros[0]).anomaly_map(zeros[1][:1]).shape == (1, 64, 64)


def test_the_size_of_a_map_is_that_of_the_crop(zeros):
    """Height and width are those of what the network sees."""
    size = {"resize_size": 64, "crop_size": (64, 32)}
    fitted = detector("padim", preprocessing=size).fit(zeros[0])
    assert fitted.anomaly_map(zeros[1][:2]).shape == (2, 64, 32)


# --- in scikit-learn --------------------------------------------------------------------------------------------------


def test_an_estimator_as_the_method(zeros):
    """Any with score_samples: novelty detection by local outliers, a mixture, a pipeline; it can be searched over."""
    lof = LocalOutlierFactor(novelty=True, n_neighbors=5)
    fitted = AnomalyDetector(method=lof).fit(zeros[0])
    features = PretrainedFeatureExtractor().fit(zeros[0])
    expected = clone(lof).fit(features.transform(zeros[0])).score_samples(features.transform(zeros[2]))
    np.testing.assert_allclose(np.sort(fitted.score_samples(zeros[2])), np.sort(expected), rtol=1e-4)
    assert fitted.estimator_.n_neighbors_ == 5
    assert not hasattr(lof, "n_neighbors_")
    assert fitted.set_params(method__n_neighbors=3).method.n_neighbors == 3


def test_a_search_over_methods(zeros):
    """Scored by the ranking of normal and other images."""

    def auroc(estimator, X, y):
        return roc_auc_score(y, estimator.score_samples(X))

    X, y = np.concatenate([zeros[0], zeros[2]]), np.repeat([1, 0], 40)
    folds = [(np.arange(0, 30), np.arange(30, 80))]
    search = GridSearchCV(AnomalyDetector(), {"method": ["knn", "mahalanobis"]}, scoring=auroc, cv=folds).fit(X, y)
    assert search.best_score_ > 0.95


def test_any_fitted_network_is_a_backbone(zeros, quick):
    """That of a classifier or of another detector; inside FrozenEstimator it survives a clone."""
    X = np.concatenate([zeros[0], zeros[2]])
    classifier = FineTunedClassifier(**quick).fit(X, np.repeat([0, 1], 40))
    fitted = clone(AnomalyDetector(FrozenEstimator(classifier))).fit(zeros[0])
    np.testing.assert_allclose(AnomalyDetector().fit(zeros[0]).training_scores_, fitted.training_scores_, rtol=1e-4)
    second = AnomalyDetector(fitted).fit(zeros[0])
    assert second.offset_ == fitted.offset_


def test_tables_of_paths_and_pixels(zeros, tmp_path):
    """Files and rows of pixels are found again as what they are."""
    paths = [str(tmp_path / f"{i}.png") for i in range(40)]
    for path, image in zip(paths, zeros[0], strict=True):
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    files = AnomalyDetector().fit(paths)
    np.testing.assert_array_equal(files.score_samples(pd.Series(paths)[::-1]), files.training_scores_[::-1])
    table = pd.DataFrame(zeros[0].reshape(40, 64)).rename(columns="pixel{}".format)
    rows = AnomalyDetector().fit(table)
    assert rows.n_features_in_ == 64
    np.testing.assert_array_equal(rows.score_samples(table), rows.training_scores_)


def test_known_images_need_no_network(zeros, n_run):
    """Their scores are kept; only new images run through the network, each once."""
    fitted = AnomalyDetector(cache=None).fit(zeros[0])
    n_run[0] = 0
    fitted.predict(np.concatenate([zeros[0], zeros[1][:7]]))
    assert n_run == [7]


def test_verbose_prints_progress(zeros, capsys):
    """verbose=1 says how many images are done; by default nothing is printed."""
    AnomalyDetector(cache=None).fit(zeros[0])
    assert capsys.readouterr().out == ""
    AnomalyDetector(cache=None, verbose=1).fit(zeros[0])
    assert "[AnomalyDetector] 40 of 40 images" in capsys.readouterr().out


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"contamination": 0.0}, InvalidParameterError, r"'contamination' .* range \(0\.0, 0\.5\]"),
        ({"contamination": 0.6}, InvalidParameterError, r"'contamination' .* range \(0\.0, 0\.5\]"),
        ({"contamination": "few"}, InvalidParameterError, "'contamination' .* {'auto'}"),
        ({"method": "svm"}, InvalidParameterError, "'method' .*'patchcore'.*'score_samples'"),
        ({"method": StandardScaler()}, InvalidParameterError, "'method' .*'score_samples'.*StandardScaler"),
        ({"method": LocalOutlierFactor()}, InvalidParameterError, "'method' .*'score_samples'.*LocalOutlierFactor"),
        ({"n_neighbors": 0}, InvalidParameterError, "'n_neighbors'"),
        ({"layers": "layer9"}, BackboneError, "layer4"),
        ({"method": "padim", "layers": "avgpool"}, BackboneError, r"\(512, 1, 1\).*Stages with maps are \['stem'"),
        ({"n_neighbors": 40}, InputError, "at least 41 different images. Got 40 in n_samples=40 instead.*n_neighbors"),
    ],
    ids=str,
)
def test_a_bad_parameter_gets_an_error_that_says_the_way_out(zeros, params, error, message):
    """The error names what was given and what would do."""
    with pytest.raises(error, match=message):
        AnomalyDetector(**params).fit(zeros[0])


ENOUGH = {"knn": 3, "mahalanobis": 3, "patchcore": 2, "padim": 3, "mixture": 5}


@pytest.mark.parametrize(("name", "n"), ENOUGH.items())
def test_too_few_images(name, n, zeros):
    """As many different images as a method needs are enough, fewer or equal ones are an error."""
    detector(name).fit(zeros[0][:n])
    with pytest.raises(InputError, match=rf"at least {n} different images\. Got {n - 1} in n_samples={n - 1} instead"):
        detector(name).fit(zeros[0][: n - 1])
    with pytest.raises(InputError, match=r"Got 1 in n_samples=30 instead\. Pass more images"):
        detector(name).fit(np.repeat(zeros[0][:1], 30, axis=0))


@pytest.mark.parametrize("name", ["knn", "padim"])
def test_unreadable_images(name, zeros):
    """on_error="nan" leaves them out of fit and gives NaN afterwards; a label they cannot have."""
    images = [(255 * image).astype(np.uint8) for image in zeros[0]]
    bad = [None, *images[1:20], b"no image"]
    with pytest.raises(ImageError, match="Image 0: the value is missing"):
        detector(name).fit(bad)
    with pytest.warns(ImageWarning, match="2 of 21 images cannot be read and were left out"):
        fitted = detector(name, on_error="nan").fit(bad)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(fitted.training_scores_)), [0, 20])
    assert fitted.offset_ == detector(name).fit(images[1:20]).offset_
    new = [images[30], None, images[31]]
    with pytest.warns(ImageWarning, match="1 of 3 images cannot be read and have rows of NaN"):
        scores = fitted.score_samples(new)
    np.testing.assert_array_equal(np.isnan(scores), [False, True, False])
    with pytest.raises(ImageError, match=r"1 of 3 images cannot be read, so predict has no label .*Image 1"):
        fitted.predict(new)
    if name == "padim":
        with pytest.warns(ImageWarning, match="1 of 3 images"):
            maps = fitted.anomaly_map(new)
        np.testing.assert_array_equal(np.isnan(maps).all(axis=(1, 2)), [False, True, False])


def test_after_a_failed_fit_it_is_not_fitted(zeros):
    """Nothing of the fit before is left."""
    fitted = AnomalyDetector().fit(zeros[0])
    with pytest.raises(BackboneError):
        fitted.set_params(backbone="resnet1").fit(zeros[0])
    with pytest.raises(NotFittedError):
        fitted.predict(zeros[0])
