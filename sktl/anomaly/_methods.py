"""The methods of a detector by name, and the layers that each of them uses."""

from typing import Any

from sklearn.utils import check_random_state

from sktl._estimators._layer_features import name_layers
from sktl.anomaly._patch_scorers import PaDiM, PatchCore
from sktl.anomaly._patches import check_patch_layers, choose_patch_layers
from sktl.anomaly._scorers import EstimatorScorer, GaussianScorer, NeighborScorer, Scorer
from sktl.backbones import Backbone

PATCH_METHODS = ("patchcore", "padim")
METHODS = ("knn", "mahalanobis", *PATCH_METHODS)


def scores_patches(method: Any) -> bool:
    """Check whether a method scores the patches of an image."""
    return isinstance(method, str) and method in PATCH_METHODS


def make_scorer(detector: Any) -> Scorer:
    """Return the model of normal images for the parameters of a detector."""
    if not isinstance(detector.method, str):
        return EstimatorScorer(detector.method)
    if detector.method == "knn":
        return NeighborScorer(detector.n_neighbors)
    if detector.method == "mahalanobis":
        return GaussianScorer()
    seed = int(check_random_state(detector.random_state).randint(2**31 - 1))
    if detector.method == "patchcore":
        return PatchCore(detector.max_patches, seed)
    return PaDiM(detector.n_components, seed)


def resolve_layers(backbone: Backbone, layers: Any, method: Any) -> list[str]:
    """Return the names of the layers of a detector.

    Raises
    ------
    BackboneError
        If a layer does not exist or has no map for a method that scores patches.
    """
    if not scores_patches(method):
        return name_layers(backbone, -1 if layers is None else layers)
    if layers is None:
        return choose_patch_layers(backbone)
    names = name_layers(backbone, layers)
    check_patch_layers(backbone, names, method)
    return names
