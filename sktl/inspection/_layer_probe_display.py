"""Scores of linear probes on the features of each stage."""

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl._estimators._groups import folds_of
from sktl._messages import shortened_errors
from sktl._params import check_consistent_length
from sktl._training._head_probe import PROBE_PENALTY
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, finish, one_axes
from sktl.inspection._network_and_images import network_and_images
from sktl.inspection._score_axis import score_limits, score_name
from sktl.inspection._text_layout import short

_ON_AXIS = 24  # maximum characters of the name of a stage
_IN_ROW = 60  # maximum characters of all names without rotation


class LayerProbeDisplay:
    """Visualization of linear probes: the score of a linear model on each stage.

    The scores show how well the features of each stage transfer to the given task [1]_
    [2]_.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    stages : list of str
        Names of the stages, from the input on.
    scores : ndarray of shape (n_stages, n_folds)
        Scores of the linear model on the pooled features of each stage.
    chance : float, default=None
        Score of a baseline that ignores the images.
    n_features : list of int, default=None
        Number of features of each stage.
    name : str, default=None
        Name of the network.
    score_name : str, default="score"
        Name of the score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the scores.
    figure_ : matplotlib Figure
        Figure containing the axes.
    errorbar_ : matplotlib ErrorbarContainer
        Mean scores with error bars of one standard deviation over the folds.
    chance_line_ : matplotlib Line2D or None
        Line at the chance level.

    See Also
    --------
    FreezeDepthDisplay : Score after training the stages that follow the frozen ones.

    Notes
    -----
    The features of all stages are computed in one pass over the images, or read from
    the cache. All stages are evaluated on the same folds.

    For a fine-tuned estimator, the trained network is probed. The scores of trained
    stages are too optimistic on the images of its training. Pass images that the
    estimator was not trained on.

    References
    ----------
    .. [1] Yosinski et al., "How transferable are features in deep neural networks?",
           NIPS 2014.
    .. [2] Alain and Bengio, "Understanding intermediate layers using linear classifier
           probes", ICLR workshop 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.inspection import LayerProbeDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:200] / 16, y[:200]
    >>> display = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=2)
    >>> display.stages
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    >>> display.scores.shape
    (5, 2)
    """

    def __init__(self, stages, scores, *, chance=None, n_features=None, name=None, score_name="score"):
        self.stages = stages
        self.scores = scores
        self.chance = chance
        self.n_features = n_features
        self.name = name
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        cv=None,
        scoring=None,
        probe=None,
        pooling="avg",
        n_jobs=None,
        ax=None,
        errorbar_kw=None,
        groups=None,
    ):
        """Cross-validate a linear model on each stage of a network and plot the scores.

        Parameters
        ----------
        estimator : str, Module, Backbone or sktl estimator
            Network to inspect: the name of a backbone, which is loaded with its default
            weights, your own network, or an sktl estimator. A fitted estimator, or a
            fitted pipeline or search that contains one, provides its trained network
            and reads images as in `fit`. An unfitted estimator, such as
            ``PretrainedFeatureExtractor("resnet18", weights=..., cache=...)``, provides
            its pretrained network and its parameters.
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide. For a
            fitted pipeline, the input of its first step.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images.
        cv : int, cross-validation generator or iterable, default=None
            Cross-validation splitting strategy. If None, 5-fold cross-validation is
            used.
        scoring : str or callable, default=None
            Name of a scorer, or callable with signature ``scorer(estimator, X, y)``. If
            None, the default score of the linear model is used: accuracy for
            classifiers and R² for regressors.
        probe : estimator, default=None
            Linear model. If None, a `LogisticRegression` is used if ``estimator`` is a
            classifier, or if it is not a regressor and ``y`` contains labels, and a
            `Ridge` otherwise. Both are fitted to standardized features with an L2
            penalty of 30.
        pooling : {"avg", "max", "gem"}, default="avg"
            How the output of each stage is pooled, as in
            `sktl.PretrainedFeatureExtractor`.
        n_jobs : int, default=None
            Number of jobs to run in parallel.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        errorbar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``errorbar`` to draw the scores.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. If ``cv`` is an int or None, all rows of a group are in the
            same fold, and there are at most as many folds as groups. Otherwise, the
            groups are passed to the cross-validation generator.

        Returns
        -------
        display : LayerProbeDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        ValueError
            If ``pooling`` is invalid, ``X``, ``y`` and ``groups`` differ in length, or
            there is only one group.
        BackboneError
            If the network does not exist.
        ImageError
            If an image cannot be read.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        if pooling not in ("avg", "max", "gem"):
            raise InputError(
                "The 'pooling' parameter must be 'avg', 'max' or 'gem', which work for all stages. Got "
                f"{pooling!r} instead."
            )
        found = network_and_images(estimator, X)
        check_consistent_length(range(len(found.images)), y)
        y = np.asarray(y)
        probe = _default_probe(found.is_regression(y)) if probe is None else probe
        stages = [stage.name for stage in found.backbone.stages]
        features = found.features(stages, pooling)
        # A random splitter would otherwise evaluate each stage on different images.
        with shortened_errors():
            folds = folds_of(cv, y, is_classifier(probe), groups)
            check_scoring(probe, scoring)  # raises one error instead of one per fold
        settings = {"cv": folds, "scoring": scoring, "n_jobs": n_jobs}
        # In float32, rounding of the solver would affect the scores.
        scores = [cross_val_score(clone(probe), table.astype(np.float64), y, **settings) for table in features]
        dummy = DummyRegressor() if is_regressor(probe) else DummyClassifier(strategy="prior")
        display = cls(
            stages,
            np.array(scores),
            chance=float(cross_val_score(dummy, features[0], y, **settings).mean()),
            n_features=[table.shape[1] for table in features],
            name=found.backbone.name,
            score_name=score_name(probe, scoring),
        )
        return display.plot(ax, errorbar_kw=errorbar_kw)

    def plot(self, ax=None, *, errorbar_kw=None):
        """Plot the scores of all stages.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        errorbar_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``errorbar`` to draw the scores.

        Returns
        -------
        display : LayerProbeDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        n_stages, n_folds = np.shape(self.scores)
        self.figure_, self.ax_ = one_axes(self, ax, (max(5.0, 1.5 + 0.45 * n_stages), 3.8))
        places = np.arange(n_stages)
        style = {"fmt": "o-", "capsize": 4, "color": "C0", **(errorbar_kw or {})}
        self.errorbar_ = self.ax_.errorbar(places, np.mean(self.scores, 1), yerr=np.std(self.scores, 1), **style)
        self.chance_line_ = None
        if self.chance is not None:
            self.chance_line_ = self.ax_.axhline(self.chance, color=MUTED, linestyle="--", linewidth=1)
            style = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "color": MUTED}
            self.ax_.annotate("chance", (1, self.chance), (-4, 3), ha="right", va="bottom", fontsize="small", **style)
        # Names such as features.12 do not fit side by side.
        is_crowded = n_stages > 8 or max(map(len, self.stages)) * n_stages > _IN_ROW
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_crowded else {}
        self.ax_.set_xticks(places, [short(name, _ON_AXIS) for name in self.stages], **turn)
        of = f" of {self.name}" if self.name else ""
        self.ax_.set(
            xlabel="stage (from input to output)",
            ylabel=f"{self.score_name}\n(mean ± std of {n_folds} folds)",
            ylim=self._limits(),
        )
        finish(self.ax_, f"linear probe of each stage{of}")
        return self

    def _limits(self):
        means, stds = np.mean(self.scores, 1), np.std(self.scores, 1)
        level = [] if self.chance is None else [self.chance]
        return score_limits(np.nanmin([*(means - stds), *level]), np.nanmax([*(means + stds), *level]))


def _default_probe(is_regression):
    """Return a regularized linear classifier or regressor on standardized features."""
    model = Ridge(alpha=PROBE_PENALTY) if is_regression else LogisticRegression(C=1 / PROBE_PENALTY, max_iter=1000)
    return make_pipeline(StandardScaler(), model)
