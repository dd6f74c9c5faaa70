"""Pillow's warnings name the image, in all threads at once, and nothing of the process is left changed."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sktl import PretrainedFeatureExtractor
from sktl._images._named_warnings import named_warnings
from sktl.exceptions import ImageWarning

CORRUPT = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01"


@pytest.fixture
def corrupt(tmp_path, rgb):
    """Files whose metadata Pillow warns of."""
    for number in range(6):
        Image.fromarray(np.roll(rgb, number, 0)).save(tmp_path / f"{number}.jpg", exif=CORRUPT)
    return [tmp_path / f"{number}.jpg" for number in range(6)]


def test_a_warning_names_its_file(corrupt):
    """Position and path come first, then Pillow's words, with Pillow's category."""
    before = warnings.showwarning, list(warnings.filters)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        PretrainedFeatureExtractor(cache=None).fit_transform(corrupt)
    texts = {str(warning.message) for warning in record}
    for number, path in enumerate(corrupt):
        assert any(text.startswith(f"Image {number} ('{path}'): Corrupt EXIF data") for text in texts)
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_as_an_error(corrupt, decode):
    """If the user's filters make an error of it, the error names the file too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"^Image 0 \('.*0\.jpg'\): Corrupt EXIF"):
            decode(corrupt[:1])


def test_pil_image(rgb, decode, monkeypatch):
    """An image that is in memory already is named by its position."""

    def getexif(self):
        warnings.warn("Corrupt EXIF data", UserWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(Image.Image, "getexif", getexif)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        decode([Image.fromarray(rgb)])
    assert any(str(warning.message).startswith("Image 0: Corrupt EXIF") for warning in record)


def test_threads_keep_their_names_apart():
    """Many threads warn at once: each warning has its own thread's name, and the main thread's has none."""
    seen = []

    def show(message, category, *args, **kwargs):
        seen.append((str(message), category))

    def warn(number):
        with named_warnings(f"Image {number}"):
            warnings.warn(f"of {number}", ImageWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(warn, range(200)))
        warnings.warn("of nobody", ImageWarning, stacklevel=1)
        assert warnings.showwarning is show
    expected = [(f"Image {n}: of {n}", ImageWarning) for n in range(200)] + [("of nobody", ImageWarning)]
    assert sorted(seen) == sorted(expected)


CODE = """
import sys, warnings
from sktl import FineTunedClassifier, PretrainedFeatureExtractor
paths = sys.argv[1:]
PretrainedFeatureExtractor().fit(paths).transform(paths)
FineTunedClassifier(max_epochs=1).fit(paths, [0, 1] * (len(paths) // 2)).predict(paths)
"""


def test_no_file_stays_open(tmp_path, rgb):
    """In an interpreter that shows every warning, plain files give none: no unclosed file."""
    for number in range(4):
        Image.fromarray(np.roll(rgb, number, 0)).save(tmp_path / f"{number}.jpg")
    files = [str(tmp_path / f"{number}.jpg") for number in range(4)]
    command = [sys.executable, "-W", "default", "-c", CODE, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ResourceWarning" not in done.stderr
