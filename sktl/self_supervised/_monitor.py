"""Monitoring of features while a network learns without labels.

The loss alone does not tell whether the features are of use: it may fall while all
images get the same features, a collapse. Three numbers tell more.
"""

from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback

from sktl._frozen._activations import Activations
from sktl._images import is_missing
from sktl._training._data import LabeledImages
from sktl._training._skorch_net import TransferNet
from sktl._warnings import warn
from sktl.exceptions import TrainingWarning

N_WATCHED = 1000  # rows of which features are computed after each epoch
_N_NEIGHBORS = 5
_LEAST_STD = 0.1
_LEAST_RANK = 0.02  # as a fraction of the number of features


class FeatureMonitor(Callback):
    """Record the spread of the features after each epoch, in the history.

    Parameters
    ----------
    activations : Activations
        Output of the frozen stages for images without augmentation.
    n_sample : int
        Number of images, the first ones, that are a random sample of all.
    labels : ndarray of shape (n_images,)
        Class number of each image, or -1 for images without a label.
    """

    def __init__(self, activations: Activations, n_sample: int, labels: np.ndarray):
        self.activations = activations
        self.n_sample = n_sample
        self.labels = labels

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: a copy of the net needs no images."""
        return {}

    def on_epoch_end(self, net, **kwargs):
        """Compute the features and record what they tell."""
        features = self._features(net)
        net.history.record("std", feature_std(features[: self.n_sample]))
        net.history.record("effective_rank", effective_rank(features[: self.n_sample]))
        known = self.labels >= 0
        if len(np.unique(self.labels[known])) > 1:
            net.history.record("knn_accuracy", knn_accuracy(features[known], self.labels[known]))

    def _features(self, net: TransferNet) -> np.ndarray:
        """Return the features of all images, in eval mode."""
        net.module_.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(self.activations), net.batch_size):
                positions = range(start, min(start + net.batch_size, len(self.activations)))
                x = self.activations.batch(positions, 0).to(net.device)
                parts.append(net.module_.features(x).float().cpu())
        return torch.cat(parts).numpy()


def watched_rows(table: LabeledImages, unlabeled: Any, seed: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Choose the images to watch: a random sample of all, and one of the labeled ones.

    Parameters
    ----------
    table : LabeledImages
        The training rows. Labels are taken from what was passed to `fit`.
    unlabeled : object
        Label that marks unlabeled images.
    seed : int
        Seed of the samples.

    Returns
    -------
    rows : ndarray of shape (n_rows,)
        Positions of the images in the table.
    n_sample : int
        Number of rows of the first sample, which does not depend on the labels.
    labels : ndarray of shape (n_rows,)
        Class number of each row, or -1 if it has none or is not in the second sample.
    """
    labels = class_numbers(table.given[1], unlabeled)[table.images.positions]
    order = np.random.RandomState(seed).permutation(len(labels))
    sample, labeled = order[:N_WATCHED], order[labels[order] >= 0][:N_WATCHED]
    rows = np.concatenate([sample, labeled[~np.isin(labeled, sample)]])
    return rows, len(sample), np.where(np.isin(rows, labeled), labels[rows], -1)


def class_numbers(y: Any, unlabeled: Any) -> np.ndarray:
    """Return the class number of each label, or -1 if it is missing.

    All are -1 if ``y`` has several columns or fractions, unlike labels.

    Parameters
    ----------
    y : array-like
        Labels of the rows.
    unlabeled : object
        Label that marks unlabeled rows.
    """
    values = np.asarray(y)
    if values.ndim > 1 and values[0].size > 1:
        return np.full(len(values), -1)
    known = [None if is_missing(label) or label == unlabeled else label for label in values.ravel().tolist()]
    if any(isinstance(label, float) and not label.is_integer() for label in known):
        return np.full(len(values), -1)
    numbers: dict[Any, int] = {}
    return np.array([-1 if label is None else numbers.setdefault(label, len(numbers)) for label in known])


def feature_std(features: np.ndarray) -> float:
    """Return the mean standard deviation of normalized features, times sqrt(d).

    It is 0 if all directions are equal, and 1 if they are spread evenly around zero.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features of some images.

    References
    ----------
    Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
    section 4.1.
    """
    return float(_normalized(features).std(0).mean() * np.sqrt(features.shape[1]))


def effective_rank(features: np.ndarray) -> float:
    """Return the effective rank of features (RankMe): from 1 to min(n, d).

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features of some images.

    References
    ----------
    Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained
    Self-Supervised Representations by Their Rank", ICML 2023, equation 1.
    """
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    if not values[0] > 0:
        return 1.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def knn_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of nearest neighbors by cosine, each row left out in turn.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Features of some images.
    labels : ndarray of shape (n,)
        Class numbers of the rows, from 0 on.
    """
    normalized = _normalized(features)
    similarity = normalized @ normalized.T
    np.fill_diagonal(similarity, -np.inf)
    n_neighbors = min(_N_NEIGHBORS, len(labels) - 1)
    neighbors = np.argsort(-similarity, axis=1, kind="stable")[:, :n_neighbors]
    votes = np.eye(labels.max() + 1)[labels[neighbors]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def warn_of_collapse(epoch: dict[str, Any], n_features: int, n_images: int) -> None:
    """Warn if the features at the end of an epoch hardly differ between images.

    Parameters
    ----------
    epoch : dict
        Row of the history.
    n_features : int
        Number of features.
    n_images : int
        Number of training images.
    """
    std, rank = epoch["std"], epoch["effective_rank"]
    if std < _LEAST_STD or rank < _LEAST_RANK * min(n_features, n_images, N_WATCHED):
        warn(
            f"The features collapsed: they hardly differ between images. Their std is {std:.2g} (1 is best) and their "
            f"effective rank is {rank:.3g} of {n_features}. Use a smaller lr, a larger batch_size, task='vicreg' with "
            "a larger variance weight, or a weaker augment, and check that the images differ.",
            TrainingWarning,
        )


def _normalized(features: np.ndarray) -> np.ndarray:
    """Divide each row by its length; rows of zeros stay zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)
