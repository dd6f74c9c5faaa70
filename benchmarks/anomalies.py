"""Anomaly detection: one class is normal, defects of parts and where they are, and thresholds on new normal images.

one_class   One class of Fashion-MNIST or CIFAR-10 is normal, the nine others are anomalies: mean AUROC over the ten
            classes, of 1,000 (CIFAR-10: 400) training images per class and 5,000 (1,500) test images of all classes.
layers      The same for CIFAR-10 with other layers and sizes of images, 200 training images per class.
defects     36 views of each of the 20 objects of COIL-20 are normal. Of the other 36, half get three defects each, in
            three images: a square of 4 to 7 of 32 pixels, copied from elsewhere in the image in another brightness.
            AUROC of images, and of pixels, mean over the objects.
core_set    Time and AUROC of a core set of 10 % of the patches against all patches, one detector for 10 views of each
            of the 20 objects, and the time of maps beyond the features.
thresholds  One class of Fashion-MNIST is normal (three classes in turn): share of new normal images that are flagged
            by contamination="auto", and by the quantile of the scores that a model gives its own training images.
            These are scored with one pixel changed by one, so that the detector does not recognize them. Patches with
            1,000 images: one class.

Features are kept in a temporary directory, so that each image goes through a network once.

Run: OMP_NUM_THREADS=1 python benchmarks/anomalies.py [one_class layers defects core_set thresholds]
"""

import argparse
import tempfile
from typing import Any

import numpy as np
import torch
from common import clothes, machine, pretrained, require_data, seconds, show
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from transferability_ranking import cifar

from sktl import PretrainedFeatureExtractor
from sktl.anomaly import AnomalyDetector

torch.set_num_threads(1)

STAGE = "features.{}"  # of MobileNetV2, which has 19
N_DEFECTS = 3  # different defects of each view, in images of their own


class EuclideanNeighbors(BaseEstimator):
    """Minus the mean Euclidean distance to the two nearest rows, the usual choice."""

    def fit(self, X, y=None):
        """Keep the rows."""
        self.neighbors_ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(X)
        return self

    def score_samples(self, X):
        """Return minus the mean distances."""
        return -self.neighbors_.kneighbors(X)[0].mean(1)


def mobilenet(side: int) -> dict[str, Any]:
    """MobileNetV2 for images of this many pixels."""
    weights = pretrained("mobilenet_v2")["weights"]
    return {
        "backbone": "mobilenet_v2",
        "weights": weights,
        "preprocessing": {"resize_size": side, "crop_size": side},
    }


def per_class(X: Any, y: np.ndarray, n: int) -> tuple[list, np.ndarray]:
    """The first ``n`` images of each class."""
    rows = np.concatenate([np.flatnonzero(y == label)[:n] for label in np.unique(y)])
    return [X[row] for row in rows], y[rows]


def garments(part: str, n: int) -> tuple[list, np.ndarray]:
    """Fashion-MNIST as grey images, ``n`` of each class."""
    X, y = clothes(part)
    return per_class(X.reshape(-1, 28, 28), y, n)


def one_class_aucs(detector: AnomalyDetector, train: tuple, test: tuple) -> list[float]:
    """AUROC with each class as the normal one."""
    aucs = []
    for label in np.unique(train[1]):
        fitted = clone(detector).fit([image for image, other in zip(*train, strict=True) if other == label])
        aucs.append(roc_auc_score(test[1] == label, fitted.score_samples(test[0])))
    return aucs


def auc_rows(name: str, train: tuple, test: tuple, detectors: dict[str, AnomalyDetector]) -> list[tuple]:
    """Mean and least AUROC of detectors, one row each."""
    rows = []
    for method, detector in detectors.items():
        aucs: list[float] = []
        took = seconds(lambda detector=detector, aucs=aucs: aucs.extend(one_class_aucs(detector, train, test)))
        rows.append((name, method, f"{100 * np.mean(aucs):.1f}", f"{100 * min(aucs):.1f}", f"{took:.0f}"))
    return rows


def one_class(cache: str) -> None:
    """Nearest neighbors by cosine and by Euclidean distance, Mahalanobis distance and others."""
    methods = {"knn": "knn", "mahalanobis": "mahalanobis", "Euclidean knn": EuclideanNeighbors()}
    data = [
        ("Fashion-MNIST, sktl_mini", garments("train", 1000), garments("t10k", 500), {}),
        ("CIFAR-10, MobileNetV2 at 112", cifar_table("train", 400), cifar_table("test", 150), mobilenet(112)),
    ]
    rows = []
    for name, train, test, network in data:
        detectors = {key: AnomalyDetector(**network, method=method, cache=cache) for key, method in methods.items()}
        rows += auc_rows(name, train, test, detectors)
    show("One class is normal, AUROC in %", ("images, network", "method", "mean", "least", "seconds"), rows)


def cifar_table(part: str, n: int) -> tuple[list, np.ndarray]:
    """CIFAR-10, ``n`` images of each class."""
    return per_class(*cifar(part), n)


def layers(cache: str) -> None:
    """Layers and sizes of images for CIFAR-10."""
    train, test = cifar_table("train", 200), cifar_table("test", 100)
    rows = []
    for side in (64, 112, 160):
        for layer in (-1, 16, 15, 14, 13, 10) if side == 112 else (-1, 14):
            network = {**mobilenet(side), "layers": layer, "cache": cache}
            detectors = {method: AnomalyDetector(**network, method=method) for method in ("knn", "mahalanobis")}
            rows += auc_rows(f"{side}, {STAGE.format(layer % 19)}", train, test, detectors)
    title = "CIFAR-10, MobileNetV2 by size and layers, AUROC in %"
    show(title, ("side, layers", "method", "mean", "least", "seconds"), rows)


def coil() -> tuple[np.ndarray, np.ndarray]:
    """COIL-20: 1,440 grey images of 32 x 32 pixels and the numbers of the objects."""
    archive = np.load(require_data() / "da_small" / "coil20_1_2_32x32.npz")
    return tuple(np.concatenate([archive[f"coil{part}_{name}"] for part in (1, 2)]) for name in "xy")


def with_defect(image: np.ndarray, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """The image with a square of another part of it on the object, and a mask of this square."""
    side = rng.randint(4, 8)
    on_object = np.argwhere(image > 20)
    row, column = np.clip(on_object[rng.randint(len(on_object))] - side // 2, 0, 32 - side)
    from_row, from_column = rng.randint(0, 32 - side, 2)
    patch = image[from_row : from_row + side, from_column : from_column + side].astype(float)
    image, mask = image.copy(), np.zeros(image.shape, bool)
    image[row : row + side, column : column + side] = np.clip(
        patch * rng.uniform(0.6, 1.4) + rng.uniform(-60, 60), 0, 255
    )
    mask[row : row + side, column : column + side] = True
    return image, mask


def parts(label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal views of an object; new ones without and with defects; and the masks of the defects."""
    X, y = coil()
    views, rng = X[y == label], np.random.RandomState(int(label))
    views = views[rng.permutation(len(views))]
    n = len(views) // 2
    new = [(view, np.zeros(view.shape, bool)) for view in views[n : n + n // 2]]
    new += [with_defect(view, rng) for view in views[n + n // 2 :] for _ in range(N_DEFECTS)]
    return views[:n], np.stack([image for image, _ in new]), np.stack([mask for _, mask in new])


def pixel_auc(detector: AnomalyDetector, new: np.ndarray, masks: np.ndarray) -> float:
    """AUROC of the pixels of all images."""
    maps = detector.anomaly_map(new)
    scale = maps.shape[1] // masks.shape[1]
    return roc_auc_score(masks.repeat(scale, 1).repeat(scale, 2).ravel(), maps.ravel())


def defect_aucs(detector: AnomalyDetector, labels: np.ndarray) -> tuple[float, float]:
    """Mean AUROC of images and of pixels, over the objects; NaN without maps."""
    aucs = []
    for label in labels:
        normal, new, masks = parts(label)
        fitted = clone(detector).fit(normal)
        of_pixels = pixel_auc(fitted, new, masks) if hasattr(fitted, "anomaly_map") else np.nan
        aucs.append((roc_auc_score(~masks.any((1, 2)), fitted.score_samples(new)), of_pixels))
    return tuple(100 * np.mean(aucs, 0))


def defects(cache: str) -> None:
    """Methods that score patches, beside pooled features."""
    labels = np.unique(coil()[1])
    methods = {
        "patchcore": {"method": "patchcore"},
        "patchcore, core set of 10 %": {"method": "patchcore", "max_patches": 36 * 16 * 16 // 10},
        "padim": {"method": "padim"},
        "knn": {"method": "knn"},
    }
    rows = []
    for name, network in (("sktl_mini", {}), ("MobileNetV2 at 128", mobilenet(128))):
        for key, method in methods.items():
            aucs: list[float] = []
            detector = AnomalyDetector(**network, **method, random_state=0, cache=cache)
            took = seconds(lambda detector=detector, aucs=aucs: aucs.extend(defect_aucs(detector, labels)))
            rows.append((name, key, *(f"{auc:.1f}" for auc in aucs), f"{took:.0f}"))
    show("Defects of 20 objects, AUROC in %", ("network", "method", "images", "pixels", "seconds"), rows)


def core_set(cache: str) -> None:
    """A part of the patches against all of them, and maps against features."""
    y = coil()[1]
    normal = np.concatenate([parts(label)[0][:10] for label in np.unique(y)])
    new, masks = (np.concatenate([parts(label)[i][12:24] for label in np.unique(y)]) for i in (1, 2))
    rows = []
    for name, network in (("sktl_mini", {}), ("MobileNetV2 at 128", mobilenet(128))):
        n_patches = len(normal) * 16 * 16
        for share in (1, 0.1):
            method = {"method": "patchcore", "max_patches": int(share * n_patches)}
            detector = AnomalyDetector(**network, **method, random_state=0, cache=cache)
            clone(detector).set_params(max_patches=100).fit(normal).score_samples(new)  # fills the cache
            scores: list[float] = []
            fit = seconds(lambda detector=detector: detector.fit(normal))
            score = seconds(lambda detector=detector, scores=scores: scores.extend(detector.score_samples(new)))
            auc = roc_auc_score(~masks.any((1, 2)), scores)
            times = (f"{fit:.1f}", f"{1000 * score / len(new):.1f}", f"{fit + score:.1f}")
            rows.append((name, f"{share:.0%} of {n_patches:,} patches", f"{100 * auc:.1f}", *times))
    header = ("network", "memory", "AUROC of images", "fit, s", "ms per image", "both, s")
    show(f"Core set: {len(normal)} normal and {len(new)} new images, features cached", header, rows)
    maps_beyond_features()


def maps_beyond_features() -> None:
    """Time of maps without a cache against that of the features alone."""
    rows = []
    for name, network in (("sktl_mini", {}), ("MobileNetV2 at 128", mobilenet(128)), ("MobileNetV2", mobilenet(224))):
        images = list(coil()[0][::12])
        for method in ("patchcore", "padim"):
            detector = AnomalyDetector(**network, method=method, random_state=0, cache=None).fit(images[:60])
            extractor = PretrainedFeatureExtractor(**network, layers=detector.layers_, cache=None)
            extractor.fit(images)
            new = images[60:]
            times = [
                (seconds(lambda: extractor.transform(new)), seconds(lambda: detector.anomaly_map(new)))
                for _ in range(4)
            ]
            features, maps = np.median(times[1:], 0) / len(new) * 1000
            rows.append((name, method, f"{features:.1f}", f"{maps:.1f}", f"{(maps - features) / features:.2f}"))
    header = ("network", "method", "features, ms per image", "maps, ms per image", "beyond / features")
    show("Maps against features, 60 normal images, no cache", header, rows)


def flagged(detector: AnomalyDetector, label: int, n: int, n_new: int) -> tuple[float, float, float]:
    """Shares of new normal images that the naive threshold and ours flag, and of the other classes that ours finds."""
    X, y = clothes("train")
    normal = X[y == label][:n].reshape(-1, 28, 28)
    X, y = clothes("t10k")
    new, others = X[y == label][:n_new].reshape(-1, 28, 28), X[y != label][::9][:n_new].reshape(-1, 28, 28)
    fitted = clone(detector).fit(normal)
    unrecognized = normal.copy()
    unrecognized[:, 0, 0] ^= 1
    scores = fitted.score_samples(new)
    naive = np.quantile(fitted.score_samples(unrecognized), 0.05)
    return (scores < naive).mean(), (fitted.predict(new) < 0).mean(), (fitted.predict(others) < 0).mean()


def thresholds(cache: str) -> None:
    """All methods with few and with many images."""
    methods = ("knn", "mahalanobis", IsolationForest(random_state=0), "patchcore", "padim")
    rows = []
    for n in (100, 1000):
        for method in methods:
            of_patches = method in ("patchcore", "padim")
            labels, n_new = ((0,), 300) if of_patches and n > 100 else ((0, 3, 7), 300 if of_patches else 1000)
            detector = AnomalyDetector(method=method, random_state=0, cache=cache)
            shares = np.mean([flagged(detector, label, n, n_new) for label in labels], 0)
            rows.append((n, str(method).split("(")[0], len(labels), *(f"{100 * share:.1f}" for share in shares)))
    header = ("normal images", "method", "classes", "naive, new normal images", '"auto"', "other classes found")
    show("Share of images that are flagged, in %; sktl_mini, Fashion-MNIST", header, rows)


PARTS = {
    "one_class": one_class,
    "layers": layers,
    "defects": defects,
    "core_set": core_set,
    "thresholds": thresholds,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    print(machine(), flush=True)
    for part in parser.parse_args().parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](folder)
