"""How good lottery tickets are, and how soon, against how many weights are left."""

import importlib
import itertools
from collections.abc import Sequence

import numpy as np

from sktl._estimators._find_fitted import require_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, finish, one_axes, two_axes
from sktl.inspection._score_axis import score_limits, score_name
from sktl.inspection._text_layout import label_points

# What a picture calls them, and how each is drawn: told apart without colours too.
_TICKETS = {
    "winning": ("winning ticket", {"color": "C0", "marker": "o", "zorder": 3.2}),
    "random_init": ("random init", {"color": "C1", "marker": "s", "linestyle": "--", "zorder": 3.1}),
    "random_mask": ("random mask", {"color": "C2", "marker": "^", "linestyle": ":", "zorder": 3}),
}
_MOST_TICKS = 8


class LotteryTicketDisplay:
    """Score of a winning ticket and of its controls, and the epoch of early stopping, as weights become fewer.

    It is recommended to use `from_estimator` or `from_estimators` to create one. All parameters are stored as
    attributes.

    Parameters
    ----------
    tickets : list of str
        Which there are of ``"winning"``, ``"random_init"`` (the same connections with other first weights) and
        ``"random_mask"`` (as many connections, anywhere).
    weights_left : ndarray of shape (n_rounds + 1,)
        The share of the weights that is left after each round, 1 before the first.
    scores : ndarray of shape (n_tickets, n_runs, n_rounds + 1)
        How good each one is. What stands at 1 is the dense network, NaN for tickets that begin with the first round.
    epochs : ndarray of shape (n_tickets, n_runs, n_rounds + 1), default=None
        In which epoch each one's validation loss was lowest.
    score_name : str, default="score"
        What the score is.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the scores.
    epoch_ax_ : matplotlib Axes or None
        With the epochs, where they are known.
    figure_ : matplotlib Figure
        With both of them.
    lines_ : list of matplotlib Line2D
        Mean score of each ticket.
    epoch_lines_ : list of matplotlib Line2D
        Mean epoch of each ticket.
    bands_ : list of matplotlib PolyCollection
        From the lowest to the highest score of each ticket, where there are several runs.
    epoch_bands_ : list of matplotlib PolyCollection
        From the first to the last epoch of each ticket.
    dense_line_ : matplotlib Line2D
        Score of the dense network.
    epoch_dense_line_ : matplotlib Line2D
        Its epoch.
    labels_ : list of matplotlib Annotation
        Names of the tickets beside their scores, and that of the dense network.
    epoch_labels_ : list of matplotlib Annotation
        The same beside the epochs.

    See Also
    --------
    CompressionDisplay : What pruning saves on disk and in time, which is another question.

    Notes
    -----
    The horizontal axis is logarithmic and falls from left to right, as in the figures of the paper. The dashed line is
    the dense network. With several runs lines are means, and bands reach from the lowest to the highest run.

    References
    ----------
    .. [1] Frankle and Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.inspection import LotteryTicketDisplay
    >>> scores = np.array([[[0.9, 0.92, 0.91]], [[np.nan, 0.9, 0.85]]])
    >>> display = LotteryTicketDisplay(["winning", "random_init"], np.array([1, 0.5, 0.25]), scores).plot()
    >>> [label.get_text() for label in display.labels_]
    ['winning ticket', 'random init', 'dense network']
    """

    def __init__(self, tickets, weights_left, scores, *, epochs=None, score_name="score"):
        self.tickets = tickets
        self.weights_left = weights_left
        self.scores = scores
        self.epochs = epochs
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, line_kw=None, band_kw=None):
        """Draw the tickets of one search.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``curve_``: a `LotteryTicketClassifier`, or a pipeline or search with one in it.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of the tickets.
        band_kw : dict, default=None
            Keywords for matplotlib's ``fill_between`` of the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        InputError
            Where it has no ``curve_``.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        return cls.from_estimators([estimator], ax=ax, line_kw=line_kw, band_kw=band_kw)

    @classmethod
    def from_estimators(cls, estimators, *, ax=None, line_kw=None, band_kw=None):
        """Draw the tickets of several runs, which differ by their ``random_state``.

        Parameters
        ----------
        estimators : sequence of estimator
            Fitted, each with ``curve_``, of the same rounds and tickets.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of the tickets.
        band_kw : dict, default=None
            Keywords for matplotlib's ``fill_between`` of the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where an estimator is not fitted.
        InputError
            Where there is none, where one has no ``curve_``, or where they do not have the same rounds and tickets.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        if not isinstance(estimators, Sequence) or not estimators:
            raise InputError(f"estimators={estimators!r} has to be a list of fitted estimators, one for each run.")
        found = [require_fitted(each, "curve_", "it searched for no ticket").estimator for each in estimators]
        runs = [_read(run.curve_.to_dict()) for run in found]
        tickets, weights_left = list(runs[0][1]), runs[0][0]
        for left, curves in runs:
            if (list(curves), len(left)) != (tickets, len(weights_left)) or not np.allclose(
                left, weights_left, rtol=0.01
            ):
                raise InputError(
                    "The runs have other rounds or tickets than the first: "
                    f"{list(curves)} at {', '.join(_percent(left))} % of the weights, and {tickets} at "
                    f"{', '.join(_percent(weights_left))} %. Draw those together that have the same."
                )
        values = np.array([[curves[ticket] for _, curves in runs] for ticket in tickets])
        scores, epochs = np.moveaxis(values, 2, 0)
        display = cls(
            tickets,
            weights_left,
            scores,
            epochs=None if np.isnan(epochs).all() else epochs,
            score_name=score_name(found[0]),
        )
        return display.plot(ax, line_kw=line_kw, band_kw=band_kw)

    def plot(self, ax=None, *, line_kw=None, band_kw=None):
        """Draw scores and epochs against the weights that are left.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw. One is divided where the epochs are known; two get the scores and the epochs; None makes a
            new figure.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of the tickets.
        band_kw : dict, default=None
            Keywords for matplotlib's ``fill_between`` of the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            This object.
        """
        n_runs = np.shape(self.scores)[1]
        of_runs = f"\n(mean and range of {n_runs} runs)" if n_runs > 1 else ""
        if self.epochs is None:
            self.figure_, self.ax_ = one_axes(self, ax, (5.5, 3.8))
            self.epoch_ax_ = None
        else:
            self.figure_, (self.ax_, self.epoch_ax_) = two_axes(self, ax, (10, 3.8), nrows=1, ncols=2)
            self.epoch_lines_, self.epoch_bands_ = self._draw(self.epoch_ax_, self.epochs, line_kw, band_kw)
            self.epoch_dense_line_ = self._draw_dense(self.epoch_ax_, self.epochs)
            self.epoch_ax_.yaxis.get_major_locator().set_params(integer=True)
            self.epoch_ax_.set_ylabel(f"epoch of early stopping{of_runs}")
            finish(self.epoch_ax_, "how soon they are trained")
        self.lines_, self.bands_ = self._draw(self.ax_, self.scores, line_kw, band_kw)
        self.dense_line_ = self._draw_dense(self.ax_, self.scores)
        self.ax_.set_ylabel(f"{self.score_name}{of_runs}")
        self.ax_.set_ylim(*score_limits(np.nanmin(self.scores), np.nanmax(self.scores)))
        finish(self.ax_, "how good the tickets are")
        # Last of all: what lies beside an axes decides how large it is.
        self.labels_ = self._label(self.ax_, self.lines_, self.dense_line_)
        if self.epochs is not None:
            self.epoch_labels_ = self._label(self.epoch_ax_, self.epoch_lines_, self.epoch_dense_line_)
        return self

    def _draw(self, ax, values, line_kw, band_kw):
        """A line for each ticket, and a band around it."""
        percent = 100 * np.asarray(self.weights_left)
        lines, bands = [], []
        for ticket, runs in zip(self.tickets, np.asarray(values, float), strict=True):
            style = {"markersize": 4, **_TICKETS[ticket][1], **(line_kw or {})}
            lines += ax.plot(percent, runs.mean(0), **style)
            if len(runs) > 1:
                band = {"color": lines[-1].get_color(), "alpha": 0.15, "linewidth": 0, **(band_kw or {})}
                bands.append(ax.fill_between(percent, runs.min(0), runs.max(0), **band))
        # Names stand where the lines end, and need room there.
        low, high = np.log10([percent[-1], percent[0]])
        reach = max(high - low, 0.1)
        ax.set(xscale="log", xlim=(10 ** (high + 0.05 * reach), 10 ** (low - 0.45 * reach)), xlabel="weights left (%)")
        every = -(-len(percent) // _MOST_TICKS)
        ax.set_xticks(percent[::every], _percent(self.weights_left[::every]))
        ax.minorticks_off()
        ax.margins(y=0.1)
        return lines, bands

    def _draw_dense(self, ax, values):
        level = np.nanmean(np.asarray(values, float)[:, :, 0])  # of the one ticket that has it
        return ax.axhline(level, color=MUTED, linestyle=(0, (6, 3)), linewidth=1, zorder=2)

    def _label(self, ax, lines, dense):
        """The name of each line where the tickets end."""
        to_rgb = importlib.import_module("matplotlib.colors").to_rgb
        last, level = 100 * self.weights_left[-1], dense.get_ydata()[0]
        x, y = [last] * (len(lines) + 1), [*(line.get_ydata()[-1] for line in lines), level]
        names = [*(_TICKETS[ticket][0] for ticket in self.tickets), "dense network"]
        colors = [*(tuple(0.7 * np.array(to_rgb(line.get_color()))) for line in lines), MUTED]
        drawn = [pair for line in lines for pair in _pairs(line.get_xydata())]
        drawn.append(tuple((end, level) for end in ax.get_xlim()))
        return label_points(ax, x, y, names, radius=2.5, colors=colors, lines=drawn)


def _read(columns):
    """The shares of weights left, and for each ticket its scores and epochs there, NaN where it was not tried."""
    rounds = sorted(set(columns["round"]))
    left = dict(zip(columns["round"], columns["weights_left"], strict=True))
    curves = {ticket: np.full((2, len(rounds)), np.nan) for ticket in _TICKETS if ticket in columns["ticket"]}
    rows = zip(columns["ticket"], columns["round"], columns["score"], columns["early_stopping_epoch"], strict=True)
    for ticket, number, score, epoch in rows:
        curves[ticket][:, rounds.index(number)] = score, np.nan if epoch is None else epoch
    return np.array([left[number] for number in rounds], float), curves


def _percent(shares):
    return [f"{100 * share:.3g}" for share in shares]


def _pairs(points):
    return itertools.pairwise(points[~np.isnan(points).any(1)])
