"""Scores of features before training: LogME against its authors' algorithm.

The algorithm is typed anew from the authors' program (github.com/thuml/LogME, MIT licence, ``_fit_fixed_point``): from
alpha = beta = 1 it goes to the fixed point of two equations, and ends after 11 steps, or where their quotient moves by
less than a thousandth.

Run: OMP_NUM_THREADS=1 python benchmarks/transferability.py [logme]
"""

import argparse
from collections.abc import Callable

import numpy as np
from common import machine, paired, show

from sktl.selection import logme_score

Decomposition = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def full_svd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors and values, by a decomposition that has all n of the former."""
    U, s, _ = np.linalg.svd(X, full_matrices=True)
    return U[:, : len(s)], s


def thin_svd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same without those that belong to no value."""
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    return U, s


def authors_svd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the authors' program does: of the matrix of scalar products, where there are more rows than features."""
    if len(X) <= X.shape[1]:
        return thin_svd(X)
    _, squares, Vt = np.linalg.svd(X.T @ X)
    s = np.sqrt(squares)
    rank = int((s > 1e-10).sum())
    return X @ Vt[:rank].T / s[:rank], s[:rank]


AT_THEIR_END = {"max_steps": 20_000, "tolerance": 1e-10, "least": 1e-12}


def authors_logme(
    X: np.ndarray,
    y: np.ndarray,
    decompose: Decomposition = authors_svd,
    *,
    max_steps: int = 11,
    tolerance: float = 1e-3,
    least: float = 1e-5,
) -> tuple[float, int]:
    """Mean over the classes of the log evidence, and the most steps that a class took."""
    n = len(X)
    U, s = decompose(X)
    sigma, scores, most = s**2, [], 0
    for label in range(y.max() + 1):
        target = (y == label).astype(float)
        squares = (U.T @ target) ** 2
        rest = (target**2).sum() - squares.sum()
        alpha, beta, steps = 1.0, 1.0, 0
        t, moved = 1.0, np.inf
        while steps < max_steps and moved > tolerance and t < 1e12 * sigma.sum():  # where features are left alone
            gamma = (sigma / (sigma + t)).sum()
            length = (sigma * squares / (t + sigma) ** 2).sum()
            residual = (squares / (1 + sigma / t) ** 2).sum() + rest
            alpha, beta = gamma / (length + least), (n - gamma) / (residual + least)
            moved, t, steps = abs(alpha / beta - t) / t, alpha / beta, steps + 1
        most = max(most, steps)
        evidence = len(s) * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * sigma).sum()
        scores.append((evidence - beta * residual - alpha * length - n * np.log(2 * np.pi)) / (2 * n))
    return float(np.mean(scores)), most


def problem(n: int, d: int, n_classes: int, signal: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What a ReLU leaves of normal numbers around a centre for each class."""
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(n) % n_classes)
    return np.maximum(random.normal(size=(n, d)) + signal * random.normal(size=(n_classes, d))[y], 0), y


def logme() -> None:
    """Equal values, and the time of one score."""
    shapes = [(500, 50, 5), (1000, 128, 10), (5000, 512, 10), (200, 512, 2), (200, 512, 10), (300, 1280, 10)]
    rows = []
    for shape in shapes:
        for signal in (0.5, 0.0):
            same, program, to_the_end, steps = [], [], [], 0
            for seed in range(5):
                X, y = problem(*shape, signal, seed)
                score = logme_score(X, y)
                published, taken = authors_logme(X, y)
                same.append(logme_score(X, y, max_iter=11) - published)
                program.append(score - published)
                to_the_end.append(score - authors_logme(X, y, **AT_THEIR_END)[0])
                steps = max(steps, taken)
            largest = [f"{max(differences, key=abs):+.1e}" for differences in (same, to_the_end, program)]
            rows.append((*shape, "some" if signal else "none", *largest, steps))
    differences = ["max_iter=11 - program", "maximum - iterations to their end", "maximum - program"]
    header = ["rows", "features", "classes", "signal", *differences, "the program's steps"]
    show("LogME against the authors' algorithm, 5 random problems each", header, rows)

    rows = []
    for n, d in ((4000, 256), (8000, 512), (20000, 512)):
        X, y = problem(n, d, 10, 0.5, 0)
        rivals = {"full": full_svd, "thin": thin_svd, "authors' program": authors_svd}
        for name, decompose in rivals.items():
            if name == "full" and n > 10_000:
                continue  # its matrix of left vectors alone has 3.2 GB
            found = paired(
                lambda decompose=decompose: authors_logme(X, y, decompose), lambda: logme_score(X, y), n_pairs=3
            )
            ratios = (f"{1 / found['ratio']:.3f}", f"{1 / found['max']:.3f}-{1 / found['min']:.3f}")
            rows.append((n, d, name, found["rival"], found["ours"], *ratios))
    show(
        "Seconds of one score, 10 classes",
        ["rows", "features", "decomposition", "theirs", "ours", "ours / theirs", "range"],
        rows,
    )


PARTS = {"logme": logme}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    print(machine(), flush=True)
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()
