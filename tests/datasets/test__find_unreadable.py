"""find_unreadable_images: what it gives, how it prints, and that the estimators agree with it."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sktl import PretrainedFeatureExtractor
from sktl.datasets import find_unreadable_images
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader


@pytest.fixture
def column(tmp_path):
    """A column of six files, two of which cannot be read."""
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    paths[1].write_bytes(b"")
    paths[4].unlink()
    return pd.DataFrame({"photo": list(map(str, paths))})


def test_what_it_gives(column):
    """A sequence of named tuples with its columns as attributes, and a table to print."""
    bad = find_unreadable_images(column)
    assert len(bad) == 2
    assert bad.positions.tolist() == [1, 4]
    assert bad.paths == column["photo"].iloc[[1, 4]].tolist()
    assert bad.reasons == ["the file is empty (0 bytes).", "the file does not exist."]
    assert [one.position for one in bad] == [1, 4]
    assert bad[-1].reason == "the file does not exist."
    lines = repr(bad).splitlines()
    assert lines[0] == "2 of 6 images cannot be read"
    assert lines[2].split() == ["position", "path", "reason"]
    assert lines[3].split()[0] == "1"
    assert bad.to_frame()["path"].tolist() == bad.paths


def test_estimators_agree(column):
    """The rows are those that the extractor makes NaN; without them nothing is found."""
    bad = find_unreadable_images(column)
    with pytest.warns(ImageWarning, match="2 of 6"):
        features = PretrainedFeatureExtractor(on_error="nan").fit_transform(column)
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == bad.positions.tolist()
    rest = column.drop(index=column.index[bad.positions])
    assert not find_unreadable_images(rest)
    assert repr(find_unreadable_images(rest)).startswith("0 of 4 images cannot be read")


def test_what_a_table_may_be(tmp_path):
    """What needs more words is said as to an estimator; a table that is none is an error."""
    assert not find_unreadable_images(np.zeros((3, 6)), image_shape=(2, 3))
    assert not find_unreadable_images(np.zeros((2, 5, 4, 4)), in_channels=5)
    assert not find_unreadable_images(np.zeros((2, 3, 4, 3)), channels="first")
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    assert len(find_unreadable_images([tmp_path / "a.npy"])) == 1
    assert not find_unreadable_images(ImageReader(reader=np.load).fit_transform([tmp_path / "a.npy"]))
    with pytest.raises(ImageError, match="a single image"):
        find_unreadable_images(b"image")
    with pytest.raises(ValueError, match="n_jobs"):
        find_unreadable_images([b"image"], n_jobs="many")


def test_progress(column, capsys):
    """verbose=1 says how far it is; otherwise nothing is printed."""
    find_unreadable_images(column, verbose=1, n_jobs=2)
    assert "6 of 6" in capsys.readouterr().out
    find_unreadable_images(column)
    assert capsys.readouterr().out == ""
