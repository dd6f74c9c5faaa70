"""What compression saves and what it costs: pruning, filters, integers, codebooks, low rank, and a stack of three.

Real networks and pictures: MobileNetV2 on ants and bees and on 1,000 photos of ImageNet's classes, LeNet-300-100 and a
small VGG on Fashion-MNIST. Accuracies are on pictures that no network has learnt from. The settings here (scopes,
rounds, epochs, rates) were chosen in a few trials with a look at them, once for all seeds. Bytes are those of the
pickled estimator; times are medians of one process with one thread, originals and compressed ones in turn, both in
torch, but for int8.

Run: OMP_NUM_THREADS=1 python benchmarks/compression.py [han filters integers codebook low_rank stack] [--seeds 5]
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import torch
from common import clothes, imagenet_paths, machine, pretrained, require_data, show, spread, weights_path
from lottery_ticket import SETTINGS, lenet
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from sktl import FineTunedClassifier
from sktl._estimators._footprint import footprints
from sktl.compression import LowRankClassifier, PrunedClassifier, QuantizedClassifier


def photos(part: str) -> tuple[list[str], list[str]]:
    """Paths and labels of ants and bees."""
    paths = sorted((require_data() / "hymenoptera" / part).glob("*/*.jpg"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def ants_and_bees() -> FineTunedClassifier:
    """MobileNetV2, its last stages fine-tuned to ants and bees."""
    network = FineTunedClassifier(
        "mobilenet_v2", **pretrained("mobilenet_v2"), max_epochs=5, engine="torch", random_state=0
    )
    return network.fit(*photos("train"))


def milliseconds(models: dict[str, object], X) -> dict[str, float]:
    """Median time for one picture of each model, in turn."""
    return {name: cost.milliseconds for name, cost in footprints(models, X, n_repeats=7).items()}


def written(model) -> int:
    """Bytes of the file that a model is written to."""
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(model, file)
        file.flush()
        return os.stat(file.name).st_size


def compared(title: str, models: dict[str, object], X_test, y_test, timed) -> None:
    """Accuracy, agreement with the first model, size and time of each."""
    first = next(iter(models.values()))
    answers = first.predict(X_test)
    times = milliseconds(models, timed)
    # Without a network or head that was a parameter, which the compressed ones leave behind when they are pickled.
    reference = list(models.values())[1].footprint_.to_dict()["nbytes"][0]
    rows = []
    for name, model in models.items():
        found = model.predict(X_test)
        size = written(model) if model is not first else reference
        counts = model.footprint_.to_dict() if hasattr(model, "footprint_") else None  # the original's row comes first
        claimed = counts["nbytes"][-1] if counts else size
        macs = f"{counts['macs'][-1] / counts['macs'][0]:.2f}" if counts else "1"
        parameters = f"{counts['nonzero'][-1] / counts['nonzero'][0]:.2f}" if counts else "1"
        rows.append(
            (
                name,
                f"{100 * np.mean(found == np.asarray(y_test)):.1f}",
                f"{100 * np.mean(found == answers):.1f}",
                parameters,
                macs,
                f"{size:,} ({size / reference:.3f})",
                f"{claimed - size:+,}",
                f"{times[name]:.2f} ({times[name] / next(iter(times.values())):.2f})",
            )
        )
    headings = ("accuracy", "agreement", "not zero", "MACs", "bytes", "claimed - written", "ms per picture")
    show(title, ("", *headings), rows)


def han(n_seeds: int) -> None:
    """Han et al. 2015 and 2016: a twelfth of the weights of LeNet-300-100 is enough, and 16 values for each layer."""
    (X, y), (X_test, y_test) = clothes("train"), clothes("t10k")
    names = (
        "dense, 12 epochs",
        "dense, 30 epochs",
        "pruned, alpha=0",
        "pruned",
        "16 values",
        "16 values, of the pruned one",
    )
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed in range(n_seeds):
        settings = {**SETTINGS, "batch_size": 128, "random_state": seed, "lr_schedule": "cosine"}
        dense = FineTunedClassifier(lenet(seed), max_epochs=12, **settings).fit(X, y)
        longer = FineTunedClassifier(lenet(seed), max_epochs=30, **settings).fit(X, y)
        amount = 1 - 1 / 12.6  # the last layer keeps its weights: 12 x of all
        pruned = PrunedClassifier(FrozenEstimator(dense), amount=amount, scope="layer", n_rounds=3, max_epochs=6)
        by_labels = clone(pruned).set_params(alpha=0)
        shared = {"scheme": "codebook", "bits": 4, "max_epochs": 6, "lr": 3e-4}
        models = (dense, longer, by_labels.fit(X, y), pruned.fit(X, y))
        models += tuple(QuantizedClassifier(FrozenEstimator(model), **shared).fit(X, y) for model in (dense, pruned))
        for name, model in zip(names, models, strict=True):
            weights = [p for p in (network_of(model)).parameters() if p.ndim > 1]
            left = sum(int(p.count_nonzero()) for p in weights) / sum(p.numel() for p in weights)
            nbytes = model.footprint_.to_dict()["nbytes"] if hasattr(model, "footprint_") else [1]
            found[name].append((model.score(X_test, y_test), left, nbytes[-1] / nbytes[0]))
        print(seed, {name: entries[-1] for name, entries in found.items()}, flush=True)
    rows = []
    for name, entries in found.items():
        accuracies, left, sizes = zip(*entries, strict=True)
        worse = [a - b[0] for a, b in zip(accuracies, found[names[0]], strict=True)]
        rows.append((name, f"{left[0]:.1%}", f"{sizes[0]:.3f}", spread(accuracies, 100), spread(worse, 100)))
    header = ("", "weights left", "bytes", "test accuracy (%)", "against dense (points)")
    show(f"LeNet-300-100, Fashion-MNIST, {n_seeds} seeds", header, rows)


def network_of(model) -> nn.Module:
    """The trained network of a classifier or a compressor."""
    return getattr(model, "estimator_", model).net_.module_


def filters(_: int) -> None:
    """MobileNetV2 with half of its multiply-accumulates."""
    (X, y), (X_test, y_test) = photos("train"), photos("val")
    network = ants_and_bees()
    models: dict[str, object] = {"original": network}
    for amount in (0.3, 0.5):
        settings = {"granularity": "filter", "unit": "macs", "criterion": "taylor", "n_rounds": 4, "max_epochs": 4}
        model = PrunedClassifier(FrozenEstimator(network), amount=amount, freeze_depth=0, **settings)
        models[f"{1 - amount:.0%} of the MACs asked for"] = model.fit(X, y)
    compared("MobileNetV2, ants and bees, filters", models, X_test, y_test, tensors_of(X_test[:32]))


def tensors_of(paths: list[str]) -> np.ndarray:
    """Photos as one array, so that decoding them is not timed."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((256, 256))) for path in paths])


def imagenet_classifier() -> tuple[FineTunedClassifier, list[str]]:
    """MobileNetV2 with the head that it was pretrained with, as a classifier of 1,000 classes."""
    state = load_file(weights_path("mobilenet_v2"))
    head = nn.Linear(1280, 1000)
    head.load_state_dict({name: state[f"classifier.1.{name}"].float() for name in ("weight", "bias")})
    network = FineTunedClassifier(
        "mobilenet_v2",
        **pretrained("mobilenet_v2"),
        head=head,
        head_init="random",
        max_epochs=0,
        engine="torch",
        random_state=0,
    )
    paths = imagenet_paths()
    return network.fit(paths, np.arange(1000)), paths


def integers(_: int) -> None:
    """MobileNetV2 in 8-bit integers."""
    network, paths = imagenet_classifier()
    calibration = paths[::5]  # 200 photos; the other 800 are judged on
    model = QuantizedClassifier(FrozenEstimator(network), freeze_depth=0, random_state=0)
    model.fit(calibration, np.arange(1000)[::5])
    others = np.flatnonzero(np.arange(1000) % 5)
    X_test, timed = [paths[i] for i in others], tensors_of(paths[:32])
    compared("MobileNetV2, 1,000 classes, 800 photos", {"float": network, "int8": model}, X_test, others, timed)
    (X, y), (X_test, y_test) = photos("train"), photos("val")
    network = ants_and_bees()
    onnx = clone(network).set_params(engine="onnxruntime", freeze_depth="all", max_epochs=5).fit(X, y)
    model = QuantizedClassifier(FrozenEstimator(network), freeze_depth=0, random_state=0).fit(X, y)
    half = QuantizedClassifier(FrozenEstimator(network), scheme="float16", freeze_depth=0).fit(X, y)
    models = {"float, torch": network, "int8": model, "float16 (stored)": half}
    compared("MobileNetV2, ants and bees", models, X_test, y_test, tensors_of(X_test[:32]))
    times = milliseconds({"ONNX Runtime, float, all stages frozen": onnx, "int8": model}, tensors_of(X_test[:32]))
    show("Against ONNX Runtime in float", ("", "ms per picture"), [(name, f"{x:.2f}") for name, x in times.items()])


def codebook(_: int) -> None:
    """16 different weights in each layer of MobileNetV2."""
    (X, y), (X_test, y_test) = photos("train"), photos("val")
    network = ants_and_bees()
    models: dict[str, object] = {"original": network}
    for epochs in (0, 8):
        model = QuantizedClassifier(
            FrozenEstimator(network), scheme="codebook", bits=4, freeze_depth=0, max_epochs=epochs, random_state=0
        )
        models[f"16 codes, {epochs} epochs"] = model.fit(X, y)
    compared("MobileNetV2, ants and bees, codebooks", models, X_test, y_test, tensors_of(X_test[:32]))


class SmallVGG(nn.Module):
    """Five 3x3 convolutions with batch norms, in VGG's manner."""

    def __init__(self):
        super().__init__()
        widths, pools = (1, 32, 64, 128, 128, 256), (True, True, False, True, True)
        blocks = []
        for n_in, n_out, has_pool in zip(widths, widths[1:], pools, strict=False):
            convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
            pool = [nn.MaxPool2d(2)] if has_pool else []
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU(), *pool))
        self.features = nn.Sequential(*blocks)
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(widths[-1], 10)

    def forward(self, x):
        """Logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def low_rank(n_seeds: int) -> None:
    """Half of the parameters of a small VGG."""
    (X, y), (X_test, y_test) = clothes("train"), clothes("t10k")
    X, y = X[:6000], y[:6000]
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(n_seeds):
        torch.manual_seed(seed)
        settings = {**SETTINGS, "lr": 2e-3, "lr_schedule": "cosine", "freeze_bn": False, "random_state": seed}
        network = FineTunedClassifier(SmallVGG(), max_epochs=8, **settings).fit(X, y)
        models: dict[str, object] = {"original": network}
        for method in ("tucker", "spatial"):
            for epochs in (0, 4):
                model = LowRankClassifier(FrozenEstimator(network), rank=0.5, method=method, max_epochs=epochs, lr=1e-3)
                models[f"{method}, {epochs} epochs"] = model.fit(X, y)
        times = milliseconds(models, X_test[:256])
        for name, model in models.items():
            counts = model.footprint_.to_dict() if hasattr(model, "footprint_") else {"parameters": [1], "macs": [1]}
            ratios = [counts[key][-1] / counts[key][0] for key in ("parameters", "macs")]
            entry = (model.score(X_test, y_test), *ratios, times[name] / times["original"])
            found.setdefault(name, []).append(entry)
        print({name: entries[-1] for name, entries in found.items()}, flush=True)
    rows = []
    for name, entries in found.items():
        accuracies, *ratios = zip(*entries, strict=True)
        rows.append((name, spread(accuracies, 100), *(f"{statistics.median(column):.2f}" for column in ratios)))
    show(f"A small VGG, rank=0.5, {n_seeds} seeds", ("", "test accuracy (%)", "parameters", "MACs", "time"), rows)


_RELOAD = """
import pickle, sys
model, X = pickle.load(open(sys.argv[1], "rb"))
pickle.dump(model.predict_proba(X), open(sys.argv[2], "wb"))
"""


def stack(_: int) -> None:
    """Three compressors, one around the other."""
    (X, y), (X_test, y_test) = photos("train"), photos("val")
    network = ants_and_bees()
    pruned = PrunedClassifier(
        FrozenEstimator(network), amount=0.3, granularity="filter", unit="macs", criterion="taylor", freeze_depth=0
    )
    low = LowRankClassifier(pruned, rank=0.7)
    models = {"original": network, "int8 of low rank of pruned": QuantizedClassifier(low, random_state=0).fit(X, y)}
    compared("Ants and bees, a stack of three", models, X_test, y_test, tensors_of(X_test[:32]))
    model = models["int8 of low rank of pruned"]
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/model.pkl", f"{folder}/answers.pkl"
        with open(source, "wb") as file:
            pickle.dump((model, X_test), file)
        subprocess.run([sys.executable, "-c", _RELOAD, source, target], check=True)
        with open(target, "rb") as file:
            same = np.array_equal(pickle.load(file), model.predict_proba(X_test))
    print(f"A new process predicts the same, to the bit: {same}. Cloned: {clone(model)!r}"[:200], flush=True)


PARTS = {function.__name__: function for function in (han, filters, integers, codebook, low_rank, stack)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.seeds)
