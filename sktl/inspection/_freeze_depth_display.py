"""Score and fit time against freeze depth."""

from numbers import Integral

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import GridSearchCV

from sktl._estimators._find_fitted import find_fitted
from sktl._estimators._groups import folds_of
from sktl._images import refuse_single
from sktl._params import check_is_fitted
from sktl.exceptions import BackboneError, InputError
from sktl.inspection._axes import check_matplotlib, finish, two_axes
from sktl.inspection._score_axis import score_limits, score_name

_NAME = "freeze_depth"


class FreezeDepthDisplay:
    """Visualization of score and fit time against freeze depth.

    The best depth depends on how general the features of each stage are [1]_.

    It is recommended to use `from_estimator` or, for a fitted search, `from_search` to
    create a display. All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    depths : list of int or str
        Values of ``freeze_depth``, starting with the most frozen stages.
    mean_scores : ndarray of shape (n_depths,)
        Mean score over the folds of the best candidate with each depth.
    std_scores : ndarray of shape (n_depths,)
        Standard deviation of the score of the same candidate over the folds.
    fit_times : ndarray of shape (n_depths,)
        Mean fit time of all candidates with each depth, in seconds.
    n_frozen : list of int, default=None
        Number of frozen stages of each depth, if known.
    n_stages : int, default=None
        Number of stages of the network, if known.
    score_name : str, default="score"
        Name of the score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the scores.
    time_ax_ : matplotlib Axes
        Axes with the fit times.
    figure_ : matplotlib Figure
        Figure containing the axes.
    errorbar_ : matplotlib ErrorbarContainer
        Mean scores with error bars of one standard deviation.
    band_ : matplotlib Rectangle or None
        One standard deviation around the best mean score.
    bars_ : matplotlib BarContainer
        Fit times.

    See Also
    --------
    LayerProbeDisplay : Score of a linear model on each stage, without training the network.

    Notes
    -----
    With a cache, the frozen stages run once per image for each depth. Their time is
    part of the first fit that needs them, and of no other.

    References
    ----------
    .. [1] Yosinski et al., "How transferable are features in deep neural networks?",
           NIPS 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import FreezeDepthDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0)
    >>> search = GridSearchCV(model, {"freeze_depth": [-1, "all"]}, cv=2)
    >>> search = search.fit(X[:100] / 16, y[:100])
    >>> display = FreezeDepthDisplay.from_search(search)
    >>> display.depths, display.n_frozen
    (['all', -1], [5, 4])
    """

    def __init__(self, depths, mean_scores, std_scores, fit_times, *, n_frozen=None, n_stages=None, score_name="score"):
        self.depths = depths
        self.mean_scores = mean_scores
        self.std_scores = std_scores
        self.fit_times = fit_times
        self.n_frozen = n_frozen
        self.n_stages = n_stages
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        depths=("all", -1, -2),
        cv=None,
        scoring=None,
        n_jobs=None,
        ax=None,
        errorbar_kw=None,
        bar_kw=None,
        groups=None,
    ):
        """Cross-validate an estimator with several freeze depths and plot the scores.

        Parameters
        ----------
        estimator : estimator
            Estimator with a ``freeze_depth`` parameter, or a pipeline that contains
            one. It is cloned.
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images.
        depths : sequence of int or str, default=("all", -1, -2)
            Values of ``freeze_depth`` to compare.
        cv : int, cross-validation generator or iterable, default=None
            Cross-validation splitting strategy. If None, 5-fold cross-validation is
            used.
        scoring : str or callable, default=None
            Name of a scorer, or callable with signature ``scorer(estimator, X, y)``. If
            None, the default score of the estimator is used: accuracy for classifiers
            and R² for regressors.
        n_jobs : int, default=None
            Number of jobs to run in parallel.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the scores and the fit times.
        errorbar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``errorbar`` to draw the scores.
        bar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``bar`` to draw the fit times.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. If ``cv`` is an int or None, all rows of a group are in the
            same fold, and there are at most as many folds as groups. Otherwise, the
            groups are passed to the cross-validation generator.

        Returns
        -------
        display : FreezeDepthDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        InputError
            If the estimator does not have exactly one ``freeze_depth`` parameter, or
            ``groups`` cannot be split.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        names = [name for name in estimator.get_params() if name.rpartition("__")[2] == _NAME]
        if len(names) != 1:
            raise InputError(
                f"{type(estimator).__name__} must have exactly one freeze_depth parameter. Got {names} instead. Pass "
                "an estimator such as FineTunedClassifier, or use from_search."
            )
        refuse_single(X)
        if groups is not None:
            cv = folds_of(cv, y, is_classifier(estimator), groups)
        search = GridSearchCV(estimator, {names[0]: list(depths)}, cv=cv, scoring=scoring, n_jobs=n_jobs)
        return cls.from_search(search.fit(X, y), ax=ax, errorbar_kw=errorbar_kw, bar_kw=bar_kw)

    @classmethod
    def from_search(cls, search, *, param_name=None, metric=None, ax=None, errorbar_kw=None, bar_kw=None):
        """Plot the results of a search over ``freeze_depth``.

        Parameters
        ----------
        search : GridSearchCV or RandomizedSearchCV
            Fitted search over the ``freeze_depth`` of an estimator or of a step of a
            pipeline. If other parameters are searched as well, the best candidate with
            each depth is shown.
        param_name : str, default=None
            Name of the parameter in the search, such as
            ``"finetunedclassifier__freeze_depth"``. If None, it is inferred.
        metric : str, default=None
            Name of the score to show if the search has several. If None, the score that
            selects the best candidate (``refit``) is used.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the scores and the fit times.
        errorbar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``errorbar`` to draw the scores.
        bar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``bar`` to draw the fit times.

        Returns
        -------
        display : FreezeDepthDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the search is not fitted.
        InputError
            If ``freeze_depth`` is not a parameter of the search, or the search does not
            have such a metric.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        name = _find_parameter(results, param_name)
        metric = _find_metric(search, metric)
        written = [params[name] for params in results["params"]]
        candidates: dict[object, list[int]] = {}
        for index, depth in enumerate(written):
            candidates.setdefault(depth, []).append(index)
        # If several networks are candidates, a number of stages differs in meaning.
        is_one_network = not any(key.rpartition("__")[2] in ("backbone", "student") for key in results["params"][0])
        found = find_fitted(search, "backbone_") if is_one_network else None
        backbone = None if found is None else found.estimator.backbone_
        n_frozen = _count_frozen(candidates, backbone)
        order = sorted(candidates, key=lambda depth: _rank(depth) if n_frozen is None else -n_frozen[depth])
        means, stds = results[f"mean_test_{metric}"], results[f"std_test_{metric}"]
        best = [max(candidates[depth], key=lambda index: _or_least(means[index])) for depth in order]
        display = cls(
            [int(depth) if isinstance(depth, Integral) else depth for depth in order],
            means[best],
            stds[best],
            np.array([np.mean(results["mean_fit_time"][candidates[depth]]) for depth in order]),
            n_frozen=None if n_frozen is None else [n_frozen[depth] for depth in order],
            n_stages=len(backbone.stages) if backbone is not None and n_frozen is not None else None,
            score_name=score_name(search, search.scoring) if metric == "score" else metric,
        )
        return display.plot(ax, errorbar_kw=errorbar_kw, bar_kw=bar_kw)

    def plot(self, ax=None, *, errorbar_kw=None, bar_kw=None):
        """Plot the scores, and the fit times below.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the scores and the fit times.
        errorbar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``errorbar`` to draw the scores.
        bar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``bar`` to draw the fit times.

        Returns
        -------
        display : FreezeDepthDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        n_depths = len(self.depths)
        grid = {"nrows": 2, "ncols": 1, "height_ratios": [3, 2]}
        self.figure_, (self.ax_, self.time_ax_) = two_axes(self, ax, (max(5.0, 1.5 + 0.9 * n_depths), 4.8), **grid)
        places = np.arange(n_depths)
        style = {"fmt": "o-", "capsize": 4, "color": "C0", **(errorbar_kw or {})}
        self.errorbar_ = self.ax_.errorbar(places, self.mean_scores, yerr=self.std_scores, **style)
        self._draw_band()
        self.bars_ = self.time_ax_.bar(places, self.fit_times, **{"width": 0.5, "color": "C7", **(bar_kw or {})})
        self.ax_.set(ylabel=f"{self.score_name}\n(mean ± std of folds)")
        self.ax_.tick_params(labelbottom=False)
        finish(self.ax_, f"{self.score_name} by freeze depth")
        is_known = self.n_frozen is not None and self.n_stages is not None
        below = f"freeze_depth, and number of frozen stages (of {self.n_stages})" if is_known else "freeze_depth"
        self.time_ax_.set(ylabel="mean fit\ntime (s)", xlabel=below, xlim=(-0.6, n_depths - 0.4))
        self.time_ax_.set_xticks(places, self._labels(is_known))
        # Times may differ by powers of ten, and short bars are not visible.
        self.time_ax_.bar_label(self.bars_, [f"{seconds:.2g}" for seconds in self.fit_times], padding=2, fontsize=9)
        self.time_ax_.margins(y=0.2)
        return self

    def _draw_band(self):
        """Draw the band of scores that do not differ clearly from the best one."""
        means, stds = np.asarray(self.mean_scores, float), np.nan_to_num(np.asarray(self.std_scores, float))
        self.band_ = None
        if np.isnan(means).all():
            return
        best = int(np.nanargmax(means))
        low, high = means[best] - stds[best], means[best] + stds[best]
        self.band_ = self.ax_.axhspan(low, high, color="C0", alpha=0.1, linewidth=0, label="best ± std")
        self.ax_.set_ylim(*score_limits(np.nanmin(means - stds), np.nanmax(means + stds)))
        self.ax_.legend(handles=[self.band_], fontsize="small")

    def _labels(self, is_known):
        written = [f'"{depth}"' if isinstance(depth, str) else str(depth) for depth in self.depths]
        return [f"{text}\n{n}" for text, n in zip(written, self.n_frozen, strict=True)] if is_known else written


def _find_parameter(results, param_name):
    """Return the name of the freeze depth parameter of a search."""
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    found = [key for key in names if key == (param_name or key) and key.rpartition("__")[2] == _NAME]
    if len(found) != 1:
        raise InputError(
            f"The search must vary one freeze_depth parameter. It varies {names}, of which {len(found)} match"
            + (f" param_name={param_name!r}." if param_name else ".")
            + (" Choose one with param_name." if len(found) > 1 else " Add freeze_depth to the parameter grid.")
        )
    if not all(found[0] in params for params in results["params"]):
        raise InputError(f"Some candidates of the search do not set {found[0]!r}. Add it to each parameter grid.")
    return found[0]


def _find_metric(search, metric):
    """Return the name of a score in ``cv_results_``."""
    has = [key.removeprefix("mean_test_") for key in search.cv_results_ if key.startswith("mean_test_")]
    if metric is None:
        metric = "score" if "score" in has else search.refit
    if metric not in has:
        raise InputError(f"metric={metric!r} is not a score of the search. Use one of {has}.")
    return metric


def _count_frozen(depths, backbone):
    """Return the number of frozen stages of each depth, or None if unknown."""
    if backbone is None:
        return None
    try:
        return {depth: backbone.stage_index(depth) for depth in depths}
    except BackboneError:  # an impossible depth, whose fits failed and whose score is NaN
        return None


def _rank(depth):
    """Return a sort key that puts the most frozen first if the stages are unknown."""
    if depth == "all":
        return (0, 0)
    if isinstance(depth, str):
        return (2, 0)
    return (1, -depth) if depth < 0 else (3, -depth)


def _or_least(score):
    return -np.inf if np.isnan(score) else score
