"""Score and early stopping epoch of lottery tickets against sparsity."""

import importlib
import itertools
from collections.abc import Sequence

import numpy as np

from sktl._estimators._find_fitted import require_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, finish, one_axes, two_axes
from sktl.inspection._score_axis import score_limits, score_name
from sktl.inspection._text_layout import label_points

# Names and styles, which differ even without colors.
_TICKETS = {
    "winning": ("winning ticket", {"color": "C0", "marker": "o", "zorder": 3.2}),
    "random_init": ("random init", {"color": "C1", "marker": "s", "linestyle": "--", "zorder": 3.1}),
    "random_mask": ("random mask", {"color": "C2", "marker": "^", "linestyle": ":", "zorder": 3}),
}
_MOST_TICKS = 8


class LotteryTicketDisplay:
    """Visualization of lottery tickets: score and training time against sparsity.

    The score and the epoch of early stopping of winning tickets and their controls are
    shown against the share of remaining weights.

    It is recommended to use `from_estimator` or `from_estimators` to create a display.
    All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    tickets : list of str
        Kinds of tickets: ``"winning"``, ``"random_init"`` (the same connections with
        new initial weights) and ``"random_mask"`` (as many connections at random).
    weights_left : ndarray of shape (n_rounds + 1,)
        Share of remaining weights after each round, 1 before the first one.
    scores : ndarray of shape (n_tickets, n_runs, n_rounds + 1)
        Score of each ticket. The first value of a run is that of the dense network; it
        is NaN for tickets that start with the first round.
    epochs : ndarray of shape (n_tickets, n_runs, n_rounds + 1), default=None
        Epoch with the lowest validation loss of each ticket.
    score_name : str, default="score"
        Name of the score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the scores.
    epoch_ax_ : matplotlib Axes or None
        Axes with the epochs, if they are known.
    figure_ : matplotlib Figure
        Figure containing the axes.
    lines_ : list of matplotlib Line2D
        Mean score of each ticket.
    epoch_lines_ : list of matplotlib Line2D
        Mean epoch of each ticket.
    bands_ : list of matplotlib PolyCollection
        Range of the scores of each ticket, if there are several runs.
    epoch_bands_ : list of matplotlib PolyCollection
        Range of the epochs of each ticket, if there are several runs.
    dense_line_ : matplotlib Line2D
        Score of the dense network.
    epoch_dense_line_ : matplotlib Line2D
        Epoch of the dense network.
    labels_ : list of matplotlib Annotation
        Names of the tickets and of the dense network in ``ax_``.
    epoch_labels_ : list of matplotlib Annotation
        Names of the tickets and of the dense network in ``epoch_ax_``.

    See Also
    --------
    CompressionDisplay : Compare the size and speed of pruned models.

    Notes
    -----
    The horizontal axis is logarithmic and decreases from left to right, as in the
    figures of the paper [1]_. The dashed line shows the dense network. With several
    runs, lines are means and bands extend from the lowest to the highest run.

    References
    ----------
    .. [1] Frankle and Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable
           Neural Networks", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.inspection import LotteryTicketDisplay
    >>> scores = np.array([[[0.9, 0.92, 0.91]], [[np.nan, 0.9, 0.85]]])
    >>> tickets, weights_left = ["winning", "random_init"], np.array([1, 0.5, 0.25])
    >>> display = LotteryTicketDisplay(tickets, weights_left, scores).plot()
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
        """Plot the tickets of one search.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with a ``curve_``: a
            `sktl.compression.LotteryTicketClassifier`, or a pipeline or search that
            contains one.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if the epochs are known; two Axes show the scores and the epochs.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.
        band_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``fill_between`` to draw the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InputError
            If the estimator has no ``curve_``.
        MissingDependencyError
            If matplotlib is not installed.
        """
        return cls.from_estimators([estimator], ax=ax, line_kw=line_kw, band_kw=band_kw)

    @classmethod
    def from_estimators(cls, estimators, *, ax=None, line_kw=None, band_kw=None):
        """Plot the tickets of several runs with different ``random_state``.

        Parameters
        ----------
        estimators : sequence of estimator
            Fitted estimators with a ``curve_``, one for each run. All must have the
            same rounds and tickets.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if the epochs are known; two Axes show the scores and the epochs.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.
        band_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``fill_between`` to draw the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If an estimator is not fitted.
        InputError
            If ``estimators`` is empty, an estimator has no ``curve_``, or rounds or
            tickets differ.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        if not isinstance(estimators, Sequence) or not estimators:
            raise InputError(
                "The 'estimators' parameter must be a non-empty list of fitted estimators, one for each run. Got "
                f"{estimators!r} instead."
            )
        found = [
            require_fitted(each, "curve_", "it does not search for lottery tickets").estimator for each in estimators
        ]
        runs = [_read(run.curve_.to_dict()) for run in found]
        tickets, weights_left = list(runs[0][1]), runs[0][0]
        for left, curves in runs:
            if (list(curves), len(left)) != (tickets, len(weights_left)) or not np.allclose(
                left, weights_left, rtol=0.01
            ):
                raise InputError(
                    "All runs must have the same rounds and tickets. Got "
                    f"{list(curves)} at {', '.join(_percent(left))}% of the weights, but {tickets} at "
                    f"{', '.join(_percent(weights_left))}% in the first run. Draw these runs separately."
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
        """Plot scores and epochs against the share of remaining weights.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if the epochs are known; two Axes show the scores and the epochs.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.
        band_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``fill_between`` to draw the bands.

        Returns
        -------
        display : LotteryTicketDisplay
            Object that stores the computed values and the matplotlib artists.
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
            self.epoch_ax_.set_ylabel(f"early stopping epoch{of_runs}")
            finish(self.epoch_ax_, "early stopping epoch against remaining weights")
        self.lines_, self.bands_ = self._draw(self.ax_, self.scores, line_kw, band_kw)
        self.dense_line_ = self._draw_dense(self.ax_, self.scores)
        self.ax_.set_ylabel(f"{self.score_name}{of_runs}")
        self.ax_.set_ylim(*score_limits(np.nanmin(self.scores), np.nanmax(self.scores)))
        finish(self.ax_, f"{self.score_name} against remaining weights")
        # Labels come last: tick labels and titles determine the size of the axes.
        self.labels_ = self._label(self.ax_, self.lines_, self.dense_line_)
        if self.epochs is not None:
            self.epoch_labels_ = self._label(self.epoch_ax_, self.epoch_lines_, self.epoch_dense_line_)
        return self

    def _draw(self, ax, values, line_kw, band_kw):
        """Draw a line and, for several runs, a band for each ticket."""
        percent = 100 * np.asarray(self.weights_left)
        lines, bands = [], []
        for ticket, runs in zip(self.tickets, np.asarray(values, float), strict=True):
            style = {"markersize": 4, **_TICKETS[ticket][1], **(line_kw or {})}
            lines += ax.plot(percent, runs.mean(0), **style)
            if len(runs) > 1:
                band = {"color": lines[-1].get_color(), "alpha": 0.15, "linewidth": 0, **(band_kw or {})}
                bands.append(ax.fill_between(percent, runs.min(0), runs.max(0), **band))
        # The names at the ends of the lines need room.
        low, high = np.log10([percent[-1], percent[0]])
        reach = max(high - low, 0.1)
        ax.set(
            xscale="log", xlim=(10 ** (high + 0.05 * reach), 10 ** (low - 0.45 * reach)), xlabel="remaining weights (%)"
        )
        every = -(-len(percent) // _MOST_TICKS)
        ax.set_xticks(percent[::every], _percent(self.weights_left[::every]))
        ax.minorticks_off()
        ax.margins(y=0.1)
        return lines, bands

    def _draw_dense(self, ax, values):
        level = np.nanmean(np.asarray(values, float)[:, :, 0])  # NaN for other tickets
        return ax.axhline(level, color=MUTED, linestyle=(0, (6, 3)), linewidth=1, zorder=2)

    def _label(self, ax, lines, dense):
        """Write the name of each line at its end."""
        to_rgb = importlib.import_module("matplotlib.colors").to_rgb
        last, level = 100 * self.weights_left[-1], dense.get_ydata()[0]
        x, y = [last] * (len(lines) + 1), [*(line.get_ydata()[-1] for line in lines), level]
        names = [*(_TICKETS[ticket][0] for ticket in self.tickets), "dense network"]
        colors = [*(tuple(0.7 * np.array(to_rgb(line.get_color()))) for line in lines), MUTED]
        drawn = [pair for line in lines for pair in _pairs(line.get_xydata())]
        drawn.append(tuple((end, level) for end in ax.get_xlim()))
        return label_points(ax, x, y, names, radius=2.5, colors=colors, lines=drawn)


def _read(columns):
    """Return the shares of remaining weights, and scores and epochs by ticket."""
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
