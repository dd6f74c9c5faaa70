"""How good models are, against how large and how slow they are: what the displays of several models share."""

from collections.abc import Mapping

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import check_scoring

from sktl._estimators._footprint import footprints
from sktl._messages import shortened_errors
from sktl._params import check_is_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, finish, two_axes
from sktl.inspection._colors import distinct_colors
from sktl.inspection._score_axis import score_limits, score_name, score_with_error
from sktl.inspection._text_layout import label_points, short

_IN_FIGURE = 24  # characters of a name beside its point
# Two of nearly the same size and score are still seen as two.
_MARKERS = {"s": 70.0, "alpha": 0.85, "edgecolors": "white", "linewidths": 0.8, "zorder": 3}


class CostDisplay:
    """Score of several models against their size and against their time; a base class.

    It is recommended to use `from_estimators` to create one. All parameters are stored as attributes.

    Parameters
    ----------
    names : list of str
        Of the models.
    scores : ndarray of shape (n_models,)
        How good each one is.
    nbytes : ndarray of shape (n_models,)
        Bytes on disk of each one, pickled.
    milliseconds : ndarray of shape (n_models,)
        How long each one takes for a picture.
    parameters : list of int or None, default=None
        How many parameters each one's network has; None for a model without a network.
    origins : dict of str to str, default=None
        Which model came of which, by their names.
    score_name : str, default="score"
        What the score is.
    score_errors : ndarray of shape (n_models,), default=None
        Standard error of each score, NaN where it is not known; None draws no error bars.
    """

    def __init__(
        self,
        names,
        scores,
        nbytes,
        milliseconds,
        *,
        parameters=None,
        origins=None,
        score_name="score",
        score_errors=None,
    ):
        self.names = names
        self.scores = scores
        self.nbytes = nbytes
        self.milliseconds = milliseconds
        self.parameters = parameters
        self.origins = origins
        self.score_name = score_name
        self.score_errors = score_errors

    @classmethod
    def from_estimators(
        cls,
        estimators,
        X,
        y,
        *,
        origins=None,
        sample_weight=None,
        scoring=None,
        n_timed=64,
        n_repeats=5,
        ax=None,
        scatter_kw=None,
    ):
        """Measure fitted estimators, and draw them.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted estimators by name, of any kind.
        X : array-like of images
            Images that no model has learnt from.
        y : array-like of shape (n_images,) or (n_images, n_targets)
            Their labels or targets.
        origins : dict of str to str, default=None
            Which model came of which, by their names: ``{"pruned": "original", "int8": "pruned"}``. Arrows are drawn
            from each to what came of it, and the sizes and times of the first ones are marked by dashed lines.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the pictures in the score.
        scoring : str or callable, default=None
            The score; None takes each estimator's own: accuracy, or the coefficient of determination.
        n_timed : int, default=64
            For how many of the pictures, the first ones, the time is taken; None takes all.
        n_repeats : int, default=5
            How often it is taken; the median counts.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : object of this class
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where an estimator is not fitted.
        InputError
            Where ``estimators`` is no dict or an empty one, where ``origins`` has a name that is not among theirs, or
            where one of them cannot be pickled.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        if not isinstance(estimators, Mapping) or not estimators:
            raise InputError(f"estimators={estimators!r} has to be a dict of fitted estimators, with a name for each.")
        unknown = {*(origins or {}), *(origins or {}).values()} - set(estimators)
        if unknown:
            raise InputError(f"origins={origins!r} names {sorted(unknown)}, while the models are {list(estimators)}.")
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        models = list(estimators.values())
        for model in models:
            check_is_fitted(model)
        # One score for all: a search would bring the one that it searched with.
        kinds = ["accuracy" if is_classifier(model) else "r2" if is_regressor(model) else None for model in models]
        with shortened_errors():
            scorers = [check_scoring(model, scoring or kind) for model, kind in zip(models, kinds, strict=True)]
        scored = [
            score_with_error(scorer, model, X, y, **weights) for scorer, model in zip(scorers, models, strict=True)
        ]
        scores, errors = np.array(scored, float).T
        costs = footprints(estimators, X[:n_timed], n_repeats)
        unsized = [name for name, cost in costs.items() if cost.nbytes is None]
        if unsized:
            raise InputError(
                f"{unsized} cannot be pickled (a lambda in it?), and so have no size on disk. Leave them out."
            )
        display = cls(
            [str(name) for name in estimators],
            scores,
            np.array([cost.nbytes for cost in costs.values()]),
            np.array([cost.milliseconds for cost in costs.values()]),
            parameters=[cost.parameters for cost in costs.values()],
            origins=origins,
            score_name=score_name(models[0], scoring),
            score_errors=None if np.isnan(errors).all() else errors,
        )
        return display.plot(ax, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, scatter_kw=None):
        """Draw the scores against sizes and against times.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw. One is divided; two get the sizes and the times; None makes a new figure.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : object of this class
            This object.
        """
        self.figure_, (self.ax_, self.time_ax_) = two_axes(self, ax, (9, 3.8), nrows=1, ncols=2)
        megabytes = np.asarray(self.nbytes) / 1e6
        self.points_, self.errorbar_ = self._draw_points(self.ax_, megabytes, scatter_kw)
        self.time_points_, self.time_errorbar_ = self._draw_points(self.time_ax_, self.milliseconds, scatter_kw)
        self.ax_.set(xlabel="size on disk (MB)", ylabel=self.score_name)
        self.time_ax_.set(xlabel="time per image (ms)")
        finish(self.ax_, self._title("size", megabytes))
        finish(self.time_ax_, self._title("time", self.milliseconds))
        if np.ndim(ax) == 0:  # side by side, on one scale
            self.time_ax_.tick_params(labelleft=False)
        else:
            self.time_ax_.set_ylabel(self.score_name)
        # Last of all: what lies beside an axes decides how large it is.
        self.figure_.canvas.figure.draw_without_rendering()
        self.arrows_ = self._draw_origins(self.ax_, self.points_)
        self.time_arrows_ = self._draw_origins(self.time_ax_, self.time_points_)
        self.labels_ = self._draw_labels(self.ax_, self.points_)
        self.time_labels_ = self._draw_labels(self.time_ax_, self.time_points_)
        return self

    def _draw_points(self, ax, values, scatter_kw):
        """One marker for each model, in a color of its own, over a logarithmic axis with plain numbers."""
        values = np.maximum(values, 1e-6)  # a clock may see no time at all
        colors = distinct_colors(len(self.names))
        points = ax.scatter(values, self.scores, **{**_MARKERS, "c": colors, **(scatter_kw or {})})
        errors, bars = self._errors(), None
        if errors.any():
            bars = ax.errorbar(values, self.scores, yerr=errors, fmt="none", ecolor=colors, elinewidth=1.5, zorder=2.5)
        low, high = _limits(values)
        ticks = _ticks(low, high)
        ax.set(xscale="log", xlim=(low, high), xticks=ticks)
        ax.set_xticklabels([f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_ylim(*score_limits(np.min(self.scores - errors), np.max(self.scores + errors)))
        return points, bars

    def _errors(self):
        """The length of the error bars, 0 where there are none."""
        return np.zeros(len(self.names)) if self.score_errors is None else np.nan_to_num(self.score_errors)

    def _title(self, what, values):
        """What is shown; of models of which one came of the other, below it what came of it at last."""
        title = f"{self.score_name} against {what}"
        steps = self._steps()
        last = {then for _, then in steps} - {first for first, _ in steps}
        if len(self._began()) != 1 or len(last) != 1:
            return title
        (first,), (then,) = self._began(), last
        percent = 100 * values[then] / max(values[first], 1e-9)
        share = f"{percent:.0f} %" if percent >= 10 else f"{percent:.1g} %"
        return f"{title}\n{short(self.names[then])}: {share} of {short(self.names[first])}'s {what}"

    def _steps(self):
        """Pairs of models, the first of which the second came of, by their places."""
        return [(self.names.index(origin), self.names.index(name)) for name, origin in (self.origins or {}).items()]

    def _began(self):
        """The models that others came of, and that came of none themselves."""
        return {first for first, _ in self._steps()} - {then for _, then in self._steps()}

    def _draw_origins(self, ax, points):
        """An arrow for each step, and a dashed line where all began: what is saved lies to the left of it."""
        places, radius = points.get_offsets(), _radius(points) + 1
        for first in self._began():
            ax.axvline(places[first][0], color=MUTED, linestyle="--", linewidth=0.8, zorder=0)
        style = {"arrowstyle": "->", "color": MUTED, "linewidth": 1, "shrinkA": radius, "shrinkB": radius}
        pixels, needed = ax.transData.transform(places), (2 * radius + 4) * ax.figure.dpi / 72
        return [
            ax.annotate("", places[then], places[first], arrowprops=style, annotation_clip=False, zorder=2)
            for first, then in self._steps()
            if np.hypot(*(pixels[then] - pixels[first])) > needed  # else there is no room for one
        ]

    def _draw_labels(self, ax, points):
        places = points.get_offsets()
        colors = distinct_colors(len(self.names))
        lines = [(places[first], places[then]) for first, then in self._steps()]
        lines += [((x, y - e), (x, y + e)) for (x, y), e in zip(places, self._errors(), strict=True) if e]
        bottom, top = ax.get_ylim()
        lines += [((places[first][0], bottom), (places[first][0], top)) for first in self._began()]
        x, y = places.T
        names = [short(name, _IN_FIGURE) for name in self.names]
        return label_points(ax, x, y, names, radius=_radius(points), colors=colors, lines=lines)


def _radius(points):
    """Of the largest marker, in points of 1/72 inch."""
    return np.sqrt(points.get_sizes().max()) / 2


def _limits(values):
    """Limits of a logarithmic axis, a decade at least: models of about one size shall look like that."""
    low, high = np.log10([np.min(values), np.max(values)])
    reach = max(0.62 * (high - low), 0.5)
    return 10 ** ((low + high) / 2 - reach), 10 ** ((low + high) / 2 + reach)


def _ticks(low, high):
    """1, 2 and 5 times the powers of ten between the limits, the powers alone where these are many."""
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = [1, 2, 5] if np.log10(high / low) < 2.5 else [1]
    ticks = [float(f"{step}e{exponent:.0f}") for exponent in exponents for step in steps]
    return [tick for tick in ticks if low <= tick <= high]
