"""A grid search over ``freeze_depth`` with its cache in a directory: run twice, and with two jobs.

Each search runs in a new process, on a machine where nothing has been exported; imports are not counted. For one job
and for two, a second search follows in the same process, with an empty cache: by then networks are loaded and exported,
and workers are there. First searches are compared with first ones, second ones with second ones. Counted are the
pictures that any process has put through frozen stages.

Run: python benchmarks/search_again.py [--photos 244] [--epochs 5] [--rounds 3] [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from common import in_new_process, pretrained, run_script, show
from freeze_depth_search import some_photos
from sklearn.model_selection import GridSearchCV

import sktl._frozen._pass as pass_module
from sktl import FineTunedClassifier

DEPTHS = ["all", -1, -2]


class CountedRunner:
    """A runner that notes how many pictures it gets in a file, which all processes write to."""

    def __init__(self, runner, path):
        self.runner, self.path, self.concurrent = runner, path, runner.concurrent

    def __call__(self, pictures):
        """Run them."""
        with open(self.path, "a") as file:
            file.write(f"{len(pictures)}\n")
        return self.runner(pictures)


class CountedClassifier(FineTunedClassifier):
    """Counts in workers too: they import the package anew and know nothing of what was replaced in their parent."""

    def _fit(self, *args):
        get_runner = getattr(pass_module.get_runner, "original", pass_module.get_runner)

        def counted(*args):
            return CountedRunner(get_runner(*args), os.environ["PICTURES_FILE"])

        counted.original = get_runner
        pass_module.get_runner = counted
        return super()._fit(*args)


def do_job(name, cache, n_photos, epochs, n_jobs, is_repeated=False) -> dict:
    """One search, timed; where it is to be repeated, once more in this process, with an empty cache."""
    settings = pretrained(name) if name != "sktl_mini" else {}
    model = CountedClassifier(name, **settings, max_epochs=epochs, cache=cache, random_state=0)
    paths, labels = some_photos(n_photos)
    search = GridSearchCV(model, {"freeze_depth": DEPTHS}, cv=3, n_jobs=n_jobs)
    start = time.perf_counter()
    search.fit(paths, labels)
    result = {"seconds": time.perf_counter() - start, "pictures": n_pictures(), "score": float(search.best_score_)}
    if is_repeated:
        Path(os.environ["PICTURES_FILE"]).unlink()
        search.set_params(estimator__cache=f"{cache}/again")
        start = time.perf_counter()
        search.fit(paths, labels)
        result |= {"warm_seconds": time.perf_counter() - start, "warm_pictures": n_pictures()}
    return result


def n_pictures() -> int:
    """How many pictures ran through frozen stages, up to now."""
    path = Path(os.environ["PICTURES_FILE"])
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def search(folder: str, job: dict) -> dict:
    """One search in a new process."""
    with tempfile.TemporaryDirectory() as home:
        return in_new_process(__file__, {"cache": folder, **job}, SKTL_HOME=home, PICTURES_FILE=f"{home}/pictures")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=244)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "sktl_mini"])
    parser.add_argument("--quick", action="store_true", help="two epochs of 24 photos, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.photos, options.epochs = 1, 24, 2
    again, jobs = [], []
    for name in options.networks:
        job = {"name": name, "n_photos": options.photos, "epochs": options.epochs}
        one, second, two = [], [], []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                one.append(search(folder, {**job, "n_jobs": 1, "is_repeated": True}))
                second.append(search(folder, {**job, "n_jobs": 1}))
            with tempfile.TemporaryDirectory() as folder:
                two.append(search(folder, {**job, "n_jobs": 2, "is_repeated": True}))
        for run, found in (("first", one), ("second", second)):
            again.append((name, run, median(found, "seconds"), spread(found, "pictures"), found[0]["score"]))
        for when, what in (("", "first in its process"), ("warm_", "second in its process")):
            for n_jobs, found in ((1, one), (2, two)):
                pairs = zip(one, found, strict=True)
                ratio = statistics.median(a[f"{when}seconds"] / b[f"{when}seconds"] for a, b in pairs)
                pictures = spread(found, f"{when}pictures")
                jobs.append((name, what, n_jobs, median(found, f"{when}seconds"), ratio, pictures))
    title = f"GridSearchCV, freeze_depth in {DEPTHS}, cv=3, {options.epochs} epochs, {options.photos} photos"
    show(f"{title}: the same search again", ("network", "run", "seconds", "pictures computed", "score"), again)
    columns = ("network", "search", "n_jobs", "seconds", "faster than 1 by", "pictures computed")
    show(f"{title}: two jobs", columns, jobs)


def median(found: list[dict], key: str) -> float:
    """Of one figure, over the rounds."""
    return statistics.median(one[key] for one in found)


def spread(found: list[dict], key: str) -> str:
    """A number, or from which to which it goes over the rounds."""
    return "-".join(map(str, sorted({min(one[key] for one in found), max(one[key] for one in found)})))


if __name__ == "__main__":
    run_script(do_job, main)
