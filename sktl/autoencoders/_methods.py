"""Methods of fitted autoencoders: codes, reconstructions, scores and new rows."""

from numbers import Integral

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._network_estimator import Seeds
from sktl._frozen._readable import check_all_read, read_rows, warn_of_nan
from sktl._messages import shortened_errors
from sktl.autoencoders._base import AutoencoderBase
from sktl.autoencoders._density import CodeDensity
from sktl.autoencoders._inference import decoded, encoded, scored
from sktl.exceptions import InputError

_OF_SAMPLE: dict = {"n_samples": [Interval(Integral, 1, None, closed="left")], "random_state": ["random_state"]}


def _has_backbone(estimator):
    return estimator.backbone is not None


class AutoencoderMethods(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, AutoencoderBase):
    """Methods of autoencoders except `fit`."""

    trainable_summary = available_if(_has_backbone)(AutoencoderBase.trainable_summary)

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Train for one epoch on the given rows.

        Call this method several times to train on data that arrives in parts. The
        learning rates are constant, and ``early_stopping``, ``max_epochs`` and
        ``lr_schedule`` are ignored. The first call builds the network, unless `fit` was
        called before: the mean, the scale and the principal axes are those of its rows.
        The threshold ``offset_`` is chosen from the scores that the last 1,000 rows had
        before the network learned from them, those of the first call afterwards.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.
        y : None
            Ignored.

        Returns
        -------
        self : Autoencoder
            The fitted estimator.
        """
        return self._learn_step(X)

    def transform(self, X):
        """Return the codes of rows or images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_components)
            The codes, in the dtype of the rows, and float32 for images. NaN for images
            that cannot be read, if ``on_error="nan"``.
        """
        return self._told(X, encoded)

    def inverse_transform(self, X):
        """Return what codes are decoded to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        reconstruction : ndarray of shape (n_samples, n_features) or (n_samples, ...)
            Rows of numbers, in the dtype of the codes. With a backbone, float32: images
            (n_samples, height, width, channels) with values from 0 to 1 in the size
            that the network takes or, if stages are frozen, their output.
        """
        check_is_fitted(self, "net_")
        with shortened_errors():
            codes = check_array(X, dtype=[np.float64, np.float32], input_name="X", ensure_all_finite="allow-nan")
        if codes.shape[1] != self.n_components_:
            raise InputError(
                f"inverse_transform takes codes of shape (n_samples, {self.n_components_}), as transform returns them. "
                f"Got an array of shape {codes.shape} instead."
            )
        return self._finished(decoded(self.net_, codes), codes.dtype)

    def reconstruct(self, X):
        """Encode and decode rows or images.

        Entries that were not observed are filled in.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.

        Returns
        -------
        reconstruction : ndarray of shape (n_samples, n_features) or (n_samples, ...)
            Equal to ``inverse_transform(transform(X))``.
        """
        codes = self._told(X, encoded)
        return self._finished(decoded(self.net_, codes), codes.dtype)

    def score_samples(self, X):
        """Return how well rows or images are reconstructed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Minus the mean squared error of each row over its observed entries, in the
            squared unit of ``X``; pixels have values from 0 to 1. High for rows like
            those in `fit`. NaN for images that cannot be read, if ``on_error="nan"``.

        Notes
        -----
        Each number of a code is clipped to the range of the central 98 % of the
        training rows before it is decoded, unlike in `reconstruct`. A linear decoder
        extrapolates without limit, so that rows far from all training rows could have
        no error.
        """
        return self._told(X, scored, np.float64)

    def score(self, X, y=None):
        """Return the mean of `score_samples`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`. With ``on_error="nan"``, images that
            cannot be read are left out.
        y : None
            Ignored.

        Returns
        -------
        score : float
            Minus the mean squared error.
        """
        rows, scores, failures = self._apply(X, scored)
        return float(np.mean(read_rows(rows, failures, scores)[0]))

    def decision_function(self, X):
        """Return the scores of rows or images relative to the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,), float64
            ``score_samples(X) - offset_``: negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Predict which rows or images are like those in `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers or images, as in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), dtype int
            1 for inliers, -1 for outliers.
        """
        rows, scores, failures = self._apply(X, scored)
        check_all_read(rows, failures, instead="score_samples")
        return np.where(scores - self.offset_ < 0, -1, 1)

    def sample(self, n_samples=1, random_state=None):
        """Draw new rows or images.

        Codes are drawn from a mixture of Gaussians, which is fitted in the first call
        to the codes of at most 10,000 training rows, and decoded.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        random_state : int, RandomState instance or None, default=None
            Seed of the codes. None continues the sequence of ``random_state`` of the
            estimator, so that each call draws other rows.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features) or (n_samples, ...)
            New rows or images, as `inverse_transform` returns them.
        """
        check_is_fitted(self, "net_")
        given = {"n_samples": n_samples, "random_state": random_state}
        with shortened_errors():
            validate_parameter_constraints(_OF_SAMPLE, given, caller_name=f"{type(self).__name__}.sample")
        seed = self._seeds.draw() if random_state is None else Seeds(random_state).draw()
        if self._density is None:
            self._density = CodeDensity(self._codes, self._seeds.split)
        return self._finished(decoded(self.net_, self._density.sample(n_samples, seed)), np.float64)

    @property
    def _n_features_out(self):
        """Number of columns of the codes."""
        return self.n_components_

    def _told(self, X, function, dtype=None):
        """Apply a function of the net to a table, and warn of unreadable images."""
        rows, results, failures = self._apply(X, function)
        if failures:
            warn_of_nan(rows, failures)
        return results.astype(self._dtype(rows) if dtype is None else dtype, copy=False)

    def _finished(self, values, dtype):
        """Return reconstructions in their dtype; images with channels last."""
        if self.backbone is None:
            return values.astype(dtype)
        has_pixels = self.freeze_depth_ == 0
        return (values.transpose(0, 2, 3, 1) if has_pixels else values).astype(np.float32)
