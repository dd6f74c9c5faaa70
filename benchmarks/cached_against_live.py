"""Training on stored output of the frozen stages against running them in every epoch: the same numbers?

And whether two fits of one seed are equal bit by bit, with the global generators left alone.

Run: python benchmarks/cached_against_live.py [--all] [--photos 64] [--epochs 3] [--engine auto] [--quick]
"""

import argparse
import random

import numpy as np
import torch
from ants_and_bees import photos
from common import machine, pretrained, seconds, show
from freeze_depth_search import some_photos

from sktl import FineTunedClassifier
from sktl._frozen._cache import shared_memory_cache
from sktl.backbones import load_backbone


def make(name: str, depth: int, options, cache: str | None) -> FineTunedClassifier:
    """One classifier."""
    settings = {} if name == "sktl_mini" else pretrained(name)
    return FineTunedClassifier(
        name,
        **settings,
        freeze_depth=depth,
        max_epochs=options.epochs,
        batch_size=16,
        engine=options.engine,
        cache=cache,
        random_state=0,
    )


def relative(a, b) -> str:
    """The largest difference, relative to the largest value."""
    a, b = np.asarray(a), np.asarray(b)
    return f"{np.abs(a - b).max() / np.abs(b).max():.1e}"


def compare(options) -> None:
    """Losses, outputs and predictions of both, at every freeze depth."""
    train = some_photos(options.photos)
    test = photos("val")[0][:: max(1, 153 // options.photos)]
    rows = []
    for name in options.networks:
        n_stages = len(load_backbone(name, weights=None, random_state=0).stages)
        step = 1 if options.all or n_stages < 10 else 3
        for depth in sorted({*range(n_stages, -1, -step), n_stages - 1, 0}, reverse=True):
            shared_memory_cache().clear()
            cached, live = make(name, depth, options, "auto"), make(name, depth, options, None)
            times = [seconds(lambda: model.fit(*train)) for model in (cached, live)]
            losses = [np.array(model.history_[:, "train_loss"]) for model in (cached, live)]
            logits = [model.decision_function(test) for model in (cached, live)]
            same = np.mean(cached.predict(test) == live.predict(test))
            error = np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[1]))
            rows.append((name, depth, f"{error:.1e}", relative(*logits), f"{same:.1%}", *times))
    header = (
        "network",
        "stages frozen",
        "max rel. diff. of the losses",
        "of the logits",
        "same predictions",
        "seconds, cached",
        "live",
    )
    show(f"cache='auto' against cache=None, {options.photos} photos, {options.epochs} epochs", header, rows)


def global_generators() -> tuple:
    """The states of all of them."""
    numbers = np.random.get_state()  # noqa: NPY002, it is the global one that is looked at
    return random.getstate(), numbers[1].tobytes(), numbers[2:], torch.get_rng_state().numpy().tobytes()


def repeat(options) -> None:
    """Two fits of one seed, one of them on an empty cache and one on a full one."""
    train, test = some_photos(options.photos), photos("val")[0]
    rows = []
    for name in options.networks:
        for depth in ("all", -1, -3):
            shared_memory_cache().clear()
            before = global_generators()
            first, second = (make(name, depth, options, "auto").fit(*train).predict_proba(test) for _ in range(2))
            untouched = global_generators() == before
            rows.append((name, depth, "yes" if np.array_equal(first, second) else "no", "yes" if untouched else "no"))
    header = ("network", "freeze_depth", "bit-equal probabilities", "global generators untouched")
    show("Two fits, one seed", header, rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every depth of a network of many stages, not each third")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--networks", nargs="+", default=["sktl_mini", "mobilenet_v2"])
    parser.add_argument("--quick", action="store_true", help="two epochs of 16 photos, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.photos, options.epochs = 16, 2
    compare(options)
    repeat(options)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
