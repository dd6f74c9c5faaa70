"""What a score says before training, against what was measured."""

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

_IN_PICTURE = 32  # characters of a name beside its point
_SIZE = 45.0  # of a marker, in square points of 1/72 inch


class TransferabilityDisplay:
    """Scores of candidates, known before anything is trained, against the accuracy that was measured.

    It is recommended to use `from_estimator` to create one of a fitted `sktl.selection.BackboneSelector`, or
    `from_ranking` of its ``ranking_``. All parameters are stored as attributes.

    Parameters
    ----------
    scores : array-like of shape (n_candidates,)
        What was known before; a greater score shall mean a better candidate.
    accuracies : array-like of shape (n_candidates,)
        What was measured, of whatever kind: accuracies, or coefficients of determination.
    names : list of str
        Of the candidates.
    groups : list of str, default=None
        What each candidate is one of, such as the network whose layer it is: each group has a colour of its own, and
        its name is in the legend.
    score_name : str, default="score"
        What the score is.
    accuracy_name : str, default="accuracy"
        What was measured.

    Attributes
    ----------
    tau_ : float
        The weighted Kendall's tau of both: 1 for the same order, 0 for orders that have nothing to do with each other,
        -1 for the opposite one. NaN where it is not defined: of one candidate, or where all scores or all accuracies
        are equal.
    ax_ : matplotlib Axes
        With the points.
    figure_ : matplotlib Figure
        With the axes.
    points_ : list of matplotlib PathCollection
        The points of each group, in the order in which the groups appear; without groups all of them.
    labels_ : list of matplotlib Annotation
        The names, in the order of the candidates.
    legend_ : matplotlib Legend or None
        Of the groups.

    See Also
    --------
    sktl.selection.BackboneSelector : Ranks networks and their layers by a score.
    LayerProbeDisplay : The measured accuracy of each layer of one network.

    Notes
    -----
    The weighted tau counts the order of good candidates more than that of bad ones, by the reciprocals of their ranks
    in both orders: who ranks wants the best one [1]_. It is the measure of the papers on such scores [2]_. Of few
    candidates it says little: that the best two are in the other order makes it 0.67 of five, and 0.89 of ten.

    References
    ----------
    .. [1] Vigna, "A Weighted Correlation Index for Rankings with Ties", WWW 2015.
    .. [2] You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, section 5.

    Examples
    --------
    >>> from sktl.inspection import TransferabilityDisplay
    >>> display = TransferabilityDisplay(
    ...     [0.12, 0.31, 0.44], [0.61, 0.80, 0.86], names=["stem", "layer2", "layer4"], score_name="LogME"
    ... ).plot()
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
        """Draw what a fitted selector ranked against measured accuracies.

        Parameters
        ----------
        estimator : BackboneSelector
            Fitted, or a pipeline or search with one in it.
        accuracies : array-like of shape (n_candidates,), or dict of (str, str) to float
            What was measured: in the order of ``ranking_``, or with (backbone, layer) as keys.
        accuracy_name : str, default="accuracy"
            What was measured.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : TransferabilityDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        InputError
            Where there is no selector in it, and what `from_ranking` raises.
        MissingDependencyError
            Where matplotlib is not installed.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sktl.inspection import TransferabilityDisplay
        >>> from sktl.selection import BackboneSelector
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = BackboneSelector(layers=["stem", "layer4"]).fit(X[:100] / 16, y[:100])
        >>> display = TransferabilityDisplay.from_estimator(selector, [0.95, 0.72])
        >>> display.names, display.score_name
        (['layer4', 'stem'], 'logme')
        """
        check_matplotlib(cls)
        selector = require_fitted(estimator, "ranking_", "it ranked no networks").estimator
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
        """Draw the ranking of a selector against measured accuracies.

        Parameters
        ----------
        ranking : BackboneRanking
            ``ranking_`` of a fitted `sktl.selection.BackboneSelector`, or any other table whose ``to_dict()`` gives
            the columns ``backbone``, ``layer`` and ``score``.
        accuracies : array-like of shape (n_candidates,), or dict of (str, str) to float
            What was measured: in the order of the ranking, or with (backbone, layer) as keys.
        score_name : str, default="score"
            What the score is.
        accuracy_name : str, default="accuracy"
            What was measured.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : TransferabilityDisplay
            With the data, and with what was drawn.

        Raises
        ------
        InputError
            Where a candidate has no accuracy, or a dict cannot tell two candidates apart; and what `plot` raises.
        MissingDependencyError
            Where matplotlib is not installed.

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
        >>> ranking = BackboneSelector(layers=["stem", "layer2", "layer4"]).fit(X, y).ranking_
        >>> measured = {}
        >>> for layer in ranking.to_dict()["layer"]:
        ...     features = PretrainedFeatureExtractor(layers=layer).fit_transform(X)
        ...     model = LogisticRegression(max_iter=2000)
        ...     measured["sktl_mini", layer] = cross_val_score(model, features, y, cv=3).mean()
        >>> display = TransferabilityDisplay.from_ranking(ranking, measured, score_name="LogME")
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
        """Draw the points with their names.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure. The legend of groups lies on its right, for which a figure with
            ``layout="constrained"`` leaves room.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : TransferabilityDisplay
            This object.

        Raises
        ------
        ValueError
            Where there is no candidate, lengths differ, or a score or an accuracy is no finite number.
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
        # Last of all: what lies beside the axes decides how large they are.
        self.labels_ = label_points(
            self.ax_,
            scores,
            accuracies,
            [short(name, _IN_PICTURE) for name in self.names],
            radius=radius,
            colors=[colors[one] for one in groups],
        )
        return self

    def _title(self):
        tau = "not defined" if np.isnan(self.tau_) else f"{self.tau_:.2f}"
        return f"weighted Kendall's τ of {len(self.names)} candidates: {tau}"


def _in_order(accuracies, candidates):
    """Accuracies of a dict, in the order of the candidates."""
    twice = {candidate for candidate in candidates if candidates.count(candidate) > 1}
    if twice:
        raise InputError(
            f"The ranking has {sorted(twice)} more than once, which a dict of accuracies cannot tell apart. Give them "
            "in the order of the ranking, or the selector a dict of backbones with a name for each."
        )
    missing = [candidate for candidate in candidates if candidate not in accuracies]
    if missing:
        raise InputError(f"accuracies has nothing for {missing}. Its keys have to be (backbone, layer).")
    return [accuracies[candidate] for candidate in candidates]


def _finite(name, values):
    with shortened_errors():
        values = column_or_1d(np.asarray(values, dtype=float))
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"{name}={values.tolist()} has to hold a finite number for each candidate, and at least one.")
    return values


def _tau(scores, accuracies):
    """The weighted Kendall's tau; NaN where there is no order."""
    return float(weightedtau(scores, accuracies).statistic) if len(scores) > 1 else np.nan
