"""Classification by models of the single classes."""

from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktl._estimators._checked_table import as_targets
from sktl._estimators._target_coding import ClassCoding
from sktl._params import Estimator, check_consistent_length
from sktl.autoencoders._autoencoder import Autoencoder
from sktl.exceptions import InputError


class ReconstructionClassifier(MetaEstimatorMixin, ClassifierMixin, Estimator):
    """Classify by the class whose model reconstructs a row or image best.

    An estimator with scores, such as an autoencoder, is fitted to the rows of each
    class alone. A new row gets the label of the class whose estimator gives it the
    highest score. Classes can be added without changing the models of the others, and a
    row that is an outlier in all classes can be recognized.

    Read more in the :doc:`user guide </autoencoders>`.

    Parameters
    ----------
    estimator : estimator, default=None
        Estimator with ``fit`` and ``score_samples``, such as `Autoencoder`,
        `sklearn.decomposition.PCA` or `sklearn.mixture.GaussianMixture`. A clone is
        fitted to the rows of each class. None uses ``Autoencoder(random_state=0)``.
    outlier_label : int or str, default=None
        Label of rows that are outliers in all classes: the ``decision_function`` of
        each estimator is negative. None predicts one of the classes for all rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, without ``outlier_label``.
    estimators_ : list of estimator
        The fitted estimators, in the order of ``classes_``.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    InputError
        From `fit`, if a class has a single row, or ``outlier_label`` does not fit the
        estimator or the labels. From `predict`, if a row has no score.
    ValueError
        From `fit`, if a parameter is invalid or ``y`` has only one class.

    See Also
    --------
    Autoencoder : Learn short codes of rows or images.
    sktl.anomaly.AnomalyDetector : Another estimator with scores, for images.
    sklearn.neighbors.RadiusNeighborsClassifier : Classifier with an outlier label.

    Notes
    -----
    The scores of different classes are compared as they are. They are not
    probabilities; `sklearn.calibration.CalibratedClassifierCV` makes probabilities of
    them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sktl.autoencoders import ReconstructionClassifier
    >>> X, y = load_digits(n_class=5, return_X_y=True)
    >>> classifier = ReconstructionClassifier(PCA(10)).fit(X[:400], y[:400])
    >>> print(f"{classifier.score(X[400:], y[400:]):.2f}")
    1.00
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "outlier_label": [Integral, str, None],
    }

    def __init__(self, estimator=None, *, outlier_label=None):
        self.estimator = estimator
        self.outlier_label = outlier_label

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Fit an estimator to the rows of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Whatever the estimator takes.
        y : array-like of shape (n_samples,)
            Labels of the rows.

        Returns
        -------
        self : ReconstructionClassifier
            The fitted estimator.
        """
        (X,) = indexable(X)
        if not _num_samples(X):
            raise InputError(f"{type(self).__name__} needs rows of at least two classes. Got 0 samples instead.")
        coding = ClassCoding(type(self).__name__, None)
        y = coding.missing(_num_samples(X)) if y is None else as_targets(y)
        check_consistent_length(X, y)
        index, _ = coding.encode(y, np.ones(len(y)), learns=True)
        self.classes_ = coding.classes
        self._check_classes(index)
        self.estimators_ = [
            self._fit_class(label, _safe_indexing(X, np.flatnonzero(index == number)))
            for number, label in enumerate(self.classes_.tolist())
        ]
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimators_[0], name):
                setattr(self, name, getattr(self.estimators_[0], name))
        return self

    def predict(self, X):
        """Predict the labels of rows or images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of the same kind as in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            The predicted labels.
        """
        scores = self._scores(X)  # raises NotFittedError before fit
        labels = self.classes_[scores.argmax(1)]
        if self.outlier_label is None:
            return labels
        is_outlier = np.all([estimator.decision_function(X) < 0 for estimator in self.estimators_], axis=0)
        return np.where(is_outlier, np.asarray(self.outlier_label), labels)

    def decision_function(self, X):
        """Return the scores of rows or images in each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of the same kind as in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Scores by the estimator of each class, in the order of ``classes_``. For two
            classes, the second score minus the first.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    @property
    def _estimator(self):
        """The estimator, or the default one."""
        return Autoencoder(random_state=0) if self.estimator is None else self.estimator

    def _check_classes(self, index):
        """Check that each class has several rows, and the label of outliers."""
        single = self.classes_[np.bincount(index) == 1]
        if len(single):
            raise InputError(
                f"{type(self).__name__} needs at least two rows of each class. Got a single row of classes "
                f"{single.tolist()[:5]} instead. Drop these classes, or add rows."
            )
        if self.outlier_label is None:
            return
        if not hasattr(self._estimator, "decision_function"):
            raise InputError(
                "outlier_label needs an estimator with decision_function, whose sign separates inliers from outliers. "
                f"Got estimator={self._estimator!r} instead. Use an Autoencoder, or outlier_label=None."
            )
        if isinstance(self.outlier_label, str) != isinstance(self.classes_.tolist()[0], str):
            raise InputError(
                f"The 'outlier_label' parameter must be of the type of the labels, such as "
                f"{self.classes_.tolist()[0]!r}. Got {self.outlier_label!r} instead."
            )

    def _fit_class(self, label, X):
        """Return a clone of the estimator, fitted to the rows of a class."""
        try:
            return clone(self._estimator).fit(X)
        except Exception as error:
            error.add_note(f"This happened in the fit to the {_num_samples(X)} rows of class {label!r}.")
            raise

    def _scores(self, X):
        """Return the scores of all classes, (n_samples, n_classes)."""
        check_is_fitted(self, "estimators_")
        scores = np.column_stack([estimator.score_samples(X) for estimator in self.estimators_])
        missing = np.flatnonzero(np.isnan(scores).any(1))
        if len(missing):
            raise InputError(
                f"{len(missing)} of {len(scores)} rows have a score of NaN and cannot be classified, the first one at "
                f"position {missing[0]}. Drop these rows."
            )
        return scores

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self._estimator).input_tags
        return tags
