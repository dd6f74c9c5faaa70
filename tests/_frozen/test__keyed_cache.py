"""What is kept of a table and found again: under the key of all that determines it, and the same share each time."""

import itertools

import numpy as np
import PIL
import pytest
import xxhash

from sktl._frozen._cache import ENTRY_BYTES, DirectoryCache, MemoryCache
from sktl._frozen._keyed_cache import KeyedCache
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone


@pytest.mark.parametrize(
    "other",
    [
        {"layers": ("layer3",)},
        {"pooling": "max"},
        {"precision": "bfloat16"},
        {"backbone": {"weights": None, "random_state": 0}},
        {"backbone": {"preprocessing": {"resize_size": 48, "crop_size": 48}}},
    ],
    ids=str,
)
def test_the_key_holds_all_that_determines_the_features(paths, cache, counted, other, run, open_images):
    """Another layer, pooling, precision, weights or preprocessing never gets the first one's features."""
    run(paths, cache=cache)
    backbone = load_backbone("sktl_mini", **other.get("backbone", {}))
    settings = {"engine": "torch", "precision": other.get("precision", "float32")}
    spec = PrefixSpec(backbone, other.get("layers", ("layer4",)), other.get("pooling", "avg"))
    counted["images"] = 0
    got = FrozenPrefix(spec, Runtime(cache=cache, **settings)).run(open_images(paths))[0]
    assert counted["images"] == len(paths)
    want = FrozenPrefix(spec, Runtime(cache=None, **settings)).run(open_images(paths))[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


ROW_BYTES = 512 * 4 + ENTRY_BYTES  # a pooled last stage


def small_images(n=80):
    """Different images of a few pixels."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)


@pytest.fixture
def kept_by(open_images):
    """A function that says which images a cache holds after a pass over a table."""

    def kept(X, cache):
        spec, runtime = PrefixSpec(load_backbone("sktl_mini"), ["layer4"]), Runtime(engine="torch", cache=cache)
        images = open_images(X)
        FrozenPrefix(spec, runtime).run(images)
        digests = [images.digest(position) for position in range(len(X))]
        found = KeyedCache(spec, runtime, len(X)).get(digests, spec, "torch")
        return [position for position, (row,) in enumerate(found) if row is not None]

    return kept


@pytest.mark.parametrize("max_rows", [20, 40, 60])
def test_a_table_that_is_larger_than_the_cache_is_kept_in_part(kept_by, counted, max_rows):
    """Each further pass finds what the first one kept, about as much as there is room for, within the bound."""
    X, cache = small_images(), MemoryCache(max_rows * ROW_BYTES)
    kept = kept_by(X, cache)
    assert 0.5 * max_rows < len(kept) <= max_rows
    for _ in range(2):
        counted["images"] = 0
        assert kept_by(X, cache) == kept
        assert counted["images"] == len(X) - len(kept)
        assert cache.stats().entries == len(kept)
        assert cache.stats().nbytes <= cache.max_bytes


def test_the_same_images_are_kept_in_each_fold(kept_by):
    """Their content chooses them: in tables of equal length an image is kept in all or in none, in any order."""
    X = small_images()
    folds = [np.arange(60), np.arange(20, 80), np.random.default_rng(1).permutation(60) + 10]
    kept = [{int(fold[row]) for row in kept_by(X[fold], MemoryCache(30 * ROW_BYTES))} for fold in folds]
    for first, second in itertools.combinations(range(3), 2):
        both = set(folds[first].tolist()) & set(folds[second].tolist())
        assert 0 < len(kept[first] & both) < len(both)
        assert kept[first] & both == kept[second] & both


def test_a_table_that_fits_is_kept_whole(kept_by, counted, tmp_path):
    """Where there is room for every row, and a tenth more, none is left out."""
    X = small_images(40)
    for cache in (MemoryCache(45 * ROW_BYTES), DirectoryCache(tmp_path)):
        assert kept_by(X, cache) == list(range(40))
        counted["images"] = 0
        assert kept_by(X, cache) == list(range(40))
        assert counted["images"] == 0


def test_the_key_is_what_earlier_versions_wrote():
    """A directory that another version has filled is read: no letter of what is hashed may change."""
    backbone = load_backbone("sktl_mini")
    runtime = Runtime(engine="torch", cache=None, device="cpu", precision="bfloat16")
    spec = PrefixSpec(backbone, ["stem", "layer1"])
    digest = bytes(range(16))
    (keys,) = KeyedCache(spec, runtime, 1).keys([digest], spec, "torch")
    for key, output in zip(keys, spec.outputs, strict=True):
        text = f"|1|{output.key}|torch|bfloat16|cpu|{PIL.__version__}"
        assert key == xxhash.xxh3_128_digest(digest + text.encode())
    images = PrefixSpec(backbone, ())
    (keys,) = KeyedCache(images, runtime, 1).keys([digest], images, "")
    assert keys == [xxhash.xxh3_128_digest(digest + f"|1|{images.key}||{PIL.__version__}".encode())]


def test_rows_come_back_by_image_and_output():
    """What was put is got, in any order and beside what is not known; another engine's rows are none."""
    spec = PrefixSpec(load_backbone("sktl_mini"), ["stem", "layer4"])
    cache = KeyedCache(spec, Runtime(cache=MemoryCache(10**6), device="cpu"), 2)
    first, second = (np.arange(2 * width, dtype=np.float32).reshape(2, width) for (width,) in spec.shapes)
    cache.put([b"a" * 16, b"b" * 16], spec, "torch", [first, second])
    (unknown, known) = cache.get([b"c" * 16, b"b" * 16], spec, "torch")
    assert unknown == [None, None]
    for row, table in zip(known, (first, second), strict=True):
        np.testing.assert_array_equal(row, table[1])
    (swapped,) = cache.get([b"a" * 16], PrefixSpec(spec.backbone, ["layer4", "stem"]), "torch")
    np.testing.assert_array_equal(swapped[0], second[0])
    assert cache.get([b"a" * 16], spec, "onnxruntime") == [[None, None]]


def test_without_a_cache_nothing_is_kept():
    """And nothing is found, of as many outputs as there are."""
    spec = PrefixSpec(load_backbone("sktl_mini"), ["stem", "layer4"])
    cache = KeyedCache(spec, Runtime(cache=None), 1)
    cache.put([b"a" * 16], spec, "torch", [np.zeros((1, width), np.float32) for (width,) in spec.shapes])
    assert cache.get([b"a" * 16], spec, "torch") == [[None, None]]
