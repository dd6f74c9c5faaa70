"""Time and memory of each network per 1,000 images: features, and the activations that a fit keeps.

Run: OMP_NUM_THREADS=1 python benchmarks/networks.py

Times are processor time of one thread for arrays in memory, with torch, and ``cache=None``. The networks without
local weights have random ones; denormal numbers count as zero, so that these do not slow them down.
"""

import math
import statistics
import time

import torch
from common import machine, photo_arrays, show, weights_path

from sktl import PretrainedFeatureExtractor
from sktl.backbones import load_backbone

N, ROUNDS = 128, 3
PRETRAINED = ["mobilenet_v3_small", "squeezenet1_1", "mobilenet_v2"]
NETWORKS = ["sktl_mini", *PRETRAINED, "efficientnet_b0", "resnet18", "resnet50", "convnext_tiny"]


def processor_seconds(extractor: PretrainedFeatureExtractor, images) -> float:
    """Return the median processor time of one pass over the images."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        extractor.transform(images)
        times.append(time.process_time() - start)
    return statistics.median(times)


def megabytes(backbone, stage: str) -> float:
    """Return the size of the output of a stage for 1,000 images, in MB of float32."""
    return 1000 * 4 * math.prod(backbone.output_shape(stage)) / 1e6


def row(name: str, images) -> tuple:
    """Return the row of one network."""
    weights = weights_path(name) if name in PRETRAINED else "default" if name == "sktl_mini" else None
    backbone = load_backbone(name, weights=weights, random_state=0)
    extractor = PretrainedFeatureExtractor(backbone, engine="torch", cache=None).fit(images)
    extractor.transform(images[:8])
    seconds = processor_seconds(extractor, images) * 1000 / N
    stages = [stage.name for stage in backbone.stages]
    features = extractor.transform(images[:1]).nbytes * 1000 / 1e6
    n_parameters = sum(parameter.numel() for parameter in backbone.module.parameters()) / 1e6
    kept = [megabytes(backbone, stages[-depth - 1]) for depth in (1, 2)]
    return (name, f"{n_parameters:.1f}", f"{seconds:.1f}", f"{features:.1f}", *(f"{size:,.0f}" for size in kept))


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    print(machine())
    arrays = photo_arrays(N)
    header = ["network", "million parameters", "seconds", "MB of features", "MB at freeze_depth=-1", "MB at -2"]
    show("per 1,000 images", header, [row(name, arrays) for name in NETWORKS])
