"""Cut all networks, or those named, at every stage and see that nothing changes: ``check_all_models.py [name ...]``.

Random weights, one random picture, one network in memory at a time (twice: up to 6 GB); about ten minutes. It prints a
table and exits with 1 where a network fails.
"""

import gc
import sys
import time

import torch

from sktl.backbones import list_backbones, load_backbone

# Networks that take one size only, or whose kernels do not fit into less.
FIXED_SIZE = {"vit": 224, "maxvit": 224}
SMALL_SIZE = 128


def check(name: str) -> tuple[int, int, float]:
    """(stages, layers, the largest difference relative to the largest output) of one network."""
    size = FIXED_SIZE.get(name.split("_")[0], SMALL_SIZE)
    backbone = load_backbone(name, weights=None, preprocessing={"resize_size": size, "crop_size": size})
    picture = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    names = [stage.name for stage in backbone.stages]
    worst = 0.0
    with torch.inference_mode():
        expected = backbone.module(picture)
        features = backbone.feature_graph(names)(picture)
        if not torch.equal(backbone.cut(names[len(names) // 2])[0](picture), features[len(names) // 2]):
            raise AssertionError("the prefix differs from the features")
        for stage, feature in zip(backbone.stages, features, strict=True):
            if tuple(feature.shape[1:]) != stage.output_shape:
                raise AssertionError(f"{stage.name} has shape {tuple(feature.shape[1:])}, not {stage.output_shape}")
            # Not kept in a variable: each rest has weights of its own, gigabytes of them in the largest networks.
            difference = (backbone.cut(stage.name)[1](feature) - expected).abs().max() / expected.abs().max()
            worst = max(worst, difference.item())
    if len(names) < 3 or not worst < 1e-5:
        raise AssertionError(f"{len(names)} stages, relative difference {worst:.1e}")
    return len(names), len(backbone.layers), worst


def main(names: list[str]) -> int:
    """Check the networks of these names; the number of those that fail."""
    failed = 0
    print(f"{'backbone':22} {'stages':>6} {'layers':>6} {'difference':>10} {'seconds':>8}")
    for name in names or list_backbones():
        start = time.perf_counter()
        try:
            n_stages, n_layers, worst = check(name)
            result = f"{n_stages:6} {n_layers:6} {worst:10.1e}"
        except Exception as error:
            failed += 1
            result = f"FAILED {type(error).__name__}: {error}"
        print(f"{name:22} {result} {time.perf_counter() - start:8.1f}", flush=True)
        gc.collect()
    print(f"{failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
