"""Augmented views: drawn in batches against one image after the other, with the same recipe.

Run: python benchmarks/views.py
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from ants_and_bees import photos
from common import CLOTHES, clothes, machine, paired, photo_arrays, pretrained, show
from torchvision.transforms import v2

from sktl import FineTunedClassifier
from sktl._frozen._activations import fetch_activations
from sktl._frozen._augmentation import Augmentation, _crop_flip, make_augmentation
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._frozen._views import fetch_views
from sktl._images import ImageFormat, Images
from sktl.backbones import load_backbone

COLORS = [v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomGrayscale(0.2)]


def one_by_one(recipe: str, n_channels: int = 3) -> Callable:
    """The recipe as a torchvision transform of one image: what `augment` was before."""
    colors = COLORS if n_channels == 3 else [v2.ColorJitter(0.4, 0.4)]
    return v2.Compose([_crop_flip(None), *(colors if recipe == "simclr" else [])])


def rate(size: int, pixels: np.ndarray, recipe: str, batch_size: int, n_pairs: int) -> dict[str, float]:
    """Views per second of an epoch, one image after the other and in batches."""
    n, n_channels = len(pixels), pixels.shape[3]
    backbone = load_backbone(
        "sktl_mini",
        in_channels=n_channels,
        preprocessing={"resize_size": size * 8 // 7 if size > 100 else size, "crop_size": size},
    )
    images = Images(pixels, ImageFormat(kind="batch", channels="last", value_range=(0, 255)), n_channels)
    prefix, live = (FrozenPrefix(PrefixSpec(backbone, ()), Runtime(cache=cache)) for cache in ("auto", None))
    transform = Augmentation(one_by_one(recipe, n_channels), 0)
    rival = fetch_activations(live, images, stored=False, augmentation=transform)
    ours = fetch_views(prefix, images, make_augmentation(recipe, seed=0, backbone=backbone))

    def epoch(activations) -> None:
        for start in range(0, n, batch_size):
            activations.batch(range(start, min(start + batch_size, n)), 0)

    times = paired(lambda: epoch(rival), lambda: epoch(ours), n_pairs)
    return {"rival": n / times["rival"], "ours": n / times["ours"], **{x: times[x] for x in ("ratio", "min", "max")}}


def views(options: argparse.Namespace) -> None:
    """Views per second, by size, recipe and threads."""
    rows = []
    gray = clothes("train")[0][: options.images].reshape(-1, 28, 28, 1)
    sources = {
        28: (gray, "clothes, gray"),
        32: (photo_arrays(min(options.images, 1000), 32), "colors"),
        224: (photo_arrays(min(options.images // 8, 128), 500), "photos of 500 x 500 pixels in memory"),
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size, (pixels, kind) in sources.items():
            for recipe in ("crop_flip", "simclr"):
                t = rate(size, pixels, recipe, 64 if size > 100 else 256, options.pairs)
                spread = f"{t['min']:.1f}-{t['max']:.1f}"
                rows.append(
                    (size, kind, recipe, threads, f"{t['rival']:,.0f}", f"{t['ours']:,.0f}", t["ratio"], spread)
                )
    header = ("pixels", "images", "recipe", "threads", "views/s one by one", "in batches", "times as fast", "range")
    show("Views of an epoch after the first", header, rows)


def seconds_per_epoch(model: FineTunedClassifier, X, y) -> float:
    """Median over the epochs after the first, which may warm up."""
    return float(np.median(model.fit(X, y).history_[1:, "dur"]))


def epochs(options: argparse.Namespace) -> None:
    """Seconds of an epoch of fine-tuning."""
    torch.set_num_threads(1)
    X, y = clothes("train")
    some = slice(None, options.images)
    small = {"weights": None, **CLOTHES, "batch_size": 128}
    mobile = {"backbone": "mobilenet_v2", **pretrained("mobilenet_v2")}
    paths, labels = (rows[:: -(-244 // options.photos)] for rows in photos("train"))
    jobs = {
        f"sktl_mini, 28 px, all stages, {options.images} images": (small, X[some], y[some]),
        f"mobilenet_v2, 224 px, all frozen, {len(paths)} photos": ({**mobile, "freeze_depth": "all"}, paths, labels),
        f"mobilenet_v2, 224 px, freeze_depth=-2, {len(paths)} photos": ({**mobile, "freeze_depth": -2}, paths, labels),
    }
    rows = []
    for name, (how, X_job, y_job) in jobs.items():
        times = [
            seconds_per_epoch(
                FineTunedClassifier(augment=augment, max_epochs=options.epochs, random_state=0, **how), X_job, y_job
            )
            for augment in (one_by_one("crop_flip"), "crop_flip", None)
        ]
        rows.append((name, *times, times[0] / times[1]))
    header = ("network", "one by one", 'in batches, augment="crop_flip"', "without augmentation", "times as fast")
    show("Seconds per epoch of FineTunedClassifier, one thread", header, rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--photos", type=int, default=122)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few images, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.images, options.photos, options.epochs, options.pairs = 128, 12, 2, 1
    views(options)
    epochs(options)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
