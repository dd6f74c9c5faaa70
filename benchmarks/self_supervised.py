"""Few labels and many images: what training without labels adds, on Fashion-MNIST.

``python benchmarks/self_supervised.py few-labels`` trains a small network on 20,000 images without labels in several
ways, then a classifier on 100 or 500 labels. ``self-taught`` does the same with unlabeled digits (MNIST). Parts of it:
``--methods vicreg rotation --seeds 0 1 2 --epochs 10``.
"""

import argparse
import gzip
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from common import CLOTHES, clothes, machine, require_data, show, spread
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.autoencoders import Autoencoder
from sktl.self_supervised import SelfSupervisedExtractor

N_UNLABELED = 20_000
SIZES = (100, 500)
IMAGES = {name: CLOTHES[name] for name in ("in_channels", "preprocessing")}
WIDTHS = (24, 48, 96, 192)


class Encoder(nn.Module):
    """Four convolutions of 3 x 3 with batch normalization; all but the first halve the size."""

    def __init__(self) -> None:
        super().__init__()
        for number, (n_in, n_out) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), start=1):
            convolution = nn.Conv2d(n_in, n_out, 3, stride=1 if number == 1 else 2, padding=1, bias=False)
            setattr(self, f"layer{number}", nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, 28, 28) to (n, 192)."""
        return self.flatten(self.pool(self.layer4(self.layer3(self.layer2(self.layer1(x))))))


def encoder(seed: int) -> Encoder:
    """The network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder()


def self_supervised(task: str, X: np.ndarray, seed: int, epochs: int) -> FrozenEstimator:
    """Train the network without labels."""
    how = {"task": task, "freeze_depth": 0, "max_epochs": epochs, "lr": 2e-3, "weight_decay": 1e-4}
    return FrozenEstimator(SelfSupervisedExtractor(encoder(seed), random_state=seed, **how, **IMAGES).fit(X))


def denoising(X: np.ndarray, seed: int, epochs: int) -> FrozenEstimator:
    """Train the network as the encoder of a denoising autoencoder."""
    how: dict = {"noise": "masking", "noise_level": 0.5, "init": "random", "freeze_depth": 0, "early_stopping": False}
    how |= {"max_epochs": epochs, "lr": 2e-3, "lr_decay": 1.0, "batch_size": 256, "freeze_bn": False}
    model = Autoencoder(64, backbone=encoder(seed), random_state=seed, **how, **IMAGES)
    return FrozenEstimator(model.fit(X))


METHODS: dict[str, Callable] = {
    "scratch": lambda X, seed, epochs: encoder(seed),
    "vicreg": partial(self_supervised, "vicreg"),
    "simclr": partial(self_supervised, "simclr"),
    "rotation": partial(self_supervised, "rotation"),
    "denoising autoencoder": denoising,
    "sktl_mini": lambda X, seed, epochs: "sktl_mini",
}


def few(y: np.ndarray, n_labels: int, seed: int) -> np.ndarray:
    """Positions of as many images of each class."""
    order = np.random.RandomState(seed).permutation(len(y))
    return np.concatenate([order[y[order] == label][: n_labels // 10] for label in range(10)])


def fine_tuned(backbone: object, X: np.ndarray, y: np.ndarray, seed: int) -> FineTunedClassifier:
    """Train on a few labels: all stages from random weights, or the last two of a trained network.

    Each in the way that is best for it: random weights need augmentation and many steps.
    """
    how: dict = {"lr": 1e-3, "batch_size": 25, "max_epochs": 30, "freeze_bn": False, "random_state": seed}
    if isinstance(backbone, Encoder):
        how |= {"freeze_depth": 0, "lr_decay": 1.0, "head_init": "random", "augment": "simclr"}
        how |= {"batch_size": 50, "max_epochs": 600 * 50 // len(y)}
    else:
        how |= {"freeze_depth": -2}
    return FineTunedClassifier(backbone, **how, **IMAGES).fit(X, y)


def probe(features: np.ndarray, y: np.ndarray) -> object:
    """A logistic regression on features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(features, y)


def mnist() -> np.ndarray:
    """Images of 10,000 digits, flat rows."""
    path = require_data() / "mnist" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28 * 28)


def accuracies(name: str, unlabeled: np.ndarray, seed: int, epochs: int) -> dict:
    """Accuracy of a probe and of fine-tuning for each number of labels, and the time without labels."""
    (X, y), (X_test, y_test) = (clothes(part) for part in ("train", "t10k"))
    X, y = X[:N_UNLABELED], y[:N_UNLABELED]
    start = time.perf_counter()
    backbone = METHODS[name](unlabeled, seed, epochs)
    result: dict = {"seconds": time.perf_counter() - start, "probe": {}, "fine-tuned": {}}
    last = getattr(backbone, "history_", [{}])[-1]
    result |= {key: last.get(key, float("nan")) for key in ("std", "effective_rank")}
    extractor = PretrainedFeatureExtractor(backbone, **({} if name == "sktl_mini" else IMAGES)).fit(X[:2])
    test = extractor.transform(X_test)
    for size in SIZES:
        rows = few(y, size, seed)
        result["probe"][size] = probe(extractor.transform(X[rows]), y[rows]).score(test, y_test)
        if name != "sktl_mini":
            result["fine-tuned"][size] = fine_tuned(backbone, X[rows], y[rows], seed).score(X_test, y_test)
    return result


def table(title: str, unlabeled: np.ndarray, methods: list[str], seeds: list[int], epochs: int) -> None:
    """Print a row for each method: mean and standard deviation over the seeds, in percent."""
    rows = []
    for name in methods:
        runs = []
        for seed in seeds:
            runs.append(accuracies(name, unlabeled, seed, epochs))
            print(f"{name}, seed {seed}: {runs[-1]}", flush=True)
        cells = [
            spread([run[how][size] for run in runs], 100, 1) if runs[0][how] else "-"
            for size in SIZES
            for how in ("probe", "fine-tuned")
        ]
        watched = [float(np.mean([run[key] for run in runs])) for key in ("std", "effective_rank")]
        rows.append([name, *cells, *watched, f"{np.mean([run['seconds'] for run in runs]):.0f}"])
    header = [f"{size} labels, {how}" for size in SIZES for how in ("probe", "fine-tuned")]
    show(title, ["backbone", *header, "std", "rank", "seconds without labels"], rows)


def main() -> None:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["few-labels", "self-taught"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    print(machine(), flush=True)
    if given.part == "few-labels":
        unlabeled, methods = clothes("train")[0][:N_UNLABELED], [name for name in METHODS if name != "simclr"]
        title = f"Fashion-MNIST, {len(unlabeled):,} images without labels, {given.epochs} epochs: accuracy in percent"
    else:
        unlabeled, methods = mnist(), ["vicreg"]
        title = f"{len(unlabeled):,} digits without labels, then clothes, {given.epochs} epochs: accuracy in percent"
    table(title, unlabeled, given.methods or methods, given.seeds, given.epochs)


if __name__ == "__main__":
    main()
