"""Time and peak memory of fits of 500 to 10,000 different photos, with ``freeze_depth=-1``.

Each line is a process of its own, whose cache is a new directory, where no graph has been exported before. The photos
are 1,000, cropped in ten ways and saved as JPEG files. The first table has the activations where they come to lie by
default, in memory up to a bound; for the second one that bound is set to zero, so that they lie in a temporary file.

Run: python benchmarks/fine_tuning_growth.py [--sizes 500 1000 2000 4000 8000] [--disk 10000] [--epochs 3] [--quick]
"""

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import imagenet_paths, in_new_process, pretrained, run_script, show
from PIL import Image

import sktl._frozen._activations as activations
from sktl import FineTunedClassifier


def write_photos(folder: Path, n: int) -> None:
    """``n`` different photos, named by number and class, the first ones of all classes alike."""
    sources = imagenet_paths()

    def write(number: int) -> None:
        variant, index = number // 1000, 137 * number % 1000
        image = Image.open(sources[index]).convert("RGB")
        image = image.crop((4 * variant, 0, image.width, image.height))
        image.save(folder / f"{number:05}_{index}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(n)))


def peak_mb() -> float:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def do_job(name, folder, n, epochs, on_disk) -> dict:
    """One fit."""
    if on_disk:
        activations.MEMORY_BYTES = 0
    settings = {} if name == "sktl_mini" else pretrained(name)
    paths = sorted(map(str, Path(folder).glob("*.jpg")))[:n]
    labels = [int(Path(path).stem.partition("_")[2]) // 100 for path in paths]  # ten groups of kindred classes
    with tempfile.TemporaryDirectory() as cache:
        model = FineTunedClassifier(name, **settings, max_epochs=epochs, cache=cache, random_state=0)
        imports = peak_mb()
        start = time.perf_counter()
        model.fit(paths, labels)
        took = time.perf_counter() - start
    epoch_seconds = sum(model.history_[:, "dur"])
    return {"seconds": took, "epochs": epoch_seconds, "imports": imports, "above": peak_mb() - imports}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--disk", type=int, nargs="+", default=[10000], help="sizes with the activations in a file")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["sktl_mini", "mobilenet_v2"])
    parser.add_argument("--quick", action="store_true", help="40 and 80 photos, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.disk, options.epochs = [40, 80], [80], 2
    rows: dict[bool, list] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), max(options.sizes + options.disk))
        for name in options.networks:
            for on_disk, sizes in ((False, options.sizes), (True, options.disk)):
                for n in sizes:
                    job = {"name": name, "folder": folder, "n": n, "epochs": options.epochs, "on_disk": on_disk}
                    with tempfile.TemporaryDirectory() as home:
                        found = in_new_process(__file__, job, SKTL_HOME=home)
                    took = (found["seconds"], 1000 * found["seconds"] / n, found["epochs"])
                    rows[on_disk].append((name, n, *took, f"{found['imports']:.0f}", f"{found['above']:.0f}"))
    header = ("network", "photos", "seconds", "per 1,000", "of them epochs", "MB after imports", "peak MB above that")
    show(f"Fits of {options.epochs} epochs", header, rows[False])
    show(f"Fits of {options.epochs} epochs, the activations in a file", header, rows[True])


if __name__ == "__main__":
    run_script(do_job, main)
