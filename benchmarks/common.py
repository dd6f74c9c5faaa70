"""What the benchmarks share: real photos and weights, the plain rival loop, paired timing, a table."""

import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

DATA = Path(os.environ.get("SKTL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def require_data() -> Path:
    """The folder with real weights and photos, or a friendly end."""
    if not DATA.is_dir():
        sys.exit(f"These benchmarks need real weights and photos in {DATA}. Set SKTL_TEST_DATA to their folder.")
    return DATA


def weights_path(name: str) -> Path:
    """The local state dict of a torchvision backbone."""
    return require_data() / f"{name}_imagenet" / "model.safetensors"


def pretrained(name: str) -> dict:
    """Weights and preprocessing of a network, as parameters of the extractor.

    The local MobileNetV2 is older than torchvision's default weights, which resize to 232: it wants 256.
    """
    return {"weights": weights_path(name), "preprocessing": {"resize_size": 256}}


def imagenet_paths(n: int = 1000) -> list[str]:
    """``n`` photos, one per ImageNet class in class order."""
    return [str(path) for path in sorted((require_data() / "imagenet_sample" / "images").glob("*.jpg"))[:n]]


def photo_arrays(n: int, size: int = 256) -> np.ndarray:
    """``n`` photos as one uint8 array (n, size, size, 3)."""
    images = [Image.open(path).convert("RGB") for path in imagenet_paths(n)]
    return np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])


def clothes(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST, ``"train"`` or ``"t10k"``: flat rows of pixels (n, 784) and class numbers."""
    folder = require_data() / "fashion_mnist" / "FashionMNIST" / "raw"
    pixels, labels = (
        gzip.decompress((folder / f"{part}-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    )
    X = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28 * 28)
    return X, np.frombuffer(labels, np.uint8, offset=8).astype(int)


# A network of our own for them, trained from its beginning.
CLOTHES = {
    "freeze_depth": 0,
    "head_init": "random",
    "lr_decay": 1.0,
    "weight_decay": 0.0,
    "in_channels": 1,
    "preprocessing": {"resize_size": 28, "crop_size": 28, "mean": (0.286,), "std": (0.353,)},
}


def eager_model(name: str, weights: Path | None) -> torch.nn.Module:
    """Torchvision's own network in eval mode, as a user would build it."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name)
    if weights is not None:
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
    return model.eval()


def eager_transform():
    """Torchvision's own preset transform."""
    return torchvision.transforms._presets.ImageClassification(crop_size=224, resize_size=256)


def pooled_features(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Average-pooled output of the last block, written out by hand for the families measured here."""
    if hasattr(model, "features"):
        return model.features(x).mean((2, 3))
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x)))).mean((2, 3))


def paired(rival: Callable[[], object], ours: Callable[[], object], n_pairs: int = 5) -> dict[str, float]:
    """Time two functions in turn, after one warm-up each; medians and the median of the pairwise ratios."""
    rival(), ours()
    pairs = [(seconds(rival), seconds(ours)) for _ in range(n_pairs)]
    return {
        "rival": statistics.median(a for a, _ in pairs),
        "ours": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "min": min(a / b for a, b in pairs),
        "max": max(a / b for a, b in pairs),
    }


def in_new_process(script: str, job: dict, **environment: str) -> dict:
    """What ``do_job`` of a script gives in a process of its own, where nothing is cached, traced or loaded yet."""
    command = [sys.executable, script, "--job", json.dumps(job)]
    out = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def run_script(do_job: Callable[..., dict], main: Callable[[], None]) -> None:
    """Do the job that `in_new_process` asks for, or else print the tables."""
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(do_job(**json.loads(sys.argv[2]))))
    else:
        print(machine(), flush=True)
        main()


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row) + " |")
    print(flush=True)


def spread(values: Sequence[float], factor: float = 1.0, digits: int = 2) -> str:
    """Mean and standard deviation, both times ``factor``."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{factor * statistics.mean(values):.{digits}f} ± {factor * deviation:.{digits}f}"


def machine() -> str:
    """One line about what this ran on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, Python {platform.python_version()}"
    )
