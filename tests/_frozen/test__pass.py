"""One pass over a table: the same rows whatever the batches, threads, files, engines and interruptions."""

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sktl._frozen import _pass, _runners
from sktl._frozen._decoder import Decoder
from sktl._frozen._pass import Pass
from sktl._frozen._runners import get_runner
from sktl.exceptions import EngineError, ImageWarning


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_batches_and_threads_do_not_change_the_features(paths, n_jobs, batch_size, run):
    """Each row depends on its own image alone."""
    expected = np.concatenate([run([path])[0] for path in paths])
    np.testing.assert_array_equal(run(paths, n_jobs=n_jobs, batch_size=batch_size)[0], expected)


def test_blocks_join_without_a_seam(paths, cache, monkeypatch, run):
    """A table longer than a block gives the same rows as one block."""
    expected = run(paths)[0]
    monkeypatch.setattr(_pass, "_LOOKED_UP_TOGETHER", 5)
    np.testing.assert_allclose(run(paths, cache=cache)[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(paths)[0], expected, rtol=1e-5, atol=1e-6)


def test_few_images_are_in_memory_at_a_time(paths, monkeypatch, run):
    """Decoding runs ahead of a slow network by a few batches only, however many paths there are."""
    decoded, done, ahead = itertools.count(), itertools.count(), []
    lock = threading.Lock()
    prepare = Decoder.decode

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

            def __call__(self, images):
                result = runner(images)
                finished.append(next(done))
                return result

        return Slow()

    monkeypatch.setattr(Decoder, "decode", noting)
    monkeypatch.setattr(_pass, "get_runner", slow)
    run(paths * 10, batch_size=1, n_jobs=2)
    assert len(ahead) == 120
    assert max(ahead) <= 4


def test_a_file_that_changes_between_look_up_and_decoding_poisons_nothing(paths, cache, monkeypatch, run):
    """Features are kept under the content that was decoded, and copies of the old content get their own."""
    copy = paths[0].replace("00.jpg", "copy.jpg")
    with open(paths[0], "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    X = [paths[0], copy, paths[1]]
    look_up = Pass._look_up

    def change_after(job, digests):
        missing = look_up(job, digests)
        Image.new("RGB", (30, 30), "blue").save(paths[0])
        return missing

    monkeypatch.setattr(Pass, "_look_up", change_after)
    got = run(X, cache=cache)[0]
    monkeypatch.undo()
    np.testing.assert_allclose(got, run(X)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(X, cache=cache)[0], run(X)[0], rtol=1e-5, atol=1e-6)


def test_copies_of_a_image_that_vanishes_are_read_themselves(paths, cache, monkeypatch, run):
    """Where the first of two equal files vanishes after the look-up, the second is used."""
    copy = paths[0].replace("00.jpg", "copy.jpg")
    with open(paths[0], "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    expected = run([copy])[0]
    look_up = Pass._look_up

    def remove_after(job, digests):
        missing = look_up(job, digests)
        Path(paths[0]).unlink(missing_ok=True)
        return missing

    monkeypatch.setattr(Pass, "_look_up", remove_after)
    with pytest.warns(ImageWarning, match=r"1 of 2 images"):
        got = run([paths[0], copy], cache=cache, on_error="nan")[0]
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], expected[0], rtol=1e-5, atol=1e-6)


def test_an_interruption_keeps_what_was_computed(paths, cache, counted, run, prefix_of, open_images):
    """Ctrl-C in the middle: the batches that were done need not be done again."""

    def interrupt(n_done, n_images):
        if n_done >= 6:
            raise KeyboardInterrupt

    prefix = prefix_of(["layer4"], cache=cache, batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        prefix.run(open_images(paths), [interrupt])
    counted["images"] = 0
    run(paths, cache=cache)
    assert counted["images"] <= 6


def test_auto_gives_what_a_fresh_process_gives(paths, cache, counted, monkeypatch, run):
    """What a job of another size has left in the cache, from the other engine, is rounded otherwise and not taken."""
    expected = run(paths, engine="auto", cache=None)[0]
    monkeypatch.setattr(_pass, "resolve_engine", lambda *args: "onnxruntime")
    monkeypatch.setattr(_pass, "get_runner", lambda *args: Rounding())
    assert not np.array_equal(run(paths, engine="auto", cache=cache)[0], expected)
    monkeypatch.undo()
    np.testing.assert_array_equal(run(paths, engine="auto", cache=cache)[0], expected)


class Rounding:
    """An engine with numbers of its own."""

    concurrent = True

    def __call__(self, images):
        return [np.full((len(images), 512), 0.5, np.float32)]


def test_auto_runs_in_torch_what_cannot_be_exported(paths, cache, monkeypatch, run):
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
