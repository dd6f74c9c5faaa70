"""Everything that people have in their tables is read, and equals the list of paths."""

import base64
import io
import os
import re
import urllib.parse
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sktl import PretrainedFeatureExtractor
from sktl._images import _sources, check_images
from sktl.datasets import find_unreadable_images
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader


@pytest.fixture
def paths(tmp_path, rgb):
    """Three files, with a space and another alphabet in their names."""
    names = ["a b.png", "写真.png", "c%20d.png"]
    for shift, name in enumerate(names):
        Image.fromarray(np.roll(rgb, shift, 0)).save(tmp_path / name)
    return [str(tmp_path / name) for name in names]


def contents(paths):
    return [Path(path).read_bytes() for path in paths]


def dicts(paths):
    return [{"bytes": data, "path": "x.png"} for data in contents(paths)]


def zipped(paths):
    archive = Path(paths[0]).parent / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, Path(path).name)
    return [zipfile.Path(archive, Path(path).name) for path in paths]


def data_texts(paths):
    plain = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in contents(paths)]
    return [plain[0], f"DATA:{plain[1][5:]}", "data:," + urllib.parse.quote(contents(paths)[2])]


def base64_texts(paths):
    texts = [base64.b64encode(data).decode() for data in contents(paths)]
    lines = base64.encodebytes(contents(paths)[1]).decode()
    return [texts[0], lines, base64.urlsafe_b64encode(contents(paths)[2]).decode().rstrip("=")]


class Reads:
    """No file, but something with `read()`."""

    def __init__(self, data):
        self.data = data

    def read(self):
        return self.data


FORMS = {
    "dicts": dicts,
    "dicts of paths": lambda paths: [{"bytes": None, "path": path} for path in paths],
    "dicts in pandas": lambda paths: pd.Series(dicts(paths)),
    "dicts in a frame": lambda paths: pd.DataFrame({"image": dicts(paths)}),
    "BytesIO": lambda paths: [io.BytesIO(data) for data in contents(paths)],
    "BytesIO in pandas": lambda paths: pd.Series([io.BytesIO(data) for data in contents(paths)]),
    "zipfile.Path": zipped,
    "read()": lambda paths: [Reads(data) for data in contents(paths)],
    "file addresses": lambda paths: [Path(path).as_uri() for path in paths],
    "file addresses of localhost": lambda paths: [Path(p).as_uri().replace("//", "//localhost", 1) for p in paths],
    "data texts": data_texts,
    "base64": base64_texts,
    "base64 in a frame": lambda paths: pd.DataFrame({"image": base64_texts(paths)}),
    "memoryviews": lambda paths: [memoryview(data) for data in contents(paths)],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_equal_paths(paths, decode, form):
    """Every form gives the pixels of the paths; twice, so that nothing was used up."""
    X, expected = FORMS[form](paths), decode(paths)
    for _ in range(2):
        for got, pixels in zip(decode(X), expected, strict=True):
            np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("form", FORMS)
def test_digests_are_of_the_content(paths, holder, form):
    """A cache finds an image again, whatever form it was given in."""
    expected = [image.digest for image in check_images(holder(), paths, reset=True)]
    assert [image.digest for image in check_images(holder(), FORMS[form](paths), reset=True)] == expected


@pytest.mark.parametrize("form", ["structs", "frame", "paths", "binary", "nested"])
def test_polars(paths, decode, form):
    """Polars' columns of structs (as from Parquet files of Hugging Face), of texts, of bytes and of lists."""
    import polars as pl

    expected = decode(paths)
    X = {
        "structs": lambda: pl.Series("image", dicts(paths)),
        "frame": lambda: pl.DataFrame({"image": dicts(paths)}),
        "paths": lambda: pl.Series(paths),
        "binary": lambda: pl.Series(contents(paths)),
        "nested": lambda: pl.Series([pixels.tolist() for pixels in expected]),
    }[form]()
    for got, pixels in zip(decode(X), expected, strict=True):
        np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("is_decoded", [False, True])
@pytest.mark.parametrize("as_pandas", [False, True])
def test_huggingface(paths, decode, is_decoded, as_pandas):
    """A column of Hugging Face's datasets, decoded by them or not."""
    import datasets

    data = datasets.Dataset.from_dict({"photo": dicts(paths)}).cast_column("photo", datasets.Image(decode=is_decoded))
    X = data.to_pandas()["photo"] if as_pandas else data["photo"]
    for got, pixels in zip(decode(X), decode(paths), strict=True):
        np.testing.assert_array_equal(got, pixels)


def test_fsspec(paths, decode):
    """Files of other file systems, opened or not."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in paths:
        memory.pipe("/" + Path(path).name, Path(path).read_bytes())
    lazy = [fsspec.open(f"memory://{Path(path).name}") for path in paths]
    with memory.open("/" + Path(paths[0]).name) as opened:
        X = [opened, *lazy[1:]]
        for got, pixels in zip(decode(X), decode(paths), strict=True):
            np.testing.assert_array_equal(got, pixels)


def test_open_files_stay_as_they_are(paths, decode):
    """They are read from their beginning, from several threads too, and keep their position; none is left open."""
    n_open = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with open(paths[0], "rb") as file:
        file.seek(17)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: decode([file, file])[1], range(8)))
        assert file.tell() == 17
        assert not file.closed
    for pixels in results:
        np.testing.assert_array_equal(pixels, decode(paths[:1])[0])
    if n_open:
        assert len(os.listdir("/proc/self/fd")) == n_open


def closed(path):
    with open(path, "rb") as file:
        pass
    return file


def once(path):
    class Once(io.BytesIO):
        def seekable(self):
            return False

    return Once(Path(path).read_bytes())


def broken(path):
    class Broken:
        def read(self):
            raise RuntimeError("the connection is gone")

    return Broken()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (closed, "was closed before it was read"),
        (lambda path: io.BytesIO(), "empty"),
        (broken, r"cannot be read \(the connection is gone\)"),
        (lambda path: io.StringIO("text"), "opened in text mode. Open it with mode 'rb'"),
        (lambda path: {"bytes": None, "path": None}, "missing"),
        (lambda path: {"bytes": 7, "path": None}, "must be of type bytes. Got 'int' instead"),
        (lambda path: {"path": "nowhere.png"}, r"\('nowhere.png'\): the file does not exist"),
        (lambda path: "data:image/png;base64,%%%%", "data: URL cannot be decoded"),
        (lambda path: "data:nothing", "data: URL cannot be decoded"),
        (lambda path: "file://server/share/a.png", r"another computer \(server\)"),
        (lambda path: "s3://bucket/a.png", "URLs are not downloaded"),
        (lambda path: Path("https://example.org/a.png"), "URLs are not downloaded"),
        (lambda path: str(Path(path).parent) + "/", r"is a folder.*load_image_folder"),
    ],
)
def test_what_cannot_be_read(paths, decode, make, message):
    """Each says what it is, by position, and leaves its neighbors alone."""
    item = make(paths[0])
    with pytest.raises(ImageError, match=rf"^Image 1.*({message})"):
        decode([paths[0], item])


def test_a_long_text_is_no_path(decode):
    """300 kB of base64 that is no image: the message says so, and is short."""
    text = base64.b64encode(b"no image at all" * 15_000).decode()
    with pytest.raises(ImageError, match=r"neither a path nor a base64-encoded image") as caught:
        decode([text])
    assert len(str(caught.value)) <= 600


def test_a_path_comes_before_base64(tmp_path, rgb, decode, monkeypatch):
    """A file whose name could be base64 is a file."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(rgb).save("iVBORw0KGgoAAAA", "PNG")
    np.testing.assert_array_equal(decode(["iVBORw0KGgoAAAA"])[0], rgb)


@pytest.mark.parametrize("has_seek", [False, True])
def test_a_stream_that_can_be_read_once(paths, decode, holder, has_seek):
    """A download is read once for its digest and its pixels; afterwards nothing is left, which is said."""

    class Download:
        def __init__(self, path):
            self.data = Path(path).read_bytes()

        def read(self):
            data, self.data = self.data, b""
            return data

    X = [once(path) if has_seek else Download(path) for path in paths]
    images = check_images(holder(), X, reset=True)
    for image, expected in zip([images[i] for i in range(3) if images.digest(i)], decode(paths), strict=True):
        np.testing.assert_array_equal(image.decode(), expected)
    with pytest.raises(ImageError, match=r"Image 0: .*can be read only once. Pass its bytes"):
        decode(X)


def test_archives_in_memory(rgb, encode, decode):
    """A member of an archive that has no file name is read, and called by its position."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", encode(rgb))
        archive.writestr("b.png", b"no image")
        members = [zipfile.Path(archive, name) for name in ("a.png", "b.png")]
        np.testing.assert_array_equal(decode(members[:1])[0], rgb)
        with pytest.raises(ImageError, match=r"^Image 1.*not an image"):
            decode(members)


def test_base64_as_bytes(rgb, encode, decode):
    """The letters of base64 or of a data: URL as bytes, as a database gives them."""
    packed = base64.b64encode(encode(rgb))
    for data in (packed, b"data:image/png;base64," + packed, b"data:image/png; base64," + packed):
        np.testing.assert_array_equal(decode([data])[0], rgb)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices(tmp_path, decode):
    """What is no regular file is refused at once: a pipe would wait forever, a device never end."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match="not a regular file"):
            decode([path])
    (tmp_path / "link.png").symlink_to("/dev/zero")
    with open("/dev/zero", "rb") as device:
        for item in (device, tmp_path / "link.png", "file:///dev/zero", {"bytes": None, "path": "/dev/zero"}):
            with pytest.raises(ImageError, match=r"^Image 0.* not a regular file"):
                decode([item])


def test_a_file_of_a_tebibyte(tmp_path, rgb, encode):
    """A sparse file is refused by its size, before a byte of it is read; a row of NaN with on_error="nan"."""
    path, good = tmp_path / "huge.png", encode(rgb)
    path.touch()
    os.truncate(path, 2**40)
    for reader in (ImageReader(), ImageReader(reader="tifffile"), ImageReader(reader=np.load)):
        (one,) = find_unreadable_images(reader.fit_transform([path]))
        assert one.path == str(path)
        assert re.match(r"the file is too large \(1,099,511,627,776 bytes; the limit is [\d,]+, a quar", one.reason)
    with path.open("rb") as file:
        assert find_unreadable_images([good, file]).positions.tolist() == [1]
    with pytest.warns(ImageWarning, match="1 of 2 images.*too large"):
        features = PretrainedFeatureExtractor(on_error="nan").fit_transform([path, good])
    assert np.isnan(features).all(axis=1).tolist() == [True, False]


class Endless:
    """A stream that never ends."""

    n_read = 0

    def read(self, size=-1):
        self.n_read += size
        return b"x" * size


def test_a_stream_without_an_end(monkeypatch, decode):
    """It is read up to the limit and no further."""
    monkeypatch.setattr(_sources, "byte_limit", lambda: 5 * 2**20)
    stream = Endless()
    with pytest.raises(ImageError, match="too large"):
        decode([stream])
    assert stream.n_read <= 14 * 2**20  # twice: to learn from it, and to decode it


def test_a_member_of_an_archive_that_unpacks_without_an_end(monkeypatch, decode, tmp_path):
    """Of a zip file no more is unpacked than a file may have."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(9 * 2**20))
    monkeypatch.setattr(_sources, "byte_limit", lambda: 2**20)
    with pytest.raises(ImageError, match=r"a\.png.*too large \(2,097,152 bytes"):
        decode([zipfile.Path(tmp_path / "a.zip", "a.png")])
