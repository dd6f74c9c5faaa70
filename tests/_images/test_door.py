"""What X may be, and what is said where it cannot be understood."""

import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import BaseEstimator

from sktl._images import ImageFormat, check_images
from sktl.exceptions import ImageError, ImageWarning


class Holder(BaseEstimator):
    """An estimator with the parameters that the door reads."""

    def __init__(self, image_shape=None, channels="auto", in_channels=3):
        self.image_shape = image_shape
        self.channels = channels
        self.in_channels = in_channels


def decoded(X, *, fitted_on=None, **params):
    holder = Holder(**params)
    if fitted_on is not None:
        check_images(holder, fitted_on, reset=True)
    return [image.decode() for image in check_images(holder, X, reset=fitted_on is None)]


def picture(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels.flat[:2] = 0, 255
    return pixels


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_every_kind_gives_the_same_pixels(image_source):
    """The same six pictures come out the same, whatever they were given as, and are C-contiguous uint8."""
    images = check_images(Holder(), image_source.X, reset=True)
    assert len(images) == 6
    for image, expected in zip(images, image_source.pixels, strict=True):
        pixels = image.decode()
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, expected)


def test_part_of_the_pictures_gives_their_pixels(image_source):
    """After fit, a picture's pixels and digest do not depend on which others come with it."""
    holder = Holder()
    everything = check_images(holder, image_source.X, reset=True)
    part = check_images(holder, image_source.take([4, 1]), reset=False)
    for here, there in ((0, 4), (1, 1)):
        assert part[here].digest == everything[there].digest
        np.testing.assert_array_equal(part[here].decode(), everything[there].decode())


def test_digests_tell_pictures_apart(image_source):
    """Six different pictures have six different digests of 16 bytes, the same when asked again."""
    images = check_images(Holder(), image_source.X, reset=True)
    digests = [image.digest for image in images]
    assert len(set(digests)) == 6
    assert {len(digest) for digest in digests} == {16}
    assert digests == [image.digest for image in images]


def test_format_is_small_picklable_and_readable(image_source):
    """What was learnt survives pickling and says itself what it is."""
    holder = Holder()
    check_images(holder, image_source.X, reset=True)
    learnt = holder.image_format_
    assert pickle.loads(pickle.dumps(learnt)) == learnt
    assert len(pickle.dumps(learnt)) < 500
    assert repr(learnt).startswith("ImageFormat(kind=")


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda paths: np.array(paths)[:, np.newaxis],
        lambda paths: np.array(paths, dtype=object),
        lambda paths: np.array(paths, dtype=np.dtypes.StringDType()),
        lambda paths: list(map(Path, paths)),
        lambda paths: np.array(list(map(Path, paths)), dtype=object),
        lambda paths: pd.Series(paths, dtype="string"),
        lambda paths: pd.Series(paths, dtype=object),
        lambda paths: pd.DataFrame({"photo": paths}),
        lambda paths: pd.DataFrame({"photo": paths}, index=[9, 9]),
        lambda paths: pd.Series(paths).astype("category"),
    ],
)
def test_containers_of_paths(tmp_path, make):
    """Every container of paths is understood, spaces and other alphabets in the names included."""
    paths = [str(tmp_path / "zwei Wörter.png"), str(tmp_path / "写真.png")]
    pixels = [picture(4, 5, 3), picture(6, 3, 3)]
    for path, each in zip(paths, pixels, strict=True):
        Path(path).write_bytes(png(each))
    for got, expected in zip(decoded(make(paths)), pixels, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("container", [list, lambda items: pd.Series(items), lambda items: pd.DataFrame({"x": items})])
def test_items_of_several_kinds_may_meet(tmp_path, container):
    """Each item is understood by itself: a path, bytes, a PIL image, an array, a tensor."""
    pixels = picture(4, 5, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    X = [tmp_path / "a.png", png(pixels), bytearray(png(pixels)), Image.fromarray(pixels), pixels]
    for got in decoded(container(X)):
        np.testing.assert_array_equal(got, pixels)
    for got in decoded([*X, torch.tensor(pixels)]):
        np.testing.assert_array_equal(got, pixels)


def test_column_name_is_kept_and_compared(tmp_path):
    """One column of paths has a name, as scikit-learn wants it; a list afterwards has none."""
    (tmp_path / "a.png").write_bytes(png(picture(4, 4, 3)))
    holder, table = Holder(), pd.DataFrame({"photo": [str(tmp_path / "a.png")]})
    check_images(holder, table, reset=True)
    assert holder.n_features_in_ == 1
    assert list(holder.feature_names_in_) == ["photo"]
    with pytest.raises(ValueError, match="feature names"):
        check_images(holder, table.rename(columns={"photo": "picture"}), reset=False)
    check_images(holder, list(table["photo"]), reset=False)
    check_images(holder, list(table["photo"]), reset=True)
    assert not hasattr(holder, "n_features_in_")
    assert not hasattr(holder, "feature_names_in_")


def test_nothing_is_read_or_decoded_early(tmp_path, monkeypatch):
    """The door only looks at paths; one picture reads its file once, and decodes when asked."""
    paths = [str(tmp_path / f"missing {i}.jpg") for i in range(1000)]
    images = check_images(Holder(), paths, reset=True)
    assert images._source is paths
    (tmp_path / "missing 7.jpg").write_bytes(b"no picture")
    image = images[7]
    assert len(image.digest) == 16
    (tmp_path / "missing 7.jpg").unlink()
    with pytest.raises(ImageError, match=r"Image 7 .*missing 7\.jpg.*not a picture"):
        image.decode()


def test_arrays_are_not_copied():
    """A batch and flat rows stay where they are; read-only and strided ones too."""
    for X in (picture(5, 6, 7, 3), picture(5, 48)):
        X.flags.writeable = False
        assert np.shares_memory(check_images(Holder(), X, reset=True)._source, X)
    strided = picture(8, 6, 14, 3)[::2, :, ::2]
    for got, expected in zip(decoded(strided), strided, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.flags.c_contiguous


def test_asked_from_many_threads(image_source):
    """Pictures asked for at the same time are the ones asked for one after the other."""
    images = check_images(Holder(), image_source.X, reset=True)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: images[i % 6].decode(), range(60)))
    for i, pixels in enumerate(got):
        np.testing.assert_array_equal(pixels, image_source.pixels[i % 6])


def test_one_lazy_pil_image_in_many_threads(tmp_path):
    """A PIL image that was opened but not loaded may stand in the list many times."""
    pixels = picture(64, 64, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    with Image.open(tmp_path / "a.png") as lazy, ThreadPoolExecutor(4) as pool:
        images = check_images(Holder(), [lazy] * 16, reset=True)
        for got in pool.map(lambda i: images[i].decode(), range(16)):
            np.testing.assert_array_equal(got, pixels)


def test_index():
    """Negative positions count from the end, those outside raise IndexError, and iteration ends."""
    pixels = picture(3, 4, 4, 3)
    images = check_images(Holder(), pixels, reset=True)
    np.testing.assert_array_equal(images[-1].decode(), pixels[2])
    np.testing.assert_array_equal(images[np.int64(1)].decode(), pixels[1])
    assert len(list(images)) == 3
    with pytest.raises(IndexError):
        images[3]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, ">f4", ">i4"])
@pytest.mark.parametrize("form", ["batch", "rows", "list"])
def test_encodings_of_one_picture_are_one_picture(dtype, form):
    """uint8, 0-255 and 0-1 of any width give identical pixels and one digest."""
    pixels = picture(3, 8, 8, 3)
    given = pixels.astype(dtype)
    encodings = [given] if np.dtype(dtype).kind != "f" else [given, (pixels / 255).astype(dtype)]
    reference = check_images(Holder(), pixels, reset=True)
    for encoding in encodings:
        X = {"batch": encoding, "rows": encoding.reshape(3, -1), "list": list(encoding)}[form]
        for image, expected in zip(check_images(Holder(), X, reset=True), reference, strict=True):
            np.testing.assert_array_equal(image.decode(), expected.decode())
            assert image.digest == expected.digest


def test_types_that_say_their_range():
    """bool is black and white and uint16 is 0-65535, at fit and afterwards, whatever fit saw."""
    pixels = picture(2, 8, 8, 3)
    wide = pixels.astype(np.uint16) * 257
    np.testing.assert_array_equal(decoded(wide), pixels)
    np.testing.assert_array_equal(decoded(wide, fitted_on=pixels / 255), pixels)
    np.testing.assert_array_equal(decoded(pixels > 127), (pixels > 127) * np.uint8(255))
    np.testing.assert_array_equal(decoded(pixels, fitted_on=pixels / 255), pixels)


def test_value_range_is_never_guessed_again():
    """A dark picture of 0-255 after fit stays dark, though alone it would look like 0-1."""
    bright, dark = picture(2, 8, 8, 3).astype(float), np.zeros((1, 8, 8, 3))
    dark[0, 0, 0] = 1.0
    with pytest.warns(ImageWarning, match="highest value of X is 1, but white is 255"):
        assert decoded(dark, fitted_on=bright)[0].max() == 1
    with pytest.warns(ImageWarning, match="nearly white"):
        assert decoded(bright, fitted_on=bright / 255)[0].max() == 255


def test_standardised_table_is_scaled_by_what_fit_saw():
    """Values that are neither 0-1 nor 0-255 are scaled by their range at fit, with a warning, and clipped later."""
    rows = np.random.default_rng(0).normal(size=(20, 64))
    with pytest.warns(ImageWarning, match="neither 0-1 nor 0-255"):
        pixels = np.stack(decoded(rows))
    assert (pixels.min(), pixels.max()) == (0, 255)
    with pytest.warns(ImageWarning, match="neither"):
        np.testing.assert_array_equal(decoded(rows * 3, fitted_on=rows)[0][rows[0].reshape(8, 8) > 2], 255)


def test_small_counts_are_scaled():
    """scikit-learn's digits, 0 to 16, become pictures from black to white, not nearly black ones."""
    with pytest.warns(ImageWarning, match="0 to 16"):
        assert np.max(decoded(np.arange(64.0).reshape(1, 64) % 17)) == 255


@pytest.mark.parametrize(("n_columns", "shape"), [(1, (1, 1)), (784, (28, 28)), (3072, (32, 32)), (3, (1, 1))])
def test_square_rows_need_no_shape(n_columns, shape):
    """A square is grey, 3 x a square is colour."""
    assert decoded(picture(2, n_columns))[0].shape == (*shape, 3)


def test_rows_of_a_given_shape():
    """image_shape= unfolds grey and colour, and channels="first" says that colours come plane by plane."""
    pixels = picture(2, 4, 6, 3)
    np.testing.assert_array_equal(decoded(pixels.reshape(2, -1), image_shape=(4, 6, 3)), pixels)
    planes = pixels.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(decoded(planes, image_shape=[4, 6, 3], channels="first"), pixels)
    grey = decoded(pixels[..., 0].reshape(2, -1), image_shape=(4, 6))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=3))


def test_other_widths_are_padded():
    """785 columns are named, with a hint that the label was left in, and padded to 29 x 29 with black."""
    rows = picture(2, 785)
    with pytest.warns(ImageWarning, match=r"785 values.*29 x 29.*label") as record:
        pixels = np.stack(decoded(rows))
    assert len(record) == 1
    assert pixels.shape == (2, 29, 29, 3)
    np.testing.assert_array_equal(pixels[..., 0].reshape(2, -1)[:, :785], rows)
    assert not pixels.reshape(2, -1, 3)[:, 785:].any()
    with pytest.warns(ImageWarning, match="1000 values") as record:
        decoded(picture(2, 1000))
    assert "label" not in str(record[0].message)


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        ((4, 5), r"image_shape=\(4, 5\) has 20 values, but the rows of X have 24"),
        ((24,), r"image_shape=\(24,\) must be"),
        ((4.0, 6.0), "all positive integers"),
        ((6, 2, 2), "2 channels; in_channels=3 needs 1 or 3 or 4"),
    ],
)
def test_shapes_that_do_not_fit(image_shape, message):
    """The error restates image_shape and says what the rows have."""
    with pytest.raises(ImageError, match=message):
        decoded(picture(2, 24), image_shape=image_shape)


def test_channel_axis_is_learnt_and_kept():
    """First or last is learnt at fit; the other one afterwards is an error, not a guess."""
    pixels = picture(2, 8, 9, 3)
    first = pixels.transpose(0, 3, 1, 2)
    holder = Holder()
    check_images(holder, first, reset=True)
    assert holder.image_format_ == ImageFormat("batch", channels="first", value_range=(0, 255))
    with pytest.raises(ImageError, match=r"Image 0: .*8 channels \(axis 'first'\)"):
        check_images(holder, pixels, reset=False)[0]


def test_ambiguous_channel_axis_names_the_parameter():
    """Where both axes can hold channels the user decides."""
    pixels = picture(2, 3, 8, 3)
    for X in (pixels, torch.tensor(pixels), list(torch.tensor(pixels))):
        with pytest.raises(ImageError, match=r"ambiguous.*\(3, 8, 3\).*channels=\"first\""):
            decoded(X)
        np.testing.assert_array_equal(decoded(X, channels="last"), pixels)
        np.testing.assert_array_equal(decoded(X, channels="first"), pixels.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(decoded(list(pixels)), pixels)  # lists of arrays are documented as (H, W, C)


def test_lists_that_disagree_on_the_axis():
    """A list of both layouts is refused as a whole."""
    with pytest.raises(ImageError, match="disagree"):
        decoded([picture(8, 9, 3), picture(3, 8, 9)])


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 5000), (1, 5000, 3), (5000, 1, 1), (2, 2, 4)])
def test_odd_sizes(shape):
    """One pixel, one line, one column: a picture is a picture."""
    assert decoded([picture(*shape)])[0].shape == (*shape[:2], 3)


def test_channels_turn_into_each_other():
    """Grey is repeated, RGBA is put on white, colour becomes grey by Pillow's formula."""
    rgba = picture(5, 6, 4)
    rgba[..., 3] = 0
    assert (decoded([rgba])[0] == 255).all()
    rgba[..., 3] = 255
    np.testing.assert_array_equal(decoded([rgba])[0], rgba[..., :3])
    grey = decoded([rgba[..., :3]], in_channels=1)[0]
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(rgba[..., :3]).convert("L")))
    np.testing.assert_array_equal(decoded(grey[np.newaxis])[0], np.repeat(grey, 3, axis=2))


def test_more_channels_where_asked_for():
    """in_channels=5 takes arrays of 5 channels as they are, and nothing else."""
    pixels = picture(2, 8, 9, 5)
    for X in (pixels, pixels.transpose(0, 3, 1, 2), list(pixels)):
        np.testing.assert_array_equal(decoded(X, in_channels=5), pixels)
    np.testing.assert_array_equal(decoded(pixels.reshape(2, -1), in_channels=5, image_shape=(8, 9, 5)), pixels)
    with pytest.raises(ImageError, match="in_channels=5, but a decoded picture has 1 or 3"):
        decoded([png(picture(3, 3, 3))], in_channels=5)
    with pytest.raises(ImageError, match="must have 5"):
        decoded([picture(8, 9, 3)], in_channels=5)


def test_floats_after_files():
    """Fit on files teaches no value range: uint8 arrays are fine afterwards, floats are an error that says why."""
    file, pixels = [png(picture(4, 4, 3))], picture(1, 8, 8, 3)
    np.testing.assert_array_equal(decoded(pixels, fitted_on=file), pixels)
    with pytest.raises(ImageError, match="value range of float64 pixels is learnt at fit, but fit was given files"):
        decoded(pixels / 255, fitted_on=file)
    with pytest.raises(ImageError, match="table of numbers, but Holder was fitted on files"):
        decoded(pixels.reshape(1, -1), fitted_on=file)


def test_tensors():
    """Tensors that need gradients, of half precision or bfloat16, are read without touching them."""
    pixels = torch.tensor(picture(1, 3, 8, 8))
    expected = pixels.permute(0, 2, 3, 1).numpy()
    for X in (pixels.float().requires_grad_(), pixels.half(), pixels.bfloat16().div(1), pixels.to(torch.int32)):
        np.testing.assert_array_equal(decoded(X), expected)
    assert decoded(pixels.flatten(1).float().requires_grad_(), channels="first")[0].shape == (8, 8, 3)


@pytest.mark.parametrize("X", ["a.jpg", Path("a.jpg"), b"\xff\xd8", Image.new("RGB", (2, 2))])
def test_a_single_picture_is_no_table(X):
    """One picture alone: the error says to pass a list."""
    with pytest.raises(ImageError, match=r"one single picture.*list"):
        check_images(Holder(), X, reset=True)


def test_a_single_array_is_no_batch():
    """One colour picture as an array would be read as many grey strips: refused, with the way out."""
    with pytest.raises(ImageError, match=r"one single picture.*np\.newaxis"):
        decoded(picture(24, 32, 3))


@pytest.mark.parametrize(
    "X", [[], (), np.array([]), np.array([], dtype=str), pd.Series([], dtype=object), np.zeros((0, 4, 4, 3))]
)
def test_empty(X):
    """No pictures at all: said as such."""
    with pytest.raises(ImageError, match="X is empty"):
        check_images(Holder(), X, reset=True)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([object(), object()], "objects of type 'object'"),
        (np.array([None, None], dtype=object), "NoneType"),
        ([{"path": "a.jpg"}], "objects of type 'dict'"),
        (np.array([b"\xff\xd8", b"\xff"]), "fixed-width bytes"),
        (np.zeros((2, 3, 4, 5, 6)), "must be"),
        (np.zeros((2, 4, 4, 3), dtype=complex), "complex128"),
        (np.zeros((2, 8, 9, 5)), "5 channels if last, 8 channels if first"),
        (pd.DataFrame({"a": ["x.jpg"], "b": ["y.jpg"], "c": [1]}), "3 columns, with text among them"),
        (np.array([["x.jpg", "y.jpg"]]), "2 columns, with text among them"),
    ],
)
def test_nonsense_is_refused_at_once(X, message):
    """A table that holds no pictures is refused as a whole, by what is in it."""
    with pytest.raises(ImageError, match=message):
        check_images(Holder(), X, reset=True)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_is_refused_in_scikit_learns_words(container):
    """Sparse pixels: the same TypeError as everywhere in scikit-learn."""
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        check_images(Holder(), container(np.eye(4)), reset=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_rows_is_refused_in_scikit_learns_words(bad):
    """NaN in flat rows: the same ValueError as everywhere in scikit-learn."""
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        check_images(Holder(), np.array([[0.0, 1.0, bad, 0.5]]), reset=True)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "missing"),
        (np.nan, "missing"),
        (pd.NA, "missing"),
        (7, "type 'int'"),
        (np.zeros(784), r"shape \(784,\)"),
        (np.zeros((0, 5, 3)), "no pixels"),
        (np.zeros((9, 8, 2)), "2 channels"),
        (np.zeros((9, 8, 5)), "5 channels"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf), "infinity"),
        (np.zeros((4, 4), dtype=complex), "complex128"),
        (np.full((4, 4), "x"), "dtype <U1"),
        (torch.zeros(2, 2, 2, 2), "must be"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        ("", "no such file"),
        ("nul\0byte.jpg", "cannot be read"),
    ],
)
def test_a_bad_item_spoils_only_itself(bad, message):
    """A bad item is named by its position when it is asked for; its neighbours are fine."""
    good = picture(8, 9, 3) / 255
    images = check_images(Holder(), [good, good, bad, good], reset=True)
    with pytest.raises(ImageError, match=rf"^Image 2\b.*{message}"):
        images[2].decode()
    np.testing.assert_array_equal(images[3].decode(), np.rint(good * 255))


def test_no_warning_on_ordinary_input(image_source):
    """Good pictures are understood silently, at fit and afterwards."""
    holder = Holder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_images(holder, image_source.X, reset=True)
        for image in check_images(holder, image_source.X, reset=False):
            image.decode()
