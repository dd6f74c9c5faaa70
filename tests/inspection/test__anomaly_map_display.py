"""The display of anomalies: which images, with which maps, verdicts and titles, and the scores of all."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktl import PretrainedFeatureExtractor
from sktl.anomaly import AnomalyDetector
from sktl.exceptions import ImageError, ImageWarning
from sktl.inspection import AnomalyMapDisplay


def titles(display):
    return [panel.get_title() for panel in display.image_axes_]


def display_of(scores, offset, **data):
    """A display of gray images whose maps are the numbers 0 to 63, up to the negative score."""
    scores = np.asarray(scores, dtype=float)
    positions = np.argsort(scores)[: np.isfinite(scores).sum()]
    maps = np.linspace(0, -scores[positions], 64, axis=1).reshape(-1, 8, 8)
    return AnomalyMapDisplay(np.full((len(positions), 8, 8, 1), 90, np.uint8), maps, positions, scores, offset, **data)


@pytest.fixture(scope="module")
def zeros_and_others(digits):
    """Images of zeros to learn from, new ones of which some are no zeros, and their labels."""
    X, y = digits
    zeros = X[y == 0]
    return zeros[:20], np.concatenate([zeros[20:], X[y != 0][:10]]), np.r_[np.ones(len(zeros) - 20), -np.ones(10)]


@pytest.fixture(scope="module", params=["padim", "knn"])
def detector(request, zeros_and_others):
    """Detectors with and without maps."""
    return AnomalyDetector(method=request.param, n_components=10, random_state=0).fit(zeros_and_others[0])


def test_from_estimator(detector, zeros_and_others):
    """The images of the lowest scores are shown, lowest first, as the network sees them, under the detector's maps."""
    _, X, y = zeros_and_others
    display = AnomalyMapDisplay.from_estimator(detector, X, y, n_images=4)
    scores = detector.score_samples(X)
    assert_allclose(display.scores, scores)
    assert display.offset == detector.offset_
    assert_array_equal(display.positions, np.argsort(scores)[:4])
    assert_array_equal(display.y, y)
    gray = [np.rint(X[position].reshape(8, 8) * 255) for position in display.positions]
    if detector.method == "padim":
        assert_allclose(display.maps, detector.anomaly_map(X[display.positions]))
        assert_array_equal([overlay.get_array() for overlay in display.overlays_], display.maps)
        preprocessing = detector.backbone_.preprocessing
        gray = [preprocessing.apply(image.astype(np.uint8)[..., None].repeat(3, 2))[..., 0] for image in gray]
    else:
        assert display.maps is None
        assert (display.overlays_, display.colorbar_) == ([], None)
    for panel, image in zip(display.image_axes_, gray, strict=True):
        assert_array_equal(panel.images[0].get_array()[..., 0], image)
    verdicts = np.where(scores < detector.offset_, "anomaly", "normal")[display.positions]
    for title, verdict, score in zip(titles(display), verdicts, scores[display.positions], strict=True):
        assert title.startswith(f"{verdict} ({score:.3g})")


def test_one_scale_for_all():
    """Colors of two images can be compared: they go from the median to the most of all, and the threshold is there."""
    display = display_of([-1, -4], -2.0).plot()
    low, high = np.median(display.maps), 4
    assert {overlay.get_clim() for overlay in display.overlays_} == {(low, high)}
    assert (display.colorbar_.vmin, display.colorbar_.vmax) == (low, high)
    assert display.colorbar_.ax.lines[-1].get_ydata() == [2, 2]
    assert [len(panel.collections) for panel in display.image_axes_] == [1, 0]  # contours


def test_histogram():
    """Each image is counted once, on its side of the threshold, and in the color of what it is."""
    scores = np.r_[np.linspace(-3, -2, 5), np.linspace(-1, 0, 20)]
    y = np.r_[-np.ones(6), np.ones(19)]
    display = display_of(scores, -1.5, y=y).plot()
    normal, anomalies = (sum(bar.get_height() for bar in bars) for bars in display.ax_.containers)
    assert (normal, anomalies) == (19, 6)
    assert display.threshold_.get_xdata() == [-1.5, -1.5]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [
        "normal",
        "anomaly",
        "threshold (-1.5)",
    ]
    assert display.ax_.get_title() == "5 of 25 images flagged (20.0%)\n5 of 6 anomalies, 0 of 19 normal images"
    display = display_of(scores, -1.5).plot(hist_kw={"bins": 5, "color": "red"})
    (bars,) = display.ax_.containers
    assert (len(bars), sum(bar.get_height() for bar in bars)) == (5, 25)
    assert display.ax_.get_title() == "5 of 25 images flagged (20.0%)"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["threshold (-1.5)"]


def test_titles():
    """What the detector says and the score; what it is stands below, if that is known and something else."""
    display = display_of([-1, -4, -3], -2.0, y=[-1, -1, 1]).plot()
    assert titles(display) == ["anomaly (-4)", "anomaly (-3)\ntrue: normal", "normal (-1)\ntrue: anomaly"]
    assert display.images_ax_.get_title() == "all 3 images\ncontours: pixels above the threshold"
    labels = pd.Series([-1, -1, 1], index=[7, 8, 9])
    assert titles(display_of([-1, -4, -3], -2.0, y=labels).plot()) == titles(display)
    display = AnomalyMapDisplay(display.images[:1], None, [1], display.scores, -2.0).plot()
    assert titles(display) == ["anomaly (-4)"]
    assert display.images_ax_.get_title() == "the most anomalous 1 of 3 images"


@pytest.mark.parametrize("method", ["knn", "padim"])
def test_no_image_can_be_read(method, digits):
    """Nothing is shown, and no score is in the histogram."""
    detector = AnomalyDetector(method=method, n_components=10, on_error="nan").fit(list(digits[0][:5]))
    with pytest.warns(ImageWarning, match="2 of 2 images cannot be read"):
        display = AnomalyMapDisplay.from_estimator(detector, [b"no image", None])
    assert display.image_axes_ == []
    assert display.ax_.get_title() == "0 of 0 images flagged (0.0%)"


def test_all_alike():
    """Equal scores, and maps without any difference, are drawn as well."""
    display = display_of([0, 0], -1.0).plot()
    assert display.ax_.get_title() == "0 of 2 images flagged (0.0%)"


def test_around_the_detector(detector, zeros_and_others):
    """It is found in what wraps it, and given what the steps before it give."""
    X = zeros_and_others[1]
    pipe = make_pipeline(FunctionTransformer(np.fliplr), FrozenEstimator(detector)).fit(X)
    display = AnomalyMapDisplay.from_estimator(pipe, X, n_images=2)
    plain = AnomalyMapDisplay.from_estimator(detector, np.fliplr(X), n_images=2)
    assert_allclose(display.scores, plain.scores)
    assert_array_equal(display.images, plain.images)


def test_detectors_of_scikit_learn(digits):
    """On features, the images are shown that the features are of; on rows of pixels, the rows."""
    X = digits[0][:60]
    pipe = make_pipeline(PretrainedFeatureExtractor(), IsolationForest(n_estimators=10, random_state=0)).fit(X)
    display = AnomalyMapDisplay.from_estimator(pipe, X, n_images=2)
    assert_allclose(display.scores, pipe.score_samples(X))
    alone = AnomalyMapDisplay.from_estimator(pipe[-1].fit(X), X, n_images=2)
    for each in (display, alone):
        assert_array_equal(each.images[0][..., 0], np.rint(X[each.positions[0]].reshape(8, 8) * 255))


def test_every_kind_of_pictures(image_source):
    """Whatever ``X`` is, the images are found again by their positions."""
    shape = (12, 12, 3) if image_source.kind.startswith("rows") else None
    detector = AnomalyDetector(method="patchcore", image_shape=shape, random_state=0).fit(image_source.X)
    display = AnomalyMapDisplay.from_estimator(detector, image_source.X, n_images=3)
    apply = detector.backbone_.preprocessing.apply
    assert_array_equal(display.images, [apply(image_source.pixels[position]) for position in display.positions])
    assert_allclose(display.maps.max((1, 2)), -display.scores[display.positions], rtol=1e-5)


def test_a_series(digits, tmp_path):
    """Positions are places in the table, whatever its index is; what cannot be read is neither shown nor counted."""
    images = [np.rint(row.reshape(8, 8) * 255).astype(np.uint8) for row in digits[0][:6]]
    X = pd.Series([*images, str(tmp_path / "nowhere.png")], index=range(7, 0, -1))
    detector = AnomalyDetector(method="padim", n_components=5, on_error="nan", random_state=0).fit(images)
    with pytest.warns(ImageWarning, match="cannot be read"):
        display = AnomalyMapDisplay.from_estimator(detector, X, n_images=9)
    assert sorted(display.positions) == list(range(6))
    assert_array_equal(
        display.images,
        [
            detector.backbone_.preprocessing.apply(images[position][..., None].repeat(3, 2))
            for position in display.positions
        ],
    )
    assert np.isnan(display.scores[6])
    assert " of 6 images flagged" in display.ax_.get_title()


def test_where_it_is_drawn(detector, zeros_and_others):
    """In two axes of the user's, or in one that is divided; and again elsewhere."""
    figure, axes = plt.subplots(1, 2)
    display = AnomalyMapDisplay.from_estimator(detector, zeros_and_others[1], n_images=2, ax=axes)
    assert (display.figure_, display.ax_, display.images_ax_) == (figure, *axes)
    figure, ax = plt.subplots()
    assert display.plot(ax).figure_ is figure


def test_bad_input(detector, zeros_and_others):
    """What is no detector, labels of another kind or number, and what is no table of images are errors."""
    _, X, y = zeros_and_others
    for labels, match in ((y > 0, "Got the label False instead"), (y[:-1], "inconsistent numbers of samples")):
        with pytest.raises(ValueError, match=match):
            AnomalyMapDisplay.from_estimator(detector, X, labels)
    with pytest.raises(ValueError, match="LogisticRegression has no offset_: it is not an outlier detector"):
        AnomalyMapDisplay.from_estimator(LogisticRegression().fit(X, y), X)
    with pytest.raises(ValueError, match="'n_images' parameter"):
        AnomalyMapDisplay.from_estimator(detector, X, n_images=0)
    with pytest.raises(NotFittedError):
        AnomalyMapDisplay.from_estimator(AnomalyDetector(), X)
    with pytest.raises(ImageError):
        AnomalyMapDisplay.from_estimator(detector, "a.png")
