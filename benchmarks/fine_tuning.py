"""Ants and bees, fine-tuned with few lines: accuracy over seeds; and all frozen, against features and a classifier.

Run: python benchmarks/fine_tuning.py [--seeds 5] [--pairs 5] [--photos 244] [--quick]
"""

import argparse
import gc

import numpy as np
from ants_and_bees import photos
from common import machine, paired, pretrained, show
from freeze_depth_search import some_photos
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._frozen._cache import shared_memory_cache


def settings(name: str) -> dict:
    """What a network needs to be loaded here."""
    return {} if name == "sktl_mini" else pretrained(name)


def accuracy(options) -> None:
    """Mean and spread of the accuracy on ``val`` over seeds."""
    train, val = some_photos(options.photos), photos("val")
    rows = []
    for name in options.networks:
        for depth in (-1, "all", -3):
            models = [
                FineTunedClassifier(
                    name, **settings(name), freeze_depth=depth, max_epochs=options.epochs, random_state=k
                )
                for k in range(options.seeds)
            ]
            scores = np.array([model.fit(*train).score(*val) for model in models])
            what = "-1 (default)" if depth == -1 else str(depth)
            figures = (f"{figure:.3f}" for figure in (scores.mean(), scores.std(ddof=1), scores.min(), scores.max()))
            rows.append((name, what, *figures))
    title = (
        f"Ants and bees, {options.photos} to learn from, 153 to test on, {options.epochs} epochs, {options.seeds} seeds"
    )
    show(title, ("network", "freeze_depth", "mean accuracy on val", "standard deviation", "min", "max"), rows)


def all_frozen(options) -> None:
    """Fits of the head alone, against feature extraction and logistic regression; caches empty before each."""
    train, val = some_photos(options.photos), photos("val")
    rows = []
    for name in options.networks:
        pipe = make_pipeline(
            PretrainedFeatureExtractor(name, **settings(name)),
            StandardScaler(),
            LogisticRegression(C=0.01, max_iter=2000),
        )
        model = FineTunedClassifier(
            name, **settings(name), freeze_depth="all", max_epochs=options.epochs, random_state=0
        )

        def fit_anew(estimator) -> None:
            shared_memory_cache().clear()
            gc.collect()  # networks that nobody uses any more hold runners
            estimator.fit(*train)

        t = paired(lambda: fit_anew(pipe), lambda: fit_anew(model), options.pairs)
        accuracies = (f"{estimator.score(*val):.3f}" for estimator in (pipe, model))
        spread = f"{1 / t['max']:.2f}-{1 / t['min']:.2f}"
        rows.append((name, *accuracies, t["rival"], t["ours"], 1 / t["ratio"], spread))
    header = (
        "network",
        "accuracy of logistic regression",
        "of fine-tuning",
        "seconds of logistic regression",
        "of fine-tuning",
        "ratio",
        "range",
    )
    show('freeze_depth="all" against features, StandardScaler, LogisticRegression(C=0.01)', header, rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--photos", type=int, default=244)
    parser.add_argument("--epochs", type=int, default=FineTunedClassifier().max_epochs)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "sktl_mini"])
    parser.add_argument("--quick", action="store_true", help="two seeds, 24 photos, two epochs, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.pairs, options.photos, options.epochs = 2, 1, 24, 2
    accuracy(options)
    all_frozen(options)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
