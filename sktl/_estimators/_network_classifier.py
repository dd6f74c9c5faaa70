"""What all estimators that train a network to tell classes apart share: labels, their weights, and predictions."""

from numbers import Real

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_y

from sktl._estimators._network_estimator import NetworkEstimator
from sktl._frozen._readable import check_all_read, read_rows
from sktl._images import is_missing
from sktl._messages import shortened_errors
from sktl._training._head_probe import classification_probe
from sktl._training._losses import ClassificationLoss
from sktl.exceptions import InputError


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

    _missing_labels_advice = "Drop those rows."

    @property
    def _n_outputs(self):
        return len(self.classes_)

    def _check_targets(self, y, weight, *, reset, classes):
        """Number of each row's class, and what it weighs."""
        # Before scikit-learn's check, which stumbles over pandas.NA.
        labels = np.asarray(y).ravel() if np.asarray(y).dtype.kind in "Of" else np.empty(0)
        missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
        if missing:
            raise InputError(f"y has missing labels, at position {missing[0]} first. {self._missing_labels_advice}")
        if len({isinstance(label, str) for label in labels}) == 2:
            raise InputError("y has both texts and numbers for labels, which have no order. Use one kind of them.")
        with shortened_errors():
            y = _check_y(y, multi_output=False, estimator=self)
            check_classification_targets(y)
        if reset:
            self._learn_classes(y if classes is None else classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError(
                f"y has labels {unknown[:5].tolist()} that are not among the classes {self.classes_.tolist()}. Name "
                "all classes in the first call (classes=), or fit anew."
            )
        index = np.searchsorted(self.classes_, y)
        return index, self._class_weights(index, weight)[index]

    def _learn_classes(self, labels):
        """The classes, of which two are needed."""
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise InputError(
                f"{type(self).__name__} needs two classes to tell apart, but y has one class: "
                f"{self.classes_.tolist()[0]!r}."
            )

    def _class_weights(self, index, weight):
        """The weight of each class: how much it counts beside the others, with the rows' total left as it is."""
        if isinstance(self.class_weight, dict):
            bad = [f"{label!r}: {value!r}" for label, value in self.class_weight.items() if not _is_weight(value)]
            if bad:
                raise InputError(
                    "The 'class_weight' parameter must give each class a finite number of zero or more. Got "
                    f"{bad[0]} instead."
                )
        mass = np.bincount(index, weights=weight, minlength=len(self.classes_))
        if self.class_weight == "balanced":  # of what the rows weigh: two of weight one are one of weight two
            class_weight = 1 / np.where(mass > 0, mass, mass[mass > 0].mean())
        else:
            with shortened_errors():
                class_weight = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[index])
        class_weight = class_weight / (class_weight.max() or 1)  # numbers near the largest there is have no sum
        if (class_weight < 0).any() or not (class_weight * mass).any():
            raise InputError(
                f"class_weight={self.class_weight!r} has to be zero or more for each class, and more than zero for a "
                "class that there are rows of."
            )
        return class_weight * mass.sum() / (class_weight * mass).sum()

    def _make_criterion(self):
        return ClassificationLoss(self.label_smoothing)

    def _probe(self, features, y, weight, groups):
        return classification_probe(features, y, weight, len(self.classes_))

    def _stratification(self, y):
        return y


def _is_weight(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")
