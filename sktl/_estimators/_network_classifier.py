"""Base class of classifiers that train a network."""

from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from sktl._estimators._network_estimator import NetworkEstimator
from sktl._estimators._target_coding import ClassCoding
from sktl._frozen._readable import check_all_read, read_rows
from sktl._messages import shortened_errors
from sktl._training._objective import ClassificationObjective


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """Base class of classifiers that train a network with one logit per class.

    In addition to the parameters of `NetworkEstimator`, subclasses have
    ``label_smoothing`` and ``class_weight``.
    """

    def predict(self, X):
        """Predict the labels of images.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            The most probable label of each image.

        Raises
        ------
        ImageError
            If images cannot be read, even with ``on_error="nan"``, because they have no
            label to return. The message lists the images.
        """
        images, outputs, failures = self._try_outputs(X)
        check_all_read(images, failures)
        return self.classes_[outputs.argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the predicted labels.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`. With ``on_error="nan"``, images that
            cannot be read are left out.
        y : array-like of shape (n_samples,)
            Labels of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Accuracy of ``self.predict(X)`` with respect to ``y``.
        """
        images, outputs, failures = self._try_outputs(X)
        labels = self.classes_[outputs.argmax(axis=1)]
        labels, y, sample_weight = read_rows(images, failures, labels, y, sample_weight)
        with shortened_errors():
            return accuracy_score(y, labels, sample_weight=sample_weight)

    def predict_proba(self, X):
        """Predict the probabilities of the classes.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), float32
            Probability of each class, in the order of ``classes_``.
        """
        return softmax(self._outputs(X), axis=1)

    def predict_log_proba(self, X):
        """Predict the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), float32
            Log-probability of each class, in the order of ``classes_``.
        """
        return log_softmax(self._outputs(X), axis=1)

    def decision_function(self, X):
        """Return the logits of the classes.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,), float32
            One logit per class, in the order of ``classes_``. With two classes, the
            logit of ``classes_[1]`` minus the logit of ``classes_[0]``.
        """
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _make_coding(self, is_new, classes):
        """Encode labels as class numbers; a trained network keeps its classes."""
        return ClassCoding(type(self).__name__, self.class_weight, classes, None if is_new else self.classes_)

    def _make_objective(self, coding, table, depth, seed):
        """Return the objective for logits of the classes."""
        return ClassificationObjective(coding.n_outputs, self.label_smoothing)
