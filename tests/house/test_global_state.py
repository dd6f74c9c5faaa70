"""Importing and using sktl costs little and changes nothing that belongs to the user's process."""

import inspect
import json
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import sklearn
import torch
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression

from sktl import FineTunedClassifier
from sktl.autoencoders import Autoencoder, ReconstructionClassifier

# What scikit-learn and torch do not bring, but every use of sktl needs.
LIGHT = {"sktl", "PIL", "safetensors", "xxhash"}
EXTRAS = {"onnxruntime", "onnx", "onnxscript", "timm", "pandas", "matplotlib", "huggingface_hub", "torch_pruning"}
EXTRAS |= {"tifffile", "imagecodecs", "polars", "datasets", "fsspec"}


def global_state() -> dict:
    """What a library must leave alone."""
    return {
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(np.random.get_state()),  # noqa: NPY002, the global one is what is watched
        "random": repr(random.getstate()),
        "torch threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch dtype": str(torch.get_default_dtype()),
        "torch modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "torch determinism": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
        "numpy errors": np.geterr(),
        "warnings": [repr(entry) for entry in warnings.filters],
        "scikit-learn": repr(sklearn.get_config()),
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
    }


# The modules that scikit-learn and torch load in any use are loaded before, so that what they do is not counted.
CODE = f"""
import importlib, json, os, random, sys, warnings
import numpy as np, sklearn, torch
import sklearn.base, sklearn.callback, sklearn.utils.parallel, sklearn.utils.validation

{inspect.getsource(global_state)}
def packages():
    return {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names

first, modules = json.loads(sys.argv[1])
for name in first:
    importlib.import_module(name)
packages_before, before = packages(), global_state()
for name in modules:
    importlib.import_module(name)
after = global_state()
changed = [key for key in before if before[key] != after[key]]
print(json.dumps([changed, sorted(packages() - packages_before)]))
"""


def import_in_new_process(modules: list[str], first: list[str]) -> tuple[list[str], set[str]]:
    """What importing ``modules`` changes, and the packages it loads, where ``first`` have been imported before."""
    command = [sys.executable, "-c", CODE, json.dumps([first, modules])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    changed, imported = json.loads(done.stdout)
    return changed, set(imported)


def test_import_is_light():
    """Beyond torch and scikit-learn it loads small packages only: no torchvision, and no extra that is installed."""
    changed, imported = import_in_new_process(["sktl"], first=[])
    assert imported <= LIGHT
    assert changed == []


def test_importing_all_rooms_changes_nothing(public_modules):
    """No seed, thread count, warnings filter, environment variable or configuration, and no extra is imported."""
    # torchvision itself brings a warnings filter (sympy's), so it is there before.
    changed, imported = import_in_new_process(public_modules, first=["torchvision.models.feature_extraction"])
    assert changed == []
    assert not EXTRAS & imported


def test_fit_and_what_follows_change_nothing(PublicEstimator):
    """Every public estimator, with a number as its seed, leaves generators, threads, modes and configuration alone.

    (Without a number, it draws one from NumPy's generator, as all of scikit-learn does.)
    """
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64), dtype=np.uint8)
    labels = np.array([0, 1] * 4)
    known = inspect.signature(PublicEstimator).parameters
    params = {"random_state": 0} if "random_state" in known else {}
    params |= {"teacher": LogisticRegression() if issubclass(PublicEstimator, ClassifierMixin) else LinearRegression()}
    params |= {"estimator": FineTunedClassifier(max_epochs=1)}  # what can be compressed
    if PublicEstimator is ReconstructionClassifier:  # which takes models with scores of rows instead
        params["estimator"] = Autoencoder(max_epochs=1, random_state=0)
    params = {name: value for name, value in params.items() if name in known}
    # What is set once per process, on the first use of a library, is its affair.
    PublicEstimator(**params).fit(pictures, labels)
    before = global_state()
    estimator = PublicEstimator(**params).fit(pictures, labels)
    for method in ("transform", "predict", "predict_proba"):
        if hasattr(estimator, method):
            getattr(estimator, method)(pictures)
    after = global_state()
    assert [key for key in before if before[key] != after[key]] == []
