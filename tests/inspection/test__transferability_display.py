"""Scores against accuracies: who is where, by which name, and how alike the two orders are."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from scipy.stats import weightedtau

from sktl.inspection import TransferabilityDisplay
from sktl.selection import BackboneSelector

NAMES = ["stem", "layer1", "layer2", "layer3", "layer4"]
SCORES = [0.1, 0.2, 0.3, 0.5, 0.4]
ACCURACIES = [0.5, 0.7, 0.6, 0.8, 0.9]


class Ranking:
    """What is asked of a ranking, and no more."""

    def __init__(self, **columns):
        self.columns = columns

    def to_dict(self):
        return self.columns


RANKING = Ranking(backbone=["small", "large", "small"], layer=["a", "a", "b"], score=[3.0, 2.0, 1.0])


def slow_tau(x, y):
    """Vigna's definition: pairs weighted by the reciprocal ranks in one order, the mean over both orders."""
    x, y = np.asarray(x), np.asarray(y)
    taus = []
    for rank in (np.lexsort((y, x))[::-1].argsort(), np.lexsort((x, y))[::-1].argsort()):
        weight = 1 / (rank + 1)
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]

        def product(u, v, weight=weight, pairs=pairs):
            return sum(np.sign(u[i] - u[j]) * np.sign(v[i] - v[j]) * (weight[i] + weight[j]) for i, j in pairs)

        taus.append(product(x, y) / np.sqrt(product(x, x) * product(y, y)))
    return np.mean(taus)


def test_the_points_and_their_order():
    """Each candidate is drawn at its score and accuracy under its name, and the title says how alike the orders are."""
    display = TransferabilityDisplay(SCORES, ACCURACIES, names=NAMES, score_name="LogME", accuracy_name="R²").plot()
    (points,) = display.points_
    np.testing.assert_allclose(points.get_offsets(), np.column_stack([SCORES, ACCURACIES]))
    assert [label.get_text() for label in display.labels_] == NAMES
    np.testing.assert_allclose([label.xy for label in display.labels_], points.get_offsets())
    assert display.tau_ == pytest.approx(slow_tau(SCORES, ACCURACIES))
    assert display.tau_ == pytest.approx(weightedtau(ACCURACIES, SCORES).statistic)
    assert display.ax_.get_title() == f"weighted Kendall's τ of 5 candidates: {display.tau_:.2f}"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("LogME, before training", "R²")
    assert display.legend_ is None


def test_the_best_count_most():
    """The two best in another order cost more than the two worst."""
    scores = np.arange(6.0)
    best, worst = scores[[0, 1, 2, 3, 5, 4]], scores[[1, 0, 2, 3, 4, 5]]
    taus = [TransferabilityDisplay(scores, other, names=[""] * 6).plot().tau_ for other in (best, worst)]
    assert taus[0] < taus[1] < 1


@pytest.mark.parametrize(("scores", "accuracies"), [([0.5], [0.5]), ([0.5, 0.5], [0.1, 0.2]), ([0.1, 0.2], [0.5, 0.5])])
def test_without_an_order(scores, accuracies):
    """One candidate, or equal ones, have points and names, and no tau."""
    display = TransferabilityDisplay(scores, accuracies, names=["a", "b"][: len(scores)]).plot()
    assert np.isnan(display.tau_)
    assert display.ax_.get_title().endswith("not defined")
    assert len(display.labels_) == len(scores)


def test_groups():
    """Candidates of one network have one colour, and the legend names the networks in the order of the ranking."""
    display = TransferabilityDisplay.from_ranking(RANKING, [0.9, 0.8, 0.7])
    assert [text.get_text() for text in display.legend_.get_texts()] == ["small", "large"]
    np.testing.assert_allclose(display.points_[0].get_offsets(), [[3, 0.9], [1, 0.7]])
    np.testing.assert_allclose(display.points_[1].get_offsets(), [[2, 0.8]])
    assert [label.get_text() for label in display.labels_] == ["a", "a", "b"]
    colors = [label.get_color() for label in display.labels_]
    assert colors[0] == colors[2] != colors[1]


def test_odd_and_long_names():
    """They are cut, a dollar sign begins no formula, and a group's underscore keeps it not out of the legend."""
    names, groups = ["$a$", "b" * 90], ["_mine", "g" * 90]
    display = TransferabilityDisplay([0.1, 0.2], [0.5, 0.6], names=names, groups=groups).plot()
    assert [text.get_text() for text in display.legend_.get_texts()] == [" _mine", "g" * 23 + "…"]
    assert [label.get_text() for label in display.labels_] == [r"\$a\$", "b" * 31 + "…"]
    assert display.names == names


def test_accuracies_by_name():
    """A dict is looked up by network and layer, in whatever order it is, and may hold more."""
    measured = {("small", "b"): 0.7, ("other", "a"): 0.1, ("large", "a"): 0.8, ("small", "a"): 0.9}
    display = TransferabilityDisplay.from_ranking(RANKING, measured)
    assert list(display.accuracies) == [0.9, 0.8, 0.7]


def test_the_ranking_of_a_selector(digits):
    """What a fitted selector has is drawn as it is; layers of one network need no legend."""
    X, y = digits[0][:60], digits[1][:60]
    ranking = BackboneSelector().fit(X, y).ranking_
    _, ax = plt.subplots()
    display = TransferabilityDisplay.from_ranking(
        ranking, np.arange(5)[::-1], score_name="LogME", ax=ax, scatter_kw={"s": 99}
    )
    columns = ranking.to_dict()
    assert display.ax_ is ax
    assert display.tau_ == pytest.approx(1)
    assert display.legend_ is None
    assert display.names == columns["layer"]
    np.testing.assert_allclose(display.points_[0].get_offsets()[:, 0], columns["score"])
    assert set(display.points_[0].get_sizes()) == {99}


def test_names_do_not_overlap():
    """Ten candidates that lie close together are written clear of each other."""
    scores = np.linspace(0.4, 0.5, 10)
    display = TransferabilityDisplay(scores, scores**2, names=[f"features.{i}" for i in range(10)]).plot()
    display.figure_.draw_without_rendering()
    boxes = [Text.get_window_extent(label) for label in display.labels_]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1, 2]}, "inconsistent numbers of samples"),
        ({"names": ["a"]}, "inconsistent numbers of samples"),
        ({"groups": ["a"]}, "inconsistent numbers of samples"),
        ({"scores": [0.1, 0.2, 0.3, 0.5, np.nan]}, "must contain at least one value, and neither NaN nor infinity"),
        ({"accuracies": [0.1, 0.2, 0.3, 0.5, np.inf]}, "must contain at least one value, and neither NaN nor infinity"),
        ({"scores": [], "accuracies": [], "names": []}, r"must contain at least one value.*Got \[\] instead"),
    ],
)
def test_bad_input(change, message):
    """Each is an error that says what is wrong."""
    given = {"scores": SCORES, "accuracies": ACCURACIES, "names": NAMES, **change}
    with pytest.raises(ValueError, match=message):
        TransferabilityDisplay(**given).plot()


def test_bad_rankings():
    """A candidate without an accuracy, and two that a dict cannot tell apart, are named."""
    with pytest.raises(ValueError, match=r"no value for \[\('large', 'a'\)"):
        TransferabilityDisplay.from_ranking(RANKING, {("small", "a"): 0.9, ("small", "b"): 0.9})
    twice = Ranking(backbone=["small"] * 2, layer=["a"] * 2, score=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"\[\('small', 'a'\)\] more than once"):
        TransferabilityDisplay.from_ranking(twice, {("small", "a"): 0.9})
