"""Each method has its model of normal images, and its layers."""

import pytest
from sklearn.ensemble import IsolationForest

from sktl.anomaly import AnomalyDetector
from sktl.anomaly._methods import METHODS, make_scorer, resolve_layers, scores_patches
from sktl.anomaly._patch_scorers import PaDiM, PatchCore
from sktl.anomaly._scorers import EstimatorScorer, GaussianScorer, NeighborScorer
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError

FOREST = IsolationForest()
MODELS = {"knn": NeighborScorer, "mahalanobis": GaussianScorer, "patchcore": PatchCore, "padim": PaDiM}


@pytest.mark.parametrize("method", [*METHODS, FOREST])
def test_methods_have_models(method):
    """By name, or an estimator; two of them score patches."""
    expected = MODELS[method] if isinstance(method, str) else EstimatorScorer
    assert type(make_scorer(AnomalyDetector(method=method))) is expected
    assert scores_patches(method) == (method in ("patchcore", "padim"))


def test_neighbors_need_one_image_more():
    """Without itself, a row has the neighbors that it needs."""
    assert make_scorer(AnomalyDetector(n_neighbors=5)).n_required == 6


def test_layers():
    """The last stage, or two for patches; of given ones, patches need maps."""
    backbone = load_backbone("sktl_mini")
    assert resolve_layers(backbone, None, "knn") == ["layer4"]
    assert resolve_layers(backbone, None, FOREST) == ["layer4"]
    assert resolve_layers(backbone, None, "padim") == ["layer2", "layer3"]
    assert resolve_layers(backbone, [0, -1], "patchcore") == ["stem", "layer4"]
    assert resolve_layers(backbone, "flatten", "knn") == ["flatten"]
    with pytest.raises(BackboneError, match="needs layers with maps"):
        resolve_layers(backbone, "flatten", "padim")
