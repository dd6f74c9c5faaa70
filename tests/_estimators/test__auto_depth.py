"""The cell of the table that pictures fall in, and what stands in it."""

import numpy as np
import pytest

from sktl import PretrainedFeatureExtractor
from sktl._estimators._auto_depth import Situation, assess_situation, strategy_params
from sktl._estimators._norm_shift import near_line, source_distance
from sktl._images import check_images

NEAR_BY, FAR_OFF, NOBODY_KNOWS = (0.1, 0.3), (0.5, 0.3), (0.2, None)


@pytest.mark.parametrize(
    ("n_images", "n_classes", "seen", "cell", "strategy"),
    [
        (99, 1, NEAR_BY, ("little", "similar"), "freeze_all"),
        (990, 10, FAR_OFF, ("little", "different"), "last_stages"),
        (198, 2, NOBODY_KNOWS, ("little", "unknown"), "freeze_all"),
        (198, 2, (None, 0.3), ("little", "unknown"), "freeze_all"),
        (1000, 10, NEAR_BY, ("much", "similar"), "last_stages"),
        (200, 2, FAR_OFF, ("much", "different"), "last_stages"),
        (200, 2, NOBODY_KNOWS, ("much", "unknown"), "last_stages"),
        (999, None, NEAR_BY, ("little", "similar"), "freeze_all"),
        (1000, None, NEAR_BY, ("much", "similar"), "last_stages"),
        (10, 2, (0.3, 0.3), ("little", "different"), "last_stages"),
    ],
)
def test_the_table(n_images, n_classes, seen, cell, strategy):
    """A hundred pictures of each class are much, a thousand numbers too; on the line is different."""
    situation = Situation(n_images, n_classes, *seen)
    assert (situation.amount, situation.domain) == cell
    assert situation.strategy == strategy


def test_the_last_stages_are_a_third():
    """Of two stages it is one, and of one that one; the other strategies know no number of stages."""
    depths = {n: strategy_params("last_stages", n)["freeze_depth"] for n in (1, 2, 5, 13, 19)}
    assert depths == {1: -1, 2: -1, 5: -2, 13: -4, 19: -6}
    assert strategy_params("freeze_all", 5) == {"freeze_depth": "all"}
    assert strategy_params("train_all", 5) == {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0}  # a tenth of the default
    assert strategy_params("no_transfer", 5) == {"freeze_depth": 0, "lr_decay": 1.0, "weights": None}


def test_looking(n_run):
    """All pictures are counted, and 64 are looked at, the same ones each time; one alone has no distance."""
    X = np.random.default_rng(0).random((100, 8, 8))
    extractor = PretrainedFeatureExtractor().fit(X)
    images = check_images(extractor, X, reset=False)
    first = assess_situation(extractor, images, 5)
    assert first[:2] == (100, 5)
    assert first.line == near_line(extractor.backbone_) == 0.42
    assert n_run[0] == 64
    assert assess_situation(extractor, images, 5) == first
    assert n_run[0] == 64
    assert source_distance(extractor, images) == pytest.approx(first.distance, rel=0.2)
    assert assess_situation(extractor, images.take(np.arange(2)), 2).distance > 0
    alone = assess_situation(extractor, images.take(np.array([0])), 2)
    assert (alone.n_images, alone.distance) == (1, None)
