"""How far a linear model gets with what each stage gives."""

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

_ON_AXIS = 24  # characters of a stage's name
_IN_ROW = 60  # of all of them, side by side


class LayerProbeDisplay:
    """How transferable each stage of a network is: the score of a linear model on what it gives.

    It is recommended to use `from_estimator` to create one. All parameters are stored as attributes.

    Parameters
    ----------
    stages : list of str
        Names of the stages, the first one first.
    scores : ndarray of shape (n_stages, n_folds)
        Scores of the linear model on each stage's pooled features.
    chance : float, default=None
        What a model reaches that does not look at the pictures.
    n_features : list of int, default=None
        How many features each stage has.
    name : str, default=None
        Of the network.
    score_name : str, default="score"
        What the score is.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the scores.
    figure_ : matplotlib Figure
        With the axes.
    errorbar_ : matplotlib ErrorbarContainer
        Mean scores with their standard deviations over the folds.
    chance_line_ : matplotlib Line2D or None
        The level of chance.

    See Also
    --------
    FreezeDepthDisplay : What training the stages behind a depth gives.

    Notes
    -----
    The features of all stages are computed in one pass over the pictures, or come from the cache. All stages are judged
    on the same folds.

    Of a fine-tuned estimator, the network with what it learnt is probed: pictures that it learnt from flatter the
    stages that were trained. Give others.

    References
    ----------
    .. [1] Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014.
    .. [2] Alain and Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshop 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.inspection import LayerProbeDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = LayerProbeDisplay.from_estimator("sktl_mini", X[:200] / 16, y[:200], cv=2)
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
        """Probe every stage of a network, and draw it.

        Parameters
        ----------
        estimator : str, Module, Backbone or sktl estimator
            Whose network is probed. The name of a backbone means its best published weights. A fitted estimator, or a
            pipeline or search with one in it, gives the network with what it learnt, and reads pictures as it learnt
            to; one that is not fitted, such as ``PretrainedFeatureExtractor("resnet18", weights=..., cache=...)``, the
            network that it would start from.
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide; of a fitted pipeline, what its first
            step takes.
        y : array-like of shape (n_images,) or (n_images, n_targets)
            Targets: labels, or numbers.
        cv : int, cross-validation generator or iterable, default=None
            The folds; None makes 5.
        scoring : str or callable, default=None
            The score; None takes the probe's own: accuracy, or the coefficient of determination.
        probe : estimator, default=None
            The linear model. None takes `StandardScaler` with `LogisticRegression` where ``estimator`` is a classifier,
            or no regressor and ``y`` looks like labels, and with `Ridge` otherwise; both with a penalty of 30.
        pooling : {"avg", "max", "gem"}, default="avg"
            What is kept of each stage, as in `PretrainedFeatureExtractor`.
        n_jobs : int, default=None
            Folds that are fitted at the same time.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        errorbar_kw : dict, default=None
            Keywords for matplotlib's ``errorbar`` of the scores.
        groups : array-like of shape (n_images,), default=None
            What each image belongs to, such as the subject or the original of near-copies: numbers or strings. A number
            for ``cv`` makes folds of whole groups, at most as many as groups; a cross-validation generator is given
            them.

        Returns
        -------
        display : LayerProbeDisplay
            With the data, and with what was drawn.

        Raises
        ------
        ValueError
            Where ``pooling`` is another one, ``X``, ``y`` and ``groups`` differ in length, or there is one group only.
        BackboneError
            Where there is no such network.
        ImageError
            Where a picture cannot be read.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        if pooling not in ("avg", "max", "gem"):
            raise InputError(f"pooling={pooling!r} does not fit every stage. Use 'avg', 'max' or 'gem'.")
        found = network_and_images(estimator, X)
        check_consistent_length(range(len(found.images)), y)
        y = np.asarray(y)
        probe = _default_probe(found.is_regression(y)) if probe is None else probe
        stages = [stage.name for stage in found.backbone.stages]
        features = found.features(stages, pooling)
        # One list of folds: a random splitter would judge each stage on other pictures.
        with shortened_errors():
            folds = folds_of(cv, y, is_classifier(probe), groups)
            check_scoring(probe, scoring)  # a wrong one is an error here and not in each fold
        judging = {"cv": folds, "scoring": scoring, "n_jobs": n_jobs}
        # In float32 a solver's rounding can be seen in the scores.
        scores = [cross_val_score(clone(probe), table.astype(np.float64), y, **judging) for table in features]
        dummy = DummyRegressor() if is_regressor(probe) else DummyClassifier(strategy="prior")
        display = cls(
            stages,
            np.array(scores),
            chance=float(cross_val_score(dummy, features[0], y, **judging).mean()),
            n_features=[table.shape[1] for table in features],
            name=found.backbone.name,
            score_name=score_name(probe, scoring),
        )
        return display.plot(ax, errorbar_kw=errorbar_kw)

    def plot(self, ax=None, *, errorbar_kw=None):
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        errorbar_kw : dict, default=None
            Keywords for matplotlib's ``errorbar`` of the scores.

        Returns
        -------
        display : LayerProbeDisplay
            This object.
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
            xlabel="stage, from the input on",
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
    """A linear model for labels or for numbers."""
    model = Ridge(alpha=PROBE_PENALTY) if is_regression else LogisticRegression(C=1 / PROBE_PENALTY, max_iter=1000)
    return make_pipeline(StandardScaler(), model)
