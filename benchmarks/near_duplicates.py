"""Near-duplicates of photos: the share of changed copies that features and thumbnails recognize.

A copy is recognized if its similarity to its original is at least the threshold: the cosine of features, or the
correlation of grayscale thumbnails of 16 x 16 pixels. The first row counts pairs of different photos that reach it.

Run: python benchmarks/near_duplicates.py [--size 400]
"""

import argparse
import io

import numpy as np
from common import imagenet_paths, machine, pretrained, show
from PIL import Image, ImageEnhance, ImageOps
from sklearn.preprocessing import normalize

from sktl import PretrainedFeatureExtractor

THRESHOLDS = {"sktl_mini": 0.95, "mobilenet_v2": 0.8, "thumbnails": 0.9}


def recompressed(image: Image.Image) -> Image.Image:
    """A JPEG file of low quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


def cropped(share: float):
    """Return a function that removes a share of the sides at each edge."""

    def crop(image: Image.Image) -> Image.Image:
        x, y = (int(side * share) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    return crop


COPIES = {
    "JPEG quality 30": recompressed,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "grayscale": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "5 % cropped at each edge": cropped(0.05),
    "15 % cropped at each edge": cropped(0.15),
    "white border of 20 pixels": lambda image: ImageOps.expand(image, 20, "white"),
}


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    """Centered rows of 256 pixels."""
    rows = np.stack([np.asarray(image.convert("L").resize((16, 16)), float).ravel() for image in images])
    return rows - rows.mean(axis=1, keepdims=True)


def main(size: int) -> None:
    """Print one table."""
    photos = [Image.open(path).convert("RGB") for path in imagenet_paths()[-size:]]
    photos = [ImageOps.scale(photo, 256 / min(photo.size)) for photo in photos]
    networks = {
        "sktl_mini": PretrainedFeatureExtractor(cache=None),
        "mobilenet_v2": PretrainedFeatureExtractor("mobilenet_v2", cache=None, **pretrained("mobilenet_v2")),
    }
    signals = {name: network.fit(photos).transform for name, network in networks.items()}
    signals["thumbnails"] = thumbnails
    originals = {name: normalize(signal(photos)) for name, signal in signals.items()}
    rows = []
    for name, row in originals.items():
        pairs = (row @ row.T)[np.triu_indices(size, 1)]
        rows.append(f"{(pairs >= THRESHOLDS[name]).sum()} of {len(pairs):,} (largest {pairs.max():.2f})")
    table = [("different photos", *rows, "")]
    for kind, change in COPIES.items():
        copies = [change(photo) for photo in photos]
        found = [
            (normalize(signal(copies)) * originals[name]).sum(axis=1) >= THRESHOLDS[name]
            for name, signal in signals.items()
        ]
        either = found[1] | found[2]
        table.append((kind, *(f"{share.mean():.0%}" for share in (*found, either))))
        print(*table[-1], flush=True)
    header = ("copies", *(f"{name} ≥ {limit}" for name, limit in THRESHOLDS.items()), "mobilenet_v2 or thumbnails")
    show(f"Near-duplicates of {size} ImageNet photos", header, table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=400)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    main(arguments.size)
