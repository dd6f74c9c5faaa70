"""What is no table of images is one error that says which line makes one of it, whoever is given it."""

import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktl import (
    DistilledClassifier,
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
    compression,
    datasets,
    inspection,
    selection,
)
from sktl.compression import LotteryTicketClassifier, PrunedClassifier, QuantizedClassifier
from sktl.exceptions import ImageError
from sktl.finetuning import lr_range_test
from sktl.preprocessing import ImageReader

LEARNED = FineTunedClassifier(max_epochs=0).fit(np.eye(4) * 255, [0, 1, 0, 1])
STUDENT = DistilledClassifier(FrozenEstimator(LEARNED), unlabeled=-1, max_epochs=0).fit(np.eye(4) * 255, [0, 1, 0, -1])
FITTED = PretrainedFeatureExtractor().fit(np.zeros((2, 8, 8), np.uint8))
CALLS = {
    "extractor": lambda X, y: PretrainedFeatureExtractor().fit(X),
    "extractor, fitted": lambda X, y: FITTED.transform(X),
    "pipeline": lambda X, y: make_pipeline(PretrainedFeatureExtractor(), LogisticRegression()).fit(X, y),
    "reader": lambda X, y: make_pipeline(ImageReader(), FineTunedClassifier()).fit(X, y),
    "classifier": lambda X, y: FineTunedClassifier().fit(X, y),
    "classifier, no y": lambda X, y: FineTunedClassifier(on_error="nan").fit(X, None),
    "regressor": lambda X, y: FineTunedRegressor().fit(X, [1.0, 2.0]),
    "X_val": lambda X, y: FineTunedClassifier(max_epochs=0).fit(np.eye(4), [0, 1, 0, 1], X_val=X, y_val=[0]),
    "student": lambda X, y: DistilledClassifier(LogisticRegression()).fit(X, y),
    "compressor": lambda X, y: PrunedClassifier(FineTunedClassifier()).fit(X, y),
    "ticket": lambda X, y: LotteryTicketClassifier(FineTunedClassifier()).fit(X, y),
    "selector": lambda X, y: selection.BackboneSelector().fit(X, y),
    "strategy": lambda X, y: selection.recommend_strategy(X, y),
    "domain": lambda X, y: selection.domain_distance(X),
    "learning rates": lambda X, y: lr_range_test(FineTunedClassifier(), X, y),
    "footprint": lambda X, y: compression.footprint(FITTED, X),
    "finder": lambda X, y: datasets.find_unreadable_images(X),
    "map": lambda X, y: inspection.EmbeddingDisplay.from_estimator(FITTED, X, y),
    "probe": lambda X, y: inspection.LayerProbeDisplay.from_estimator(FITTED, X, y),
    "depths": lambda X, y: inspection.FreezeDepthDisplay.from_estimator(FineTunedClassifier(), X, y),
    "score": lambda X, y: DistilledClassifier.score(STUDENT, X, y),
    "quantized": lambda X, y: QuantizedClassifier(FrozenEstimator(LEARNED)).fit(X, y),
    "labels": lambda X, y: LEARNED.predict(X),
    "probabilities": lambda X, y: LEARNED.set_params(on_error="nan").predict_proba(X),
}


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_a_folder(name, folder):
    """One error with the line to type, as text or path, whatever y is."""
    line = re.escape(f"X, y = load_image_folder({str(folder)!r}, return_X_y=True)")
    for X in (str(folder), folder):
        with pytest.raises(ImageError, match=f"is a folder.*from sktl.datasets import load_image_folder; {line}"):
            CALLS[name](X, ["cat", "dog"])


@pytest.mark.parametrize("name", CALLS)
def test_a_folder_in_a_list(name, folder):
    """What one tries next: the folder alone in a list, or the folders of all classes; they are no images."""
    line = re.escape(f"X, y = load_image_folder({str(folder)!r}, return_X_y=True)")
    for X in ([str(folder)], [folder / "cat", folder / "dog"], pd.DataFrame({"photo": [str(folder)]})):
        with pytest.raises(ImageError, match=line):
            CALLS[name](X, ["cat", "dog", "dog"])


@pytest.mark.parametrize("hold", [np.array, lambda X: np.array(X, dtype=object)], ids=["text", "object"])
def test_an_array_without_axes(hold, folder):
    """It is what it holds."""
    for name in ("extractor", "extractor, fitted", "depths", "footprint"):
        with pytest.raises(ImageError, match=r"is a folder.*load_image_folder\("):
            CALLS[name](hold(str(folder)), ["cat", "dog"])
    for X in (np.array(5), torch.tensor(5)):
        with pytest.raises(ImageError, match=r"^X must be a list, .*type 'int' instead"):
            FITTED.transform(X)


def test_a_folder_among_files(folder):
    """Beside files it is an image that cannot be read, as it is after fit."""
    with pytest.raises(ImageError, match=r"^Image 1 .*cat'\): the path is a folder\. .*load_image_folder\(.*cat'"):
        FITTED.transform([np.zeros((8, 8), np.uint8), folder / "cat"])


@pytest.mark.parametrize("name", ["extractor", "classifier", "selector", "finder", "footprint"])
def test_a_path_of_nothing(name, tmp_path, monkeypatch):
    """A slip of the pen is said at once: one would not wrap it into a list first."""
    with pytest.raises(ImageError, match=r"^X='.*photso' is neither a file nor a folder\. Pass a list"):
        CALLS[name](tmp_path / "photso", ["cat", "dog"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=rf"a folder\. Relative paths start from {re.escape(repr(os.getcwd()))}"):
        CALLS[name]("photso", ["cat", "dog"])


def test_one_image(tmp_path):
    """A file that is there, a text that holds an image, an address: one image each."""
    (tmp_path / "a.png").write_bytes(b"image")
    for X in (tmp_path / "a.png", "data:image/png;base64,AAAA", "https://example.org/a.png", b"image"):
        with pytest.raises(ImageError, match=r"^X is a single image \(\w+\)\. Pass a list of images, such as \[X\]\.$"):
            PretrainedFeatureExtractor().fit(X)
