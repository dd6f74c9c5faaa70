"""Few labels and many images: what training without labels adds, on Fashion-MNIST.

``python benchmarks/self_supervised.py few-labels`` trains a small network on 20,000 images without labels in several
ways, then a classifier on 100 or 500 labels. ``self-taught`` does the same with unlabeled images of digits (MNIST).
``--methods``, ``--seeds`` and ``--epochs`` run a part of it.
"""

from collections.abc import Callable

import numpy as np
import torch
from common import CLOTHES
from sklearn.frozen import FrozenEstimator
from torch import nn

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


def pretrained(task: str) -> Callable:
    """A function that trains the network without labels."""

    def train(X: np.ndarray, seed: int, epochs: int) -> object:
        how = {"task": task, "max_epochs": epochs, "lr": 2e-3, "weight_decay": 1e-4, "random_state": seed}
        return FrozenEstimator(SelfSupervisedExtractor(encoder(seed), **how, **IMAGES).fit(X))

    return train


METHODS: dict[str, Callable] = {
    "scratch": lambda X, seed, epochs: encoder(seed),
    "vicreg": pretrained("vicreg"),
    "simclr": pretrained("simclr"),
    "rotation": pretrained("rotation"),
}


def few(y: np.ndarray, n_labels: int, seed: int) -> np.ndarray:
    """Positions of as many images of each class."""
    order = np.random.RandomState(seed).permutation(len(y))
    return np.concatenate([order[y[order] == label][: n_labels // 10] for label in range(10)])


def fine_tuned(backbone: object, X: np.ndarray, y: np.ndarray, seed: int, *, is_trained: bool) -> FineTunedClassifier:
    """Train a network on a few labels; the steps are as many for each number of them."""
    how = {"freeze_depth": 0, "lr": 1e-3, "weight_decay": 1e-3, "batch_size": 50, "augment": "simclr"}
    start = {"lr_decay": 1.0, "freeze_bn": False, "head_init": "probe" if is_trained else "random"}
    epochs = 600 * 50 // len(y)
    return FineTunedClassifier(backbone, max_epochs=epochs, random_state=seed, **how, **start, **IMAGES).fit(X, y)


def probe(features: np.ndarray, y: np.ndarray) -> object:
    """A logistic regression on features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(features, y)
