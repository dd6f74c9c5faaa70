"""Pictures per second against the plain eager loop: arrays, JPEG files, a cold start, a warm cache.

Run: python benchmarks/throughput.py [arrays] [files] [cold] [warm]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from itertools import product
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
    pretrained,
    seconds,
    show,
    weights_path,
)
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sktl import PretrainedFeatureExtractor
from sktl.backbones import load_backbone

N = 128
BATCH = 32


class Photos(Dataset):
    """The usual data set: PIL, then the weights' transforms."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def eager_arrays(model, transform, arrays, memory_format=torch.contiguous_format) -> np.ndarray:
    """The usual loop over an array in memory."""
    features = []
    with torch.inference_mode():
        for start in range(0, len(arrays), BATCH):
            batch = torch.from_numpy(arrays[start : start + BATCH]).permute(0, 3, 1, 2)
            x = transform(batch).contiguous(memory_format=memory_format)
            features.append(pooled_features(model, x).numpy())
    return np.concatenate(features)


def eager_files(model, transform, paths, num_workers) -> np.ndarray:
    """The usual loop over files."""
    loader = DataLoader(Photos(paths, transform), batch_size=BATCH, num_workers=num_workers)
    with torch.inference_mode():
        return np.concatenate([pooled_features(model, batch).numpy() for batch in loader])


def best_num_workers(model, transform, paths) -> int:
    """The number of loading processes with which the usual loop is the fastest here."""
    times = {k: min(seconds(lambda: eager_files(model, transform, paths, k)) for _ in range(2)) for k in (0, 1, 2)}
    return min(times, key=times.get)


def matmul_rate(size: int = 2048) -> float:
    """Operations per second of this machine's float32 matrix product, in torch or NumPy, the best of forty."""
    a = torch.randn(size, size)
    b = a.numpy()
    return 2 * size**3 / min(min(seconds(lambda: a @ a), seconds(lambda: b @ b)) for _ in range(20))


def arrays() -> None:
    """Arrays in memory, and the share of the machine's own matrix-product rate."""
    pictures = photo_arrays(N)
    rows = []
    for name in ("mobilenet_v2", "resnet18"):
        # There are no published weights of a ResNet here; its random ones meet no denormals.
        settings = pretrained(name) if name == "mobilenet_v2" else {"weights": None, "random_state": 0}
        model, transform = eager_model(name, settings["weights"]), eager_transform()
        backbone = load_backbone(name, **settings)
        macs = backbone.macs(backbone.stages[-1].name)
        layouts = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
        for layout, engine, batch in product(layouts, ("torch", "onnxruntime"), (BATCH, "auto")):
            ours = PretrainedFeatureExtractor(name, **settings, engine=engine, batch_size=batch, cache=None)
            ours.fit(pictures)
            t = paired(
                lambda: eager_arrays(model, transform, pictures, layouts[layout]), lambda: ours.transform(pictures)
            )
            share = 2 * macs * N / t["ours"] / matmul_rate()
            spread = f"{t['min']:.1f}-{t['max']:.1f}"
            rows.append(
                (name, layout, engine, batch, N / t["rival"], N / t["ours"], t["ratio"], spread, f"{share:.0%}")
            )
    header = (
        "network",
        "eager's layout",
        "engine",
        "batch_size",
        "eager /s",
        "sktl /s",
        "ratio",
        "range",
        "of matmul rate",
    )
    show(f"{N} arrays of 256 x 256 in memory, eager with batches of {BATCH}", header, rows)


def files() -> None:
    """JPEG files."""
    paths = imagenet_paths(N)
    rows = []
    for name in ("mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"):
        model, transform = eager_model(name, weights_path(name)), eager_transform()
        workers = best_num_workers(model, transform, paths)
        for engine in ("torch", "onnxruntime"):
            ours = PretrainedFeatureExtractor(name, **pretrained(name), engine=engine, cache=None).fit(paths)
            t = paired(lambda: eager_files(model, transform, paths, workers), lambda: ours.transform(paths))
            spread = f"{t['min']:.1f}-{t['max']:.1f}"
            rows.append((name, engine, workers, N / t["rival"], N / t["ours"], t["ratio"], spread))
    header = ("network", "engine", "num_workers of eager", "eager /s", "sktl /s", "ratio", "range")
    show(f"{N} JPEG files against PIL, transforms, DataLoader, eager", header, rows)


COLD = """
import sys, time
sys.path.insert(0, {folder!r})
import numpy, torch, torchvision, sklearn
import common, throughput
from sktl import PretrainedFeatureExtractor
paths = common.imagenet_paths(32)
def sktl():
    PretrainedFeatureExtractor("mobilenet_v2", **common.pretrained("mobilenet_v2"), cache=None).fit_transform(paths)
def eager():
    model = common.eager_model("mobilenet_v2", common.weights_path("mobilenet_v2"))
    throughput.eager_files(model, common.eager_transform(), paths, 0)
start = time.perf_counter()
{which}()
print(time.perf_counter() - start)
"""


def cold() -> None:
    """32 photos in a new process, with the network to load and no exported graph on disk; imports not counted."""
    with tempfile.TemporaryDirectory() as home:

        def run(which: str) -> float:
            code = COLD.format(folder=str(Path(__file__).parent), which=which)
            env = {**os.environ, "SKTL_HOME": home}
            command = [sys.executable, "-c", code]
            return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)

        run("eager"), run("sktl")
        pairs = [(run("eager"), run("sktl")) for _ in range(5)]
    eager, ours, ratio = (statistics.median(x) for x in zip(*((a, b, b / a) for a, b in pairs), strict=True))
    show("32 photos, everything cold", ("eager, s", "sktl, s", "sktl / eager"), [(eager, ours, ratio)])


def warm() -> None:
    """A second transform."""
    paths = imagenet_paths(500)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("auto", folder):
            ours = PretrainedFeatureExtractor("mobilenet_v2", **pretrained("mobilenet_v2"), cache=cache).fit(paths)
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
