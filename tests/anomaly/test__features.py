"""Features come in blocks, which are those of one pass over the whole table."""

import numpy as np
import pytest

from sktl import PretrainedFeatureExtractor
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl.anomaly import _features
from sktl.anomaly._features import feature_blocks
from sktl.anomaly._patches import PatchGrid


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of seven images."""
    monkeypatch.setattr(_features, "_ROWS_TOGETHER", 7)
    monkeypatch.setattr(_features, "_MAPS_TOGETHER", 7)


@pytest.fixture
def extractor(digits):
    return PretrainedFeatureExtractor(layers=["layer2", "layer3"]).fit(digits[0])


def prefix(extractor, pooling):
    return FrozenPrefix(PrefixSpec(extractor.backbone_, extractor.layers_, pooling), Runtime())


@pytest.mark.usefixtures("small_blocks")
def test_rows_are_those_of_the_extractor(extractor, digits):
    """Layers are joined, and the progress is that of the whole table."""
    told = []
    images = check_images(extractor, digits[0], reset=False)
    blocks = list(feature_blocks(prefix(extractor, "avg"), None, images, [lambda *n: told.append(n)]))
    assert [rows for rows, _ in blocks] == [slice(0, 7), slice(7, 14), slice(14, 21), slice(21, 28), slice(28, 30)]
    np.testing.assert_allclose(np.concatenate([x for _, x in blocks]), extractor.transform(digits[0]), rtol=1e-5)
    assert told[-1] == (30, 30)
    assert [n for n, _ in told] == sorted({n for n, _ in told})


@pytest.mark.usefixtures("small_blocks")
def test_patches_are_those_of_the_grid(extractor, digits):
    """Of both layers, for each block."""
    grid = PatchGrid(extractor.backbone_, extractor.layers_)
    images = check_images(extractor, digits[0], reset=False)
    whole = grid.patches(prefix(extractor, "none").run(images))
    blocks = [x for _, x in feature_blocks(prefix(extractor, "none"), grid, images)]
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_unreadable_images_are_noted(extractor, digits):
    """By their positions in the whole table."""
    images = list(digits[0])
    images[8] = images[20] = None
    extractor.fit(images[:8])
    failures = {}
    table = check_images(extractor, images, reset=False)
    list(feature_blocks(prefix(extractor, "avg"), None, table, failures=failures))
    assert sorted(failures) == [8, 20]
