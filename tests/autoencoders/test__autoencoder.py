"""The autoencoder as an estimator: all of scikit-learn's checks, searches, and what it reaches."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl.autoencoders import Autoencoder
from sktl.exceptions import InputError


@parametrize_with_checks([Autoencoder()])
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, it passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.mark.parametrize("n_rows", [30, 120])
def test_before_training_it_is_pca(make, rows, n_rows):
    """Codes and reconstructions are those of scikit-learn's PCA of all rows, to float32."""
    X = rows[:n_rows]
    model = make(max_epochs=0, early_stopping=False, contamination=0.1).fit(X)
    pca = PCA(5).fit(X)
    np.testing.assert_allclose(model.transform(rows), pca.transform(rows), atol=1e-4)
    np.testing.assert_allclose(model.reconstruct(rows), pca.inverse_transform(pca.transform(rows)), atol=1e-4)


def test_after_training_it_is_better(rows, new_rows):
    """With its defaults, new rows are reconstructed with a smaller error than by PCA."""
    pca = PCA(5).fit(rows)
    error = np.square(pca.inverse_transform(pca.transform(new_rows)) - new_rows).mean()
    model = Autoencoder(5, random_state=0).fit(rows)
    assert np.square(model.reconstruct(new_rows) - new_rows).mean() < 0.95 * error


def test_columns_are_not_scaled_one_by_one(make, rows):
    """A column that hardly varies stays small: it is not blown up to the size of the others."""
    X = rows.copy()
    X[:, 0] = np.arange(120) % 2 * 1e-6
    model = make(max_epochs=20).fit(X)
    np.testing.assert_allclose(model.reconstruct(X)[:, 0], X[:, 0], atol=0.3)
    other = X.copy()
    other[0, 0] = 1e-5
    assert abs(model.score_samples(other)[0] - model.score_samples(X)[0]) < 1e-4


def test_the_unit_does_not_matter(make, rows):
    """In thousandths, or far from zero, codes are as good."""
    error = -make().fit(rows).score(rows)
    assert -make().fit(rows / 1024).score(rows / 1024) * 1024**2 == pytest.approx(error, rel=0.01)
    assert -make().fit(rows + 1e6).score(rows + 1e6) == pytest.approx(error, rel=0.02)


def test_same_seed_same_numbers(make, rows):
    """Noise included; another seed gives others."""
    how = {"noise": "gaussian", "early_stopping": False}
    first, second, other = (make(**how, random_state=seed).fit(rows).transform(rows) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_in_searches_and_pipelines(make, rows):
    """Its score chooses the size of the code, its codes feed a classifier, and a clone has all parameters."""
    search = GridSearchCV(make(), {"n_components": [2, 12]}, cv=2).fit(rows)
    assert search.best_params_ == {"n_components": 12}
    y = np.arange(120) % 2
    assert make_pipeline(make(), LogisticRegression()).fit(rows, y).predict(rows).shape == (120,)
    model = make(noise="masking", hidden_layer_sizes=(3, 2))
    assert clone(model).get_params() == model.get_params()


def test_a_share_of_noise_is_less_than_one(make, rows):
    """Otherwise nothing is left to learn from; the deviation of Gaussian noise may be any."""
    for noise in ("masking", "salt_and_pepper"):
        with pytest.raises(InputError, match=f"'noise_level' parameter of Autoencoder must be less than 1.*{noise}"):
            make(noise=noise, noise_level=1.0).fit(rows)
    make(noise="gaussian", noise_level=1.5).fit(rows)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contamination", 0.0),
        ("contamination", 0.6),
        ("noise", "salt"),
        ("noise_level", 0.0),
        ("init", "zeros"),
        ("activation", "sin"),
        ("n_components", 0),
        ("sparsity", -1.0),
    ],
)
def test_parameters_out_of_range(make, rows, name, value):
    """The error names the parameter."""
    with pytest.raises(ValueError, match=f"'{name}' parameter of Autoencoder must be"):
        make(**{name: value}).fit(rows)
