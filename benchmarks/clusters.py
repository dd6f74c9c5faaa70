"""Clusters of unlabeled images: k-means and spectral clustering of features and of pixels, compared with the classes.

Each number is the normalized mutual information (NMI) of clusters and classes: 0 for random clusters, 1 for the
classes themselves. The algorithms get the number of classes and no labels. Features have unit length, as in the guide.

Run: python benchmarks/clusters.py [--size 5000] [--seeds 5]
"""

import argparse
import io
import warnings
from itertools import pairwise

import numpy as np
from common import clothes, machine, pretrained, require_data, show, spread
from PIL import Image
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import normalized_mutual_info_score
from sklearn.preprocessing import normalize

from sktl import PretrainedFeatureExtractor

Table = tuple[list, np.ndarray]


def garments(size: int) -> Table:
    """Fashion-MNIST, test part, as grayscale arrays."""
    X, y = clothes("t10k")
    return list(X.reshape(-1, 28, 28)[:size]), y[:size]


def cifar(size: int) -> Table:
    """CIFAR-10, test part, as JPEG files in memory."""
    archive = np.load(require_data() / "cifar10_jpeg" / "test.npz")
    blob, offsets = archive["blob"].tobytes(), archive["offsets"][: size + 1]
    return [blob[a:b] for a, b in pairwise(offsets)], archive["labels"][:size]


def photos(size: int) -> Table:
    """Paths of photos of seven classes."""
    paths = sorted((require_data() / "pacs" / "photo").glob("*/*.jpg"))
    rows = np.random.default_rng(0).permutation(len(paths))[:size]
    return [str(paths[row]) for row in rows], np.array([paths[row].parent.name for row in rows])


def pixels(image) -> np.ndarray:
    """One image as a row of numbers: 28 x 28 as it is, others as 32 x 32 x 3."""
    if isinstance(image, np.ndarray):
        return image.ravel() / 255.0
    file = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    return np.asarray(file.convert("RGB").resize((32, 32))).ravel() / 255.0


def agreement(cluster, rows: np.ndarray, labels: np.ndarray, seeds: int) -> list[float]:
    """NMI of clusters and classes, for each seed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")  # single images without neighbors
        return [
            normalized_mutual_info_score(labels, cluster.set_params(random_state=seed).fit_predict(rows))
            for seed in range(seeds)
        ]


def main(size: int, seeds: int) -> None:
    """Print one table."""
    networks = {
        "sktl_mini": PretrainedFeatureExtractor(),
        "mobilenet_v2": PretrainedFeatureExtractor("mobilenet_v2", **pretrained("mobilenet_v2")),
    }
    rows = []
    for name, load, used in (
        ("Fashion-MNIST", garments, ("sktl_mini",)),
        ("CIFAR-10", cifar, ("sktl_mini",)),
        ("photos of seven classes", photos, ("sktl_mini", "mobilenet_v2")),
    ):
        X, y = load(size)
        plain = np.stack([pixels(image) for image in X])
        tables = {"pixels": plain, "pixels, unit length": normalize(plain)}
        tables |= {network: normalize(networks[network].fit_transform(X)) for network in used}
        for columns, table in tables.items():
            k_means = KMeans(len(set(y)), n_init=3)
            spectral = SpectralClustering(len(set(y)), affinity="nearest_neighbors")
            found = [spread(agreement(cluster, table, y, seeds), digits=3) for cluster in (k_means, spectral)]
            rows.append((name, len(y), columns, *found))
            print(*rows[-1], flush=True)
    show("NMI of clusters and classes", ("images", "n", "columns", "k-means", "spectral"), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    main(arguments.size, arguments.seeds)
