"""The display of evidence: whose maps, over which pictures, with which titles."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.exceptions import NotFittedError

from sktl import FineTunedClassifier, FineTunedRegressor
from sktl._images import check_images
from sktl.exceptions import ImageError
from sktl.inspection import GradCAMDisplay
from sktl.inspection._network_and_images import network_inputs
from sktl.inspection._saliency_maps import gradient_maps, occlusion_maps


def titles(display):
    return [panel.get_title() for panel in display.image_axes_]


def drawn(display):
    return np.array([overlay.get_array() for overlay in display.overlays_])


def inputs(model, X):
    return network_inputs(model, check_images(model, X, reset=False))


def maps_of(model, X, classes, method="gradcam"):
    photos = inputs(model, X)
    if method == "gradcam":
        return gradient_maps(model, photos, np.array(classes))[0]
    return occlusion_maps(model, photos, np.array(classes), 16, 16)


@pytest.fixture(scope="module")
def new(digits):
    """Rows that the model has not seen, and their labels."""
    return digits[0][150:160], digits[1][150:160]


def test_from_estimator(model, new):
    """Over each picture as the network sees it lies the map of its most probable label, as a share of its largest."""
    X, y = new
    display = GradCAMDisplay.from_estimator(model, X, y=y, n_images=4)
    probabilities = model.predict_proba(X[:4])
    assert_array_equal(display.images, inputs(model, X[:4]))
    assert_array_equal(display.predicted_labels, model.predict(X[:4]))
    assert_array_equal(display.targets, display.predicted_labels)
    assert_allclose(display.probabilities, probabilities.max(1), rtol=1e-5)
    assert_allclose(display.target_probabilities, display.probabilities)
    assert_array_equal(display.true_labels, y[:4])
    assert (display.method, display.layer) == ("gradcam", "layer4")
    assert_allclose(display.maps, maps_of(model, X[:4], probabilities.argmax(1)))
    assert_allclose(drawn(display), display.maps / display.maps.max((1, 2), keepdims=True))
    for panel, photo in zip(display.image_axes_, display.images, strict=True):
        original, below, overlay = panel.images
        assert_array_equal(original.get_array(), photo)
        assert_array_equal(below.get_array(), photo)
        assert below.get_extent() == overlay.get_extent()
        assert original.get_extent()[1] < below.get_extent()[0]  # side by side
    assert display.ax_.get_title() == "evidence for the predicted label\nGrad-CAM, layer4"
    assert (display.colorbar_.vmin, display.colorbar_.vmax) == (0, 1)


def test_what_has_no_evidence_is_the_image_itself(model, new):
    """A map hides nothing where there is no evidence, is as opaque as said where it is strongest, and is the scale."""
    display = GradCAMDisplay.from_estimator(model, new[0], n_images=1, alpha=0.5, cmap="viridis")
    (overlay,) = display.overlays_
    opacity = overlay.get_cmap()(np.array([0.0, 0.25, 1.0]))[:, 3]
    assert_allclose(opacity, [0, 0.25, 0.5], atol=2e-3)
    assert overlay.get_cmap() == display.colorbar_.cmap
    assert overlay.get_cmap().name == "viridis"
    assert [text.get_text() for text in display.colorbar_.ax.get_yticklabels()] == ["none", "most"]


def test_the_image_that_is_seen_has_no_veil():
    """In the drawn figure, pixels without evidence have the image's own color."""
    photos, maps = np.full((1, 8, 8, 3), 200, np.uint8), np.zeros((1, 8, 8))
    maps[:, 6:, 6:] = 1
    label, p = np.array(["ant"]), np.ones(1)
    display = GradCAMDisplay(photos, maps, label, p, label, p).plot()
    display.figure_.canvas.draw()
    pixels = np.asarray(display.figure_.canvas.buffer_rgba())
    (panel,) = display.image_axes_
    left = display.overlays_[0].get_extent()[0]
    seen = [panel.transData.transform((left + x, y)) for x, y in ((2, 2), (7, 7))]
    clear, hot = (pixels[int(len(pixels) - y), int(x), :3] for x, y in seen)
    assert_array_equal(clear, [200, 200, 200])
    assert np.abs(hot.astype(int) - 200).max() > 60


def test_occlusion(model, new):
    """The maps are what is lost where a square covers the picture; what is won is not drawn; the most is written."""
    X, _ = new
    classes = model.predict_proba(X[:2]).argmax(1)
    display = GradCAMDisplay.from_estimator(model, X, method="occlusion", n_images=2, patch_size=16, stride=16)
    assert_allclose(display.maps, maps_of(model, X[:2], classes, "occlusion"))
    assert display.layer is None
    assert drawn(display).min() >= 0
    assert titles(display)[0].endswith(f"\nlargest drop: {display.maps[0].max():.2f}")
    assert display.ax_.get_title() == "evidence for the predicted label\nocclusion"


@pytest.mark.parametrize("target", ["true", 3])
def test_other_targets(model, new, target):
    """The evidence may be for what a picture is, or for one and the same label, with that label's probability."""
    X, y = new
    wrong = (y + 1) % 10
    display = GradCAMDisplay.from_estimator(model, X, y=wrong, target=target, n_images=5)
    wanted = wrong[:5] if target == "true" else np.full(5, 3)
    assert_array_equal(display.targets, wanted)
    assert_allclose(display.target_probabilities, model.predict_proba(X[:5])[range(5), wanted], rtol=1e-4)
    assert_allclose(display.maps, maps_of(model, X[:5], wanted))
    index = int(np.flatnonzero(display.predicted_labels != wanted)[0])
    word = "true" if target == "true" else "map"
    assert titles(display)[index].endswith(f"{word}: {wanted[index]} ({display.target_probabilities[index]:.2f})")
    heading = "evidence for the true label" if target == "true" else "evidence for 3"
    assert display.ax_.get_title() == f"{heading}\nGrad-CAM, layer4"


def test_titles():
    """Each says what was predicted; what it is, where that is something else; and what the map is for, where it is."""
    photos, maps = np.zeros((4, 8, 8, 3), np.uint8), np.ones((4, 8, 8))
    labels = [["ant", "ant", "bee", "a very long name of a wasp"], [0.9, 0.8, 0.7, 0.6]]
    targets = [["ant", "bee", "bee", "a very long name of an ant"], [0.9, 0.1, 0.7, 0.2]]
    true = ["ant", "bee", "ant", "a very long name of a wasp"]
    args = [np.array(column) for column in (*labels, *targets)]
    display = GradCAMDisplay(photos, maps, *args, true_labels=np.array(true)).plot()
    bee, long = (
        "ant (0.80)\ntrue: bee (0.10)",
        "a very long name of a wasp (0.60)\nmap: a very long name of an ant (0.20)",
    )
    assert titles(display) == ["ant (0.90)", bee, "bee (0.70)\ntrue: ant", long]
    display = GradCAMDisplay(photos, maps / 4, *args, method="occlusion").plot()
    costs = "largest drop: 0.25"
    assert titles(display)[:2] == [f"ant (0.90)\n{costs}", f"ant (0.80)\nmap: bee (0.10)\n{costs}"]


def test_no_evidence():
    """A map without any, or of places that speak for other classes, is drawn as none."""
    photos, labels, p = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1]), np.ones(2)
    maps = np.stack([np.zeros((8, 8)), -np.ones((8, 8))])
    display = GradCAMDisplay(photos, maps, labels, p, labels, p, method="occlusion").plot()
    assert not drawn(display).any()
    assert titles(display) == [f"{label} (1.00)\nlargest drop: 0.00" for label in (0, 1)]


def test_labels_that_are_texts(digits):
    """Labels of any kind are found; a label that is a word of ours means the word."""
    X, y = digits[0][:40], np.where(digits[1][:40] % 2, "true", "odd, no: even")
    model = FineTunedClassifier(max_epochs=0, random_state=0).fit(X, y)
    display = GradCAMDisplay.from_estimator(model, X, y=y, n_images=3, target="odd, no: even")
    assert_array_equal(display.targets, ["odd, no: even"] * 3)
    assert_array_equal(GradCAMDisplay.from_estimator(model, X, y=y, n_images=3, target="true").targets, y[:3])


def test_labels_that_are_missing(model, new):
    """A picture of which nobody says what it is has the title of one without labels."""
    X, y = new
    without = titles(GradCAMDisplay.from_estimator(model, X, n_images=2))
    for missing in (None, np.nan, pd.NA):
        display = GradCAMDisplay.from_estimator(model, X, y=[missing, *y[1:]], n_images=2)
        assert titles(display)[0] == without[0]
    with pytest.raises(ValueError, match="selects the label None"):
        GradCAMDisplay.from_estimator(model, X, y=[None, *y[1:]], target="true")


def test_where_it_is_drawn(model, new):
    """Axes that are given are filled, and what was drawn can be drawn again elsewhere."""
    figure, (left, right) = plt.subplots(1, 2)
    display = GradCAMDisplay.from_estimator(model, new[0], n_images=2, ax=left)
    assert (display.figure_, display.ax_) == (figure, left)
    assert display.plot(right).ax_ is right


def test_every_kind_of_pictures(image_source):
    """Whatever ``X`` is, the pictures that are shown are those that were given, resized."""
    shape = (12, 12, 3) if image_source.kind.startswith("rows") else None
    model = FineTunedClassifier(image_shape=shape, max_epochs=0, random_state=0)
    model.fit(image_source.X, list("ababab"))
    display = GradCAMDisplay.from_estimator(model, image_source.X, n_images=6)
    resized = [
        np.array(Image.fromarray(photo).resize((64, 64), Image.Resampling.BILINEAR)) for photo in image_source.pixels
    ]
    assert_array_equal(display.images, resized)


def test_grey_pictures(digits):
    """A network of one channel has its images shown as gray ones."""
    model = FineTunedClassifier(in_channels=1, max_epochs=0, random_state=0).fit(digits[0][:40], digits[1][:40])
    display = GradCAMDisplay.from_estimator(model, digits[0], n_images=1)
    shown = display.image_axes_[0].images[0].get_array()
    assert_array_equal(shown, display.images[0].repeat(3, axis=2))


def test_a_series_keeps_its_order(model, digits, tmp_path):
    """Of a table with another index, the first rows are those that come first."""
    paths = []
    for index, row in enumerate(digits[0][150:154]):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(np.rint(255 * row.reshape(8, 8)).astype(np.uint8)).save(paths[-1])
    X, y = pd.Series(paths, index=[3, 2, 1, 0]), pd.Series(digits[1][150:154], index=[3, 2, 1, 0])
    display = GradCAMDisplay.from_estimator(model, X, y=y, n_images=2)
    assert_array_equal(display.true_labels, digits[1][150:152])
    assert_array_equal(display.images, inputs(model, digits[0][150:152]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lime"}, r"'method' parameter must be one of \('gradcam', 'occlusion'\)\. Got 'lime' instead"),
        ({"n_images": 0}, "'n_images' parameter must be an int of at least 1. Got 0 instead"),
        ({"target": "true"}, r"target='true' needs the labels of the images\. Pass y, or"),
        ({"target": 77}, r"target=77 selects the label 77, which is not one of the classes \[0, 1"),
        ({"target": np.array([3, 3])}, r"target=array\(\[3, 3\]\) selects the label"),
        ({"target": "true", "y": [77] * 10}, "selects the label 77, which is not one"),
        ({"y": [1, 2]}, "inconsistent numbers of samples"),
        ({"method": "occlusion", "patch_size": 99}, "'patch_size' parameter must be an int from 1 to .*Got 99 instead"),
    ],
)
def test_bad_parameters(model, new, settings, message):
    """What makes no sense is said before anything is drawn, with what would."""
    with pytest.raises(ValueError, match=message):
        GradCAMDisplay.from_estimator(model, new[0], **settings)
    assert not plt.get_fignums()


def test_bad_estimators(model, digits):
    """Regressors, what is not fitted, and what is no table of pictures are errors."""
    with pytest.raises(
        ValueError, match="GradCAMDisplay shows the evidence for a class, but FineTunedRegressor is a regressor"
    ):
        GradCAMDisplay.from_estimator(FineTunedRegressor(max_epochs=0).fit(*digits), digits[0])
    with pytest.raises(NotFittedError):
        GradCAMDisplay.from_estimator(FineTunedClassifier(), digits[0])
    with pytest.raises(ImageError):
        GradCAMDisplay.from_estimator(model, "a.png")


def test_it_looks_at_the_bee(shared_data):
    """With real weights and a photo with a bee in it, covering the animal costs more than covering anything else."""
    files = sorted((shared_data / "hymenoptera" / "train").glob("*/*.jpg"))[::2]
    weights = shared_data / "mobilenet_v3_small_imagenet" / "model.safetensors"
    model = FineTunedClassifier("mobilenet_v3_small", weights=weights, freeze_depth="all", max_epochs=0, random_state=0)
    model.fit(files, [file.parent.name for file in files])
    photo = np.full((224, 224, 3), 110, np.uint8)
    bee = min((shared_data / "hymenoptera" / "val" / "bees").glob("*.jpg"))
    photo[112:, 112:] = np.array(Image.open(bee).convert("RGB").resize((112, 112)))
    for method in ("gradcam", "occlusion"):
        display = GradCAMDisplay.from_estimator(model, [photo], method=method, target="bees", n_images=1)
        maps = np.clip(display.maps[0], 0, None)
        assert maps[96:, 96:].sum() > 0.5 * maps.sum()  # a third of the area
