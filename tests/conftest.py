"""Fixtures that all tests may use: real data where it is at hand, small tables, and pictures in every input kind."""

import io
import multiprocessing
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from torch import nn

import sktl._frozen._pass as pass_module
from sktl._frozen._activations import fetch_activations
from sktl._frozen._cache import open_cache
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._training._data import LabeledImages, TrainingData
from sktl.backbones import Backbone, load_backbone


def pytest_configure(config):
    """Let each worker of pytest-xdist have one thread, and keep the memory that it frees; what the user sets wins.

    Workers with several threads each get into each other's way. A training frees and takes megabytes at each step:
    handing them back to the system, which has to clear them each time, is a third of the time of a small fit.
    """
    if getattr(config.option, "numprocesses", None):
        # The last two are glibc's; other systems' allocators do not know them.
        for name, value in {
            "OMP_NUM_THREADS": 1,
            "MALLOC_MMAP_THRESHOLD_": 2**30,
            "MALLOC_TRIM_THRESHOLD_": 2**32,
        }.items():
            os.environ.setdefault(name, str(value))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark scikit-learn's long training check as slow where it is run once more, on memory that is read only.

    That a table may be read only is checked by shorter ones too.
    """
    for item in items:
        check = item.callspec.params.get("check") if hasattr(item, "callspec") else None
        if getattr(check, "keywords", {}).get("readonly_memmap") and check.func.__name__.endswith("s_train"):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker runs neighbors, so that a module's fixtures, which cost seconds, are made once and not in both."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real weights and photos: ``SKTL_TEST_DATA``, or ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("SKTL_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real weights and photos at {folder}; SKTL_TEST_DATA names another folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_graphs_of_before(tmp_path_factory):
    """Exported graphs that earlier runs left on the machine would decide which engine runs these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKTL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def digits():
    """Thirty digits of three kinds, (30, 8, 8) from 0 to 1, and their labels, 0 to 2."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:30].reshape(-1, 8, 8) / 16, y[:30]


class Tiny(nn.Module):
    """Three stages with batch norms, and a dropout in the second one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.layer2 = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.pool(self.layer2(self.layer1(self.stem(x)))).flatten(1))


@pytest.fixture
def tiny() -> Backbone:
    """The small network with random weights and statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Tiny()
        module.train()(torch.rand(16, 3, 8, 8))
    return load_backbone(module, preprocessing={"resize_size": 8, "crop_size": 8})


class Door(BaseEstimator):
    """The parameters that tables of images are checked with."""

    image_shape, channels, in_channels = None, "auto", 3


@pytest.fixture
def make_table():
    """Makes a table of images, targets and weights."""

    def make(X, y, weight=None, sample_weight=None, **columns) -> LabeledImages:
        ones = np.ones(len(y))
        weights = (ones if column is None else np.asarray(column, float) for column in (weight, sample_weight))
        return LabeledImages(check_images(Door(), X, reset=True), np.asarray(y), *weights, (X, y), **columns)

    return make


@pytest.fixture
def make_data():
    """Makes what a trainer trains on: tables behind frozen stages, as an objective wants them."""

    def make(objective, backbone: Backbone, depth: int, table, valid=None, *, seed: int = 0) -> TrainingData:
        stages = [stage.name for stage in backbone.stages]
        pooling = "avg" if depth == len(stages) else "none"
        prefix = FrozenPrefix(PrefixSpec(backbone, stages[depth - 1 : depth] if depth else (), pooling), Runtime())

        def rows(table):
            activations = fetch_activations(prefix, table.images, stored=True)
            return table.dataset(activations, objective.targets(table), objective.columns(table))

        return TrainingData(table, rows(table), None if valid is None else rows(valid), depth, seed)

    return make


@pytest.fixture
def n_run(monkeypatch):
    """How many pictures have gone through a frozen prefix since the caches were emptied, in a list of one number."""
    count = [0]
    get_runner = pass_module.get_runner

    class Counted:
        def __init__(self, runner):
            self.runner, self.concurrent = runner, runner.concurrent

        def __call__(self, pictures):
            count[0] += len(pictures)
            return self.runner(pictures)

    monkeypatch.setattr(pass_module, "get_runner", lambda *args: Counted(get_runner(*args)))
    open_cache("auto").clear()
    return count


@pytest.fixture(scope="session")
def quick():
    """Parameters of a fit of a fraction of a second: two epochs of the head alone."""
    return {"freeze_depth": "all", "max_epochs": 2, "lr": 0.001, "random_state": 0}


_IN_NEW_PROCESS = """
import pickle, traceback, warnings
import torch
warnings.simplefilter("error")
torch.set_num_threads(n_threads)
try:
    names = pickle.loads(given)
    exec(code, names)
    answer.send_bytes(pickle.dumps((names["result"], "")))
except BaseException:
    answer.send_bytes(pickle.dumps((None, traceback.format_exc())))
"""


@pytest.fixture(scope="session")
def in_new_process():
    """Runs code in a new process, with things that come to it as pickles, and gives what it calls ``result``.

    It is forked from one that is ready for all tests: torch and scikit-learn, which take seconds to load, are there,
    and nothing of sktl is. Warnings are errors there too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklearn.linear_model", "skorch", "torchvision"])

    def run(code, **given):
        answer, sender = context.Pipe(duplex=False)
        names = {"code": code, "given": pickle.dumps(given), "answer": sender, "n_threads": torch.get_num_threads()}
        process = context.Process(target=exec, args=(_IN_NEW_PROCESS, names))
        process.start()
        sender.close()
        result, error = pickle.loads(answer.recv_bytes())
        process.join()
        assert not error, error
        return result

    return run


@dataclass(frozen=True)
class ImageSource:
    """Six small pictures in one of the kinds that ``X`` may have.

    Attributes
    ----------
    kind : str
        The kind's name, as in the test's id.
    X : object
        The pictures, as a user would give them.
    pixels : ndarray of shape (6, 12, 12, 3), dtype uint8
        What every kind must decode to, exactly.
    """

    kind: str
    X: Any
    pixels: np.ndarray

    def take(self, indices) -> Any:
        """Give some of the pictures, in the same kind."""
        if hasattr(self.X, "iloc"):
            return self.X.iloc[list(indices)]
        return [self.X[i] for i in indices] if isinstance(self.X, list) else self.X[list(indices)]


def six_pictures() -> np.ndarray:
    """Six RGB pictures of 12 x 12, smooth and different, that use the values from 0 to 255."""
    row, column = np.mgrid[0:12, 0:12]
    red, green = row * 23, column * 23
    pictures = [np.stack([red, green, np.full_like(red, 51 * i)], axis=-1) for i in range(6)]
    return np.stack(pictures).astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _paths(pixels: np.ndarray, folder: Path) -> list[str]:
    paths = [folder / f"picture {i}.png" for i in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        path.write_bytes(_png(picture))
    return [str(path) for path in paths]


# Each entry makes X from the pixels and an empty folder.
IMAGE_KINDS = {
    "paths": _paths,
    "path_column": lambda pixels, folder: pd.DataFrame({"photo": list(map(Path, _paths(pixels, folder)))}),
    "path_series": lambda pixels, folder: pd.Series(_paths(pixels, folder), name="photo"),
    "pil": lambda pixels, folder: [Image.fromarray(picture) for picture in pixels],
    "arrays": lambda pixels, folder: list(pixels),
    "bytes": lambda pixels, folder: [_png(picture) for picture in pixels],
    "nhwc": lambda pixels, folder: pixels.copy(),
    "nchw": lambda pixels, folder: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
    "tensor": lambda pixels, folder: torch.tensor(pixels.transpose(0, 3, 1, 2)).float() / 255,
    "rows": lambda pixels, folder: pixels.reshape(len(pixels), -1) / 255,
    "rows_frame": lambda pixels, folder: pd.DataFrame(
        pixels.reshape(len(pixels), -1).astype(int), columns=[f"pixel{i}" for i in range(1, 433)]
    ),
}


@pytest.fixture(params=IMAGE_KINDS)
def image_source(request, tmp_path) -> ImageSource:
    """The same six pictures, in each of the kinds that ``X`` may have; see :class:`ImageSource`."""
    pixels = six_pictures()
    return ImageSource(request.param, IMAGE_KINDS[request.param](pixels, tmp_path), pixels)
