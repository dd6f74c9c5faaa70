"""Models of normal images on patches, for maps of anomalies."""

import itertools

import numpy as np

from sktl.anomaly._core_set import greedy_core_set, random_projection
from sktl.anomaly._gaussians import left_out, squared_distances, whitening
from sktl.anomaly._patch_memory import PatchMemory
from sktl.anomaly._scorers import Blocks

_CANDIDATES = 10  # patches per center among which a core set is chosen
# Dimensions in which the core set is chosen. With 64, as in the paper, it finds fewer
# defects if patches have about 200 channels, and is not much faster.
_PROJECTED = 256
_RIDGE = 0.01  # added to the diagonal of the covariances of PaDiM, as in the paper


class PatchCore:
    """Distance of each patch to the nearest patch of the training images.

    Parameters
    ----------
    max_patches : int
        Maximum number of patches to keep. If there are more, a core set is chosen from
        ten times this number, which are drawn evenly from the images.
    seed : int
        Seed of the random numbers.

    References
    ----------
    Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
    """

    n_required = 2

    def __init__(self, max_patches: int, seed: int):
        self._max_patches, self._seed = max_patches, seed

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Keep the patches, or a core set of them."""
        generator = np.random.default_rng(self._seed)
        n_each = -(-_CANDIDATES * self._max_patches // n_images)
        drawn, counts = [], []
        for block in blocks:
            for patches in block:
                if len(patches) > n_each:
                    patches = patches[np.sort(generator.choice(len(patches), n_each, replace=False))]
                drawn.append(patches)
                counts.append(len(patches))
        memory, images = np.concatenate(drawn), np.repeat(np.arange(n_images), counts)
        substitutes = None  # without an image, all others keep their patches
        if len(memory) > self._max_patches:
            points, n_channels = memory, memory.shape[1]
            if n_channels > _PROJECTED:
                points = memory @ random_projection(n_channels, _PROJECTED, generator)
            centers, nearest = greedy_core_set(points, self._max_patches, images)
            order = np.argsort(images[centers], kind="stable")
            centers, substitutes = centers[order], memory[nearest[order]]
            memory, images = memory[centers], images[centers]
        self._memory = PatchMemory(memory, np.searchsorted(images, np.arange(n_images + 1)), substitutes)

    @property
    def n_patches(self) -> int:
        """Number of patches that are kept."""
        return len(self._memory)

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the distance of each patch, see `Scorer.distances`.

        Other images may have patches like those of a training image, such as plain
        background, of which a core set has only one. If it belongs to the image itself,
        the nearest patch of another image takes its position.
        """
        rows = zip(features, own.tolist(), strict=True)
        return np.array([self._memory.distances(patches, image) for patches, image in rows])


class PaDiM:
    """Mahalanobis distance of each patch to the patches at the same position.

    Parameters
    ----------
    n_components : int
        Number of channels, drawn at random.
    seed : int
        Seed of the random choice of channels.

    References
    ----------
    Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
    and Localization", ICPR 2021.
    """

    n_required = 3

    def __init__(self, n_components: int, seed: int):
        self._n_components, self._seed = n_components, seed

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Estimate the mean and the covariance at each position, block by block."""
        remaining = iter(blocks)
        first = next(remaining)
        order = np.random.default_rng(self._seed).permutation(first.shape[2])
        self._channels = np.sort(order[: self._n_components])
        shift = first[0][:, self._channels].astype(np.float64)  # squares far from the mean would lose digits
        total, products = np.zeros_like(shift), np.zeros((*shift.shape, shift.shape[1]))
        for block in itertools.chain([first], remaining):
            rows = self._rows(block) - shift[:, np.newaxis]
            total += rows.sum(axis=1)
            products += rows.transpose(0, 2, 1) @ rows
        mean = total / n_images
        scatter = products - n_images * mean[:, :, np.newaxis] * mean[:, np.newaxis]
        covariances = scatter / (n_images - 1) + _RIDGE * np.eye(len(self._channels))
        self._means, self._factors = mean + shift, whitening(covariances)
        self._n_images = n_images

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the distance of each patch, see `Scorer.distances`."""
        squared = squared_distances(self._rows(features), self._means, self._factors).T
        weight = self._n_images / (self._n_images - 1)
        without = left_out(squared, self._n_images, weight)
        return np.sqrt(np.where(own[:, np.newaxis] < 0, squared, without))

    def _rows(self, features: np.ndarray) -> np.ndarray:
        """Return the chosen channels as (n_patches, n_images, n_channels), float64."""
        return features[:, :, self._channels].transpose(1, 0, 2).astype(np.float64)
