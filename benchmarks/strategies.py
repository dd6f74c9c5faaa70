"""The five ways to use a pretrained network, on few and many pictures of known and unknown kinds.

Run: OMP_NUM_THREADS=1 python benchmarks/strategies.py [--network mobilenet_v3_small] [--most 1500]
"""

import argparse
import gzip
import json
import time

import numpy as np
from common import machine, require_data, show
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transferability_ranking import Table, cifar, extractor, folders, garments, halves, some

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.selection import domain_distance, probe_score

N_TEST = 400


def handwriting() -> Table:
    """MNIST's test set."""
    folder = require_data() / "mnist" / "MNIST" / "raw"
    pixels, labels = (
        gzip.decompress(next(folder.glob(f"t10k-{name}*gz")).read_bytes()) for name in ("images", "labels")
    )
    X = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return list(X), np.frombuffer(labels, np.uint8, offset=8).astype(int)


def sets() -> dict[str, tuple[Table, Table]]:
    """Pictures to learn from and others to judge by."""
    return {
        "ants and bees": (folders("hymenoptera/train"), folders("hymenoptera/val")),
        "photos": halves(folders("pacs/photo")),
        "CIFAR-10": (cifar("train"), cifar("test")),
        "sketches": halves(folders("pacs/sketch")),
        "clothes": (garments("train"), garments("t10k")),
        "handwriting": halves(handwriting()),
    }


def pixels(X: list) -> np.ndarray:
    """32 x 32 x 3 numbers for each picture."""
    made = PretrainedFeatureExtractor(preprocessing={"resize_size": 32, "crop_size": 32})
    from sktl._engine._prefix import FrozenPrefix

    images = made._fit(X)
    (found,) = FrozenPrefix(made.backbone_, (), cache=None).run(images)
    return found.reshape(len(found), -1) / 255.0


def linear() -> object:
    """A simple model."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / 30, max_iter=1000))


def strategies(network: str, train: Table, test: Table) -> dict[str, object]:
    """Accuracy of each on other pictures, and what there was to see before."""
    (X, y), (X_test, y_test) = train, test
    own = extractor(network)
    settings = {"weights": own.weights, "preprocessing": own.preprocessing, "random_state": 0}
    found: dict[str, object] = {"n": len(y), "n_classes": len(np.unique(y))}
    shift = domain_distance(X, own)
    found |= {"distance": shift.distance, "confidence": shift.confidence}
    stages = [stage.name for stage in own.fit(X).backbone_.stages]
    probes, accuracies = {}, {}
    for stage in stages[len(stages) // 3 :]:
        reader = PretrainedFeatureExtractor(**{**own.get_params(), "layers": stage}).fit(X)
        features = reader.transform(X).astype(np.float64)
        probes[stage] = probe_score(features, y, random_state=0)
        if stage != stages[-1]:
            accuracies[stage] = linear().fit(features, y).score(reader.transform(X_test).astype(np.float64), y_test)
    found |= {"probes": probes, "probe of pixels": probe_score(pixels(X), y, random_state=0), "layers": accuracies}
    earlier = max(stages[len(stages) // 3 : -1], key=probes.__getitem__)
    found["earlier layer"] = accuracies[earlier]
    found["pixels"] = linear().fit(pixels(X), y).score(pixels(X_test), y_test)
    ways = {
        "all frozen": {"freeze_depth": "all"},
        "last stages": {"freeze_depth": -4},
        "all at a tenth": {"freeze_depth": 0, "lr": 5e-5},
    }
    for name, params in ways.items():
        start = time.perf_counter()
        found[name] = FineTunedClassifier(network, **settings, **params).fit(X, y).score(X_test, y_test)
        found[f"seconds, {name}"] = round(time.perf_counter() - start, 1)
    return found


def main(network: str, most: int) -> None:
    """Print what each strategy gives in each cell."""
    rows = []
    names = ("all frozen", "earlier layer", "last stages", "all at a tenth", "pixels")
    for title, (train, test) in sets().items():
        test = some(test, N_TEST)
        n_classes = len(np.unique(train[1]))
        for size in (10 * n_classes, min(most, len(train[1]))):
            found = strategies(network, some(train, size), test)
            print(json.dumps({"set": title, **found}), flush=True)
            rows.append((title, size, f"{found['distance']:.2f}", *(f"{found[name]:.3f}" for name in names)))
    show(network, ("set", "pictures", "distance", *names), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="mobilenet_v3_small")
    parser.add_argument("--most", type=int, default=1500)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    main(arguments.network, arguments.most)
