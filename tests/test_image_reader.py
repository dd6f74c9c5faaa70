"""ImageReader: it reads nothing, says how images are read, and is a scikit-learn transformer."""

import functools
import io
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._images import LazyImage, check_images
from sktl._optional import import_optional
from sktl.exceptions import ImageError, ImageWarning, MissingDependencyError
from sktl.preprocessing import ImageReader

calls = []


def read_npy(path):
    """A reader of the user's own."""
    calls.append((path, threading.current_thread().name))
    return np.load(path)


def read_bands(path, *, bands=(0, 1, 2)):
    return np.load(path)[:, :, list(bands)]


def fail(path):
    raise RuntimeError("this scanner is not known")


@parametrize_with_checks([ImageReader(), ImageReader(value_range=(0, 5), on_error="nan")])
def test_common_checks(estimator, check):
    """With its defaults and with others it is a scikit-learn transformer, no check excused."""
    check(estimator)


@pytest.fixture
def arrays():
    """Eight images of 5 bands, 16 bits of which 12 are used."""
    return np.random.default_rng(0).integers(0, 4096, (8, 16, 20, 5), dtype=np.uint16)


@pytest.fixture
def paths(tmp_path, arrays):
    for number, values in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", values)
    return [str(tmp_path / f"{number}.npy") for number in range(8)]


def test_nothing_is_read_or_held(paths):
    """Its result is small, is pickled like paths, and knows files that are not there."""
    lazy = ImageReader(reader=fail, value_range=(0, 1)).fit_transform([*paths, "missing.npy"] * 1000)
    assert len(lazy) == 9000
    assert isinstance(lazy[0], LazyImage)
    assert len(pickle.dumps(lazy)) < 200 * len(lazy)


def test_a_function_reads_once_per_image(paths, arrays):
    """It gets the path, in the threads that decode, once per image over epochs and calls; bands and bits as it says."""
    calls.clear()
    reader = ImageReader(reader=read_npy, value_range=(0, 4095))
    extractor = PretrainedFeatureExtractor(in_channels=5, weights=None, random_state=0)
    features = make_pipeline(reader, extractor).fit_transform(paths)
    expected = extractor.fit_transform(np.rint(arrays * (255 / 4095)).astype(np.uint8))
    np.testing.assert_array_equal(features, expected)
    assert sorted(path for path, _ in calls) == paths
    assert all(name.startswith("sktl") for _, name in calls)
    make_pipeline(reader, extractor).fit_transform(paths)
    assert len(calls) == 8


def test_gray_is_not_repeated_to_many_channels(paths):
    """One channel where five are wanted is an error, of a function and of a TIFF alike."""
    reader = ImageReader(reader=lambda path: np.load(path)[..., 0], value_range=(0, 4095))
    pipe = make_pipeline(reader, PretrainedFeatureExtractor(in_channels=5, weights=None))
    with pytest.raises(ImageError, match=r"1 channel\(s\), but in_channels=5"):
        pipe.fit_transform(paths)


def test_a_function_gets_a_file_if_there_is_no_path(arrays):
    """bytes and open files come to it as a binary file."""
    stream = io.BytesIO()
    np.save(stream, arrays[0])
    reader = ImageReader(reader=lambda file: np.load(file)[..., :3], value_range=(0, 4095))
    for item in (stream.getvalue(), stream, {"bytes": stream.getvalue(), "path": "a.npy"}):
        lazy = reader.fit_transform([item])
        pixels = check_images(PretrainedFeatureExtractor(), lazy, reset=True)[0].decode()
        np.testing.assert_array_equal(pixels, np.rint(arrays[0][..., :3] * (255 / 4095)))


def test_other_code_is_another_cache_entry(paths):
    """Two functions, or one with other arguments, give other features for the same files."""
    extractor = PretrainedFeatureExtractor()
    readers = [functools.partial(read_bands, bands=bands) for bands in ((0, 1, 2), (2, 3, 4))] + [read_bands]
    features = [
        make_pipeline(ImageReader(reader=reader, value_range=(0, 4095)), extractor).fit_transform(paths)
        for reader in readers
    ]
    assert not np.array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[0], features[2])


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (fail, r"Image 0 \('.*0\.npy'\): the reader raised RuntimeError \(this scanner is not known\)"),
        (
            lambda path: np.zeros(7),
            r"must return an array of real numbers .* Got an array of shape \(7,\) and dtype float64 instead",
        ),
        (lambda path: np.full((4, 4), "x"), r"must return an array of real numbers .* dtype <U1 instead"),
        (lambda path: np.full((4, 4), np.nan), "NaN or infinity"),
        (lambda path: np.zeros((4, 4)), r"value range of float64 pixels is unknown.*value_range"),
        (lambda path: np.zeros((4, 4, 5), np.uint8), r"5 channel\(s\), but in_channels=3"),
        (lambda path: None, "dtype object"),
        (lambda path: [[1, 2], [3]], "did not return an array"),
    ],
)
def test_what_a_function_does_wrong(paths, reader, message):
    """The error names the image and says what came; with on_error="nan" it is a row of NaN like any other."""
    pipe = make_pipeline(ImageReader(reader=reader), PretrainedFeatureExtractor())
    with pytest.raises(ImageError, match=message):
        pipe.fit_transform(paths[:1])
    pipe.set_params(imagereader__on_error="nan")
    with pytest.warns(ImageWarning, match="1 of 1"):
        assert np.isnan(pipe.fit_transform(paths[:1])).all()


def test_a_function_may_return_a_pil_image_or_8_bits(paths, arrays):
    """What says by itself what it means needs no value range."""
    pixels = (arrays[0, :, :, :3] >> 4).astype(np.uint8)
    for value in (pixels, Image.fromarray(pixels), pixels > 100, pixels.tolist()):
        lazy = ImageReader(reader=lambda path: value, value_range=(0, 255)).fit_transform(paths[:1])
        got = check_images(PretrainedFeatureExtractor(), lazy, reset=True)[0].decode()
        expected = value * np.uint8(255) if isinstance(value, np.ndarray) and value.dtype == bool else pixels
        np.testing.assert_array_equal(got, expected)


def test_on_error_belongs_to_the_images_behind(tmp_path, rgb_files):
    """The reader's "nan" is enough; the extractor's is too; what stands behind may be a tree, which takes NaN."""
    bad = [*rgb_files, str(tmp_path / "missing.png")]
    for first, second in (("nan", "raise"), ("raise", "nan"), ("nan", "nan")):
        pipe = make_pipeline(ImageReader(on_error=first), PretrainedFeatureExtractor(on_error=second))
        with pytest.warns(ImageWarning, match="1 of 9"):
            features = pipe.fit_transform(bad)
        assert np.isnan(features).all(axis=1).tolist() == [False] * 8 + [True]
    with pytest.raises(ImageError, match="does not exist"):
        make_pipeline(ImageReader(), PretrainedFeatureExtractor()).fit_transform(bad)
    for steps in (
        (ImageReader(on_error="nan"), PretrainedFeatureExtractor()),
        (PretrainedFeatureExtractor(on_error="nan"),),
    ):
        trees = make_pipeline(*steps, HistGradientBoostingClassifier(max_iter=2))
        with pytest.warns(ImageWarning):
            assert len(trees.fit(bad, [0, 1, 0] * 3).predict(bad)) == 9


def test_on_error_for_every_place_of_a_bad_item(rgb_files):
    """Missing, nonsense, unreadable: first, last or between paths, PIL images and arrays, alone or not."""
    pipe = make_pipeline(ImageReader(on_error="nan"), PretrainedFeatureExtractor()).fit(rgb_files)
    image, path = Image.open(rgb_files[0]), rgb_files[0]
    array = np.asarray(image)
    for X in (
        [None, path],
        [path, None],
        [7, path],
        [image, path, None],
        [array, "missing.png", array],
        [None],
        ["x.png"],
    ):
        with pytest.warns(ImageWarning):
            features = pipe.transform(X)
        bad = [
            item in (None, 7) or item in ("missing.png", "x.png") if not isinstance(item, np.ndarray) else False
            for item in X
        ]
        assert np.isnan(features).all(axis=1).tolist() == bad
    with pytest.warns(ImageWarning):
        table = pipe.fit_transform(pd.DataFrame({"photo": [None, path]}))
    assert np.isnan(table).all(axis=1).tolist() == [True, False]


def test_a_batch_with_nan():
    """An array of a batch that holds NaN is one bad image, as it is without the reader."""
    batch = np.random.default_rng(0).random((3, 8, 8))
    batch[1, 0, 0] = np.nan
    pipe = make_pipeline(ImageReader(value_range=(0, 1), on_error="nan"), PretrainedFeatureExtractor())
    with pytest.warns(ImageWarning, match="Image 1: the pixels contain NaN"):
        features = pipe.fit_transform(batch)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False]
    good = np.delete(batch, 1, axis=0)
    np.testing.assert_array_equal(features[[0, 2]], PretrainedFeatureExtractor().fit_transform(good))
    for dtype in (complex, "U3"):
        with pytest.raises(ImageError, match=r"real numbers|must be"):
            pipe.fit_transform(np.zeros((3, 8, 8), dtype))


def test_pages_of_pil_images_are_refused(tmp_path):
    """Which frame of a PIL image is shown belongs to the user: page= needs the file."""
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    reader = ImageReader(page=1)
    pixels = check_images(PretrainedFeatureExtractor(), reader.transform([tmp_path / "a.gif"]), reset=True)[0].decode()
    assert pixels.max() == 200
    with Image.open(tmp_path / "a.gif") as image, pytest.raises(ImageError, match="page=1 requires a file"):
        check_images(PretrainedFeatureExtractor(), reader.transform([image]), reset=True)[0].decode()


def test_a_column_of_huggingface(rgb_files):
    """A column that decodes its items each time stays one, is cut and wrapped into pandas like others."""
    import datasets

    column = datasets.Dataset.from_dict({"photo": rgb_files}).cast_column("photo", datasets.Image())["photo"]
    lazy = ImageReader().fit_transform(column)
    assert [len(lazy), len(lazy[2:4]), type(lazy[0])] == [8, 2, LazyImage]
    expected = PretrainedFeatureExtractor().fit_transform(rgb_files)
    for output in ("default", "pandas"):
        pipe = make_pipeline(ImageReader(), PretrainedFeatureExtractor()).set_output(transform=output)
        np.testing.assert_allclose(np.asarray(pipe.fit_transform(column)), expected, atol=1e-5)


@pytest.fixture
def rgb_files(tmp_path):
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(8)]


def test_searches_clones_and_workers(paths):
    """In a pipeline it is cloned, searched over and sent to other processes."""
    extractor = PretrainedFeatureExtractor(in_channels=5, weights=None, random_state=0)
    pipe = make_pipeline(ImageReader(reader=np.load, value_range=(0, 4095)), extractor, LogisticRegression())
    search = GridSearchCV(pipe, {"imagereader__value_range": [(0, 4095), (0, 2000)]}, cv=2, n_jobs=2)
    search.fit(paths, [0, 1] * 4)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(paths), search.predict(paths))
    assert clone(pipe).get_params()["imagereader__reader"] is np.load


@pytest.mark.parametrize("make", [list, pd.Series, lambda x: pd.DataFrame({"scan": x}), np.array])
def test_fine_tuning_behind(paths, make):
    """A network is trained on what it reads, and predicts, from any column of paths."""
    pipe = make_pipeline(
        ImageReader(reader=read_bands, value_range=(0, 4095)), FineTunedClassifier(max_epochs=1, random_state=0)
    )
    assert pipe.fit(make(paths), ["a", "b"] * 4).predict(make(paths)).shape == (8,)


def test_set_output(rgb_files):
    """With pandas as output the images are a column with the name of the input, and the features a table behind."""
    table = pd.DataFrame({"photo": rgb_files}, index=range(10, 18))
    reader = ImageReader().set_output(transform="pandas")
    out = reader.fit_transform(table)
    assert list(out.columns) == ["photo"]
    assert list(out.index) == list(table.index)
    assert list(reader.fit_transform(rgb_files).columns) == ["image"]
    pipe = make_pipeline(ImageReader(), PretrainedFeatureExtractor()).set_output(transform="pandas")
    features = pipe.fit_transform(table)
    assert list(features.index) == list(table.index)
    with sklearn.config_context(transform_output="pandas"):
        pd.testing.assert_frame_equal(
            make_pipeline(ImageReader(), PretrainedFeatureExtractor()).fit_transform(table), features
        )
    np.testing.assert_array_equal(features, PretrainedFeatureExtractor().fit_transform(rgb_files))


def test_columns_in_the_order_of_the_alphabet():
    """Behind it a table has no names any more: it puts the pixels in their order."""
    rows = np.arange(48, dtype=np.uint8).reshape(3, 16)
    table = pd.DataFrame(rows, columns=[f"p{i}" for i in range(16)])
    shuffled = table[sorted(table)]
    reader = ImageReader()
    np.testing.assert_array_equal(reader.fit_transform(shuffled), rows)
    assert reader.get_feature_names_out().tolist() == list(table)


def test_twice_is_the_first(rgb_files):
    """What has been said of an image is not said again by a second reader."""
    first = ImageReader(page=0, on_error="nan").fit_transform(rgb_files)
    assert ImageReader(value_range=(0, 9)).fit_transform(first)[0] is first[0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"value_range": (5, 5)},
            r"^The .value_range. parameter of ImageReader must be a tuple \(low, high\) .* Got \(5, 5\) instead",
        ),
        ({"value_range": (1, 2, 3)}, r"must be a tuple \(low, high\)"),
        ({"value_range": ("a", "b")}, r"must be a tuple \(low, high\)"),
        ({"value_range": (0, np.inf)}, "finite"),
        ({"reader": read_npy, "page": 1}, "page=1 cannot be combined with a callable reader"),
        ({"page": -1}, "page"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"reader": "pydicom"}, "reader"),
        ({"on_error": "skip"}, "on_error"),
    ],
)
def test_bad_parameters(params, message):
    """At fit, and at a transform without one: the parameter, what came, and what it must be."""
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=message):
            getattr(ImageReader(**params), method)(["a.png"])


def test_tifffile_is_an_extra(monkeypatch):
    """reader="tifffile" without the package names the extra."""

    def missing(package, **kwargs):
        return import_optional("no_such_package", **kwargs)

    monkeypatch.setattr("sktl.preprocessing.import_optional", missing)
    with pytest.raises(MissingDependencyError, match=r"reader='tifffile' needs.*sktl\[tiff\]"):
        ImageReader(reader="tifffile").fit(["a.tif"])


def test_the_limit_holds_for_what_is_cached(rgb_files):
    """An image that was read before is refused all the same, if it is larger than it may be now."""
    extractor = PretrainedFeatureExtractor().fit(rgb_files)
    extractor.transform(rgb_files)
    with pytest.raises(ImageError, match="16 x 16 pixels; the limit is 10"):
        extractor.transform(ImageReader(max_pixels=10).fit_transform(rgb_files))


def test_a_batch_as_a_table():
    """With pandas as output a batch is one column of images."""
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    pipe = make_pipeline(ImageReader(), PretrainedFeatureExtractor()).set_output(transform="pandas")
    expected = PretrainedFeatureExtractor().fit_transform(batch)
    np.testing.assert_array_equal(np.asarray(pipe.fit_transform(batch)), expected)
