"""All that is kept for the life of the process is let go of at once, and comes back by itself."""

import threading

import numpy as np
import pytest

import sktl
from sktl import PretrainedFeatureExtractor
from sktl._frozen._cache import open_cache
from sktl._frozen._runners import _HELD, _SLOTS
from sktl._frozen._search_widening import _SEARCHED
from sktl._stores import register_store
from sktl.backbones import _load, _weights_files, load_backbone
from sktl.backbones._load import _MEMO
from sktl.compression import _onnx_export
from sktl.distillation import _teacher
from sktl.distillation._teacher import _FITTED


def test_clear_caches_empties_all_stores():
    """Features, networks, engines and teachers are gone; the same call gives the same features afterwards."""
    X = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    features = PretrainedFeatureExtractor().fit_transform(X)
    backbone = load_backbone("sktl_mini")
    _FITTED[b"key"] = "teacher", b"digest", 7
    assert open_cache("auto").stats().entries
    sktl.clear_caches()
    assert not open_cache("auto").stats().entries
    assert not any(map(len, (_MEMO, _SLOTS, _HELD, _FITTED, _SEARCHED)))
    assert load_backbone("sktl_mini") is not backbone
    np.testing.assert_array_equal(PretrainedFeatureExtractor().fit_transform(X), features)


def test_a_store_says_how_it_is_emptied():
    """Whatever registers itself is emptied too."""
    store = {"one": 1}
    register_store("a store of this test", store.clear)
    sktl.clear_caches()
    assert store == {}


@pytest.mark.parametrize(
    ("store", "lock"),
    [
        (_load._MEMO, _load._MEMO_LOCK),
        (_weights_files._DIGESTS, _weights_files._DIGESTS_LOCK),
        (_teacher._FITTED, _teacher._FITTED_LOCK),
        (_onnx_export._TEMPLATES, _onnx_export._TEMPLATES_LOCK),
    ],
)
def test_nothing_is_cleared_while_another_thread_looks_into_it(store, lock):
    """What a thread has found in a store is there until it has taken it."""
    sktl.clear_caches()
    clearing = threading.Thread(target=sktl.clear_caches, daemon=True)
    with lock:
        store["key"] = None, None, 0
        clearing.start()
        clearing.join(0.05)
        assert "key" in store
    clearing.join(60)
    assert not store
