"""Features against torchvision's own eager forward, and ImageNet photos classified, on real weights.

Run: python benchmarks/exactness.py
"""

import numpy as np
import torch
from common import (
    eager_model,
    eager_transform,
    imagenet_paths,
    machine,
    pooled_features,
    pretrained,
    show,
    weights_path,
)
from PIL import Image

from sktl import PretrainedFeatureExtractor

NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1")


def torchvision_features(name: str, paths: list[str]) -> np.ndarray:
    """The plain way: PIL, the weights' transforms, eager network."""
    model, transform = eager_model(name, weights_path(name)), eager_transform()
    with torch.inference_mode():
        batches = [
            torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[i : i + 32]])
            for i in range(0, len(paths), 32)
        ]
        return np.concatenate([pooled_features(model, batch).numpy() for batch in batches])


def feature_difference() -> None:
    """Largest difference, relative to the largest feature, of each engine."""
    paths = imagenet_paths()[::10]
    rows = []
    for name in NETWORKS:
        expected = torchvision_features(name, paths)
        for engine in ("torch", "onnxruntime"):
            extractor = PretrainedFeatureExtractor(name, **pretrained(name), engine=engine, cache=None)
            features = extractor.fit_transform(paths)
            rows.append((name, engine, f"{np.abs(features - expected).max() / np.abs(expected).max():.1e}"))
    show("Features of 100 photos against torchvision's eager forward", ("network", "engine", "max rel. diff"), rows)


def accuracy() -> None:
    """Top-1 and top-5 of the loaded networks' own heads on 1,000 photos, through the extractor."""
    paths = imagenet_paths()
    rows = []
    for name, head in (
        ("mobilenet_v2", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("squeezenet1_1", "flatten"),
    ):
        extractor = PretrainedFeatureExtractor(name, **pretrained(name), layers=head, cache=None)
        order = np.argsort(-extractor.fit_transform(paths), axis=1)
        truth = np.arange(len(paths))[:, None]
        rows.append(
            (name, f"{100 * (order[:, :1] == truth).mean():.1f}", f"{100 * (order[:, :5] == truth).any(1).mean():.1f}")
        )
    show("1,000 ImageNet photos", ("network", "top-1 %", "top-5 %"), rows)


if __name__ == "__main__":
    print(machine())
    feature_difference()
    accuracy()
