"""The sample folder: real images of six classes that a pretrained network tells apart."""

from collections import Counter

import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder
from sktl.exceptions import InputError


def test_it_is_a_folder_of_classes(tmp_path):
    """All classes have the same number of images, of the sizes that are documented."""
    path = make_image_folder(tmp_path / "a" / "photos", n_samples=12)
    X, y = load_image_folder(path, return_X_y=True)
    assert Counter(y) == dict.fromkeys(["flower", "leaf", "pagoda", "sky", "tree", "water"], 2)
    for file in X["image"]:
        with Image.open(file) as image:
            width, height = image.size
        assert width == height
        assert 32 <= width <= 64


def test_images_to_predict(tmp_path):
    """Unlabeled images lie in the folder itself."""
    X, y = load_image_folder(make_image_folder(tmp_path, n_samples=5, labeled=False), return_X_y=True)
    assert y is None
    assert len(X) == 5


def test_the_seed_decides(tmp_path):
    """The same seed gives the same images, another one others."""

    def pixels(name, seed):
        files = sorted(make_image_folder(tmp_path / name, n_samples=3, labeled=False, random_state=seed).iterdir())
        return [file.read_bytes() for file in files]

    first = pixels("a", 0)
    assert pixels("b", 0) == first
    assert not set(pixels("c", 1)) & set(first)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_nothing_is_overwritten(tmp_path, what):
    """A folder with files in it, and a file, are refused and stay as they are."""
    (tmp_path / "mine.png").write_bytes(b"mine")
    path = tmp_path if what == "folder" else tmp_path / "mine.png"
    with pytest.raises(InputError, match=r"^The 'path' parameter must be a new or empty folder\. Got '.*' instead\.$"):
        make_image_folder(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"mine"]


def test_a_pretrained_network_tells_them_apart(tmp_path):
    """Far better than chance, which is a sixth."""
    X, y = load_image_folder(make_image_folder(tmp_path), return_X_y=True)
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    assert cross_val_score(pipe, X, y).mean() > 0.85


def test_sizes(tmp_path):
    """Crops are as large as the parameter sets; their largest side fits into every region."""
    for file in make_image_folder(tmp_path / "a", n_samples=6, size=(85, 85), labeled=False).iterdir():
        with Image.open(file) as image:
            assert image.size == (85, 85)
    for size in ((0, 5), (9, 8), (8, 86), (8,), (8.5, 9)):
        with pytest.raises(InputError, match=r"^The 'size' parameter must be two ints with 1 <= .* <= 85\. Got"):
            make_image_folder(tmp_path / "b", size=size)
    assert not (tmp_path / "b").exists()
