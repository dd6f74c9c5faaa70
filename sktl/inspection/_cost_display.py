"""Base class of the displays of score, size and speed of several models."""

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

_IN_FIGURE = 24  # maximum number of characters of a name in the figure
# Transparent with an edge, so that overlapping markers can be told apart.
_MARKERS = {"s": 70.0, "alpha": 0.85, "edgecolors": "white", "linewidths": 0.8, "zorder": 3}


class CostDisplay:
    """Base class for visualizations of score against model size and prediction time.

    It is recommended to use `from_estimators` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    names : list of str
        Names of the models.
    scores : ndarray of shape (n_models,)
        Score of each model.
    nbytes : ndarray of shape (n_models,)
        Size of each pickled model, in bytes.
    milliseconds : ndarray of shape (n_models,)
        Prediction time of each model, in milliseconds per image.
    parameters : list of int or None, default=None
        Number of parameters of each model's network, or None for a model without a
        network.
    origins : dict of str to str, default=None
        Dict from the name of each derived model to the name of its original.
    score_name : str, default="score"
        Name of the score.
    score_errors : ndarray of shape (n_models,), default=None
        Standard error of each score, NaN if unknown. If None, no error bars are drawn.
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
        """Measure fitted estimators and plot score against size and time.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted estimators of any kind, by name.
        X : array-like of images
            Images that no model was trained on.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images.
        origins : dict of str to str, default=None
            Dict from the name of each derived model to the name of its original, such
            as ``{"pruned": "original", "int8": "pruned"}``. Arrows lead from each
            original to the derived model. Dashed lines mark the size and time of models
            that are not derived from another one.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        scoring : str or callable, default=None
            Name of a scorer, or callable with signature ``scorer(estimator, X, y)``. If
            None, accuracy is used for classifiers and R² for regressors.
        n_timed : int, default=64
            Number of images used to measure the prediction time: the first ones of
            ``X``. None uses all images.
        n_repeats : int, default=5
            Number of times the prediction time is measured. The median is used.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show score against size and score against time.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : object of this class
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If an estimator is not fitted.
        InputError
            If ``estimators`` is not a dict or is empty, ``origins`` contains an unknown
            name, or an estimator cannot be pickled.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        if not isinstance(estimators, Mapping) or not estimators:
            raise InputError(
                "The 'estimators' parameter must be a non-empty dict from names to fitted estimators. Got "
                f"{estimators!r} instead."
            )
        unknown = {*(origins or {}), *(origins or {}).values()} - set(estimators)
        if unknown:
            raise InputError(
                f"origins={origins!r} contains unknown names: {sorted(unknown)}. The models are named "
                f"{list(estimators)}."
            )
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        models = list(estimators.values())
        for model in models:
            check_is_fitted(model)
        # The same score for all: a search would use the score it optimizes.
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
                f"{unsized} cannot be pickled (lambdas are a common cause), so the size on disk is unknown. Leave "
                "these models out."
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
        """Plot score against size and score against time.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show score against size and score against time.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : object of this class
            Object that stores the computed values and the matplotlib artists.
        """
        self.figure_, (self.ax_, self.time_ax_) = two_axes(self, ax, (9, 3.8), nrows=1, ncols=2)
        megabytes = np.asarray(self.nbytes) / 1e6
        self.points_, self.errorbar_ = self._draw_points(self.ax_, megabytes, scatter_kw)
        self.time_points_, self.time_errorbar_ = self._draw_points(self.time_ax_, self.milliseconds, scatter_kw)
        self.ax_.set(xlabel="size on disk (MB)", ylabel=self.score_name)
        self.time_ax_.set(xlabel="time per image (ms)")
        finish(self.ax_, self._title("size", megabytes))
        finish(self.time_ax_, self._title("time", self.milliseconds))
        if np.ndim(ax) == 0:  # side by side, with the same limits
            self.time_ax_.tick_params(labelleft=False)
        else:
            self.time_ax_.set_ylabel(self.score_name)
        # Labels come last: tick labels and titles determine the size of the axes.
        self.figure_.canvas.figure.draw_without_rendering()
        self.arrows_ = self._draw_origins(self.ax_, self.points_)
        self.time_arrows_ = self._draw_origins(self.time_ax_, self.time_points_)
        self.labels_ = self._draw_labels(self.ax_, self.points_)
        self.time_labels_ = self._draw_labels(self.time_ax_, self.time_points_)
        return self

    def _draw_points(self, ax, values, scatter_kw):
        """Draw one marker per model, each in its own color, over a logarithmic axis."""
        values = np.maximum(values, 1e-6)  # a measured time may be zero
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
        """Return the lengths of the error bars, 0 for unknown ones."""
        return np.zeros(len(self.names)) if self.score_errors is None else np.nan_to_num(self.score_errors)

    def _title(self, what, values):
        """Return the title, for a chain of models with the final share of the cost."""
        title = f"{self.score_name} against {what}"
        steps = self._steps()
        last = {then for _, then in steps} - {first for first, _ in steps}
        if len(self._began()) != 1 or len(last) != 1:
            return title
        (first,), (then,) = self._began(), last
        percent = 100 * values[then] / max(values[first], 1e-9)
        share = f"{percent:.0f}%" if percent >= 10 else f"{percent:.1g}%"
        return f"{title}\n{short(self.names[then])}: {share} of the {what} of {short(self.names[first])}"

    def _steps(self):
        """Return pairs of positions: an original and the model derived from it."""
        return [(self.names.index(origin), self.names.index(name)) for name, origin in (self.origins or {}).items()]

    def _began(self):
        """Return the positions of originals that are not derived themselves."""
        return {first for first, _ in self._steps()} - {then for _, then in self._steps()}

    def _draw_origins(self, ax, points):
        """Draw an arrow to each derived model, and a dashed line at each first one."""
        places, radius = points.get_offsets(), _radius(points) + 1
        for first in self._began():
            ax.axvline(places[first][0], color=MUTED, linestyle="--", linewidth=0.8, zorder=0)
        style = {"arrowstyle": "->", "color": MUTED, "linewidth": 1, "shrinkA": radius, "shrinkB": radius}
        pixels, needed = ax.transData.transform(places), (2 * radius + 4) * ax.figure.dpi / 72
        return [
            ax.annotate("", places[then], places[first], arrowprops=style, annotation_clip=False, zorder=2)
            for first, then in self._steps()
            if np.hypot(*(pixels[then] - pixels[first])) > needed  # otherwise the arrow does not fit
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
    """Return the radius of the largest marker, in points of 1/72 inch."""
    return np.sqrt(points.get_sizes().max()) / 2


def _limits(values):
    """Return limits of a logarithmic axis that span at least a decade."""
    low, high = np.log10([np.min(values), np.max(values)])
    reach = max(0.62 * (high - low), 0.5)
    return 10 ** ((low + high) / 2 - reach), 10 ** ((low + high) / 2 + reach)


def _ticks(low, high):
    """Return ticks at 1, 2 and 5 times powers of ten, or only at the powers."""
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = [1, 2, 5] if np.log10(high / low) < 2.5 else [1]
    ticks = [float(f"{step}e{exponent:.0f}") for exponent in exponents for step in steps]
    return [tick for tick in ticks if low <= tick <= high]
