"""freeze_depth="auto": what is chosen, from what, and that it stays chosen."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import sktl._estimators._auto_depth as strategy_module
from sktl import DistilledClassifier, FineTunedClassifier, FineTunedRegressor
from sktl.exceptions import BackboneError
from sktl.inspection import FreezeDepthDisplay
from sktl.selection import recommend_strategy


@pytest.fixture(scope="module")
def table():
    """Three hundred digits as rows of pixels from 0 to 1, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


@pytest.fixture
def distance(monkeypatch):
    """Sets how far pictures are said to be; in a list of one number."""
    said = [0.1]
    monkeypatch.setattr(strategy_module, "source_distance", lambda owner, images: said[0])
    return said


def digests(images):
    return [images.digest(row) for row in range(len(images))]


def auto(**params):
    return FineTunedClassifier(**{"freeze_depth": "auto", "max_epochs": 0, **params})


def test_the_depth_is_that_of_the_advice(table, distance):
    """Near and few freezes all; far, or near and many, leaves the last third."""
    X, y = table
    assert auto().fit(X, y).freeze_depth_ == 5
    assert auto().fit(X, y % 2).freeze_depth_ == 3
    assert FineTunedRegressor(freeze_depth="auto", max_epochs=0).fit(X, y + 0.5).freeze_depth_ == 5  # 300 numbers
    distance[0] = 0.9
    assert auto().fit(X, y).freeze_depth_ == 3
    assert FineTunedRegressor(freeze_depth="auto", max_epochs=0).fit(X, y + 0.5).freeze_depth_ == 3
    distance[0] = None
    assert auto().fit(X, y).freeze_depth_ == 5
    assert auto(weights=None, random_state=0).fit(X, y).freeze_depth_ == 0
    lent = auto().fit(X, y).backbone_
    assert auto(backbone=lent, weights=None).fit(X, y).freeze_depth_ == 5  # a network has the weights that it has


def test_as_the_recommendation_says(table, monkeypatch):
    """The depth is the one that is recommended for the same pictures, by the same few of them, whatever the seeds."""
    X, y = table
    seen = []
    monkeypatch.setattr(strategy_module, "source_distance", lambda owner, images: seen.append(digests(images)) or 0.9)
    model = auto(random_state=3).fit(np.vstack([X] * 4), np.hstack([y] * 4))
    params = recommend_strategy(np.vstack([X] * 4), np.hstack([y] * 4), random_state=5).params
    assert seen[0] == seen[1]
    assert model.freeze_depth_ == model.backbone_.stage_index(params["freeze_depth"])


def test_it_trains_what_it_would_train_at_that_depth(table):
    """The network that comes out is the one of the depth as a number."""
    X, y = table
    chosen = auto(max_epochs=1, random_state=0).fit(X[:60], y[:60])
    told = clone(chosen).set_params(freeze_depth=chosen.freeze_depth_).fit(X[:60], y[:60])
    np.testing.assert_array_equal(chosen.predict_proba(X[60:90]), told.predict_proba(X[60:90]))


def test_a_warm_start_and_steps_keep_the_depth(table, distance):
    """What was chosen for a network holds while it goes on learning, and is chosen anew in a new fit."""
    X, y = table
    model = auto(warm_start=True).fit(X, y)
    distance[0] = 0.9
    assert model.fit(X, y).freeze_depth_ == 5
    assert model.set_params(warm_start=False).fit(X, y).freeze_depth_ == 3
    stepping = auto().partial_fit(X, y, classes=np.unique(y))
    distance[0] = 0.1
    assert stepping.freeze_depth_ == stepping.partial_fit(X, y).freeze_depth_ == 3


def test_in_a_search(table):
    """It is a candidate beside depths that are numbers, and a display of the search knows how deep it is."""
    pytest.importorskip("matplotlib")
    X, y = table
    model = FineTunedClassifier(max_epochs=0, random_state=0)
    search = GridSearchCV(model, {"freeze_depth": ["auto", "all", -1]}, cv=2).fit(X[:60], y[:60] % 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    display = FreezeDepthDisplay.from_search(search)
    assert "auto" in display.depths


def test_elsewhere_there_is_no_auto(table):
    """A student has no pretraining to keep as a rule; the error says what it takes."""
    X, y = table
    with pytest.raises(BackboneError, match="freeze_depth='auto' is invalid"):
        DistilledClassifier(FineTunedClassifier(max_epochs=0), freeze_depth="auto", max_epochs=0).fit(X[:30], y[:30])


@pytest.mark.parametrize("regressor", [False, True])
@pytest.mark.parametrize(("word", "meant"), [("al", "all"), ("aut", "auto"), ("layer44", "layer4"), ("xyz", None)])
def test_a_word_that_is_none(table, regressor, word, meant):
    """The error names all that it may be, "auto" as well, and what was meant."""
    X, y = table
    cls = FineTunedRegressor if regressor else FineTunedClassifier
    says = rf"freeze_depth='{word}'.*{f'Did you mean {meant!r}' if meant else ''}.* 'all', 'auto', or .*'layer4'"
    with pytest.raises(BackboneError, match=says):
        cls(freeze_depth=word, max_epochs=0).fit(X[:40], y[:40])
