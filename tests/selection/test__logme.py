"""LogME against the density it is the logarithm of, and against the authors' iterations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from sktl.selection import logme_score
from sktl.selection._logme import _LEAST_NOISE


def problem(n, d, n_classes, signal, seed=0, relu=False):
    """Features of normal numbers around a centre for each class."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = random.normal(size=(n, d)) + signal * random.normal(size=(n_classes, d))[y]
    return (np.maximum(X, 0) if relu else X), y


def columns(y):
    """One column for each class, or the targets as they are."""
    return (y[:, None] == np.unique(y)).astype(float).T if y.ndim == 1 else y.T


def slow_logme(X, y):
    """The density of each column under a normal distribution of shape (n, n), maximised from several starts."""
    best = []
    for target in columns(y):

        def loss(logs, target=target):
            alpha, beta = np.exp(logs)
            covariance = np.eye(len(X)) / beta + X @ X.T / alpha
            return -multivariate_normal.logpdf(target, cov=covariance, allow_singular=True) / len(X)

        starts = [(0, 0), (4, 2), (8, 2), (-3, 3)]
        options = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 4000}
        best.append(-min(minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts))
    return np.mean(best)


def authors_logme(X, y, max_steps=11, least=1e-5, tolerance=1e-3):
    """The fixed point of the authors' program (MIT licence), in their order of steps; by a full decomposition."""
    n = len(X)
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    scores = []
    for target in columns(y):
        squares, sigma = (U.T @ target) ** 2, s**2
        rest = (target**2).sum() - squares.sum()
        alpha, beta = 1.0, 1.0
        for _ in range(max_steps):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            length = (sigma * squares / (t + sigma) ** 2).sum()
            residual = (squares / (1 + sigma / t) ** 2).sum() + rest
            alpha, beta = gamma / (length + least), (n - gamma) / (residual + least)
            if abs(alpha / beta - t) / t <= tolerance:
                break
        evidence = len(s) * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * sigma).sum()
        scores.append((evidence - beta * residual - alpha * length - n * np.log(2 * np.pi)) / (2 * n))
    return np.mean(scores)


@pytest.mark.parametrize("shape", [(40, 4, 3), (30, 12, 2), (12, 30, 3)])
@pytest.mark.parametrize("signal", [0.0, 0.7])
def test_classes_equal_the_density(shape, signal):
    """For more rows and for more features, with and without signal: the greatest normal density of each class."""
    X, y = problem(*shape, signal)
    assert logme_score(X, y) == pytest.approx(slow_logme(X, y), abs=1e-7)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02, 0.0102, 0.01001, 0.009, 0.0])
def test_one_direction_has_a_closed_form(share):
    """One feature, and a target with this share of its square along it: down to shares that are worth no weight."""
    n = 100
    along, across = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 2)))[0].T
    target = np.sqrt(share) * along + np.sqrt(1 - share) * across
    kept = min(1.0, (1 - share) / (share * (n - 1))) if share else 1.0  # where the derivative of the evidence is 0
    expected = -0.5 * np.log(2 * np.pi * (share * kept + 1 - share) / n) - 0.5 + np.log(kept) / (2 * n)
    assert logme_score(along[:, None], target) == pytest.approx(expected, abs=1e-10)


def test_targets_equal_the_density():
    """Numbers are modelled as they are, several targets by their mean, in any unit."""
    X, _ = problem(30, 4, 2, 0.5)
    random = np.random.default_rng(5)
    Y = X @ random.normal(size=(4, 2)) + 0.3 * random.normal(size=(30, 2)) + 1
    expected = slow_logme(X, Y)
    assert logme_score(X, Y) == pytest.approx(expected, abs=1e-7)
    assert logme_score(X, 1e30 * Y) == pytest.approx(expected - np.log(1e30), abs=1e-7)
    assert logme_score(X, Y[:, 0]) + logme_score(X, Y[:, 1]) == pytest.approx(2 * expected, abs=1e-7)
    whole = np.round(3 * Y[:, 0])
    assert logme_score(X, whole, task="regression") == pytest.approx(slow_logme(X, whole[:, None]), abs=1e-7)
    assert logme_score(X, whole) == pytest.approx(slow_logme(X, whole), abs=1e-6)


@pytest.mark.parametrize("shape", [(300, 20, 3), (500, 100, 5), (1000, 64, 10)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_authors_program(shape, relu, seed):
    """Where their 11 steps are enough, to 1e-6."""
    X, y = problem(*shape, 0.5, seed, relu)
    assert logme_score(X, y) == pytest.approx(authors_logme(X, y), abs=1e-6)
    assert logme_score(X, y, max_iter=11) == pytest.approx(authors_logme(X, y), abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_authors_iterations_at_their_end(seed):
    """With fewer rows than features their program stops below the maximum that its steps go to."""
    X, y = problem(80, 200, 4, 0.0, seed, relu=True)
    score = logme_score(X, y)
    assert score == pytest.approx(authors_logme(X, y, 100_000, 0.0, 1e-12), abs=1e-6)
    assert score > authors_logme(X, y) + 1e-3
    assert logme_score(X, y, max_iter=11) == pytest.approx(authors_logme(X, y), abs=1e-10)
    assert logme_score(X, y, max_iter=3) == pytest.approx(authors_logme(X, y, 3), abs=1e-10)


def test_it_equals_the_authors_program_for_targets():
    """In any unit, on which their program depends, and for fewer rows than features."""
    random = np.random.default_rng(0)
    for n, d in ((60, 10), (20, 50)):
        X, Y = 3 * random.normal(size=(n, d)) + 1, 0.1 * random.normal(size=(n, 2))
        for target in (Y, 1000 * Y, X[:, :2] + Y):
            assert logme_score(X, target, max_iter=11) == pytest.approx(authors_logme(X, target), abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-20, 1e20, 1e300])
@pytest.mark.parametrize("shape", [(60, 3, 3), (4, 10, 2)])
def test_the_authors_iterations_on_degenerate_data(scale, shape):
    """They give a finite number where their program gives none."""
    X, y = problem(*shape, 3.0)
    assert np.isfinite(logme_score(scale * X, y, max_iter=11))
    assert np.isfinite(logme_score(scale * np.eye(shape[2])[y], y, max_iter=100))
    if scale:
        assert np.isfinite(logme_score(X, scale * X[:, 0], max_iter=100))


def test_the_bounds():
    """Zeros give the least score there is, copies of the labels nearly the greatest; both are in the docstring."""
    y = np.repeat([0, 1, 2], [10, 20, 30])
    means = np.array([10, 20, 30]) / 60
    least = np.mean(-0.5 * np.log(2 * np.pi * means) - 0.5)
    greatest = np.mean(-0.5 * np.log(2 * np.pi * means * _LEAST_NOISE))
    assert logme_score(np.zeros((60, 3)), y) == pytest.approx(least, abs=1e-12)
    exact = logme_score(np.eye(3)[y], y)
    assert greatest - 1.5 < exact < greatest
    with_small_noise = np.hstack([np.eye(3)[y], 1e-6 * np.random.default_rng(0).normal(size=(60, 5))])
    assert greatest - 1.5 < logme_score(with_small_noise, y) < greatest


def test_exact_fits_are_ordered():
    """Of features that fit exactly those are better that need fewer directions, and larger ones."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    exact, noise = np.eye(3)[y], random.normal(size=(60, 20))
    scores = [
        logme_score(exact, y),
        logme_score(np.hstack([exact, 0.1 * noise]), y),
        logme_score(np.hstack([exact, noise]), y),
        logme_score(np.hstack([exact / 10, noise]), y),
        logme_score(exact + 0.01 * noise[:, :3], y),
    ]
    assert_allclose(scores, sorted(scores, reverse=True))
    assert min(np.diff(scores[::-1])) > 1e-3
