"""Transferability scores against measured accuracies."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import weightedtau
from sklearn.utils.validation import column_or_1d

from sktl._estimators._find_fitted import require_fitted
from sktl._messages import shortened_errors
from sktl._params import check_consistent_length
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib, finish, one_axes
from sktl.inspection._colors import distinct_colors
from sktl.inspection._score_axis import score_name
from sktl.inspection._text_layout import in_legend, label_points, short

_IN_FIGURE = 32  # maximum number of characters of a name in the figure
_SIZE = 45.0  # size of a marker, in square points of 1/72 inch


class TransferabilityDisplay:
    """Visualization of transferability scores against measured accuracies.

    It is recommended to use `from_estimator`, with a fitted
    `sktl.selection.BackboneSelector`, or `from_ranking`, with its ``ranking_``, to
    create a display. All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    scores : array-like of shape (n_candidates,)
        Score of each candidate, computed without training. Higher is better.
    accuracies : array-like of shape (n_candidates,)
        Measured accuracy, R² or other score of each candidate after training.
    names : list of str
        Names of the candidates.
    groups : list of str, default=None
        Group of each candidate, such as the network that a layer belongs to. Each group
        has its own color and is listed in the legend.
    score_name : str, default="score"
        Name of the score.
    accuracy_name : str, default="accuracy"
        Name of the measured quantity.

    Attributes
    ----------
    tau_ : float
        Weighted Kendall's tau of scores and accuracies: 1 for the same order, 0 for
        unrelated orders, -1 for the opposite order. NaN if there is only one candidate,
        or if all scores or all accuracies are equal.
    ax_ : matplotlib Axes
        Axes with the points.
    figure_ : matplotlib Figure
        Figure containing the axes.
    points_ : list of matplotlib PathCollection
        Points of each group, in order of appearance, or of all candidates if ``groups``
        is not given.
    labels_ : list of matplotlib Annotation
        Names of the candidates, in their order.
    legend_ : matplotlib Legend or None
        Legend of the groups.

    See Also
    --------
    sktl.selection.BackboneSelector : Rank networks and their layers by a score.
    LayerProbeDisplay : Score a linear model on each stage of a network.

    Notes
    -----
    The weighted tau gives more weight to the order of good candidates, by the
    reciprocals of the ranks in both orders [1]_. It is the usual measure for
    transferability scores [2]_. It is unreliable for few candidates: if only the best
    two are swapped, it is 0.67 for five candidates and 0.89 for ten.

    References
    ----------
    .. [1] Vigna, "A Weighted Correlation Index for Rankings with Ties", WWW 2015.
    .. [2] You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer
           Learning", ICML 2021, section 5.

    Examples
    --------
    >>> from sktl.inspection import TransferabilityDisplay
    >>> scores, accuracies = [0.12, 0.31, 0.44], [0.61, 0.80, 0.86]
    >>> names = ["stem", "layer2", "layer4"]
    >>> display = TransferabilityDisplay(scores, accuracies, names=names).plot()
    >>> float(display.tau_)
    1.0
    """

    def __init__(self, scores, accuracies, *, names, groups=None, score_name="score", accuracy_name="accuracy"):
        self.scores = scores
        self.accuracies = accuracies
        self.names = names
        self.groups = groups
        self.score_name = score_name
        self.accuracy_name = accuracy_name

    @classmethod
    def from_estimator(cls, estimator, accuracies, *, accuracy_name="accuracy", ax=None, scatter_kw=None):
        """Plot the scores of a fitted selector against measured accuracies.

        Parameters
        ----------
        estimator : BackboneSelector
            Fitted selector, or a pipeline or search that contains one.
        accuracies : array-like of shape (n_candidates,), or dict of (str, str) to float
            Measured accuracies in the order of ``ranking_``, or a dict with (backbone,
            layer) as keys.
        accuracy_name : str, default="accuracy"
            Name of the measured quantity.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : TransferabilityDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InputError
            If the estimator does not contain a selector, or from `from_ranking`.
        MissingDependencyError
            If matplotlib is not installed.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sktl.inspection import TransferabilityDisplay
        >>> from sktl.selection import BackboneSelector
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = BackboneSelector(layers=["stem", "layer4"])
        >>> selector = selector.fit(X[:100] / 16, y[:100])
        >>> display = TransferabilityDisplay.from_estimator(selector, [0.95, 0.72])
        >>> display.names, display.score_name
        (['layer4', 'stem'], 'logme')
        """
        check_matplotlib(cls)
        selector = require_fitted(estimator, "ranking_", "it does not rank networks").estimator
        return cls.from_ranking(
            selector.ranking_,
            accuracies,
            score_name=score_name(selector, selector.score_func),
            accuracy_name=accuracy_name,
            ax=ax,
            scatter_kw=scatter_kw,
        )

    @classmethod
    def from_ranking(
        cls, ranking, accuracies, *, score_name="score", accuracy_name="accuracy", ax=None, scatter_kw=None
    ):
        """Plot the scores of a ranking against measured accuracies.

        Parameters
        ----------
        ranking : BackboneRanking
            The ``ranking_`` of a fitted `sktl.selection.BackboneSelector`, or another
            table whose ``to_dict()`` returns the columns ``backbone``, ``layer`` and
            ``score``.
        accuracies : array-like of shape (n_candidates,), or dict of (str, str) to float
            Measured accuracies in the order of the ranking, or a dict with (backbone,
            layer) as keys.
        score_name : str, default="score"
            Name of the score.
        accuracy_name : str, default="accuracy"
            Name of the measured quantity.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : TransferabilityDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        InputError
            If a candidate has no accuracy, two candidates have the same key in a dict,
            or from `plot`.
        MissingDependencyError
            If matplotlib is not installed.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.model_selection import cross_val_score
        >>> from sktl import PretrainedFeatureExtractor
        >>> from sktl.inspection import TransferabilityDisplay
        >>> from sktl.selection import BackboneSelector
        >>> X, y = load_digits(return_X_y=True)
        >>> X, y = X[:200] / 16, y[:200]
        >>> selector = BackboneSelector(layers=["stem", "layer2", "layer4"]).fit(X, y)
        >>> model = LogisticRegression(max_iter=2000)
        >>> measured = {}
        >>> for layer in ["stem", "layer2", "layer4"]:
        ...     features = PretrainedFeatureExtractor(layers=layer).fit_transform(X)
        ...     score = cross_val_score(model, features, y, cv=3).mean()
        ...     measured["sktl_mini", layer] = score
        >>> display = TransferabilityDisplay.from_ranking(selector.ranking_, measured)
        >>> display.names
        ['layer4', 'layer2', 'stem']
        """
        check_matplotlib(cls)
        columns = ranking.to_dict()
        backbones, layers = columns["backbone"], columns["layer"]
        if isinstance(accuracies, Mapping):
            accuracies = _in_order(accuracies, list(zip(backbones, layers, strict=True)))
        display = cls(
            columns["score"],
            accuracies,
            names=layers,
            groups=backbones if len(set(backbones)) > 1 else None,
            score_name=score_name,
            accuracy_name=accuracy_name,
        )
        return display.plot(ax, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, scatter_kw=None):
        """Plot the candidates with their names.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created. The legend is drawn to
            the right of the Axes; a figure with ``layout="constrained"`` makes room for
            it.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : TransferabilityDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        ValueError
            If ``scores`` is empty, lengths differ, or a score or an accuracy is NaN or
            infinite.
        """
        scores, accuracies = _finite("scores", self.scores), _finite("accuracies", self.accuracies)
        check_consistent_length(scores, accuracies, self.names, self.groups)
        self.tau_ = _tau(scores, accuracies)
        self.figure_, self.ax_ = one_axes(self, ax, (6.4 if self.groups is None else 8.2, 4.8))
        groups = [""] * len(scores) if self.groups is None else list(self.groups)
        names = list(dict.fromkeys(groups))
        colors = dict(zip(names, distinct_colors(len(names)), strict=True))
        style = {"s": _SIZE, "alpha": 0.85, "edgecolors": "white", "linewidths": 0.8, "zorder": 3, **(scatter_kw or {})}
        self.points_ = []
        for group, color in colors.items():
            mine = [one == group for one in groups]
            self.points_.append(
                self.ax_.scatter(scores[mine], accuracies[mine], **{"color": color, "label": in_legend(group), **style})
            )
        self.ax_.set(xlabel=f"{self.score_name}, before training", ylabel=self.accuracy_name)
        self.ax_.margins(0.12)
        finish(self.ax_, self._title())
        self.legend_ = None
        if self.groups is not None:
            self.legend_ = self.ax_.legend(
                loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize="small"
            )
        radius = float(np.sqrt(max(points.get_sizes().max() for points in self.points_)) / 2)
        # Labels come last: tick labels and the legend determine the size of the axes.
        self.labels_ = label_points(
            self.ax_,
            scores,
            accuracies,
            [short(name, _IN_FIGURE) for name in self.names],
            radius=radius,
            colors=[colors[one] for one in groups],
        )
        return self

    def _title(self):
        tau = "not defined" if np.isnan(self.tau_) else f"{self.tau_:.2f}"
        return f"weighted Kendall's τ of {len(self.names)} candidates: {tau}"


def _in_order(accuracies, candidates):
    """Return the values of a dict of accuracies in the order of the candidates."""
    twice = {candidate for candidate in candidates if candidates.count(candidate) > 1}
    if twice:
        raise InputError(
            f"The ranking contains {sorted(twice)} more than once, so a dict of accuracies is ambiguous. Pass a list "
            "in the order of the ranking, or pass the selector a dict of backbones with unique names."
        )
    missing = [candidate for candidate in candidates if candidate not in accuracies]
    if missing:
        raise InputError(f"accuracies has no value for {missing}. Its keys must be (backbone, layer) pairs.")
    return [accuracies[candidate] for candidate in candidates]


def _finite(name, values):
    with shortened_errors():
        values = column_or_1d(np.asarray(values, dtype=float))
    if not len(values) or not np.isfinite(values).all():
        raise InputError(
            f"'{name}' must contain at least one value, and neither NaN nor infinity. Got {values.tolist()} instead."
        )
    return values


def _tau(scores, accuracies):
    """Return the weighted Kendall's tau, or NaN for a single candidate."""
    return float(weightedtau(scores, accuracies).statistic) if len(scores) > 1 else np.nan
