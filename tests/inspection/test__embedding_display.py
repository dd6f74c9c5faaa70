"""The map of pictures: the same places as by hand, colours by label, and pictures of the points they lie on."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, Isomap
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.exceptions import BackboneError, ImageError, ImageWarning
from sktl.inspection import EmbeddingDisplay
from sktl.inspection._colors import distinct_colors


@pytest.fixture
def table():
    """Sixty rows of features of different scales."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 6)) * [1, 100, 1, 1, 0.01, 1]


def legend(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def offsets(display):
    return [np.asarray(points.get_offsets()) for points in display.points_]


def test_pca_by_hand(digits):
    """The places are the principal components of the scaled features, the axes say how much they show."""
    X, y = digits[0][:100], digits[1][:100]
    display = EmbeddingDisplay.from_estimator("sktl_mini", X, y)
    pca = PCA(2)
    features = PretrainedFeatureExtractor().fit_transform(X).astype(float)
    expected = pca.fit_transform(StandardScaler().fit_transform(features))
    np.testing.assert_allclose(display.embedding, expected, atol=1e-4)
    shares = pca.explained_variance_ratio_
    assert display.ax_.get_xlabel() == f"principal component 1\n{shares[0]:.0%} of the variance"
    assert display.ax_.get_ylabel() == f"principal component 2\n{shares[1]:.0%} of the variance"
    assert display.ax_.get_title() == "100 images\nlayer4 of sktl_mini"
    for label, points in enumerate(offsets(display)):
        np.testing.assert_allclose(points, display.embedding[y == label])
    assert legend(display) == [str(label) for label in range(10)]


def test_thumbnails_are_the_pictures_of_their_points(digits):
    """Each is decoded from its own row, lies at its own point, and has the colour of its class."""
    X, y = digits[0][:100], digits[1][:100]
    display = EmbeddingDisplay.from_estimator("sktl_mini", X, y, max_samples=50, max_thumbnails=12)
    assert len(display.thumbnails_) == len(display.thumbnail_positions_) == 12
    for position, box in zip(display.thumbnail_positions_, display.thumbnails_, strict=True):
        row = display.positions[position]
        np.testing.assert_array_equal(box.offsetbox.get_data()[..., 0], np.rint(X[row].reshape(8, 8) * 255))
        np.testing.assert_allclose(box.xy, display.embedding[position])
        assert box.patch.get_facecolor() == to_rgba(distinct_colors(10)[y[row]])
    frames = {box.patch.get_facecolor() for box in display.thumbnails_}
    shown = {y[display.positions[position]] for position in display.thumbnail_positions_}
    assert len(frames) == len(shown)  # those of two classes differ
    none = EmbeddingDisplay.from_estimator("sktl_mini", X, y, max_thumbnails=0)
    assert none.thumbnails_ == none.thumbnail_positions_ == []


def test_pictures_at_the_margin_have_room(digits, caplog):
    """The limits are so wide that the outermost points can have their pictures, in small axes too."""
    for size in ((4, 4), (8, 8), (4, 7), (7, 4)):
        _, ax = plt.subplots(figsize=size, layout="constrained")
        display = EmbeddingDisplay.from_estimator("sktl_mini", digits[0][:60], ax=ax, max_thumbnails=1)
        ax.figure.canvas.draw()
        assert display.ax_ is ax
        pixels = ax.transData.transform(display.embedding)
        half = 16 * ax.figure.dpi / 72
        assert (pixels.min(0) - half > ax.bbox.p0).all()
        assert (pixels.max(0) + half < ax.bbox.p1).all()
        one, two = np.diff(ax.transData.transform([[0, 0], [1, 1]]), axis=0)[0]
        assert one == pytest.approx(two)  # what looks near is near
        ax.figure.set_size_inches(5, 3)
        ax.figure.canvas.draw()
        one, two = np.diff(ax.transData.transform([[0, 0], [1, 1]]), axis=0)[0]
        assert one == pytest.approx(two)
    assert not caplog.records  # such as matplotlib's, of limits that it has to ignore


@pytest.mark.parametrize("layer", [0, "layer2", ["stem", -1]])
def test_layers(digits, layer):
    """Features are those of the layer that is asked for, several side by side."""
    X = digits[0][:40]
    display = EmbeddingDisplay.from_estimator("sktl_mini", X, layer=layer, method=TruncatedSVD())
    features = PretrainedFeatureExtractor(layers=layer).fit_transform(X)
    np.testing.assert_allclose(
        np.abs(display.embedding), np.abs(TruncatedSVD().fit_transform(features.astype(float))), atol=1e-3
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda X, y: PretrainedFeatureExtractor(cache=None),
        lambda X, y: PretrainedFeatureExtractor().fit(X),
        lambda X, y: make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=2000)).fit(X, y),
        lambda X, y: FineTunedClassifier(max_epochs=0).fit(X, y),
    ],
)
def test_every_way_to_name_a_network(digits, make):
    """Estimators fitted or not, and pipelines of them, give what the network's name gives."""
    X, y = digits[0][:60], digits[1][:60]
    expected = EmbeddingDisplay.from_estimator("sktl_mini", X).embedding
    np.testing.assert_allclose(EmbeddingDisplay.from_estimator(make(X, y), X).embedding, expected, atol=1e-3)


def test_what_was_learnt_is_on_the_map(digits):
    """Of a trained estimator the features are those that it has now, not those that it started from."""
    X, y = digits[0][:60], digits[1][:60]
    trained = FineTunedClassifier(freeze_depth=2, lr=0.01, max_epochs=3, random_state=0).fit(X, y)
    display = EmbeddingDisplay.from_estimator(trained, X)
    lent = EmbeddingDisplay.from_estimator(PretrainedFeatureExtractor(trained), X)
    np.testing.assert_allclose(display.embedding, lent.embedding, atol=1e-3)
    before = EmbeddingDisplay.from_estimator("sktl_mini", X)
    assert np.abs(display.embedding - before.embedding).max() > 0.1


def test_tsne_by_hand(table):
    """It is scikit-learn's, of scaled features, and the same each time."""
    display = EmbeddingDisplay.from_features(table, method="tsne")
    assert display.embedding.shape == (60, 2)
    np.testing.assert_array_equal(EmbeddingDisplay.from_features(table, method="tsne").embedding, display.embedding)
    scaled = EmbeddingDisplay.from_features(table * 2, method="tsne")
    np.testing.assert_allclose(scaled.embedding, display.embedding)
    assert display.ax_.get_xlabel() == "t-SNE dimension 1"
    few = EmbeddingDisplay.from_features(table[:4], method="tsne")  # fewer than its usual perplexity
    assert np.isfinite(few.embedding).all()


@pytest.mark.parametrize("method", [Isomap(n_neighbors=5, n_components=3), TSNE(perplexity=5, random_state=0)])
def test_an_estimator_of_ones_own(table, method):
    """It gets the features as they are, is not changed, and its first two dimensions are drawn."""
    display = EmbeddingDisplay.from_features(table, method=method)
    np.testing.assert_allclose(display.embedding, method.fit_transform(table)[:, :2])
    assert display.ax_.get_xlabel() == f"{type(method).__name__} dimension 1"


def test_a_pipeline_of_ones_own(table):
    """It is called by its last step, and not fitted itself."""
    method = make_pipeline(StandardScaler(), TruncatedSVD(2))
    display = EmbeddingDisplay.from_features(table, method=method)
    assert display.ax_.get_ylabel() == "TruncatedSVD dimension 2"
    assert not hasattr(method[-1], "components_")


def test_samples(table):
    """At most so many rows are on the map, drawn by the seed, with their own labels, and ``positions`` says which."""
    y = np.arange(60)
    display = EmbeddingDisplay.from_features(table, y, max_samples=20)
    assert len(display.embedding) == len(set(display.positions)) == 20
    np.testing.assert_array_equal(display.y, display.positions)
    other = EmbeddingDisplay.from_features(table, y, max_samples=20, random_state=1)
    assert set(other.positions) != set(display.positions)
    whole = EmbeddingDisplay.from_features(table, y, max_samples=None)
    np.testing.assert_array_equal(whole.positions, np.arange(60))


def test_samples_have_their_own_pictures(table):
    """Pictures given beside features are those of the rows that were drawn."""
    images = np.arange(60, dtype=np.uint8)[:, None, None].repeat(5, 1).repeat(5, 2)
    display = EmbeddingDisplay.from_features(table, images=images, max_samples=20)
    shown = [box.offsetbox.get_data()[0, 0, 0] for box in display.thumbnails_]
    assert len(shown) > 5
    np.testing.assert_array_equal(shown, display.positions[display.thumbnail_positions_])


def test_the_network_runs_for_the_samples_only(digits, tmp_path):
    """Pictures that are not drawn are not read."""
    X = [*(row.reshape(8, 8) for row in digits[0][:9]), str(tmp_path / "not there.png")]
    display = EmbeddingDisplay.from_estimator("sktl_mini", X, max_samples=4, random_state=2)
    assert 9 not in display.positions


def test_many_classes(table):
    """Each class has a color of its own, here and in the legend, which has the greatest of them, and says so."""
    y = np.array([f"a class with a very long name {i:02d}" if i < 20 else f"{i % 20:02d}" for i in range(60)])
    display = EmbeddingDisplay.from_features(table, y)
    looks = {(tuple(p.get_facecolor()[0]), p.get_paths()[0].vertices.tobytes()) for p in display.points_}
    assert len(display.points_) == 40
    assert len(looks) == len({look[0] for look in looks}) == 40
    assert len(legend(display)) == 29
    assert display.legend_.get_title().get_text() == "29 of 40 classes"
    assert set(legend(display)[:20]) == {f"{i:02d}" for i in range(20)}
    assert max(map(len, legend(display))) <= 24
    some = EmbeddingDisplay.from_features(table, np.where(np.arange(60) == 59, None, y.astype(object)))
    assert legend(some)[:20] == ["unlabeled", *legend(display)[:19]]
    assert len(some.points_) == 41


def test_odd_names(table):
    """A name that begins with an underscore is in the legend too, and a dollar sign begins no formula."""
    display = EmbeddingDisplay.from_features(table, ["_background", "$x$"] * 30)
    assert legend(display) == [r"\$x\$", " _background"]


def test_labels_that_are_missing(table):
    """They are drawn in grey behind the others, with a name of their own; the colours of the others stay."""
    y = np.array(["a", "b", None] * 20, dtype=object)
    display = EmbeddingDisplay.from_features(table, y)
    assert legend(display) == ["unlabeled", "a", "b"]
    np.testing.assert_allclose(offsets(display)[0], display.embedding[2::3])
    assert tuple(display.points_[1].get_facecolor()[0][:3]) == to_rgba("C0")[:3]
    for series in (pd.Series([1, None] * 30, dtype="Int64"), [np.nan, 0.5] * 30, [None] * 60):
        drawn = EmbeddingDisplay.from_features(table, series)
        assert sum(map(len, offsets(drawn))) == 60


def test_no_labels(table):
    """All points are grey, and there is no legend."""
    display = EmbeddingDisplay.from_features(table)
    assert (display.legend_, display.colorbar_, len(display.points_)) == (None, None, 1)
    np.testing.assert_allclose(offsets(display)[0], display.embedding)


def test_numbers(table):
    """Targets that are not whole have a bar of colours, and so have whole ones where it is said."""
    y = np.arange(60) / 7
    display = EmbeddingDisplay.from_features(table, y, np.zeros((60, 5, 5, 3), np.uint8), cmap="plasma")
    np.testing.assert_array_equal(display.points_[0].get_array(), y)
    assert display.legend_ is None
    assert display.colorbar_.cmap.name == "plasma"
    position, box = display.thumbnail_positions_[0], display.thumbnails_[0]
    assert box.patch.get_facecolor() == tuple(display.colorbar_.cmap(display.colorbar_.norm(y[position])))
    whole = EmbeddingDisplay.from_features(table, np.arange(60) % 4, task="regression")
    assert whole.colorbar_ is not None
    assert EmbeddingDisplay.from_features(table, y, task="classification").colorbar_ is None


def test_an_estimator_says_what_its_targets_are(digits):
    """Whole numbers are numbers for a regressor, and classes for an extractor."""
    X, y = digits[0][:40], digits[1][:40].astype(float)
    regressor = FineTunedRegressor(max_epochs=0).fit(X, y)
    assert EmbeddingDisplay.from_estimator(regressor, X, y).colorbar_ is not None
    assert EmbeddingDisplay.from_estimator("sktl_mini", X, y).colorbar_ is None


def test_pictures_that_cannot_be_read(digits, tmp_path):
    """They are an error, or with an extractor that says so left out, with their labels."""
    X = [*(row.reshape(8, 8) for row in digits[0][:9]), str(tmp_path / "not there.png")]
    X = [X[9], *X[:9]]
    with pytest.raises(ImageError, match="does not exist"):
        EmbeddingDisplay.from_estimator("sktl_mini", X)
    with pytest.warns(ImageWarning, match="does not exist"):
        display = EmbeddingDisplay.from_estimator(PretrainedFeatureExtractor(on_error="nan"), X, np.arange(10))
    np.testing.assert_array_equal(display.y, np.arange(1, 10))
    np.testing.assert_array_equal(display.positions, np.arange(1, 10))


def test_every_kind_of_pictures(image_source):
    """Each kind that ``images`` may have is shown as the pixels that were put in."""
    display = EmbeddingDisplay.from_features(
        np.random.default_rng(0).normal(size=(6, 3)),
        images=image_source.X,
        image_shape=(12, 12, 3) if image_source.kind.startswith("rows") else None,
    )
    for position, box in zip(display.thumbnail_positions_, display.thumbnails_, strict=True):
        np.testing.assert_array_equal(box.offsetbox.get_data(), image_source.pixels[position])


def test_drawn_again(table):
    """A display can be drawn on other axes in another way, and keywords reach matplotlib."""
    display = EmbeddingDisplay.from_features(table, np.arange(60) % 2, scatter_kw={"s": 50})
    assert set(display.points_[0].get_sizes()) == {50}
    first = display.ax_
    assert display.plot().ax_ is not first
    assert len(EmbeddingDisplay(table[:, :2]).plot().points_) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "umap"}, ValueError, "'method' parameter must be one of .*Got 'umap' instead"),
        ({"method": PCA(1)}, ValueError, "must return an array with at least 2 columns"),
        ({"task": "ranking"}, ValueError, "'task' parameter must be one of .*Got 'ranking' instead"),
        (
            {"max_samples": 2},
            ValueError,
            r"'max_samples' parameter must be an int of at least 3, or None.*Got 2 instead\.$",
        ),
        ({"max_samples": 30.5}, ValueError, r"'max_samples' parameter must be.*Got 30\.5 instead\.$"),
        (
            {"max_thumbnails": -1},
            ValueError,
            r"^The 'max_thumbnails' parameter must be an int of at least 0\. Got -1 instead\.$",
        ),
        (
            {"thumbnail_size": 0},
            ValueError,
            r"^The 'thumbnail_size' parameter must be a positive length in points\. Got 0 instead\.$",
        ),
        ({"y": ["a", 1, None] * 20}, ValueError, "^y has both strings and numbers as labels"),
        ({"y": [0, 1]}, ValueError, "inconsistent numbers of samples"),
        ({"images": np.zeros((3, 5, 5, 3), np.uint8)}, ValueError, "inconsistent numbers of samples"),
        ({"features": np.ones((5, 4))}, ValueError, r"^The features of all 5 images are identical\. Pass images"),
        ({"features": np.eye(2)}, ValueError, "needs at least 3 images and 2 features. Got 2 images and 2 features"),
        ({"features": np.eye(5)[:, :1]}, ValueError, "Got 5 images and 1 features instead"),
        ({"features": np.full((5, 4), np.nan)}, ValueError, "features contains NaN"),
    ],
)
def test_bad_features(table, change, error, message):
    """Each is an error that says what is wrong."""
    with pytest.raises(error, match=message):
        EmbeddingDisplay.from_features(**{"features": table, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layer": 9}, BackboneError, "does not name layers"),
        ({"y": [0, 1]}, ValueError, "inconsistent numbers of samples"),
        ({"X": []}, ImageError, "X is empty"),
        ({"method": 3}, ValueError, "'method' parameter must be one of .*Got 3 instead"),
        ({"max_thumbnails": None}, ValueError, "'max_thumbnails' parameter must be.*Got None instead"),
        ({"thumbnail_size": "large"}, ValueError, "'thumbnail_size' parameter must be.*Got 'large' instead"),
    ],
)
def test_bad_input(digits, change, error, message):
    """Each is an error that says what is wrong."""
    given = {"X": digits[0][:20], **change}
    with pytest.raises(error, match=message):
        EmbeddingDisplay.from_estimator("sktl_mini", **given)


def test_real_photos(shared_data):
    """On the map of MobileNetV3's features ants lie beside ants, and bees beside bees."""
    paths = [str(path) for path in sorted((shared_data / "hymenoptera" / "train").glob("*/*.jpg"))]
    extractor = PretrainedFeatureExtractor(
        "mobilenet_v3_small", weights=shared_data / "mobilenet_v3_small_imagenet" / "model.safetensors"
    )
    y = np.array(["ants" if "ants" in path else "bees" for path in paths])
    display = EmbeddingDisplay.from_estimator(extractor, paths, y)
    assert legend(display) == ["ants", "bees"]
    assert len(display.thumbnails_) > 15
    neighbours = KNeighborsClassifier(10).fit(display.embedding, y)
    assert neighbours.score(display.embedding, y) > 0.85
