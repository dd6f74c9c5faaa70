"""H-score, TransRate and GBC against their formulas read literally, and against the authors' programs."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from sktl.selection import gbc_score, h_score, transrate_score
from sktl.selection._class_separability import _ledoit_wolf


def problem(n, d, n_classes, signal=0.7, seed=0, shares=None):
    """Features of normal numbers of different scales around a centre for each class."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % n_classes if shares is None else np.repeat(np.arange(n_classes), shares)
    X = random.normal(size=(n, d)) * np.linspace(0.5, 2, d) + signal * random.normal(size=(n_classes, d))[y]
    return np.maximum(X, -0.5) + 1, y


def class_means(X, y):
    return np.stack([X[y == label].mean(axis=0) for label in y])


PROBLEMS = [problem(60, 5, 3), problem(40, 8, 2, shares=[30, 10]), problem(12, 40, 3), problem(60, 1, 3)]


def test_h_score_equals_its_formula():
    """With a pseudo-inverse, as the authors' programs compute it: both covariances from NumPy."""
    for X, y in PROBLEMS:
        between, total = np.cov(class_means(X, y).T), np.atleast_2d(np.cov(X.T))
        expected = np.trace(np.linalg.pinv(total, rcond=1e-12) @ np.atleast_2d(between))
        assert h_score(X, y, shrinkage=False) == pytest.approx(expected, rel=1e-8)


def test_shrunk_h_score_equals_its_formula():
    """With scikit-learn's covariance; published programs divide the one between classes by n - 1 instead of n."""
    for X, y in PROBLEMS:
        model = LedoitWolf().fit(X)
        between = (1 - model.shrinkage_) * np.atleast_2d(np.cov(class_means(X, y).T, bias=True))
        expected = np.trace(np.linalg.inv(model.covariance_) @ between)
        assert h_score(X, y) == pytest.approx(expected, rel=1e-8)
        program = np.trace(np.linalg.pinv(model.covariance_, rcond=1e-15) @ between * len(X) / (len(X) - 1))
        assert h_score(X, y) * len(X) / (len(X) - 1) == pytest.approx(program, rel=1e-8)


def test_h_score_of_one_feature_is_the_share_of_variance():
    """What analysis of variance calls eta squared."""
    X, y = PROBLEMS[3]
    assert h_score(X, y) == pytest.approx(class_means(X, y).var() / X.var(), rel=1e-12)


def test_h_score_without_shrinkage_says_nothing_of_few_rows():
    """It is the number of classes less 1, for noise as for anything else; with shrinkage noise is worse."""
    X, y = problem(20, 50, 4)
    noise, _ = problem(20, 50, 4, signal=0.0)
    assert h_score(X, y, shrinkage=False) == pytest.approx(3, abs=1e-9)
    assert h_score(noise, y, shrinkage=False) == pytest.approx(3, abs=1e-9)
    assert h_score(noise, y) < 0.5 * h_score(X + 2 * class_means(X, y), y)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (10, 30), (3, 3), (20, 1), (2, 5)])
@pytest.mark.parametrize("widest", [1, 3])
def test_the_amount_of_shrinkage_is_scikit_learns(n, d, widest):
    """From the eigenvalues alone, for more rows, more features, a single one, and where all is shrunk."""
    Z = np.random.default_rng(n).normal(size=(n, d)) * np.linspace(1, widest, d)
    Z -= Z.mean(axis=0)
    variances = np.linalg.svd(Z, compute_uv=False) ** 2 / n
    assert _ledoit_wolf(Z, variances) == pytest.approx(ledoit_wolf_shrinkage(Z), abs=1e-12)
    if (n, widest) == (30, 1):
        assert _ledoit_wolf(Z, variances) == 1


def test_a_covariance_that_is_a_multiple_of_the_identity_is_not_shrunk():
    """There is nothing to shrink it to, and rounding is not to decide."""
    X = 0.1 * np.vstack([np.eye(3), -np.eye(3)] * 3)
    y = np.arange(18) % 6 // 2
    assert h_score(X + 0.3, y) == pytest.approx(h_score(X, y, shrinkage=False), rel=1e-9)


def coding_rate(Z, epsilon):
    """The program in the paper's figure, with its determinant of shape (n_features, n_features)."""
    n, d = Z.shape
    return 0.5 * np.linalg.slogdet(np.eye(d) + Z.T @ Z / (n * epsilon))[1]


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_transrate_equals_its_formula(epsilon):
    """With each class weighted by its share; for classes of equal size that is the mean of the paper's program."""
    for X, y in PROBLEMS:
        Z = X - X.mean(axis=0)
        rates = [coding_rate(Z[y == label], epsilon) for label in np.unique(y)]
        weighted = coding_rate(Z, epsilon) - np.average(rates, weights=np.bincount(y))
        assert transrate_score(X, y, epsilon=epsilon) == pytest.approx(weighted, abs=1e-8)
        if len(set(np.bincount(y))) == 1:
            assert transrate_score(X, y, epsilon=epsilon) == pytest.approx(coding_rate(Z, epsilon) - np.mean(rates))


def test_transrate_of_rows_of_length_one():
    """As in the authors' experiments: centred, then each row divided by its length; a row of zeros stays one."""
    X, y = problem(60, 5, 3)
    X = np.vstack([X, X.mean(axis=0)])  # the mean itself
    y = np.append(y, 0)
    Z = X - X.mean(axis=0)
    Z[:-1] /= np.linalg.norm(Z[:-1], axis=1, keepdims=True)
    rates = [coding_rate(Z[y == label], 1e-4) for label in range(3)]
    expected = coding_rate(Z, 1e-4) - np.average(rates, weights=np.bincount(y))
    assert transrate_score(X, y, normalize=True) == pytest.approx(expected, abs=1e-6)
    assert transrate_score(1e30 * X, y, normalize=True) == pytest.approx(expected, abs=1e-6)


def test_transrate_of_extreme_scales():
    """Far below the distortion it is 0; far above, each direction adds its share of the scale's logarithm."""
    X, y = problem(60, 5, 3)
    assert transrate_score(1e-200 * X, y) == 0
    large = transrate_score(1e200 * X, y)
    assert large == pytest.approx(transrate_score(1e10 * X, y), rel=1e-9)  # all classes have all directions
    y[y == 2] = 0
    y[0] = 9  # this class has a single one
    step = transrate_score(1e200 * X, y) - transrate_score(1e199 * X, y)
    assert step == pytest.approx((5 - 1) * np.log(10) / 60, rel=1e-9)


def bhattacharyya(m1, m2, S1, S2):
    """The distance with full matrices."""
    S = (S1 + S2) / 2
    distance = (m1 - m2) @ np.linalg.inv(S) @ (m1 - m2) / 8
    return distance + 0.5 * np.log(np.linalg.det(S) / np.sqrt(np.linalg.det(S1) * np.linalg.det(S2)))


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_gbc_equals_its_formula(covariance):
    """All ordered pairs of classes, with matrices written out."""
    for X, y in (problem(60, 5, 3), problem(40, 8, 2, shares=[30, 10]), problem(60, 1, 3, 0.2)):
        gaussians = []
        for label in np.unique(y):
            variances = X[y == label].var(axis=0)
            variances = np.full_like(variances, variances.mean()) if covariance == "spherical" else variances
            gaussians.append((X[y == label].mean(axis=0), np.diag(variances)))
        pairs = itertools.permutations(gaussians, 2)
        expected = -sum(np.exp(-bhattacharyya(m1, m2, S1, S2)) for (m1, S1), (m2, S2) in pairs)
        assert gbc_score(X, y, covariance=covariance) == pytest.approx(expected, rel=1e-9)
        assert -len(gaussians) * (len(gaussians) - 1) < expected < -1e-3


def test_gbc_of_one_variance_against_the_authors_program():
    """It has the logarithm of a class's variance once, where the determinant has it once for each direction."""
    X, y = problem(60, 5, 3)
    means = [X[y == k].mean(axis=0) for k in range(3)]
    variances = [X[y == k].var(axis=0).mean() for k in range(3)]

    def score(times):
        total = 0.0
        for i, j in itertools.permutations(range(3), 2):
            mean = (variances[i] + variances[j]) / 2
            distance = ((means[i] - means[j]) ** 2 / mean).sum() / 8
            logs = np.log(mean) - 0.5 * np.log(variances[i]) - 0.5 * np.log(variances[j])
            total -= np.exp(-distance - 0.5 * times * logs)
        return total

    assert gbc_score(X, y) == pytest.approx(score(5), rel=1e-9)
    assert abs(gbc_score(X, y) - score(1)) > 1e-6


@pytest.mark.parametrize("n", [300, 60])
def test_gbc_takes_64_principal_components(n):
    """Of more features, whether there are more rows than features or fewer; None takes all features."""
    X, y = problem(n, 200, 3)
    Z = X - X.mean(axis=0)
    components = Z @ np.linalg.svd(Z, full_matrices=False)[2][: min(64, n - 1)].T
    assert gbc_score(X, y) == pytest.approx(gbc_score(components, y), rel=1e-9)
    assert gbc_score(X, y, n_components=3) == pytest.approx(gbc_score(components[:, :3], y), rel=1e-9)
    assert gbc_score(X, y, n_components=None) == pytest.approx(gbc_score(X, y, n_components=200), rel=1e-9)
    assert gbc_score(X, y, n_components=None) != pytest.approx(gbc_score(X, y), rel=1e-3)


def test_gbc_of_a_single_row():
    """A class of one row has the mean variance within the others, and so stands where it is and no surer."""
    X, y = problem(61, 3, 3, shares=[20, 40, 1])
    variances = np.average([X[:20].var(axis=0), X[20:60].var(axis=0)], axis=0, weights=[20, 40])
    alone = np.vstack([X[60] + np.sqrt(variances), X[60] - np.sqrt(variances)])  # two rows with that variance
    expected = gbc_score(np.vstack([X[:60], alone]), np.append(y[:60], [2, 2]))
    assert gbc_score(X, y) == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(gbc_score(X[:3], [0, 1, 2]))


def test_gbc_has_a_least_variance():
    """A class without variance is as one with 1e-4 of the mean variance, in any unit."""
    random = np.random.default_rng(0)
    X = np.vstack([np.zeros((50, 2)), random.normal(size=(50, 2))])
    y = np.repeat([0, 1], 50)
    least = 1e-4 * np.square(X - X.mean(axis=0)).mean()
    wide = np.diag(np.full(2, X[50:].var(axis=0).mean()))
    expected = -2 * np.exp(-bhattacharyya(np.zeros(2), X[50:].mean(axis=0), least * np.eye(2), wide))
    assert_allclose([gbc_score(X, y), gbc_score(1e-30 * X, y), gbc_score(1e30 * X, y)], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("score", "parameters", "message"),
    [
        (transrate_score, {"epsilon": 0.0}, "'epsilon' parameter of transrate_score must be a float in the range"),
        (gbc_score, {"covariance": "full"}, "'covariance' parameter.*'spherical'.*Got 'full'"),
        (gbc_score, {"n_components": 0}, "'n_components' parameter"),
        (h_score, {"shrinkage": 0.5}, "'shrinkage' parameter"),
    ],
)
def test_parameters_are_checked(score, parameters, message):
    """An error names the parameter, what may be given and what was."""
    with pytest.raises(ValueError, match=message):
        score(*PROBLEMS[0], **parameters)
