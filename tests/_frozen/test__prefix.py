"""The frozen prefix: once per image, whatever happens to images, files and caches."""

import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone
from sktl.exceptions import ImageError, ImageWarning


def test_each_image_runs_once_over_calls_and_copies(paths, cache, counted, run):
    """A second call, a copy in the same call and an equal file elsewhere cost no forward pass."""
    expected = run(paths)[0]
    counted["images"] = 0
    np.testing.assert_allclose(run([*paths, *paths], cache=cache)[0], np.tile(expected, (2, 1)), rtol=1e-5, atol=1e-6)
    assert counted["images"] == len(paths)
    np.testing.assert_allclose(run(paths[::-1], cache=cache)[0], expected[::-1], rtol=1e-5, atol=1e-6)
    assert counted["images"] == len(paths)


def test_what_comes_from_the_cache_is_what_was_computed(paths, cache, run):
    """Cached features are the computed ones, bit for bit."""
    first = run(paths, cache=cache)[0]
    np.testing.assert_array_equal(run(paths, cache=cache)[0], first)


def test_a_changed_image_behind_the_same_path_is_a_new_image(paths, cache, run):
    """The key is the content: a file that is replaced gets its own features."""
    before = run(paths, cache=cache)[0]
    Image.new("RGB", (30, 30), "red").save(paths[3])
    after = run(paths, cache=cache)[0]
    assert not np.allclose(after[3], before[3])
    np.testing.assert_array_equal(np.delete(after, 3, 0), np.delete(before, 3, 0))
    np.testing.assert_allclose(after, run(paths)[0], rtol=1e-5, atol=1e-6)


def test_nothing_behind_the_deepest_layer_is_computed(paths, counted, run):
    """The first request for an early layer builds and runs the network only as far as that."""
    run(paths, layers=("layer1", "stem"))
    assert counted["layers"] == [("layer1", "stem")]
    graph = load_backbone("sktl_mini").feature_graph(["layer1", "stem"])
    assert not any(name.startswith("layer2") for name, _ in graph.named_modules())


def test_an_unreadable_image_is_named_and_loses_nothing(paths, cache, counted, run):
    """The error names position and path; what was computed before it is in the cache."""
    with open(paths[-1], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ImageError, match=r"11 .*11\.jpg"):
        run(paths, cache=cache, batch_size=1, n_jobs=1)
    counted["images"] = 0
    run(paths[:-1], cache=cache)
    assert counted["images"] <= 2  # what was in the air when the error came


@pytest.mark.parametrize("keep", [True, False])
def test_unreadable_images_become_nan_with_a_warning_that_names_them(paths, cache, keep, run):
    """With on_error="nan" the other rows are what they would be alone, in the same order."""
    expected = run(paths)[0]
    with open(paths[2], "wb") as file:
        file.write(b"no image")
    with pytest.warns(ImageWarning, match=r"2 of 13 images .*02\.jpg.*missing\.jpg"):
        got = run([*paths, "missing.jpg"], cache=cache if keep else None, on_error="nan")[0]
    assert np.isnan(got[[2, 12]]).all()
    np.testing.assert_allclose(np.delete(got, [2, 12], 0), np.delete(expected, 2, 0), rtol=1e-5, atol=1e-6)


def test_without_layers_it_gives_the_images(paths, cache, counted, run, open_images):
    """A freeze depth of 0 stores what the network would see, once per image, for every network of that size."""
    backbone = load_backbone("sktl_mini")
    expected = np.stack([backbone.preprocessing.apply(np.asarray(Image.open(path))) for path in paths])
    for X, want in ((paths, expected), (paths[::-1] * 2, np.concatenate([expected[::-1]] * 2))):
        (got,) = run(X, layers=(), cache=cache, batch_size=5)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, want)
    assert counted["images"] == len(paths)
    other = load_backbone("sktl_mini", weights=None, random_state=1, preprocessing={"mean": (0.5, 0.5, 0.5)})
    prefix = FrozenPrefix(PrefixSpec(other, (), "max"), Runtime(cache=cache, engine="onnxruntime"))
    np.testing.assert_array_equal(prefix.run(open_images(paths))[0], expected)
    assert counted["images"] == len(paths)


def test_images_cannot_be_nan(prefix_of):
    """There is no row of NaN among integers, and the error says the way out."""
    with pytest.raises(ValueError, match="on_error='raise'"):
        prefix_of((), on_error="nan")


def test_no_warning_and_no_thread_is_left(paths, run):
    """A run ends with the threads it started ended."""
    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(paths, n_jobs=4)
    assert threading.active_count() == before
