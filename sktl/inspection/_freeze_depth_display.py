"""Score and time against how much of a network is frozen."""

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
    """Score and fit time of a search, against how many stages were frozen.

    It is recommended to use `from_estimator` to create one, or `from_search` of a search that has been done. All
    parameters are stored as attributes.

    Parameters
    ----------
    depths : list of int or str
        ``freeze_depth`` as it was given to the search, the most frozen first.
    mean_scores : ndarray of shape (n_depths,)
        Mean score over the folds, of the best candidate with that depth.
    std_scores : ndarray of shape (n_depths,)
        Its standard deviation over the folds.
    fit_times : ndarray of shape (n_depths,)
        Mean time of one fit in seconds, over the folds of all candidates with that depth.
    n_frozen : list of int, default=None
        How many stages each depth freezes, where that is known.
    n_stages : int, default=None
        How many stages there are.
    score_name : str, default="score"
        What the score is.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the scores.
    time_ax_ : matplotlib Axes
        With the fit times.
    figure_ : matplotlib Figure
        With both of them.
    errorbar_ : matplotlib ErrorbarContainer
        Scores with their standard deviations.
    band_ : matplotlib Rectangle or None
        What lies within the best one's standard deviation.
    bars_ : matplotlib BarContainer
        Fit times.

    See Also
    --------
    LayerProbeDisplay : How far each stage gets without any training.

    Notes
    -----
    With a cache the frozen stages run once per picture for each depth, so the time of a fit holds them only where it
    was the first to need them.

    References
    ----------
    .. [1] Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import FreezeDepthDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0)
    >>> search = GridSearchCV(model, {"freeze_depth": [-1, "all"]}, cv=2).fit(X[:100] / 16, y[:100])
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
        """Cross-validate an estimator with several depths, and draw the scores.

        Parameters
        ----------
        estimator : estimator
            With a parameter ``freeze_depth``, of its own or of a step of a pipeline. It is cloned.
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_images,) or (n_images, n_targets)
            Targets.
        depths : sequence of int or str, default=("all", -1, -2)
            The depths to compare.
        cv : int, cross-validation generator or iterable, default=None
            The folds; None makes 5.
        scoring : str or callable, default=None
            The score; None takes the estimator's own: accuracy, or the coefficient of determination.
        n_jobs : int, default=None
            Fits at the same time.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        errorbar_kw : dict, default=None
            Keywords for matplotlib's ``errorbar`` of the scores.
        bar_kw : dict, default=None
            Keywords for matplotlib's ``bar`` of the fit times.
        groups : array-like of shape (n_images,), default=None
            What each image belongs to, such as the subject or the original of near-copies: numbers or strings. A number
            for ``cv`` makes folds of whole groups, at most as many as groups; a cross-validation generator is given
            them.

        Returns
        -------
        display : FreezeDepthDisplay
            With the data, and with what was drawn.

        Raises
        ------
        InputError
            Where the estimator has no ``freeze_depth``, or several, or ``groups`` cannot be split.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        names = [name for name in estimator.get_params() if name.rpartition("__")[2] == _NAME]
        if len(names) != 1:
            raise InputError(
                f"The parameters of {type(estimator).__name__} that are a freeze depth are {names}, and one is needed. "
                "Give an estimator such as FineTunedClassifier, or use from_search."
            )
        refuse_single(X)
        if groups is not None:
            cv = folds_of(cv, y, is_classifier(estimator), groups)
        search = GridSearchCV(estimator, {names[0]: list(depths)}, cv=cv, scoring=scoring, n_jobs=n_jobs)
        return cls.from_search(search.fit(X, y), ax=ax, errorbar_kw=errorbar_kw, bar_kw=bar_kw)

    @classmethod
    def from_search(cls, search, *, param_name=None, metric=None, ax=None, errorbar_kw=None, bar_kw=None):
        """Draw a search over ``freeze_depth``.

        Parameters
        ----------
        search : GridSearchCV or RandomizedSearchCV
            Fitted. ``freeze_depth`` may be a parameter of the estimator or of a step of a pipeline. Where there are
            other parameters too, the best candidate stands for each depth.
        param_name : str, default=None
            The name of the parameter in the search, such as ``"finetunedclassifier__freeze_depth"``; None finds it.
        metric : str, default=None
            Which score to draw, where the search has several; None takes the one that the search refits by.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        errorbar_kw : dict, default=None
            Keywords for matplotlib's ``errorbar`` of the scores.
        bar_kw : dict, default=None
            Keywords for matplotlib's ``bar`` of the fit times.

        Returns
        -------
        display : FreezeDepthDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the search is not fitted.
        InputError
            Where it is not one over ``freeze_depth``, or has no such metric.
        MissingDependencyError
            Where matplotlib is not installed.
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
        # Where networks of other depths are candidates too, a number of stages means something else in each.
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
        """Draw the scores, and the fit times below them.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw. One is divided; two get the scores and the times; None makes a new figure.
        errorbar_kw : dict, default=None
            Keywords for matplotlib's ``errorbar`` of the scores.
        bar_kw : dict, default=None
            Keywords for matplotlib's ``bar`` of the fit times.

        Returns
        -------
        display : FreezeDepthDisplay
            This object.
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
        finish(self.ax_, f"{self.score_name} by how much is frozen")
        is_known = self.n_frozen is not None and self.n_stages is not None
        below = f"freeze_depth, and how many of {self.n_stages} stages are frozen" if is_known else "freeze_depth"
        self.time_ax_.set(ylabel="mean time\nof a fit (s)", xlabel=below, xlim=(-0.6, n_depths - 0.4))
        self.time_ax_.set_xticks(places, self._labels(is_known))
        # The times span powers of ten, and a bar of a hundredth is not seen.
        self.time_ax_.bar_label(self.bars_, [f"{seconds:.2g}" for seconds in self.fit_times], padding=2, fontsize=9)
        self.time_ax_.margins(y=0.2)
        return self

    def _draw_band(self):
        """The spread of the best one: a depth inside it is not worse by more than the folds differ."""
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
    """The parameter of a search that is a freeze depth."""
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    found = [key for key in names if key == (param_name or key) and key.rpartition("__")[2] == _NAME]
    if len(found) != 1:
        raise InputError(
            f"The search is over {names}, of which {len(found)} are a freeze depth"
            + (f" called {param_name!r}." if param_name else ".")
            + (" Choose one with param_name=." if len(found) > 1 else " Put freeze_depth into its grid.")
        )
    if not all(found[0] in params for params in results["params"]):
        raise InputError(f"Not every candidate of the search has a {found[0]!r}: put it into each grid.")
    return found[0]


def _find_metric(search, metric):
    """The name under which ``cv_results_`` has the scores."""
    has = [key.removeprefix("mean_test_") for key in search.cv_results_ if key.startswith("mean_test_")]
    if metric is None:
        metric = "score" if "score" in has else search.refit
    if metric not in has:
        raise InputError(f"metric={metric!r} is not among the scores of the search: {has}.")
    return metric


def _count_frozen(depths, backbone):
    """How many stages each depth freezes; None where that cannot be told."""
    if backbone is None:
        return None
    try:
        return {depth: backbone.stage_index(depth) for depth in depths}
    except BackboneError:  # a candidate with an impossible depth: its fits have failed, its score is NaN
        return None


def _rank(depth):
    """An order of depths, the most frozen first, without knowing how many stages there are."""
    if depth == "all":
        return (0, 0)
    if isinstance(depth, str):
        return (2, 0)
    return (1, -depth) if depth < 0 else (3, -depth)


def _or_least(score):
    return -np.inf if np.isnan(score) else score
