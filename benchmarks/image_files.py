"""What reading files costs: checksums, very large JPEGs, and JPEG files now against an earlier checkout.

Run: python benchmarks/image_files.py [checksums] [reduced] [earlier=FOLDER]
"""

import io
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import imagenet_paths, machine, seconds, show
from PIL import Image

from sktl._images import _decode, _png, _tiff
from sktl._images._read_settings import MAX_PIXELS, ReadSettings
from sktl.backbones import Preprocessing

N = 48
PAIRS = 9


def encoded(file_format: str, **options) -> list[bytes]:
    """Photos of ImageNet as files of another format."""
    files = []
    for path in imagenet_paths(N):
        stream = io.BytesIO()
        Image.open(path).convert("RGB").save(stream, file_format, **options)
        files.append(stream.getvalue())
    return files


def checksums() -> None:
    """What comparing the checksums takes of the time to decode, and how many files per second that leaves."""
    reading, rows = ReadSettings(), []
    formats = {
        "PNG": (encoded("PNG"), _png.damaged_chunk),
        "TIFF, deflate": (
            encoded("TIFF", compression="tiff_adobe_deflate"),
            lambda data: _tiff.check_deflate(data, _tiff.read_tags(data, 0)),
        ),
        "JPEG, which has none": ([path.read_bytes() for path in map(Path, imagenet_paths(N))], _png.damaged_chunk),
    }
    for name, (files, check) in formats.items():
        shares, rates = [], []
        for _ in range(PAIRS):
            whole = sum(seconds(lambda: _decode.decode(data, 3, "", reading)) for data in files)
            checking = sum(seconds(lambda: check(data)) for data in files)
            shares.append(checking / (whole - checking))
            rates.append((N / (whole - checking), N / whole))
        before, after = map(statistics.median, zip(*rates, strict=True))
        spread = f"{100 * min(shares):.1f}-{100 * max(shares):.1f} %"
        rows.append((name, f"{before:.0f}", f"{after:.0f}", f"{100 * statistics.median(shares):.1f} %", spread))
    show(f"{N} photos, decoded alone", ("format", "files/s without", "files/s with", "cost", "range"), rows)


def reduced() -> None:
    """A photo of 12,000 x 9,000 pixels: in full against reduced, as a network sees it."""
    rows, noise = [], np.random.default_rng(0)
    for path in imagenet_paths(1000)[::300]:
        photo = np.asarray(Image.open(path).convert("RGB").resize((12000, 9000), Image.Resampling.LANCZOS)).astype(int)
        photo = np.clip(photo + noise.integers(-12, 13, photo.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(photo).save(stream, "JPEG", quality=92)
        data, found = stream.getvalue(), {}
        for limit in (MAX_PIXELS, 10**12):
            _decode.MAX_PIXELS = limit
            start = seconds(lambda: found.__setitem__(limit, _decode.decode(data, 3, "", ReadSettings())))
            found[limit] = start, found[limit]
        _decode.MAX_PIXELS = MAX_PIXELS
        (short, small), (long, full) = found[MAX_PIXELS], found[10**12]
        for size in (64, 224, 518):
            pixels = [Preprocessing(resize_size=size, crop_size=size).apply(x).astype(int) for x in (small, full)]
            gap = np.abs(pixels[0] - pixels[1])
            rows.append(
                (
                    Path(path).stem[:22],
                    size,
                    full.nbytes >> 20,
                    small.nbytes >> 20,
                    short / long,
                    gap.max(),
                    f"{gap.mean():.3f}",
                )
            )
    header = ("photo", "network's input", "MB in full", "MB reduced", "time", "largest difference", "mean")
    show("JPEG of 12,000 x 9,000, reduced against in full; differences in levels of 255", header, rows)


RUN = """
import statistics, sys, time
sys.path.insert(0, {benchmarks!r})
from common import imagenet_paths
from sktl import PretrainedFeatureExtractor
from sktl._images import check_images
paths = imagenet_paths(200)
{setup}
work()
times = []
for _ in range(5):
    start = time.{clock}()
    work()
    times.append(time.{clock}() - start)
print(200 / min(times))
"""
SETUPS = {
    "files of 8 x 8 pixels, decoded alone, by CPU time": (
        "process_time",
        "import tempfile; from PIL import Image\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "paths = [folder.name + '/' + str(i) + '.jpg' for i in range(200)]\n"
        "[Image.new('RGB', (8, 8)).save(path) for path in paths]\n"
        "extractor = PretrainedFeatureExtractor().fit(paths)\n"
        "def work():\n"
        "    for image in check_images(extractor, paths, reset=True):\n"
        "        image.digest, image.decode()",
    ),
    "features of sktl_mini": (
        "perf_counter",
        "extractor = PretrainedFeatureExtractor(cache=None).fit(paths)\nwork = lambda: extractor.transform(paths)",
    ),
}


def earlier(folder: str) -> None:
    """JPEG files per second, this checkout against another one, in turns, each time in a new process."""
    here, rows = Path(__file__).parents[1], []
    for name, (clock, setup) in SETUPS.items():
        code = RUN.format(benchmarks=str(here / "benchmarks"), clock=clock, setup=setup)

        def rate(root, code=code) -> float:
            env = {**os.environ, "PYTHONPATH": str(root)}
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
            return float(done.stdout)

        pairs = [(rate(folder), rate(here)) for _ in range(3)]
        before, after = map(statistics.median, zip(*pairs, strict=True))
        ratios = [b / a for a, b in pairs]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        rows.append((name, f"{before:.0f}", f"{after:.0f}", f"{statistics.median(ratios):.3f}", spread))
    show(
        "200 JPEG files, the best of five passes in each process", ("", "before, /s", "now, /s", "ratio", "range"), rows
    )


if __name__ == "__main__":
    print(machine())
    for part in sys.argv[1:] or ("checksums", "reduced"):
        if part.startswith("earlier="):
            earlier(part.removeprefix("earlier="))
        else:
            {"checksums": checksums, "reduced": reduced}[part]()
