"""Rankings of networks and layers by each score, against the accuracy that a linear model reaches on other pictures.

Ten candidates: a late and a middle layer of four trained networks, and of one with random weights. Five sets of
pictures: ants and bees, photos, sketches, CIFAR-10, clothes. The yardstick is the accuracy of logistic regression on
standardised features, fitted to the pictures that the scores saw, on pictures that they did not see. The last table
has the cost of such a ranking beside training each candidate's head by 5-fold cross-validation in a plain loop, which
runs the network again for each batch; after it, how far kinds of pictures are from what three networks learnt from.

Run: OMP_NUM_THREADS=1 python benchmarks/transferability_ranking.py [ranking cost domains] [--size 500]
"""

import argparse
import gzip
from itertools import pairwise

import numpy as np
import torch
from common import (
    clothes,
    eager_model,
    eager_transform,
    imagenet_paths,
    machine,
    pooled_features,
    pretrained,
    require_data,
    seconds,
    show,
    weights_path,
)
from PIL import Image
from scipy.special import softmax
from scipy.stats import kendalltau, weightedtau
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl._frozen._spec import PrefixSpec
from sktl.selection import BackboneSelector, domain_distance, leep_score, nce_score
from sktl.selection._scores_by_name import SCORES

NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "sktl_mini", "random")
LAYERS = {"mobilenet_v2": 13, "mobilenet_v3_small": 7, "squeezenet1_1": -5, "sktl_mini": -2, "random": 7}
HEADS = {"mobilenet_v2": "classifier.1", "mobilenet_v3_small": "classifier.3", "squeezenet1_1": "flatten"}

Table = tuple[list, np.ndarray]


def extractor(network: str) -> PretrainedFeatureExtractor:
    """A candidate network, with the weights that there are."""
    if network == "random":
        return PretrainedFeatureExtractor("mobilenet_v3_small", weights=None, random_state=0)
    return PretrainedFeatureExtractor(network, **(pretrained(network) if network != "sktl_mini" else {}))


def folders(path: str) -> Table:
    """Photos whose folder is their label."""
    paths = sorted((require_data() / path).glob("*/*.jpg"))
    return [str(path) for path in paths], np.array([path.parent.name for path in paths])


def cifar(part: str) -> Table:
    """CIFAR-10 as JPEG files in memory."""
    archive = np.load(require_data() / "cifar10_jpeg" / f"{part}.npz")
    blob, offsets = archive["blob"].tobytes(), archive["offsets"]
    return [blob[a:b] for a, b in pairwise(offsets)], archive["labels"]


def garments(part: str) -> Table:
    """Fashion-MNIST as grey pictures."""
    X, y = clothes(part)
    return list(X.reshape(-1, 28, 28)), y


def handwriting() -> Table:
    """MNIST's test set."""
    folder = require_data() / "mnist" / "MNIST" / "raw"
    pixels, labels = (
        gzip.decompress(next(folder.glob(f"t10k-{name}*gz")).read_bytes()) for name in ("images", "labels")
    )
    X = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return list(X), np.frombuffer(labels, np.uint8, offset=8).astype(int)


def some(table: Table, size: int, seed: int = 0) -> Table:
    """As many rows of each class."""
    X, y = table
    if size >= len(y):
        return table
    rows, _ = train_test_split(np.arange(len(y)), train_size=size, stratify=y, random_state=seed)
    return [X[i] for i in rows], y[rows]


def halves(table: Table) -> tuple[Table, Table]:
    """Two halves of a set that comes in one piece."""
    X, y = table
    first, second = train_test_split(np.arange(len(y)), train_size=0.5, stratify=y, random_state=0)
    return ([X[i] for i in first], y[first]), ([X[i] for i in second], y[second])


def sets(size: int) -> dict[str, tuple[Table, Table]]:
    """Pictures to rank by, and others to judge the ranking by."""
    found = {
        "ants and bees": (folders("hymenoptera/train"), folders("hymenoptera/val")),
        "photos": halves(folders("pacs/photo")),
        "sketches": halves(folders("pacs/sketch")),
        "CIFAR-10": (cifar("train"), cifar("test")),
        "clothes": (garments("train"), garments("t10k")),
    }
    return {name: (some(train, size), some(test, 2 * size)) for name, (train, test) in found.items()}


def probed(train: np.ndarray, y: np.ndarray, test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy of a linear model on other pictures."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return probe.fit(train.astype(np.float64), y).score(test.astype(np.float64), y_test)


def ranking(size: int) -> None:
    """Kendall's tau of each score with the accuracy on other pictures."""
    taus: dict[str, list[str]] = {name: [] for name in (*SCORES, "leep", "nce")}
    weighted: dict[str, list[float]] = {name: [] for name in taus}
    found_sets = sets(size)
    for title, ((X, y), (X_test, y_test)) in found_sets.items():
        found: dict[tuple[str, str], dict[str, float]] = {}
        for network in NETWORKS:
            made = extractor(network).set_params(layers=[-1, LAYERS[network]]).fit(X)
            tables = [made.transform(pictures) for pictures in (X, X_test)]
            (width,), _ = PrefixSpec(made.backbone_, made.layers_, made.pooling).shapes
            for layer, part in (("last", slice(width)), ("middle", slice(width, None))):
                features, others = (table[:, part] for table in tables)
                entry = {"accuracy": probed(features, y, others, y_test)}
                for name, score in SCORES.items():
                    seed = {"random_state": 0} if name in ("nleep", "probe") else {}
                    entry[name] = score(features.astype(np.float64), y, **seed)
                if layer == "last" and network in HEADS:
                    logits = extractor(network).set_params(layers=HEADS[network]).fit_transform(X).astype(np.float64)
                    entry["leep"] = leep_score(softmax(logits, axis=1), y)
                    entry["nce"] = nce_score(logits.argmax(1), y)
                found[network, layer] = entry
        header = ["network", "layer", "accuracy", *taus]
        rows = [
            (*key, f"{entry['accuracy']:.3f}", *(f"{entry[name]:.4g}" if name in entry else "-" for name in taus))
            for key, entry in sorted(found.items(), key=lambda item: -item[1]["accuracy"])
        ]
        show(f"{title}: {len(y)} pictures to rank by, {len(y_test)} to judge by", header, rows)
        for name in taus:
            pairs = [(entry["accuracy"], entry[name]) for entry in found.values() if name in entry]
            accuracies, scores = zip(*pairs, strict=True)
            tau = weightedtau(accuracies, scores).statistic
            weighted[name].append(tau)
            taus[name].append(f"{tau:.2f} ({kendalltau(accuracies, scores).statistic:.2f})")
    rows = [(name, *taus[name], f"{np.mean(weighted[name]):.2f}") for name in taus]
    title = "Weighted Kendall's tau with the accuracy (the plain one); leep and nce of the three networks with a head"
    show(title, ["score", *found_sets, "mean, weighted"], rows)


def plain_cross_validation(network: str, paths: list[str], y: np.ndarray) -> float:
    """A head trained in each of five folds, in torch, with the network run for each batch of each epoch."""
    model, transform = eager_model(network, weights_path(network)), eager_transform()
    classes = {label: number for number, label in enumerate(np.unique(y))}
    targets = torch.tensor([classes[label] for label in y])
    scores = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(paths, y):
        head = torch.nn.LazyLinear(len(classes))
        order = torch.Generator().manual_seed(0)

        def features(rows):
            pictures = torch.stack([transform(Image.open(paths[i]).convert("RGB")) for i in rows])
            with torch.inference_mode():
                found = pooled_features(model, pictures)
            return found.clone()

        head(features(train[:2]))
        optimizer = torch.optim.Adam(head.parameters(), 1e-3)
        for _ in range(5):
            for batch in torch.as_tensor(train)[torch.randperm(len(train), generator=order)].split(32):
                loss = torch.nn.functional.cross_entropy(head(features(batch.tolist())), targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.inference_mode():
            found = torch.cat([head(features(part)) for part in np.array_split(test, max(1, len(test) // 32))])
        scores.append(float((found.argmax(1) == targets[test]).float().mean()))
    return float(np.mean(scores))


def cost(size: int) -> None:
    """A ranking of three networks and all their stages against the plain loop for their last ones alone."""
    X, y = folders("hymenoptera/train")
    X, y = some((X, y), min(size, 100))
    networks = list(HEADS)
    rows = []
    for score in ("logme", "probe"):
        selector = BackboneSelector([extractor(name).set_params(cache=None) for name in networks], score_func=score)
        took = seconds(lambda selector=selector: selector.fit(X, y))
        rows.append((f"{score}, {len(selector.ranking_.to_dict()['layer'])} candidates", took))
    plain = sum(seconds(lambda name=name: plain_cross_validation(name, X, y)) for name in networks)
    rows.append((f"plain loop, 5 folds of 5 epochs, {len(networks)} candidates", plain))
    show(
        f"{len(y)} photos of ants and bees, three networks",
        ("what", "seconds", "the loop takes"),
        [(name, f"{took:.1f}", f"{plain / took:.1f} x as long") for name, took in rows],
    )


def domains(_: int) -> None:
    """How far 60 pictures of each kind are from what the networks learnt from, and the first dozen of them."""
    found = {
        "ImageNet's classes": imagenet_paths(),
        **{name: folders(f"pacs/{name}")[0] for name in ("photo", "art_painting", "cartoon", "sketch")},
        "ants and bees": folders("hymenoptera/train")[0],
        "CIFAR-10": cifar("test")[0],
        "clothes": garments("t10k")[0],
        "handwriting": handwriting()[0],
    }
    networks = ("mobilenet_v2", "mobilenet_v3_small", "sktl_mini")
    rows = []
    for name, X in found.items():
        order = np.random.default_rng(0).permutation(len(X))
        few, many = ([X[i] for i in order[:n]] for n in (12, 60))
        pairs = [[domain_distance(some, extractor(network)).distance for some in (many, few)] for network in networks]
        rows.append((name, *(f"{of_many:.2f} ({of_few:.2f})" for of_many, of_few in pairs)))
    show("Distance of 60 pictures (of 12 of them), standard deviations", ("pictures", *networks), rows)


PARTS = {"ranking": ranking, "cost": cost, "domains": domains}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--size", type=int, default=500)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.size)
