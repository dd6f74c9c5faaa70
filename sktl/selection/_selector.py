"""Which network, and which of its layers: ranked by one pass over the pictures, before anything is trained."""

import copy
import time
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktl._engine._footprint import network_counts
from sktl._engine._labelled import as_targets
from sktl._engine._network import output_shapes
from sktl._images import check_images
from sktl._table import ReadableTable
from sktl.feature_extraction import PretrainedFeatureExtractor
from sktl.selection._registry import SCORES

_LEARNT = ("backbone_", "layers_", "image_format_", "n_features_in_", "feature_names_in_")


class BackboneSelector(TransformerMixin, BaseEstimator):
    """Find the network and the layer whose features suit the pictures and labels best, and give these features.

    Each network sees each picture once; all of its layers are judged by what that pass gives. No network is trained.

    Read more in the user guide, page "Choosing".

    Parameters
    ----------
    backbones : str, Module, Backbone, estimator, list of these, or dict of str to these, default="sktl_mini"
        The networks to compare: whatever `sktl.PretrainedFeatureExtractor` takes as its ``backbone``, or such an
        extractor, which is cloned, where a network has weights or settings of its own. The keys of a dict are the names
        in the ranking; in a list the networks' own names are.
    layers : "all", int, str, or list of int and str, default="all"
        The layers of each network that are candidates: all of its stages, or these stages by their numbers (-1 is the
        last one) or layers by their names.
    score_func : str or callable, default="logme"
        How well features suit labels: ``"logme"``, ``"h_score"``, ``"nleep"``, ``"transrate"``, ``"gbc"`` or
        ``"probe"``, see the functions of `sktl.selection`; or a function of features of shape (n, n_features) and
        ``y`` that gives a number, a greater one for better features.
    extractor : PretrainedFeatureExtractor, default=None
        Whose settings (pooling, engine, cache, image_shape, verbose ...) hold for all networks that are given without
        an extractor of their own. None takes the default ones.
    max_samples : int, default=None
        How many pictures are looked at, drawn in the shares of the classes; None looks at all.
    random_state : int, RandomState instance or None, default=None
        Which pictures are drawn, and the seed of scores that draw.

    Attributes
    ----------
    ranking_ : BackboneRanking
        The candidates, the best one first: a table to print.
    extractor_ : PretrainedFeatureExtractor
        The best one, fitted.
    backbone_ : Backbone
        Its network, so that a fitted selector can be the ``backbone`` of other estimators.
    layers_ : list of str
        Its layer.
    image_format_ : ImageFormat
        What `fit` learnt about ``X``.
    n_features_in_ : int
        Number of columns seen during `fit`. Defined only where ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Defined only where ``X`` has string column names.

    Raises
    ------
    ValueError
        From `fit`, where there is no candidate, fewer than two classes, or a score that is no number.
    BackboneError
        From `fit`, where a network or a layer is unknown.
    ImageError
        From `fit` and `transform`, where a picture cannot be read.

    See Also
    --------
    sktl.PretrainedFeatureExtractor : The features of one network.
    sktl.inspection.LayerProbeDisplay : A linear model on each stage of one network, drawn.

    Notes
    -----
    A score ranks; it is no accuracy. Two candidates whose scores are close may come in the other order once a model is
    trained on them, and scores of different kinds, or of different pictures, cannot be compared.

    What was ranked is in the cache of the extractors, as far as that goes: `transform` of the same pictures runs no
    network then.

    References
    ----------
    .. [1] You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021.
    .. [2] Renggli et al., "Which Model to Transfer? Finding the Needle in the Growing Haystack", CVPR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktl.selection import BackboneSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> pipe = make_pipeline(BackboneSelector(), StandardScaler(), LogisticRegression(C=0.1))
    >>> bool(pipe.fit(X[:300], y[:300]).score(X[300:500], y[300:500]) > 0.8)
    True
    >>> len(pipe[0].ranking_.to_dict()["layer"])
    5
    """

    _parameter_constraints: dict = {
        "backbones": "no_validation",  # the extractor says what they may be
        "layers": [str, Integral, list, tuple],
        "score_func": [StrOptions(set(SCORES)), callable],
        "extractor": [PretrainedFeatureExtractor, None],
        "max_samples": [Interval(Integral, 2, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbones="sktl_mini",
        *,
        layers="all",
        score_func="logme",
        extractor=None,
        max_samples=None,
        random_state=None,
    ):
        self.backbones = backbones
        self.layers = layers
        self.score_func = score_func
        self.extractor = extractor
        self.max_samples = max_samples
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Rank the candidates.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            Labels, or targets where the score knows what to do with numbers.

        Returns
        -------
        self : BackboneSelector
            The fitted selector.
        """
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. Features are "
                "judged by how well they suit labels."
            )
        _, y = indexable(X, as_targets(y))
        random_state = check_random_state(self.random_state)
        rows = self._draw(y, random_state)
        judge = self._score_function(int(random_state.randint(2**31 - 1)))
        candidates = [
            candidate
            for name, extractor in self._extractors()
            for candidate in self._judge(name, extractor.fit(X), X, rows, _safe_indexing(y, rows), judge)
        ]
        candidates.sort(key=lambda candidate: (-candidate.score, candidate.macs or 0))  # of equal ones the cheaper
        self.ranking_ = BackboneRanking(candidates, score=getattr(self.score_func, "__name__", str(self.score_func)))
        self._adopt(candidates[0].extractor)
        return self

    def transform(self, X):
        """Features of the pictures, of the best candidate.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        features : ndarray of shape (n_pictures, n_features), float32
            One row per picture.
        """
        check_is_fitted(self, "extractor_")
        return self.extractor_.transform(X)

    def get_feature_names_out(self, input_features=None):
        """Names of the features, as the extractor names them.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored; here for scikit-learn's API.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            One name per column of what `transform` returns.
        """
        check_is_fitted(self, "extractor_")
        return self.extractor_.get_feature_names_out()

    def _draw(self, y, random_state):
        """The rows that are looked at, in order; each class gives its share, and one at least where there is room."""
        n_rows = _num_samples(y)
        if self.max_samples is None or self.max_samples >= n_rows:
            return np.arange(n_rows)
        order = random_state.permutation(n_rows)
        if type_of_target(y).startswith("continuous") or (np.ndim(y) > 1 and np.shape(y)[1] > 1):
            return np.sort(order[: self.max_samples])
        labels = np.asarray(y).ravel()[order]
        _, first, group, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
        by_class = np.argsort(group, kind="stable")
        place = np.empty(n_rows)
        place[by_class] = (np.concatenate([np.arange(n) for n in counts]) + 0.5) / counts[group[by_class]]
        place[first] = 0
        return np.sort(order[np.argsort(place, kind="stable")[: self.max_samples]])

    def _extractors(self):
        """One for each network, with its name where it was given one."""
        named = self.backbones
        if not isinstance(named, Mapping):
            named = dict(enumerate(named if isinstance(named, list | tuple) else [named]))
        if not named:
            raise ValueError(f"backbones={self.backbones!r} names no network. Give at least one.")
        common = PretrainedFeatureExtractor() if self.extractor is None else self.extractor
        for name, backbone in named.items():
            is_own = isinstance(backbone, PretrainedFeatureExtractor)
            extractor = clone(backbone) if is_own else clone(common).set_params(backbone=backbone)
            if extractor.pooling == "none":
                raise ValueError("pooling='none' gives arrays, and scores judge rows. Use 'avg', or 'flatten'.")
            yield name if isinstance(self.backbones, Mapping) else None, extractor

    def _judge(self, name, extractor, X, rows, y, judge):
        """The candidates of one network, all of whose layers are computed in one pass."""
        images = check_images(extractor, X, reset=False).take(rows)
        stages = [stage.name for stage in extractor.backbone_.stages]
        several = _with_layers(extractor, stages if self.layers == "all" else self.layers)
        widths = [shape[0] for shape in output_shapes(several.backbone_, several.layers_, several.pooling)]
        start = time.perf_counter()
        tables = np.split(several._features(images), np.cumsum(widths)[:-1], axis=1)
        passed = (time.perf_counter() - start) / len(tables)
        for layer, table in zip(several.layers_, tables, strict=True):
            candidate = _with_layers(extractor, layer)
            start = time.perf_counter()
            score = self._score(table, y, judge)
            seconds = passed + time.perf_counter() - start
            parameters, _, macs = network_counts(candidate)
            called = extractor.backbone_.name if name is None else name
            yield Candidate(called, layer, score, seconds, table.shape[1], parameters, macs, candidate)

    def _score(self, features, y, judge):
        """The score of the features; of pictures that could not be read nothing is known."""
        is_read = ~np.isnan(features).any(axis=1)
        features, y = features[is_read].astype(np.float64), _safe_indexing(y, np.flatnonzero(is_read))
        score = float(judge(features, y))
        if np.isnan(score):
            raise ValueError(
                f"score_func={self.score_func!r} gave NaN for {features.shape[1]} features of {len(y)} pictures."
            )
        return score

    def _score_function(self, seed):
        """What judges features and labels; a score that draws has a seed of its own."""
        if callable(self.score_func):
            return self.score_func
        function = SCORES[self.score_func]
        return partial(function, random_state=seed) if "random_state" in signature(function).parameters else function

    def _adopt(self, extractor):
        """The best extractor, and what it has learnt."""
        self.extractor_ = extractor
        for name in _LEARNT:
            if hasattr(extractor, name):
                setattr(self, name, getattr(extractor, name))
            elif hasattr(self, name):
                delattr(self, name)  # of an earlier fit

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class Candidate(NamedTuple):
    """A layer of a network, and what is known of it."""

    backbone: str
    layer: str
    score: float
    seconds: float
    n_features: int
    parameters: int | None
    macs: int | None
    extractor: PretrainedFeatureExtractor


class BackboneRanking(ReadableTable):
    """The candidates of a `BackboneSelector`, the best one first.

    The columns are ``backbone``, ``layer``, ``score``, ``seconds`` (to score it, with its share of the network's pass
    over the pictures), ``n_features``, ``parameters`` and ``macs`` (of the network up to that layer, for one picture).

    Parameters
    ----------
    candidates : sequence of Candidate
        In this order.
    score : str
        What the score is.
    """

    def __init__(self, candidates: Sequence[Candidate], *, score: str) -> None:
        names = ["backbone", "layer", "score", "seconds", "n_features", "parameters", "macs"]
        best = candidates[0]
        super().__init__(
            f"{best.backbone}, layer {best.layer}, is the best of {len(candidates)} by {score}, which ranks and is no "
            "accuracy",
            {name: [getattr(candidate, name) for candidate in candidates] for name in names},
            ["backbone", "layer", score, "seconds", "features", "parameters", "multiply-accumulates"],
            [str, str, "{:.4g}".format, "{:.2f}".format, *["{:,}".format] * 3],
            names="layer",
        )


def _with_layers(extractor: PretrainedFeatureExtractor, layers: Any) -> PretrainedFeatureExtractor:
    """The same fitted extractor with other layers."""
    other = copy.copy(extractor)
    other.layers = layers
    other.layers_ = other._resolve_layers()
    return other
