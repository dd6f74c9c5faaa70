"""The frozen prefix: once per picture, whatever happens to pictures, files and caches."""

import itertools
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sktl._frozen import _prefix, _runners
from sktl._frozen._cache import ENTRY_BYTES, DirectoryCache, MemoryCache, open_cache
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runners import get_runner
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl.backbones import load_backbone
from sktl.exceptions import EngineError, ImageError, ImageWarning


def open_images(X):
    """The images as an estimator with its defaults reads them."""
    return check_images(SimpleNamespace(in_channels=3), X, reset=True)


@pytest.fixture
def paths(tmp_path):
    """Twelve different small JPEG files."""
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"{index:02}.jpg")
    return sorted(str(path) for path in tmp_path.glob("*.jpg"))


@pytest.fixture
def counted(monkeypatch):
    """Counts the pictures that go through a network, and notes the layers that are computed."""
    counts = {"pictures": 0, "layers": []}

    def counting(spec, *args):
        runner = get_runner(spec, *args)
        counts["layers"].append(spec.layers)

        class Counting:
            concurrent = runner.concurrent

            def __call__(self, pictures):
                counts["pictures"] += len(pictures)
                return runner(pictures)

        return Counting()

    monkeypatch.setattr(_prefix, "get_runner", counting)
    return counts


@pytest.fixture(params=["auto", "directory"])
def cache(request, tmp_path):
    """Both kinds of cache, empty."""
    if request.param == "auto":
        open_cache("auto").clear()
        return "auto"
    return tmp_path / "cache"


def prefix_of(layers, pooling="avg", **settings):
    """A prefix of the small network, in torch and without a cache unless the settings say otherwise."""
    return FrozenPrefix(
        PrefixSpec(load_backbone("sktl_mini"), layers, pooling),
        Runtime(**{"engine": "torch", "cache": None, **settings}),
    )


def run(X, layers=("layer4",), **settings):
    return prefix_of(layers, **settings).run(open_images(X))


def test_each_picture_runs_once_over_calls_and_copies(paths, cache, counted):
    """A second call, a copy in the same call and an equal file elsewhere cost no forward pass."""
    expected = run(paths)[0]
    counted["pictures"] = 0
    np.testing.assert_allclose(run([*paths, *paths], cache=cache)[0], np.tile(expected, (2, 1)), rtol=1e-5, atol=1e-6)
    assert counted["pictures"] == len(paths)
    np.testing.assert_allclose(run(paths[::-1], cache=cache)[0], expected[::-1], rtol=1e-5, atol=1e-6)
    assert counted["pictures"] == len(paths)


def test_what_comes_from_the_cache_is_what_was_computed(paths, cache):
    """Cached features are the computed ones, bit for bit."""
    first = run(paths, cache=cache)[0]
    np.testing.assert_array_equal(run(paths, cache=cache)[0], first)


def test_a_changed_picture_behind_the_same_path_is_a_new_picture(paths, cache):
    """The key is the content: a file that is replaced gets its own features."""
    before = run(paths, cache=cache)[0]
    Image.new("RGB", (30, 30), "red").save(paths[3])
    after = run(paths, cache=cache)[0]
    assert not np.allclose(after[3], before[3])
    np.testing.assert_array_equal(np.delete(after, 3, 0), np.delete(before, 3, 0))
    np.testing.assert_allclose(after, run(paths)[0], rtol=1e-5, atol=1e-6)


def test_a_file_that_changes_between_look_up_and_decoding_poisons_nothing(paths, cache, monkeypatch):
    """Features are kept under the content that was decoded, and copies of the old content get their own."""
    copy = paths[0].replace("00.jpg", "copy.jpg")
    with open(paths[0], "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    X = [paths[0], copy, paths[1]]
    look_up = _prefix._Job._look_up

    def change_after(job, digests):
        missing = look_up(job, digests)
        Image.new("RGB", (30, 30), "blue").save(paths[0])
        return missing

    monkeypatch.setattr(_prefix._Job, "_look_up", change_after)
    got = run(X, cache=cache)[0]
    monkeypatch.undo()
    np.testing.assert_allclose(got, run(X)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(X, cache=cache)[0], run(X)[0], rtol=1e-5, atol=1e-6)


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
def test_the_key_holds_all_that_determines_the_features(paths, cache, counted, other):
    """Another layer, pooling, precision, weights or preprocessing never gets the first one's features."""
    run(paths, cache=cache)
    backbone = load_backbone("sktl_mini", **other.get("backbone", {}))
    settings = {"engine": "torch", "precision": other.get("precision", "float32")}
    spec = PrefixSpec(backbone, other.get("layers", ("layer4",)), other.get("pooling", "avg"))
    counted["pictures"] = 0
    got = FrozenPrefix(spec, Runtime(cache=cache, **settings)).run(open_images(paths))[0]
    assert counted["pictures"] == len(paths)
    want = FrozenPrefix(spec, Runtime(cache=None, **settings)).run(open_images(paths))[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_nothing_behind_the_deepest_layer_is_computed(paths, counted):
    """The first request for an early layer builds and runs the network only as far as that."""
    run(paths, layers=("layer1", "stem"))
    assert counted["layers"] == [("layer1", "stem")]
    graph = load_backbone("sktl_mini").feature_graph(["layer1", "stem"])
    assert not any(name.startswith("layer2") for name, _ in graph.named_modules())


def test_a_search_over_layers_is_one_pass_through_the_whole_network(paths, cache, counted):
    """The second layer asked of the same pictures brings all stages with it; the others are found."""
    backbone = load_backbone("sktl_mini")
    stages = [stage.name for stage in backbone.stages]
    got = [run(paths, layers=(stage,), cache=cache)[0] for stage in stages]
    got += run(paths, layers=tuple(stages[-2:]), cache=cache)
    assert counted["pictures"] == 2 * len(paths)
    want = [*run(paths, layers=tuple(stages)), *run(paths, layers=tuple(stages[-2:]))]
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_search_over_freeze_depths_is_two_passes(paths, cache, counted):
    """First all stages frozen and pooled, then raw activations: the second brings those that are no larger."""
    backbone = load_backbone("mobilenet_v3_small", weights=None, random_state=0)

    def activations(layer, pooling):
        return FrozenPrefix(PrefixSpec(backbone, [layer], pooling), Runtime(cache=cache)).run(open_images(paths))[0]

    last, second, third = (stage.name for stage in backbone.stages[:-4:-1])
    activations(last, "avg")
    got = [activations(second, "none"), activations(third, "none")]
    assert counted["pictures"] == 2 * len(paths)
    for layer, rows in zip((second, third), got, strict=True):
        (expected,) = FrozenPrefix(PrefixSpec(backbone, [layer], "none"), Runtime(cache=None)).run(open_images(paths))
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    asked, *brought = [np.prod(backbone.output_shape(layer)) for layer in counted["layers"][1]]
    assert brought
    assert max(brought) <= asked


def test_the_same_layer_twice_in_a_search(paths, cache):
    """Where every stage is computed, a layer that is asked for twice fills both of its places."""
    run(paths, layers=("layer1",), cache=cache)
    got = run(paths, layers=("layer2", "layer2"), cache=cache)
    (expected,) = run(paths, layers=("layer2",))
    for output in got:
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


ROW_BYTES = 512 * 4 + ENTRY_BYTES  # a pooled last stage


def small_pictures(n=80):
    """Different pictures of a few pixels."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)


def kept_by(X, cache):
    """Which pictures a cache holds after a pass over a table."""
    spec = PrefixSpec(load_backbone("sktl_mini"), ["layer4"])
    prefix, images = FrozenPrefix(spec, Runtime(engine="torch", cache=cache)), open_images(X)
    prefix.run(images)
    keys = _prefix._Job(prefix, images, None, (), [])._keys
    return [row for row in range(len(X)) if cache.get_many(keys(images.digest(row), spec))[0] is not None]


@pytest.mark.parametrize("max_rows", [20, 40, 60])
def test_a_table_that_is_larger_than_the_cache_is_kept_in_part(counted, max_rows):
    """Each further pass finds what the first one kept, about as much as there is room for, within the bound."""
    X, cache = small_pictures(), MemoryCache(max_rows * ROW_BYTES)
    kept = kept_by(X, cache)
    assert 0.5 * max_rows < len(kept) <= max_rows
    for _ in range(2):
        counted["pictures"] = 0
        assert kept_by(X, cache) == kept
        assert counted["pictures"] == len(X) - len(kept)
        assert cache.stats().entries == len(kept)
        assert cache.stats().nbytes <= cache.max_bytes


def test_the_same_pictures_are_kept_in_each_fold():
    """Their content chooses them: in tables of equal length a picture is kept in all or in none, in any order."""
    X = small_pictures()
    folds = [np.arange(60), np.arange(20, 80), np.random.default_rng(1).permutation(60) + 10]
    kept = [{int(fold[row]) for row in kept_by(X[fold], MemoryCache(30 * ROW_BYTES))} for fold in folds]
    for first, second in itertools.combinations(range(3), 2):
        both = set(folds[first].tolist()) & set(folds[second].tolist())
        assert 0 < len(kept[first] & both) < len(both)
        assert kept[first] & both == kept[second] & both


def test_a_table_that_fits_is_kept_whole(counted, tmp_path):
    """Where there is room for every row, and a tenth more, none is left out."""
    X = small_pictures(40)
    for cache in (MemoryCache(45 * ROW_BYTES), DirectoryCache(tmp_path)):
        assert kept_by(X, cache) == list(range(40))
        counted["pictures"] = 0
        assert kept_by(X, cache) == list(range(40))
        assert counted["pictures"] == 0


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_batches_and_threads_do_not_change_the_features(paths, n_jobs, batch_size):
    """Each row depends on its own picture alone."""
    expected = np.concatenate([run([path])[0] for path in paths])
    np.testing.assert_array_equal(run(paths, n_jobs=n_jobs, batch_size=batch_size)[0], expected)


def test_blocks_join_without_a_seam(paths, cache, monkeypatch):
    """A table longer than a block gives the same rows as one block."""
    expected = run(paths)[0]
    monkeypatch.setattr(_prefix, "_LOOKED_UP_TOGETHER", 5)
    np.testing.assert_allclose(run(paths, cache=cache)[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(paths)[0], expected, rtol=1e-5, atol=1e-6)


def test_few_pictures_are_in_memory_at_a_time(paths, monkeypatch):
    """Decoding runs ahead of a slow network by a few batches only, however many paths there are."""
    decoded, done, ahead = itertools.count(), itertools.count(), []
    lock = threading.Lock()
    prepare = _prefix._Job._prepare

    def noting(job, positions):
        with lock:
            ahead.append(next(decoded) - done_so_far())
        return prepare(job, positions)

    finished = []

    def done_so_far():
        return len(finished)

    def slow(*args):
        runner = get_runner(*args)

        class Slow:
            concurrent = False

            def __call__(self, pictures):
                result = runner(pictures)
                finished.append(next(done))
                return result

        return Slow()

    monkeypatch.setattr(_prefix._Job, "_prepare", noting)
    monkeypatch.setattr(_prefix, "get_runner", slow)
    run(paths * 10, batch_size=1, n_jobs=2)
    assert len(ahead) == 120
    assert max(ahead) <= 4


def test_an_unreadable_picture_is_named_and_loses_nothing(paths, cache, counted):
    """The error names position and path; what was computed before it is in the cache."""
    with open(paths[-1], "wb") as file:
        file.write(b"no picture")
    with pytest.raises(ImageError, match=r"11 .*11\.jpg"):
        run(paths, cache=cache, batch_size=1, n_jobs=1)
    counted["pictures"] = 0
    run(paths[:-1], cache=cache)
    assert counted["pictures"] <= 2  # what was in the air when the error came


@pytest.mark.parametrize("keep", [True, False])
def test_unreadable_pictures_become_nan_with_a_warning_that_names_them(paths, cache, keep):
    """With on_error="nan" the other rows are what they would be alone, in the same order."""
    expected = run(paths)[0]
    with open(paths[2], "wb") as file:
        file.write(b"no picture")
    with pytest.warns(ImageWarning, match=r"2 of 13 images .*02\.jpg.*missing\.jpg"):
        got = run([*paths, "missing.jpg"], cache=cache if keep else None, on_error="nan")[0]
    assert np.isnan(got[[2, 12]]).all()
    np.testing.assert_allclose(np.delete(got, [2, 12], 0), np.delete(expected, 2, 0), rtol=1e-5, atol=1e-6)


def test_copies_of_a_picture_that_vanishes_are_read_themselves(paths, cache, monkeypatch):
    """Where the first of two equal files vanishes after the look-up, the second is used."""
    copy = paths[0].replace("00.jpg", "copy.jpg")
    with open(paths[0], "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    expected = run([copy])[0]
    look_up = _prefix._Job._look_up

    def remove_after(job, digests):
        missing = look_up(job, digests)
        Path(paths[0]).unlink(missing_ok=True)
        return missing

    monkeypatch.setattr(_prefix._Job, "_look_up", remove_after)
    with pytest.warns(ImageWarning, match=r"1 of 2 images"):
        got = run([paths[0], copy], cache=cache, on_error="nan")[0]
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], expected[0], rtol=1e-5, atol=1e-6)


def test_an_interruption_keeps_what_was_computed(paths, cache, counted):
    """Ctrl-C in the middle: the batches that were done need not be done again."""

    def interrupt(n_done, n_pictures):
        if n_done >= 6:
            raise KeyboardInterrupt

    prefix = prefix_of(["layer4"], cache=cache, batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        prefix.run(open_images(paths), [interrupt])
    counted["pictures"] = 0
    run(paths, cache=cache)
    assert counted["pictures"] <= 6


def test_auto_gives_what_a_fresh_process_gives(paths, cache, counted, monkeypatch):
    """What a job of another size has left in the cache, from the other engine, is rounded otherwise and not taken."""
    expected = run(paths, engine="auto", cache=None)[0]
    monkeypatch.setattr(_prefix, "resolve_engine", lambda *args: "onnxruntime")
    monkeypatch.setattr(_prefix, "get_runner", lambda *args: Rounding())
    assert not np.array_equal(run(paths, engine="auto", cache=cache)[0], expected)
    monkeypatch.undo()
    np.testing.assert_array_equal(run(paths, engine="auto", cache=cache)[0], expected)


class Rounding:
    """An engine with numbers of its own."""

    concurrent = True

    def __call__(self, pictures):
        return [np.full((len(pictures), 512), 0.5, np.float32)]


def test_a_search_computes_only_the_stages_that_are_not_known(paths, cache, counted):
    """A shallow layer after the deepest one brings the stages between them, not the deepest one again."""
    run(paths, layers=("layer4",), cache=cache)
    run(paths, layers=("stem",), cache=cache)
    assert counted["layers"] == [("layer4",), ("stem", "layer1", "layer2", "layer3")]


def test_auto_runs_in_torch_what_cannot_be_exported(paths, cache, monkeypatch):
    """A network that the exporter refuses costs one try; asked for by name, the engine says so and names another."""
    pytest.importorskip("onnxscript")
    tries = []

    def refuse(*args, **kwargs):
        tries.append(1)
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr("torch.onnx.export", refuse)
    monkeypatch.setattr(_runners, "_EXPORT_PAYS_FROM_MACS", 0)
    monkeypatch.setattr(_runners, "_UNEXPORTABLE", set())
    for _ in range(2):
        got = run(paths, layers=("layer2",), pooling="gem", engine="auto", cache=cache)
        want = run(paths, layers=("layer2",), pooling="gem")
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert len(tries) == 1
    with pytest.raises(EngineError, match=r"\(no such operator\). Use engine='torch'"):
        run(paths, layers=("layer2",), pooling="gem", engine="onnxruntime")


def test_listeners_hear_of_every_picture(paths, cache):
    """Progress never goes back and ends at the number of pictures, from the cache too."""
    for _ in range(2):
        heard = []
        prefix = prefix_of(["layer4"], cache=cache, batch_size=5)
        prefix.run(open_images(paths), [lambda done, n: heard.append((done, n))])
        assert heard == sorted(set(heard))
        assert heard[-1] == (12, 12)


def test_without_layers_it_gives_the_pictures(paths, cache, counted):
    """A freeze depth of 0 stores what the network would see, once per picture, for every network of that size."""
    backbone = load_backbone("sktl_mini")
    expected = np.stack([backbone.preprocessing.apply(np.asarray(Image.open(path))) for path in paths])
    for X, want in ((paths, expected), (paths[::-1] * 2, np.concatenate([expected[::-1]] * 2))):
        (got,) = run(X, layers=(), cache=cache, batch_size=5)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, want)
    assert counted["pictures"] == len(paths)
    other = load_backbone("sktl_mini", weights=None, random_state=1, preprocessing={"mean": (0.5, 0.5, 0.5)})
    prefix = FrozenPrefix(PrefixSpec(other, (), "max"), Runtime(cache=cache, engine="onnxruntime"))
    np.testing.assert_array_equal(prefix.run(open_images(paths))[0], expected)
    assert counted["pictures"] == len(paths)


def test_pictures_are_no_layer_of_a_search(paths, cache, counted):
    """Stored pictures bring no stages with them, nor known stages the pictures or more stages."""
    run(paths, layers=("layer1",), cache=cache)
    run(paths, layers=(), cache=cache)
    run(paths, layers=(), cache=cache)
    assert counted["layers"] == [("layer1",), ()]
    open_cache(cache).clear()
    run(paths, layers=(), cache=cache)
    run(paths, layers=("layer2",), cache=cache)
    assert counted["layers"][2:] == [(), ("layer2",)]


def test_pictures_cannot_be_nan():
    """There is no row of NaN among integers, and the error says the way out."""
    with pytest.raises(ValueError, match="on_error='raise'"):
        prefix_of((), on_error="nan")


class Store:
    """A store in a file, as little of it as is asked for."""

    def __init__(self, shape):
        self.shape, self.rows = shape, {}

    def __setitem__(self, position, row):
        assert isinstance(position, int)
        self.rows[position] = np.array(row)


@pytest.mark.parametrize("layers", [("layer1", "layer4"), ()])
def test_out_is_written_to_and_returned(paths, cache, layers):
    """Rows go where the caller wants them, computed or from the cache, into arrays or stores, and nowhere else."""
    prefix = prefix_of(layers, cache=cache)
    images = open_images([*paths, paths[3]])
    stores = [Store((13, *shape)) for shape in prefix.shapes]
    assert prefix.run(images, out=stores) is stores
    arrays = [np.zeros((13, *shape), prefix.dtype) for shape in prefix.shapes]
    assert prefix.run(images, out=arrays) is arrays
    for store, array, expected in zip(stores, arrays, prefix.run(images), strict=True):
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal([store.rows[position] for position in range(13)], expected)


def test_out_of_another_shape_is_refused_at_once(paths, counted):
    """Nothing is computed for a store that it does not fit in."""
    prefix = prefix_of(["layer4"])
    with pytest.raises(ValueError, match=r"out has the shapes \[\(12, 3\)\], but needs \[\(12, 512\)\]"):
        prefix.run(open_images(paths), out=[np.empty((12, 3))])
    assert counted["pictures"] == 0


def test_unreadable_pictures_become_nan_in_out(paths):
    """Rows of NaN are written like any other row."""
    Path(paths[2]).write_bytes(b"no picture")
    prefix = prefix_of(["layer4"], on_error="nan")
    out = [np.zeros((12, *prefix.shapes[0]), np.float32)]
    with pytest.warns(ImageWarning, match="1 of 12"):
        prefix.run(open_images(paths), out=out)
    assert np.isnan(out[0]).all(1).tolist() == [position == 2 for position in range(12)]


def test_no_warning_and_no_thread_is_left(paths):
    """A run ends with the threads it started ended."""
    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(paths, n_jobs=4)
    assert threading.active_count() == before
