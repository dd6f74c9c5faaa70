"""The display of reconstructions: of which images, with which noise and errors, whatever reconstructs them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktl.autoencoders import Autoencoder
from sktl.exceptions import ImageError
from sktl.inspection import ReconstructionDisplay


def drawn(display):
    """The images in the panels, from top to bottom: (n_images, n_rows)."""
    return [[np.asarray(image.get_array()) for image in panel.images] for panel in display.image_axes_]


def names(display):
    """The names of the rows, at each image."""
    return [[text.get_text() for text in panel.texts] for panel in display.image_axes_]


@pytest.fixture(scope="module")
def rows(digits):
    """Rows of pixels of 0-16, so that errors have their unit."""
    return digits[0] * 16


@pytest.fixture(scope="module")
def autoencoder(rows):
    """One that is quickly made: PCA, in the end."""
    return Autoencoder(4, hidden_layer_sizes=(), max_epochs=1, random_state=0).fit(rows[:100])


@pytest.fixture(scope="module")
def of_images(digits):
    """One with a network, and images that it learnt from."""
    X = np.random.default_rng(0).integers(0, 256, (12, 80, 64, 3), dtype=np.uint8)
    return Autoencoder(2, backbone="sktl_mini", max_epochs=0, random_state=0).fit(X), X


def test_from_estimator(autoencoder, rows):
    """The first rows as images, what is made of them, and how far that is from them."""
    display = ReconstructionDisplay.from_estimator(autoencoder, rows, n_images=3)
    expected = autoencoder.reconstruct(rows[:3])
    assert_array_equal(display.images, rows[:3].reshape(3, 8, 8, 1))
    assert_allclose(display.reconstructions, expected.reshape(3, 8, 8, 1))
    assert_allclose(display.errors_, np.square(expected - rows[:3]).reshape(3, 8, 8))
    assert_array_equal(display.positions, [0, 1, 2])
    assert display.noisy is None
    for index, (image, output, error) in enumerate(drawn(display)):
        assert_array_equal(image[..., 0], np.rint(255 * rows[index].reshape(8, 8) / rows[:3].max()))
        assert_array_equal(output[..., 0], np.rint(255 * np.clip(expected[index] / rows[:3].max(), 0, 1)).reshape(8, 8))
        assert_allclose(error, display.errors_[index])
        mean = -autoencoder.score_samples(rows[index : index + 1])[0]
        assert display.image_axes_[index].get_title() == f"MSE {mean:.2g}"
    assert {image.get_clim() for image in display.error_images_} == {(0, display.errors_.max())}
    assert names(display) == [["image", "reconstructed", "error"], [], []]
    assert display.ax_.get_title() == "images and their reconstructions"
    assert display.colorbar_.ax.get_ylabel() == "squared error"


def test_each_line_is_named(autoencoder, rows):
    """Where images take several lines, the first one of each has the names of its rows."""
    display = ReconstructionDisplay.from_estimator(autoencoder, rows, n_images=20)
    tops = [panel.get_axes_locator()(panel, None).y0 for panel in display.image_axes_]
    assert len(set(tops)) > 1
    assert sum(map(bool, names(display))) == len(set(tops))


def test_the_worst_ones(autoencoder, rows):
    """They are found among all images, whatever the table is, and the worst one is the first."""
    table = pd.DataFrame(rows, index=range(len(rows), 0, -1)).rename(columns=str)
    display = ReconstructionDisplay.from_estimator(autoencoder, rows, n_images=4, order="worst")
    assert_array_equal(display.positions, np.argsort(autoencoder.score_samples(rows))[:4])
    assert (np.diff(display.errors_.mean((1, 2))) <= 0).all()
    pca = PCA(4).fit(table)
    display = ReconstructionDisplay.from_estimator(pca, table, n_images=4, order="worst")
    errors = np.square(pca.inverse_transform(pca.transform(table)) - rows).mean(1)
    assert_array_equal(display.positions, np.argsort(-errors)[:4])
    assert_array_equal(display.images[0].ravel(), rows[display.positions[0]])


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_noise(rows, noise):
    """What was trained with noise is shown such noise, the same for a seed, and is compared with the image."""
    model = Autoencoder(4, noise=noise, noise_level=0.3, max_epochs=1, random_state=0).fit(rows[:100])
    display = ReconstructionDisplay.from_estimator(model, rows, n_images=2)
    assert_allclose(display.reconstructions.reshape(2, -1), model.reconstruct(display.noisy.reshape(2, -1)), atol=1e-4)
    assert_allclose(display.errors_, np.square(display.reconstructions - display.images)[..., 0])
    assert (display.noisy != display.images).any()
    assert [len(images) for images in drawn(display)] == [4, 4]
    assert names(display)[0] == ["image", "noisy", "reconstructed", "error"]
    assert display.ax_.get_title() == "images with noise and their reconstructions"
    again, other = (
        ReconstructionDisplay.from_estimator(model, rows, n_images=2, random_state=seed).noisy for seed in (0, 1)
    )
    assert_array_equal(again, display.noisy)
    assert (other != display.noisy).any()


def test_images(of_images):
    """With a network, they are shown as it sees them, in colors of 0-1."""
    model, X = of_images
    display = ReconstructionDisplay.from_estimator(model, X, n_images=2)
    seen = np.array([model.backbone_.preprocessing.apply(image) for image in X[:2]])
    assert_allclose(display.images, seen / 255)
    assert_allclose(display.reconstructions, model.reconstruct(X[:2]))
    assert display.value_range == (0, 1)
    assert_array_equal(drawn(display)[0][0], seen[0])
    assert_allclose(display.errors_.mean((1, 2)), -model.score_samples(X[:2]), rtol=1e-5)
    noisy = ReconstructionDisplay.from_estimator(
        Autoencoder(2, backbone="sktl_mini", noise="gaussian", max_epochs=0, random_state=0).fit(X), X, n_images=2
    )
    assert noisy.noisy.shape == display.images.shape


def test_images_that_cannot_be_read(of_images, tmp_path):
    """Among the worst ones, they are left out."""
    model, X = of_images
    model = Autoencoder(2, backbone="sktl_mini", max_epochs=0, on_error="nan", random_state=0).fit(X)
    table = [str(tmp_path / "nowhere.png"), *X[:2]]
    with pytest.warns(UserWarning, match="cannot be read"):
        display = ReconstructionDisplay.from_estimator(model, table, order="worst")
    assert sorted(display.positions) == [1, 2]


def test_entries_that_are_not_observed(rows):
    """They are gray, and have no error."""
    X = rows[:100].copy()
    X[::3, 20] = np.nan
    model = Autoencoder(4, max_epochs=1, random_state=0).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X, n_images=2)
    assert np.isnan(display.errors_[0].ravel()[20])
    assert not np.isnan(display.errors_[1]).any()
    assert_array_equal(drawn(display)[0][0].reshape(64, 3)[20], [128] * 3)


def test_shapes_of_rows(digits):
    """Rows are square, of the given shape, or filled up; three channels have their colors."""
    X = np.random.default_rng(0).uniform(size=(30, 48))
    pca = PCA(2).fit(X)
    display = ReconstructionDisplay.from_estimator(pca, X, n_images=1)
    assert display.images.shape == (1, 4, 4, 3)
    assert display.errors_.shape == (1, 4, 4)
    display = ReconstructionDisplay.from_estimator(pca, X, n_images=1, image_shape=(6, 8))
    assert display.images.shape == (1, 6, 8, 1)
    with pytest.raises(ImageError):
        ReconstructionDisplay.from_estimator(pca, X, image_shape=(6, 9))


def test_around_the_autoencoder(autoencoder, rows):
    """It is found in what wraps it, and given what the steps before it give; without one, all steps are inverted."""
    flip = FunctionTransformer(np.fliplr)
    pipe = make_pipeline(flip, FrozenEstimator(autoencoder)).fit(rows)
    display = ReconstructionDisplay.from_estimator(pipe, rows, n_images=2)
    assert_array_equal(display.images.reshape(2, -1), np.fliplr(rows[:2]))
    pipe = make_pipeline(StandardScaler(), PCA(4)).fit(rows)
    display = ReconstructionDisplay.from_estimator(pipe, rows, n_images=2)
    assert_array_equal(display.images.reshape(2, -1), rows[:2])
    assert_allclose(display.reconstructions.reshape(2, -1), pipe.inverse_transform(pipe.transform(rows[:2])))


def test_images_without_any_contrast():
    """Black images, perfectly reconstructed, are black."""
    display = ReconstructionDisplay(np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 1))).plot()
    assert not np.any(drawn(display)[0][0])


def test_where_it_is_drawn(autoencoder, rows):
    """Axes that are given are filled, and what was drawn can be drawn again elsewhere."""
    figure, (left, right) = plt.subplots(1, 2)
    display = ReconstructionDisplay.from_estimator(autoencoder, rows, n_images=2, ax=left)
    assert (display.figure_, display.ax_) == (figure, left)
    assert display.plot(right).ax_ is right


def test_bad_input(autoencoder, of_images, rows):
    """What reconstructs nothing or no images, other orders and no images are errors."""
    with pytest.raises(ValueError, match="LogisticRegression does not reconstruct images"):
        ReconstructionDisplay.from_estimator(LogisticRegression(), rows)
    for unfitted in (Autoencoder(), PCA()):
        with pytest.raises(NotFittedError):
            ReconstructionDisplay.from_estimator(unfitted, rows)
    with pytest.raises(ValueError, match=r"'order' parameter must be one of .* Got 'best' instead"):
        ReconstructionDisplay.from_estimator(autoencoder, rows, order="best")
    with pytest.raises(ValueError, match="'n_images' parameter"):
        ReconstructionDisplay.from_estimator(autoencoder, rows, n_images=0)
    model = Autoencoder(2, backbone="sktl_mini", freeze_depth="all", max_epochs=0, random_state=0).fit(of_images[1])
    with pytest.raises(ValueError, match="freeze_depth='all' reconstructs the output of the frozen stages"):
        ReconstructionDisplay.from_estimator(model, of_images[1])
