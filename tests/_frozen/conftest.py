"""Small images in files, both kinds of cache, prefixes of the small network, and a count of what they compute."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sktl._frozen import _pass
from sktl._frozen._cache import open_cache
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runners import get_runner
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl.backbones import load_backbone


@pytest.fixture(scope="session")
def open_images():
    """A function that reads images as an estimator with its defaults does."""
    return lambda X: check_images(SimpleNamespace(in_channels=3), X, reset=True)


@pytest.fixture
def paths(tmp_path):
    """Twelve different small JPEG files."""
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"{index:02}.jpg")
    return sorted(str(path) for path in tmp_path.glob("*.jpg"))


@pytest.fixture
def counted(monkeypatch):
    """Counts the images that go through a network, and notes the layers that are computed."""
    counts = {"images": 0, "layers": []}

    def counting(spec, *args):
        runner = get_runner(spec, *args)
        counts["layers"].append(spec.layers)

        class Counting:
            concurrent = runner.concurrent

            def __call__(self, images):
                counts["images"] += len(images)
                return runner(images)

        return Counting()

    monkeypatch.setattr(_pass, "get_runner", counting)
    return counts


@pytest.fixture(params=["auto", "directory"])
def cache(request, tmp_path):
    """Both kinds of cache, empty."""
    if request.param == "auto":
        open_cache("auto").clear()
        return "auto"
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def prefix_of():
    """A function that makes a prefix of the small network, in torch and uncached unless the settings say otherwise."""

    def make(layers, pooling="avg", **settings):
        spec = PrefixSpec(load_backbone("sktl_mini"), layers, pooling)
        return FrozenPrefix(spec, Runtime(**{"engine": "torch", "cache": None, **settings}))

    return make


@pytest.fixture(scope="session")
def run(prefix_of, open_images):
    """A function that runs such a prefix on what a user would give."""
    return lambda X, layers=("layer4",), **settings: prefix_of(layers, **settings).run(open_images(X))
