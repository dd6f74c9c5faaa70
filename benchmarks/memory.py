"""Time and peak memory for 1,000 to 16,000 paths.

Run: python benchmarks/memory.py
"""

import resource
import subprocess
import sys
import tempfile
import time

from common import imagenet_paths, machine, pretrained, show

SIZES = (1000, 2000, 4000, 8000, 16000)


def measure(backbone: str, n: int, cache: str | None) -> tuple[float, float]:
    """Seconds and peak megabytes of one process that takes the features of ``n`` paths."""
    out = subprocess.run(
        [sys.executable, __file__, backbone, str(n), cache or ""], capture_output=True, text=True, check=True
    )
    took, peak = out.stdout.split()
    return float(took), float(peak)


def child(backbone: str, n: int, cache: str) -> None:
    """The measured process."""
    from sktl import PretrainedFeatureExtractor

    settings = {} if backbone == "sktl_mini" else pretrained(backbone)
    paths = (imagenet_paths() * 16)[:n]
    extractor = PretrainedFeatureExtractor(backbone, **settings, cache=cache or None, engine="onnxruntime")
    extractor.fit_transform(paths[:64])
    start = time.perf_counter()
    extractor.fit_transform(paths)
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print a table for each network and cache."""
    for backbone in ("sktl_mini", "mobilenet_v2"):
        rows = []
        for n in SIZES:
            took, peak = measure(backbone, n, None)
            rows.append((n, took, 1000 * took / n, f"{peak:.0f}", f"{peak - float(rows[0][3]):.0f}" if rows else "0"))
        show(f"{backbone}, no cache", ("paths", "seconds", "ms per picture", "peak MB", "growth MB"), rows)
    with tempfile.TemporaryDirectory() as folder:
        print("with cache in a directory, 16,000 paths:", measure("sktl_mini", 16000, folder))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        print(machine())
        main()
