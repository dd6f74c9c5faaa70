"""Does the start of a regressor's head lose to the mean? One penalty for all against one that left-out rows choose.

Five small sets: forty images are learnt from, 200 others judged; R² of the start alone (``max_epochs=0``) and after the
ten epochs of the default, the mean of three draws, with the lowest. A model that says the mean of what it has seen is
at about zero.

Run: OMP_NUM_THREADS=1 python benchmarks/regression_start.py
"""

import warnings
from pathlib import Path

import numpy as np
from common import imagenet_paths, machine, require_data, show
from PIL import Image
from sklearn.datasets import load_digits

from sktl import FineTunedRegressor
from sktl._training import _head_probe as _probe

N_TRAIN, N_TEST, N_DRAWS = 40, 200, 3
CHOSEN = _probe.PENALTIES
WAYS = {"penalty of 30": np.array([_probe.PROBE_PENALTY]), "chosen": CHOSEN}


def colors(paths: list[str]) -> np.ndarray:
    """How saturated each photo is, on average."""
    return np.array([np.asarray(Image.open(path).convert("HSV").resize((64, 64)))[..., 1].mean() for path in paths])


def details(paths: list[str]) -> np.ndarray:
    """How many bytes a JPEG file takes for a pixel, as a logarithm."""
    return np.log([Path(path).stat().st_size / np.prod(Image.open(path).size) for path in paths])


def sets() -> dict[str, tuple]:
    """Images, and a number for each."""
    insects = sorted(str(path) for path in (require_data() / "hymenoptera").rglob("*.jpg"))
    photos = imagenet_paths(400)
    digits, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    return {
        "ants and bees: saturation": (np.array(insects), colors(insects)),
        "ImageNet photos: bytes per pixel": (np.array(photos), details(photos)),
        "digits: amount of ink": (digits / 16, digits.mean(axis=1)),
        "digits: the digit": (digits / 16, labels.astype(float)),
        "ImageNet photos: random numbers": (np.array(photos), rng.normal(size=len(photos))),
    }


def scores(X: np.ndarray, y: np.ndarray, penalties: np.ndarray, max_epochs: int) -> list[float]:
    """R² on other images, of each draw."""
    _probe.PENALTIES = penalties
    found = []
    for seed in range(N_DRAWS):
        order = np.random.default_rng(seed).permutation(len(X))
        train, test = order[:N_TRAIN], order[N_TRAIN : N_TRAIN + N_TEST]
        model = FineTunedRegressor(max_epochs=max_epochs, random_state=0).fit(X[train], y[train])
        found.append(model.score(X[test], y[test]))
    return found


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    rows = []
    for name, (X, y) in sets().items():
        for way, penalties in WAYS.items():
            start, trained = (scores(X, y, penalties, epochs) for epochs in (0, 10))
            rows.append((name, way, *(f"{np.mean(found):.2f} (lowest {min(found):.2f})" for found in (start, trained))))
    print(machine())
    show("R² of a regressor", ["set", "penalty", "R² of the start", "R² after ten epochs"], rows)


if __name__ == "__main__":
    main()
