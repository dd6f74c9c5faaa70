"""Pictures per second against the plain eager loop: arrays, JPEG files, a cold start, a warm cache.

Run: python benchmarks/throughput.py [arrays] [files] [cold] [warm]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import (
    eager_model,
    eager_transform,
    imagenet_paths,
    machine,
    paired,
    photo_arrays,
    pooled_features,
    seconds,
    show,
    weights_path,
)
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sktl import PretrainedFeatureExtractor
from sktl.backbones import load_backbone

N = 192
BATCH = 32


class Photos(Dataset):
    """The usual data set: PIL, then the weights' transforms."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def eager_arrays(model, transform, arrays, batch=BATCH) -> np.ndarray:
    """The usual loop over an array in memory."""
    with torch.inference_mode():
        return np.concatenate(
            [
                pooled_features(model, transform(torch.from_numpy(arrays[i : i + batch]).permute(0, 3, 1, 2))).numpy()
                for i in range(0, len(arrays), batch)
            ]
        )


def eager_files(model, transform, paths) -> np.ndarray:
    """The usual loop over files, with one loading process for each core."""
    loader = DataLoader(Photos(paths, transform), batch_size=BATCH, num_workers=2)
    with torch.inference_mode():
        return np.concatenate([pooled_features(model, batch).numpy() for batch in loader])


def arrays() -> None:
    """Arrays in memory, and the share of the machine's own matrix-product rate."""
    pictures = photo_arrays(N)
    a = torch.randn(2048, 2048)
    rows = []
    for name, weights in (("mobilenet_v2", weights_path("mobilenet_v2")), ("resnet18", None)):
        model, transform = eager_model(name, weights), eager_transform(name, weights)
        macs = load_backbone(name, weights=weights).macs(load_backbone(name, weights=weights).stages[-1].name)
        for engine, batch in (("torch", BATCH), ("torch", "auto"), ("onnxruntime", BATCH), ("onnxruntime", "auto")):
            ours = PretrainedFeatureExtractor(name, weights=weights, engine=engine, batch_size=batch, cache=None).fit(
                pictures
            )
            t = paired(lambda: eager_arrays(model, transform, pictures), lambda: ours.transform(pictures))
            matmul = 2 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(20))
            share = 2 * macs * N / t["ours"] / matmul
            rows.append(
                (
                    name,
                    engine,
                    batch,
                    N / t["rival"],
                    N / t["ours"],
                    t["ratio"],
                    f"{t['min']:.1f}-{t['max']:.1f}",
                    f"{share:.0%}",
                )
            )
    header = ("network", "engine", "batch_size", "eager /s", "sktl /s", "ratio", "range", "of matmul rate")
    show(f"{N} arrays of 256 x 256 in memory, eager with batches of {BATCH}", header, rows)


def files() -> None:
    """JPEG files."""
    paths = imagenet_paths(N)
    rows = []
    for name in ("mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"):
        model, transform = eager_model(name, weights_path(name)), eager_transform(name, weights_path(name))
        for engine in ("torch", "onnxruntime"):
            ours = PretrainedFeatureExtractor(name, weights=weights_path(name), engine=engine, cache=None).fit(paths)
            t = paired(lambda: eager_files(model, transform, paths), lambda: ours.transform(paths))
            rows.append((name, engine, N / t["rival"], N / t["ours"], t["ratio"], f"{t['min']:.1f}-{t['max']:.1f}"))
    show(
        f"{N} JPEG files against PIL, transforms, DataLoader, eager",
        ("network", "engine", "eager /s", "sktl /s", "ratio", "range"),
        rows,
    )


COLD = """
import sys, time
sys.path.insert(0, {folder!r})
import numpy, torch, torchvision, sklearn
import common, throughput, sktl
paths = common.imagenet_paths(32)
weights = common.weights_path("mobilenet_v2")
def ours():
    from sktl import PretrainedFeatureExtractor
    PretrainedFeatureExtractor("mobilenet_v2", weights=weights, cache=None).fit_transform(paths)
def eager():
    transform = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    throughput.eager_files(common.eager_model("mobilenet_v2", weights), transform, paths)
start = time.perf_counter()
{which}()
print(time.perf_counter() - start)
"""


def cold() -> None:
    """32 photos in a new process, with the network to load and no exported graph on disk; imports not counted."""
    with tempfile.TemporaryDirectory() as home:

        def run(which: str) -> float:
            code = COLD.format(folder=str(Path(__file__).parent), which=which)
            out = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "SKTL_HOME": home},
                capture_output=True,
                text=True,
                check=True,
            )
            return float(out.stdout)

        pairs = [(run("eager"), run("ours")) for _ in range(5)]
    rows = [
        (
            f"{np.median([a for a, _ in pairs]):.2f} s",
            f"{np.median([b for _, b in pairs]):.2f} s",
            float(np.median([b / a for a, b in pairs])),
        )
    ]
    show("32 photos, everything cold", ("eager", "sktl", "sktl / eager"), rows)


def warm() -> None:
    """A second transform."""
    paths = imagenet_paths(500)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("auto", folder):
            ours = PretrainedFeatureExtractor("mobilenet_v2", weights=weights_path("mobilenet_v2"), cache=cache).fit(
                paths
            )
            first = seconds(lambda: ours.transform(paths))
            again = float(np.median([seconds(lambda: ours.transform(paths)) for _ in range(7)]))
            rows.append(
                (
                    "memory" if cache == "auto" else "directory",
                    f"{first:.2f} s",
                    f"{1000 * again:.1f} ms",
                    first / again,
                )
            )
    show("A second transform of 500 photos", ("cache", "first", "again", "ratio"), rows)


if __name__ == "__main__":
    print(machine())
    for part in sys.argv[1:] or ("arrays", "files", "cold", "warm"):
        {"arrays": arrays, "files": files, "cold": cold, "warm": warm}[part]()
