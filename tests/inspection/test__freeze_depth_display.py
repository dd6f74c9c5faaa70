"""The picture of a search over freeze depths: order, choice of candidates, labels."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline

from sktl import FineTunedClassifier
from sktl.inspection import FreezeDepthDisplay
from sktl.preprocessing import PixelRowsToImages


def make_search(depths, scores, name="freeze_depth", other=None, best=None, **changes):
    """A search as it looks after its fit, with these results: no network runs."""
    params = [{name: depth, **({} if other is None else {"lr": lr})} for depth, lr in zip(depths, other or depths)]  # noqa: B905
    columns = {f"param_{key}": [candidate.get(key) for candidate in params] for key in params[0]}
    results = {
        "params": params,
        **columns,
        "mean_test_score": np.array(scores, float),
        "std_test_score": np.array(scores, float) / 10,
        "mean_fit_time": np.arange(1.0, len(params) + 1),
    }
    search = SimpleNamespace(cv_results_=results, scoring=None, refit=best is not None, fit=None, **changes)
    if best is not None:
        search.best_estimator_ = best
    search.__sklearn_tags__ = lambda: SimpleNamespace(requires_fit=True, estimator_type="classifier")
    return search


def tick_labels(display):
    return [label.get_text() for label in display.time_ax_.get_xticklabels()]


@pytest.fixture(scope="module")
def small(digits):
    """A fitted classifier whose network has five stages."""
    return FineTunedClassifier(max_epochs=0).fit(digits[0][:40], digits[1][:40])


def test_a_real_search(digits):
    """Scores, spreads and times are those of the search, the most frozen depth first, drawn in two panels."""
    X, y = digits
    search = GridSearchCV(
        FineTunedClassifier(max_epochs=1, random_state=0), {"freeze_depth": [-1, "layer2", "all"]}, cv=2
    ).fit(X[:80], y[:80])
    display = FreezeDepthDisplay.from_search(search)
    assert display.depths == ["all", -1, "layer2"]
    assert (display.n_frozen, display.n_stages, display.score_name) == ([5, 4, 3], 5, "accuracy")
    order = [2, 0, 1]
    np.testing.assert_array_equal(display.mean_scores, search.cv_results_["mean_test_score"][order])
    np.testing.assert_array_equal(display.std_scores, search.cv_results_["std_test_score"][order])
    np.testing.assert_array_equal(display.fit_times, search.cv_results_["mean_fit_time"][order])
    np.testing.assert_array_equal(display.errorbar_.lines[0].get_ydata(), display.mean_scores)
    np.testing.assert_array_equal([bar.get_height() for bar in display.bars_], display.fit_times)
    assert tick_labels(display) == ['"all"\n5', "-1\n4", '"layer2"\n3']


def test_inside_a_pipeline_of_a_random_search(digits):
    """The parameter of a step is found, and the number of stages by way of the best pipeline."""
    X, y = digits
    pipe = make_pipeline(PixelRowsToImages(), FineTunedClassifier(max_epochs=1, random_state=0))
    grid = {"finetunedclassifier__freeze_depth": [0, -2]}
    search = RandomizedSearchCV(pipe, grid, n_iter=2, cv=2, random_state=0, scoring="f1_macro").fit(X[:60], y[:60])
    display = FreezeDepthDisplay.from_search(search)
    assert (display.depths, display.n_frozen) == ([-2, 0], [3, 0])
    assert display.score_name == "f1_macro"


def test_the_best_candidate_stands_for_its_depth(small):
    """Of several candidates with one depth the best score counts, with its own spread; a failed one never does."""
    search = make_search(["all", "all", -1, -1], [0.5, 0.7, 0.9, np.nan], other=[1, 2, 1, 2], best=small)
    display = FreezeDepthDisplay.from_search(search)
    np.testing.assert_allclose(display.mean_scores, [0.7, 0.9])
    np.testing.assert_allclose(display.std_scores, [0.07, 0.09])
    np.testing.assert_allclose(display.fit_times, [1.5, 3.5])


def test_numbers_and_names_of_one_depth_stay_apart(small):
    """What was written differently is shown side by side, even where it means the same."""
    display = FreezeDepthDisplay.from_search(make_search([4, 0, -1], [0.1, 0.2, 0.3], best=small))
    assert (display.depths, display.n_frozen) == ([4, -1, 0], [4, 4, 0])


@pytest.mark.parametrize("other", ["no refit", "several networks", "an impossible depth"])
def test_order_without_the_number_of_stages(small, other):
    """Where stages cannot be counted, depths are in order all the same, and are not said to be so many stages."""
    depths = [0, -2, "all", 1, -1]
    search = make_search(depths, [0.1] * 5, best=None if other == "no refit" else small)
    if other == "several networks":
        for params in search.cv_results_["params"]:
            params["backbone"] = "sktl_mini"
    if other == "an impossible depth":
        search = make_search([*depths, -40], [0.1] * 5 + [np.nan], best=small)
    display = FreezeDepthDisplay.from_search(search)
    assert [depth for depth in display.depths if depth != -40] == ["all", -1, -2, 1, 0]
    assert display.n_frozen is None
    assert tick_labels(display)[:2] == ['"all"', "-1"]


def test_several_metrics(small):
    """Of several scores the one that the search refits by is drawn, or the one asked for."""
    search = make_search(["all", -1], [0.5, 0.7], best=small)
    results = search.cv_results_
    for kind in ("mean", "std"):
        values = results.pop(f"{kind}_test_score")
        results[f"{kind}_test_accuracy"], results[f"{kind}_test_f1"] = values, values / 2
    search.refit = "accuracy"
    assert FreezeDepthDisplay.from_search(search).score_name == "accuracy"
    np.testing.assert_allclose(FreezeDepthDisplay.from_search(search, metric="f1").mean_scores, [0.25, 0.35])
    with pytest.raises(ValueError, match=r"metric='recall' is not a score of the search\. Use one of "):
        FreezeDepthDisplay.from_search(search, metric="recall")


def test_axes_and_styles_of_the_user(small):
    """Both panels go where they shall, and keywords reach matplotlib."""
    _, axes = plt.subplots(2, 1)
    search = make_search(["all", -1], [0.5, 0.7], best=small)
    display = FreezeDepthDisplay.from_search(search, ax=axes, errorbar_kw={"color": "red"}, bar_kw={"color": "blue"})
    assert (display.ax_, display.time_ax_) == tuple(axes)
    assert display.errorbar_.lines[0].get_color() == "red"
    assert display.bars_[0].get_facecolor() == (0, 0, 1, 1)


def test_what_cannot_be_drawn(small):
    """A search that is not fitted, is over something else, or over two depths, is an error that says so."""
    with pytest.raises(NotFittedError):
        FreezeDepthDisplay.from_search(GridSearchCV(FineTunedClassifier(), {"freeze_depth": [0]}))
    with pytest.raises(
        ValueError, match=r"It varies \['C'\], of which 0 match\. Add freeze_depth to the parameter grid"
    ):
        FreezeDepthDisplay.from_search(make_search([1, 2], [0.1, 0.2], name="C"))
    search = make_search([1, 2], [0.1, 0.2], name="a__freeze_depth")
    search.cv_results_["param_b__freeze_depth"] = [1, 2]
    with pytest.raises(ValueError, match=r"of which 2 match\. Choose one with param_name"):
        FreezeDepthDisplay.from_search(search)
    assert FreezeDepthDisplay.from_search(search, param_name="a__freeze_depth").depths == [2, 1]
    del search.cv_results_["params"][0]["a__freeze_depth"]
    with pytest.raises(ValueError, match=r"Some candidates of the search do not set .*Add it to each parameter grid"):
        FreezeDepthDisplay.from_search(search, param_name="a__freeze_depth")


def test_near_copies_are_held_out_together(digits):
    """A number of folds is one of whole groups: images with the label of chance are not known from their copies."""
    originals = np.tile(np.arange(20), 4)
    X = digits[0][:20][originals]
    y = np.random.default_rng(0).permutation(np.arange(20) % 2)[originals]
    model, some = FineTunedClassifier(max_epochs=0), {"depths": ["all"], "cv": 4}
    plain = FreezeDepthDisplay.from_estimator(model, X, y, **some)
    grouped = FreezeDepthDisplay.from_estimator(model, X, y, **some, groups=originals)
    assert plain.mean_scores[0] > 0.95
    assert grouped.mean_scores[0] < 0.8
