"""Selection of the backbone and layer whose features best fit the labels."""

import copy
import time
from collections.abc import Mapping
from functools import partial
from numbers import Integral
from operator import attrgetter
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktl._estimators._checked_table import as_targets
from sktl._estimators._footprint import network_counts
from sktl._estimators._groups import check_groups
from sktl._estimators._layer_features import joined_features, layer_features, name_layers
from sktl._frozen._progress import CallbackProgress, start_task
from sktl._frozen._readable import is_tolerant, warn_left_out
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS
from sktl._images import check_images, refuse_single
from sktl._messages import shortened_errors
from sktl._params import Estimator
from sktl.exceptions import InputError
from sktl.feature_extraction import PretrainedFeatureExtractor
from sktl.selection._extractors import class_layer, fitted_extractor
from sktl.selection._ranking import BackboneRanking, Candidate, CandidateScores
from sktl.selection._scores_by_name import HEAD_SCORES, SCORES, has_parameter, score_name
from sktl.selection._validation import draw_rows


class BackboneSelector(CallbackSupportMixin, TransformerMixin, Estimator):
    """Select the backbone and the layer whose features best fit the labels.

    Each network runs once per image, and all of its layers are scored in this single
    pass. No network is trained. `transform` returns the features of the best candidate.

    Read more in the :doc:`user guide </choosing_networks>`.

    Parameters
    ----------
    backbones : str, Module, Backbone, estimator, list of these, or dict of str to these, default="sktl_mini"
        The networks to compare. Each one is passed to `sktl.PretrainedFeatureExtractor`
        as its ``backbone``, or is such an extractor with its own weights and settings,
        which is cloned and fitted. A fitted extractor inside a
        `sklearn.frozen.FrozenEstimator` is used as it is. The keys of a dict are the
        names in the ranking. The networks of a list are ranked under their own names,
        with a number if a name is repeated: ``"resnet18"``, ``"resnet18 (2)"``.
    layers : "all", int, str, or list of int and str, default="all"
        The layers to compare: all stages of each network, or stages by number (-1 is
        the last one) and layers by name. Each layer is a separate candidate. If the
        ``layers`` of an extractor differ from their default of -1, its own ``layers``
        are compared instead.
    score_func : str or callable, default="logme"
        Score of how well features fit the labels: ``"logme"`` [1]_, ``"h_score"``,
        ``"nleep"``, ``"transrate"``, ``"gbc"`` or ``"probe"``, as in the functions of
        `sktl.selection`, or a function ``score_func(features, y)`` that takes features
        of shape (n_samples, n_features) and returns a finite value. Greater is better.
        ``"leep"`` and ``"nce"`` score the class predictions of the pretrained head.
        They require published classifiers, and the last stage is the only candidate of
        each network (``layers="all"`` or -1).
    task : {"auto", "classification", "regression"}, default="auto"
        Type of ``y``. ``"auto"`` means regression if ``y`` has several columns or
        numbers that are not integers. Use ``"regression"`` if the targets are integers.
        Regression is supported by ``"logme"``, ``"probe"`` and your own functions. The
        value is passed to your function if it has a parameter ``task``.
    extractor : PretrainedFeatureExtractor, default=None
        Extractor whose settings (``layers``, ``pooling``, ``engine``, ``cache``,
        ``image_shape``, ``verbose``, ...) apply to all networks that are not given as
        an extractor. None uses the default settings.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. ``"raise"`` raises an error that lists
        the unreadable images. ``"nan"``, set here or in an extractor, leaves them out
        of `fit` with one warning and returns rows of NaN from `transform`.
    max_samples : int, default=None
        Maximum number of images to use for scoring, drawn at random and stratified by
        class. None uses all images.
    random_state : int, RandomState instance or None, default=None
        Seed of the random subset of images, and of scores that have a parameter
        ``random_state``. Pass an int for reproducible results.

    Attributes
    ----------
    ranking_ : BackboneRanking
        Table of the candidates, best first.
    extractor_ : PretrainedFeatureExtractor
        The fitted extractor of the best candidate.
    backbone_ : Backbone
        The network of the best candidate. A fitted selector can be passed as the
        ``backbone`` of other estimators.
    layers_ : list of str
        The layer of the best candidate.
    image_format_ : ImageFormat
        Format of the images seen during `fit`: kind, image shape, channel axis and
        value range.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    InputError
        From `fit`, if ``backbones`` is empty, ``y`` has only one class, a score or a
        network returns NaN or infinite values or, for ``"leep"`` and ``"nce"``, a
        network has no published classifier.
    BackboneError
        From `fit`, if a network or a layer does not exist.
    ImageError
        If ``X`` does not contain images, or an image cannot be read.

    See Also
    --------
    sktl.PretrainedFeatureExtractor : Features of one network.
    sktl.inspection.LayerProbeDisplay : Scores of a linear model on each stage of a network.

    Notes
    -----
    A score ranks candidates [2]_ and is not an accuracy. The order of candidates with
    similar scores may change after training. Scores of different functions or on
    different images cannot be compared.

    The features of all candidates are cached by their extractors, as far as the cache
    permits, so that `transform` runs no network for the same images. In memory, only
    the best network so far and the current one are kept, in addition to the four
    networks that `sktl.backbones.load_backbone` caches by name.

    Callbacks of scikit-learn (`set_callbacks`) receive one task per network, with the
    pass over the images as its subtasks. If a callback requests a stop, the ranking
    contains the networks that were scored so far.

    References
    ----------
    .. [1] You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer
           Learning", ICML 2021.
    .. [2] Renggli et al., "Which Model to Transfer? Finding the Needle in the Growing
           Haystack", CVPR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktl.selection import BackboneSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> classifier = LogisticRegression(C=0.1)
    >>> pipe = make_pipeline(BackboneSelector(), StandardScaler(), classifier)
    >>> round(pipe.fit(X[:300], y[:300]).score(X[300:500], y[300:500]), 1)
    0.9
    >>> len(pipe[0].ranking_.to_dict()["layer"])
    5
    """

    _parameter_constraints: dict = {
        "backbones": "no_validation",  # validated by the extractor
        "layers": [str, Integral, list, tuple],
        "score_func": [StrOptions({*SCORES, *HEAD_SCORES}), callable],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "extractor": [PretrainedFeatureExtractor, None],
        "on_error": RUNTIME_CONSTRAINTS["on_error"],
        "max_samples": [Interval(Integral, 2, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbones="sktl_mini",
        *,
        layers="all",
        score_func="logme",
        task="auto",
        extractor=None,
        on_error="raise",
        max_samples=None,
        random_state=None,
    ):
        self.backbones = backbones
        self.layers = layers
        self.score_func = score_func
        self.task = task
        self.extractor = extractor
        self.on_error = on_error
        self.max_samples = max_samples
        self.random_state = random_state

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, groups=None):
        """Score and rank the candidates.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels of the images, or their targets if the score supports regression.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. Only used by scores that have a parameter ``groups``:
            ``"probe"`` keeps the rows of one group in the same fold.

        Returns
        -------
        self : BackboneSelector
            The fitted estimator.
        """
        if y is None:
            raise InputError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. The features "
                "are scored by how well they fit the labels."
            )
        refuse_single(X)
        with shortened_errors():
            _, y = indexable(X, as_targets(y))
        random_state = check_random_state(self.random_state)
        groups = check_groups(groups, _num_samples(y))
        sample = (X, y, groups, draw_rows(y, self.max_samples, self.task, random_state))
        judge = self._make_judge(random_state)
        networks = self._networks()
        context = start_task(self, max_subtasks=len(networks))
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        scored = CandidateScores()
        for name, backbone in networks:
            step = context.subcontext(task_name="network", max_subtasks=CallbackProgress.N_STEPS)
            step.call_on_fit_task_begin(estimator=self, X=X, y=y)
            self._rank(name, backbone, sample, judge, scored, CallbackProgress(self, step, X, y))
            if step.call_on_fit_task_end(estimator=self, X=X, y=y):
                break  # a callback requested a stop
        if scored.failures:
            warn_left_out(*scored.failures)
        self.ranking_ = BackboneRanking(scored.candidates, score=score_name(self.score_func))
        self.extractor_ = scored.extractor
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X):
        """Compute the features of the best candidate.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            One row per image.
        """
        check_is_fitted(self, "extractor_")
        # Not extractor_.transform, whose output format may differ from the selector's.
        return joined_features(self.extractor_, check_images(self.extractor_, X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Get output feature names for transformation.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Not used, present here for API consistency by convention.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            Names of the columns that `transform` returns.
        """
        check_is_fitted(self, "extractor_")
        return self.extractor_.get_feature_names_out()

    # Properties, so that an attribute that the extractor lacks is missing here, too.
    backbone_ = property(attrgetter("extractor_.backbone_"), doc="The network of the best candidate.")
    layers_ = property(attrgetter("extractor_.layers_"), doc="The layer of the best candidate.")
    image_format_ = property(attrgetter("extractor_.image_format_"), doc="Format of the images seen during `fit`.")
    n_features_in_ = property(attrgetter("extractor_.n_features_in_"), doc="Number of columns seen during `fit`.")
    feature_names_in_ = property(attrgetter("extractor_.feature_names_in_"), doc="Names of columns seen during `fit`.")

    def _make_judge(self, random_state):
        """Return the score function with its settings and a seed for all candidates."""
        is_own = callable(self.score_func)
        function = self.score_func if is_own else {**SCORES, **HEAD_SCORES}[self.score_func]
        settings = {}
        if has_parameter(function, "random_state"):
            settings["random_state"] = int(random_state.randint(2**31 - 1))
        if has_parameter(function, "task"):
            settings["task"] = self.task
        elif self.task == "regression" and not is_own:
            raise InputError(
                f"score_func={self.score_func!r} does not support task='regression'. Use 'logme' or 'probe' instead."
            )
        return partial(function, **settings)

    def _networks(self):
        """Return the networks to compare, with their names or None."""
        if isinstance(self.backbones, Mapping):
            named = list(self.backbones.items())
        else:
            several = self.backbones if isinstance(self.backbones, list | tuple) else [self.backbones]
            named = [(None, backbone) for backbone in several]
        if not named:
            raise InputError(
                "The 'backbones' parameter of BackboneSelector must contain at least one network. Got "
                f"{self.backbones!r} instead."
            )
        return named

    def _rank(self, name, backbone, sample, judge, scored, progress):
        """Score the layers of one network in one pass and add them to ``scored``."""
        X, y, groups, rows = sample
        extractor = fitted_extractor(backbone, X, self.extractor)
        if self.on_error == "nan" and extractor.on_error == "raise":
            extractor = copy.copy(extractor).set_params(on_error="nan")  # do not modify a frozen one
        if extractor.pooling == "none":
            raise InputError(
                "pooling='none' is not supported, because scores need one row of features per image. Use 'avg' or "
                "'flatten' instead."
            )
        name = scored.free_name(extractor.backbone_.name) if name is None else str(name)
        layers, head = self._layers(extractor, name)
        images = check_images(extractor, X, reset=False).take(rows)
        start = time.perf_counter()
        failures: Any = {} if is_tolerant(extractor, images.on_error) else None
        tables = layer_features(_with_layers(extractor, [*layers, *head]), images, progress, failures=failures)
        passed = (time.perf_counter() - start) / len(layers)
        is_read = np.ones(len(rows), bool)
        is_read[list(failures or ())] = False
        if failures:
            scored.failures = scored.failures or (images, failures)
        y = _safe_indexing(y, rows[is_read])
        if groups is not None and has_parameter(judge, "groups"):
            judge = partial(judge, groups=groups[rows[is_read]])
        for layer, table, judged in zip(layers, tables, tables[len(layers) :] or tables, strict=False):
            start = time.perf_counter()
            score = self._score(judged[is_read], y, judge, f"{name}, layer {layer}")
            seconds = passed + time.perf_counter() - start
            one = _with_layers(extractor, layer)
            parameters, _, macs = network_counts(one)
            scored.add(Candidate(name, layer, score, seconds, table.shape[1], parameters, macs), one)

    def _layers(self, extractor, name):
        """Return the candidate layers, and the pretrained head if it is scored."""
        layers = self.layers if extractor.layers == -1 else extractor.layers  # -1 is the default
        if not callable(self.score_func) and self.score_func in HEAD_SCORES:
            if layers not in ("all", -1):
                raise InputError(
                    f"score_func={self.score_func!r} scores the predictions of the pretrained head and does not "
                    f"support layers={layers!r}. Use layers='all' or -1, for which the last stage is the only "
                    "candidate."
                )
            head = class_layer(extractor)
            if head is None:
                raise InputError(
                    f"score_func={self.score_func!r} needs a published classifier, but {name} has none. "
                    "Random weights, your own network and a weights file without a head have none. Use networks such "
                    "as 'resnet18' with their published weights, or a score of features, such as 'logme'."
                )
            return [extractor.backbone_.stages[-1].name], [head]
        stages = [stage.name for stage in extractor.backbone_.stages]
        return _with_layers(extractor, stages if layers == "all" else layers).layers_, []

    def _score(self, features, y, judge, whose):
        """Return the score of the features."""
        lacking = ~np.isfinite(features).all(axis=1)
        if lacking.any():
            raise InputError(
                f"The features of {whose}, are NaN or infinite for {lacking.sum()} of {len(y)} images, although all of "
                "these images could be read. Remove this network, or use precision='float32'."
            )
        score = float(judge(features.astype(np.float64), y))
        if not np.isfinite(score):
            raise InputError(
                f"score_func={score_name(self.score_func)} must return a finite value. Got {score} for "
                f"{features.shape[1]} features of {len(y)} images ({whose}) instead."
            )
        return score

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _with_layers(extractor: PretrainedFeatureExtractor, layers: Any) -> PretrainedFeatureExtractor:
    """Return the same fitted extractor with other layers."""
    other = copy.copy(extractor)
    other.layers = layers
    other.layers_ = name_layers(other.backbone_, layers, other.pooling)
    return other
