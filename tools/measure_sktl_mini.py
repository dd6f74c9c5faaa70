"""Measure how far ``sktl_mini`` carries: linear probes on four sets of pictures that it never learnt from.

Prints one row per set: the test accuracy of a logistic regression on raw pixels, on the averaged last stage of the same
network with random weights (BatchNorm's statistics adapted to the training pictures, without which they are worse), on
``sktl_mini``'s, and on MobileNetV2's pooled features at 224 x 224, and the share of the way from raw pixels to
MobileNetV2 that ``sktl_mini`` goes::

    python tools/measure_sktl_mini.py --data DATA --weights sktl/backbones/sktl_mini.safetensors

The probe is ``StandardScaler`` and ``LogisticRegression``, its ``C`` chosen among 0.001, 0.01, 0.1 and 1 by three-fold
cross-validation on the training part.
"""

import argparse
import gzip
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.backbones import Preprocessing
from sktl.backbones._mini import MINI_PREPROCESSING, sktl_mini

Pictures = list[Image.Image]
Split = tuple[Pictures, np.ndarray, Pictures, np.ndarray]


def hymenoptera(data: Path) -> Split:
    """Photos of ants and bees: the PyTorch tutorial's 244 to learn from, 153 to test on."""
    parts = []
    for part in ("train", "val"):
        files = sorted((data / "hymenoptera" / part).glob("*/*.jpg"))
        parts += [[Image.open(file).convert("RGB") for file in files], np.array([file.parent.name for file in files])]
    return tuple(parts)


def fashion_mnist(data: Path) -> Split:
    """Fashion-MNIST: the first 2,000 training and 2,000 test pictures."""
    parts = []
    for part in ("train", "t10k"):
        folder = data / "fashion_mnist" / "FashionMNIST" / "raw"
        pixels = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
        labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
        parts += [[Image.fromarray(p) for p in pixels.reshape(-1, 28, 28)[:2000]], labels[:2000]]
    return tuple(parts)


def digits(data: Path) -> Split:
    """scikit-learn's 8 x 8 digits: the even half to learn from, the odd half to test on."""
    del data
    pixels, labels = load_digits(return_X_y=True)
    pictures = [Image.fromarray(p) for p in (pixels.reshape(-1, 8, 8) * 255 / 16).round().astype(np.uint8)]
    return pictures[::2], labels[::2], pictures[1::2], labels[1::2]


def cifar10(data: Path) -> Split:
    """CIFAR-10's test part (JPEG files), half of it to learn from: the training part was seen, without labels."""
    packed = np.load(data / "cifar10_jpeg" / "test.npz")
    raw, offsets, labels = packed["blob"].tobytes(), packed["offsets"], packed["labels"]
    pictures = [Image.open(io.BytesIO(raw[a:b])).convert("RGB") for a, b in pairwise(offsets)]
    return pictures[::2], labels[::2], pictures[1::2], labels[1::2]


SETS: dict[str, Callable[[Path], Split]] = {f.__name__: f for f in (hymenoptera, fashion_mnist, digits, cifar10)}


def probe(train: np.ndarray, test: np.ndarray, y_train: np.ndarray, y_test: np.ndarray) -> float:
    """Return the test accuracy of a standardised logistic regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}
    with catch_warnings():
        simplefilter("ignore")  # pixels at C=1 may stop at max_iter, which the grid then does not choose
        return float(GridSearchCV(model, grid, cv=3).fit(train, y_train).score(test, y_test))


def raw_pixels(pictures: Pictures) -> np.ndarray:
    """Return pixels as they are, or at 64 x 64 where sizes differ."""
    if len({picture.size for picture in pictures}) > 1:
        return prepared(pictures).reshape(len(pictures), -1)
    return np.stack([np.asarray(picture).ravel() for picture in pictures]).astype(np.float32)


def prepared(pictures: Pictures) -> np.ndarray:
    """Resize and crop as for ``sktl_mini``; (n, 64, 64, 3) uint8."""
    return np.stack([MINI_PREPROCESSING.apply(np.asarray(picture.convert("RGB"))) for picture in pictures])


def untrained(train: Pictures) -> PretrainedFeatureExtractor:
    """Return the extractor of the same network with random weights, BatchNorm adapted to the training pictures."""
    torch.manual_seed(0)
    network = sktl_mini().train()
    pixels = torch.from_numpy(prepared(train)[:500]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MINI_PREPROCESSING.mean, MINI_PREPROCESSING.std))
    with torch.no_grad():
        for _ in range(10):
            for batch in ((pixels - mean) / std).split(100):
                network(batch)
    return PretrainedFeatureExtractor(network.eval(), layers="layer4", preprocessing=MINI_PREPROCESSING)


def measured(extractor: PretrainedFeatureExtractor, split: Split) -> float:
    """Return the test accuracy of a probe of the network's features."""
    train, y_train, test, y_test = split
    return probe(extractor.fit_transform(train), extractor.transform(test), y_train, y_test)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=Path("sktl/backbones/sktl_mini.safetensors"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only-mini", action="store_true", help="leave the other three columns out")
    args = parser.parse_args()
    torch.set_num_threads(2)
    print(
        "| set | raw pixels | random weights | sktl_mini | MobileNetV2 | share of the way |\n|---|---|---|---|---|---|"
    )
    teacher_weights = args.data / "mobilenet_v2_imagenet" / "model.safetensors"
    for name in args.sets:
        train, y_train, test, y_test = split = SETS[name](args.data)
        mini = measured(PretrainedFeatureExtractor("sktl_mini", weights=args.weights), split)
        if args.only_mini:
            print(f"| {name} | | | {mini:.3f} | | |", flush=True)
            continue
        raw = probe(raw_pixels(train), raw_pixels(test), y_train, y_test)
        random = measured(untrained(train), split)
        teacher = measured(
            PretrainedFeatureExtractor("mobilenet_v2", weights=teacher_weights, preprocessing=Preprocessing(256, 224)),
            split,
        )
        share = f"{(mini - raw) / (teacher - raw):.0%}" if teacher > raw else "-"
        print(f"| {name} | {raw:.3f} | {random:.3f} | {mini:.3f} | {teacher:.3f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
