"""The picture of lottery tickets: what a table of rounds says, over several runs, and names that can be read."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktl._table import ReadableTable
from sktl.inspection import LotteryTicketDisplay

COLUMNS = ["ticket", "round", "weights_left", "sparsity", "score", "early_stopping_epoch"]
ALL = ["winning", "random_init", "random_mask"]


class Lottery(ClassifierMixin, BaseEstimator):
    """What a fitted search for tickets looks like from outside: scores that its seed decides, in a table."""

    def __init__(self, seed=0, n_rounds=3, tickets=ALL, epochs=True, fraction=0.2):
        self.seed = seed
        self.n_rounds = n_rounds
        self.tickets = tickets
        self.epochs = epochs
        self.fraction = fraction

    def fit(self, X=None, y=None):
        rng, rows = np.random.RandomState(self.seed), []
        for n in range(self.n_rounds + 1):
            left = (1 - self.fraction) ** n
            for ticket in self.tickets if n else ["winning"]:
                epoch = rng.randint(1, 40) if self.epochs else None
                rows.append([ticket, n, left, 1 - left, rng.uniform(0.8, 0.9), epoch])
        # The rows stand in no order that could be relied on.
        columns = zip(*[rows[i] for i in rng.permutation(len(rows))], strict=True)
        self.curve_ = ReadableTable(
            "", dict(zip(COLUMNS, columns, strict=True)), COLUMNS, [str] * len(COLUMNS), names=["ticket"]
        )
        return self


def column(lottery, ticket, name, n_rounds=3):
    """The values of a ticket, round by round, found in the slow way; NaN where there is none."""
    table = lottery.curve_.to_dict()
    values = []
    for number in range(n_rounds + 1):
        found = [
            table[name][row]
            for row in range(len(table["round"]))
            if (table["ticket"][row], table["round"][row]) == (ticket, number)
        ]
        values.append(found[0] if found else np.nan)
    return values


def panels(display):
    return (
        (display.ax_, display.lines_, display.labels_, display.dense_line_),
        (display.epoch_ax_, display.epoch_lines_, display.epoch_labels_, display.epoch_dense_line_),
    )


def test_one_run():
    """Scores and epochs are those of the table, against the weights that are left in per cent, falling."""
    lottery = Lottery().fit()
    display = LotteryTicketDisplay.from_estimator(lottery)
    assert (display.tickets, display.score_name) == (ALL, "accuracy")
    np.testing.assert_allclose(display.weights_left, [1, 0.8, 0.64, 0.512])
    assert display.scores.shape == display.epochs.shape == (3, 1, 4)
    for number, ticket in enumerate(ALL):
        for found, lines, name in (
            (display.scores, display.lines_, "score"),
            (display.epochs, display.epoch_lines_, "early_stopping_epoch"),
        ):
            np.testing.assert_array_equal(found[number, 0], column(lottery, ticket, name))
            np.testing.assert_array_equal(lines[number].get_ydata(), found[number, 0])
            np.testing.assert_allclose(lines[number].get_xdata(), [100, 80, 64, 51.2])
    assert display.bands_ == display.epoch_bands_ == []
    assert display.ax_.get_xscale() == "log"
    left, right = display.ax_.get_xlim()
    assert left > 100 > 51.2 > right
    assert (display.ax_.get_ylabel(), display.ax_.get_xlabel()) == ("accuracy", "remaining weights (%)")
    assert display.epoch_ax_.get_ylabel() == "early stopping epoch"


def test_several_runs():
    """Lines are means over the runs, bands from the lowest to the highest of them; the dense network is a mean too."""
    lotteries = [Lottery(seed).fit() for seed in range(3)]
    display = LotteryTicketDisplay.from_estimators(lotteries)
    runs = np.array([column(lottery, "random_mask", "score") for lottery in lotteries])
    np.testing.assert_allclose(display.lines_[2].get_ydata(), runs.mean(0))
    corners = display.bands_[2].get_paths()[0].vertices
    for x, low, high in zip([80, 64, 51.2], runs.min(0)[1:], runs.max(0)[1:], strict=True):
        reach = corners[np.isclose(corners[:, 0], x), 1]
        assert (reach.min(), reach.max()) == pytest.approx((low, high))
    dense = np.mean([column(lottery, "winning", "early_stopping_epoch")[0] for lottery in lotteries])
    assert display.epoch_dense_line_.get_ydata()[0] == pytest.approx(dense)
    assert "mean and range of 3 runs" in display.ax_.get_ylabel()


def test_in_a_pipeline():
    """The table is found where an estimator is inside others."""
    lottery = Lottery().fit()
    pipe = make_pipeline(FunctionTransformer(), lottery)
    np.testing.assert_array_equal(
        LotteryTicketDisplay.from_estimator(pipe).scores, LotteryTicketDisplay.from_estimator(lottery).scores
    )


def test_without_controls_or_epochs():
    """What is not there is not drawn: one line, and one panel."""
    display = LotteryTicketDisplay.from_estimator(Lottery(tickets=["winning"], epochs=False).fit())
    assert (display.tickets, len(display.lines_)) == (["winning"], 1)
    assert display.epochs is display.epoch_ax_ is None
    assert [label.get_text() for label in display.labels_] == ["winning ticket", "dense network"]
    assert len(display.figure_.axes) == 1


@pytest.mark.parametrize("seeds", [[0], [1], [2], [3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("n_rounds", [1, 3, 15])
def test_names_can_be_read(seeds, n_rounds):
    """Each line has its name at its end: inside the frame, and on no other name."""
    display = LotteryTicketDisplay.from_estimators([Lottery(seed, n_rounds).fit() for seed in seeds])
    display.figure_.canvas.draw()
    for ax, lines, labels, dense in panels(display):
        assert [label.get_text() for label in labels] == [
            "winning ticket",
            "random init",
            "random mask",
            "dense network",
        ]
        ends = [line.get_ydata()[-1] for line in lines] + [dense.get_ydata()[0]]
        assert [label.xy for label in labels] == [
            (pytest.approx(100 * 0.8**n_rounds), pytest.approx(end)) for end in ends
        ]
        boxes = [Text.get_window_extent(label) for label in labels]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        frame = ax.bbox
        assert all(frame.x0 < box.x0 and box.x1 < frame.x1 for box in boxes)
        assert all(frame.y0 < box.y0 and box.y1 < frame.y1 for box in boxes)


@pytest.mark.parametrize(
    ("n_rounds", "expected"),
    [(3, ["100", "80", "64", "51.2"]), (20, ["100", "51.2", "26.2", "13.4", "6.87", "3.52", "1.8"])],
)
def test_ticks_are_rounds(n_rounds, expected):
    """Ticks are shares that were tried, as many as can be read."""
    display = LotteryTicketDisplay.from_estimator(Lottery(n_rounds=n_rounds).fit())
    display.figure_.canvas.draw()
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == expected
    boxes = [label.get_window_extent() for label in display.ax_.get_xticklabels()]
    assert all(a.x1 + 2 < b.x0 for a, b in pairwise(boxes))


def test_epochs_are_whole_numbers():
    """There is none between the twentieth and the next."""
    scores, epochs = np.array([[[0.8, 0.9]]]), np.array([[[20, 21]]])
    display = LotteryTicketDisplay(["winning"], np.array([1, 0.8]), scores, epochs=epochs).plot()
    assert all(tick == int(tick) for tick in display.epoch_ax_.get_yticks())


def test_axes_of_the_users():
    """One is divided, two are taken, and keywords reach matplotlib."""
    lotteries = [Lottery(seed).fit() for seed in range(2)]
    figure, axes = plt.subplots(2)
    settings = {"line_kw": {"linewidth": 3}, "band_kw": {"alpha": 0.5}}
    display = LotteryTicketDisplay.from_estimators(lotteries, ax=axes, **settings)
    assert (display.ax_, display.epoch_ax_) == tuple(axes)
    assert {line.get_linewidth() for line in display.lines_ + display.epoch_lines_} == {3}
    assert {band.get_alpha() for band in display.bands_ + display.epoch_bands_} == {0.5}
    display.plot(plt.figure().subplots())
    assert display.figure_ is not figure


@pytest.mark.parametrize(
    ("estimators", "error", "message"),
    [
        ([], ValueError, r"must be a non-empty list of fitted estimators.*Got \[\] instead"),
        (Lottery().fit(), ValueError, r"must be a non-empty list of fitted estimators.*Got Lottery\("),
        ([Lottery()], NotFittedError, "not fitted"),
        (
            [LogisticRegression().fit([[0], [1]], [0, 1])],
            ValueError,
            "LogisticRegression has no curve_: it does not search for lottery tickets",
        ),
        ([Lottery().fit(), Lottery(n_rounds=2).fit()], ValueError, "at 100, 80, 64% of the weights"),
        ([Lottery().fit(), Lottery(fraction=0.5).fit()], ValueError, "at 100, 50, 25, 12.5% of the weights"),
        (
            [Lottery().fit(), Lottery(tickets=["winning"]).fit()],
            ValueError,
            "^All runs must have the same rounds and tickets",
        ),
    ],
)
def test_bad_input(estimators, error, message):
    """Each is an error that says what is wrong and what to give."""
    with pytest.raises(error, match=message):
        LotteryTicketDisplay.from_estimators(estimators)
