"""What all estimators that train a network to tell classes apart share: labels, their weights, and predictions."""

from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from sktl._estimators._network_estimator import NetworkEstimator
from sktl._estimators._target_coding import ClassCoding
from sktl._frozen._readable import check_all_read, read_rows
from sktl._messages import shortened_errors
from sktl._training._objective import ClassificationObjective


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """Trains a network whose head has a logit for each class.

    Subclass contract: beside what `NetworkEstimator` asks for, the parameters ``label_smoothing`` and
    ``class_weight``.
    """

    def predict(self, X):
        """Labels.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        y : ndarray of shape (n_pictures,)
            The most probable label of each picture.

        Raises
        ------
        ImageError
            If images cannot be read, with ``on_error="nan"`` too: there is no label for them. The message names them.
        """
        images, outputs, failures = self._try_outputs(X)
        check_all_read(images, failures)
        return self.classes_[outputs.argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        """Accuracy: the share of right labels.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen. With ``on_error="nan"`` those that cannot be read are left out.
        y : array-like of shape (n_pictures,)
            Their true labels.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            From 0 to 1.
        """
        images, outputs, failures = self._try_outputs(X)
        labels = self.classes_[outputs.argmax(axis=1)]
        labels, y, sample_weight = read_rows(images, failures, labels, y, sample_weight)
        with shortened_errors():
            return accuracy_score(y, labels, sample_weight=sample_weight)

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        probabilities : ndarray of shape (n_pictures, n_classes), float32
            In the order of ``classes_``.
        """
        return softmax(self._outputs(X), axis=1)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        log_probabilities : ndarray of shape (n_pictures, n_classes), float32
            In the order of ``classes_``.
        """
        return log_softmax(self._outputs(X), axis=1)

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        logits : ndarray of shape (n_pictures, n_classes) or (n_pictures,), float32
            One per class; with two classes, that of the second one minus that of the first one.
        """
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _make_coding(self, is_new, classes):
        """Class numbers; those that a network has learned stay as they are."""
        return ClassCoding(type(self).__name__, self.class_weight, classes, None if is_new else self.classes_)

    def _make_objective(self, coding, table, depth, seed):
        """Logits."""
        return ClassificationObjective(coding.n_outputs, self.label_smoothing)
