"""Density of the codes, from which new ones are drawn.

References
----------
Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020: ex-post
density estimation.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

_MOST_COMPONENTS = 10
_ROWS_OF_A_COMPONENT = 20  # at least, for each number of a code


class CodeDensity:
    """Mixture of Gaussians over codes.

    Parameters
    ----------
    codes : ndarray of shape (n, n_components)
        Codes of training rows.
    seed : int
        Seed of the fit.
    """

    def __init__(self, codes: np.ndarray, seed: int):
        codes = codes.astype(np.float64)
        # Codes have the unit of the data, but the mixture adds a constant to variances.
        self._scale = float(codes.std()) or 1.0
        n_gaussians = min(_MOST_COMPONENTS, max(1, len(codes) // (_ROWS_OF_A_COMPONENT * codes.shape[1])))
        self._mixture = GaussianMixture(n_gaussians, random_state=seed)
        if len(codes) == 1:  # a mixture needs two rows
            codes = np.repeat(codes, 2, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._mixture.fit(codes / self._scale)

    def sample(self, n_samples: int, seed: int) -> np.ndarray:
        """Draw codes (n_samples, n_components), in random order."""
        generator = np.random.RandomState(seed)
        self._mixture.random_state = generator
        codes, _ = self._mixture.sample(n_samples)
        return generator.permutation(codes) * self._scale
