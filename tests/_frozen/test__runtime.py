"""How a network is run: read off an estimator in one place, checked and resolved at once."""

from dataclasses import replace

import pytest
import torch
from sklearn.utils._param_validation import validate_parameter_constraints

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._frozen import _runtime
from sktl._frozen._cache import DirectoryCache, MemoryCache, bypassed_caches, open_cache
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS, SHARED_PARAMETERS, Runtime, count_threads


def test_what_is_given_is_opened_and_resolved(tmp_path):
    """A cache, a device and a number of threads are the things that the parameters mean."""
    runtime = Runtime(device="cpu", cache=tmp_path, n_jobs=3)
    assert isinstance(runtime.cache, DirectoryCache)
    assert runtime.device == torch.device("cpu")
    assert runtime.n_threads == 3
    assert Runtime().cache is open_cache("auto")
    assert Runtime(cache=None).cache is None
    assert Runtime().n_threads == torch.get_num_threads() == count_threads(None)


def test_a_changed_copy_keeps_the_opened_cache():
    """What is replaced is replaced alone."""
    cache = MemoryCache(1000)
    copied = replace(Runtime(cache=cache, engine="torch", n_jobs=2), batch_size=5)
    assert copied.cache is cache
    assert (copied.engine, copied.n_jobs, copied.batch_size) == ("torch", 2, 5)


def test_it_opens_no_cache_where_caches_are_bypassed():
    """What is timed is computed."""
    with bypassed_caches():
        assert Runtime().cache is None


def test_it_is_read_off_an_estimator():
    """All that estimators share is the estimator's own, the rest is a default or said by name."""
    estimator = FineTunedClassifier(
        engine="torch", precision="bfloat16", cache=None, device="cpu", n_jobs=2, batch_size=7
    )
    runtime = Runtime.of(estimator)
    assert runtime == Runtime(engine="torch", precision="bfloat16", cache=None, device="cpu", n_jobs=2)
    assert runtime.batch_size == "auto"  # that of a training is another
    assert Runtime.of(estimator, batch_size=3, n_jobs=None) == replace(runtime, batch_size=3, n_jobs=None)


def test_an_estimator_without_such_parameters_runs_as_by_default():
    """Nothing is demanded of an estimator but what it has."""
    assert Runtime.of(object(), cache=None) == Runtime(cache=None)


def test_on_error_and_the_size_of_batches_are_not_read():
    """An extractor, in which they mean this, says so."""
    extractor = PretrainedFeatureExtractor(on_error="nan", batch_size=3)
    assert (Runtime.of(extractor).on_error, Runtime.of(extractor).batch_size) == ("raise", "auto")


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"engine": "onnxruntime", "precision": "bfloat16"}, "Got precision='bfloat16'.*engine='auto' or 'torch'"),
        ({"engine": "onnxruntime", "device": torch.device("cuda")}, "engine='auto' or 'torch'"),
        ({"precision": "float16"}, "'float32' or 'bfloat16'"),
    ],
)
def test_settings_that_exclude_each_other_say_the_way_out(settings, way_out, monkeypatch):
    """A combination that no engine serves is an error before any work is done."""
    monkeypatch.setattr(_runtime, "resolve_device", torch.device)  # this machine may have no CUDA
    with pytest.raises(ValueError, match=way_out):
        Runtime(**{"device": "cpu", **settings})


def test_a_device_that_is_not_there_is_an_error_at_once():
    """It is not found out in the middle of a job."""
    with pytest.raises(ValueError, match="is not a torch device"):
        Runtime(device="gpu")


def test_every_parameter_has_its_constraint():
    """The defaults pass, and what is shared is a part of all."""
    assert set(RUNTIME_CONSTRAINTS) == set(Runtime.__dataclass_fields__)
    assert set(SHARED_PARAMETERS) < set(RUNTIME_CONSTRAINTS)
    defaults = {name: field.default for name, field in Runtime.__dataclass_fields__.items()}
    validate_parameter_constraints(RUNTIME_CONSTRAINTS, defaults, caller_name="Estimator")
