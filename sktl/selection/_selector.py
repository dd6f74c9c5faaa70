"""Which network, and which of its layers: ranked by one pass over the pictures, before anything is trained."""

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
    """Find the network and the layer whose features suit the pictures and labels best, and give these features.

    Each network sees each picture once; all of its layers are judged by what that pass
    gives. No network is trained.

    Read more in the user guide, page "Choosing".

    Parameters
    ----------
    backbones : str, Module, Backbone, estimator, list of these, or dict of str to these, default="sktl_mini"
        The networks to compare: whatever `sktl.PretrainedFeatureExtractor` takes as its
        ``backbone``, or such an extractor where a network has weights or settings of
        its own. It is cloned and fitted; a `FrozenEstimator` around a fitted one is
        used as it is. The keys of a dict are the names in the ranking; in a list the
        networks' own names are, with a number behind the second of one name:
        ``"resnet18"``, ``"resnet18 (2)"``.
    layers : "all", int, str, or list of int and str, default="all"
        The layers of each network that are candidates, each by itself: all of its
        stages, or these stages by their numbers (-1 is the last one) or layers by their
        names. An extractor whose own ``layers`` are not the default -1 has these as its
        candidates instead, each by itself as well.
    score_func : str or callable, default="logme"
        How well features suit labels: ``"logme"``, ``"h_score"``, ``"nleep"``,
        ``"transrate"``, ``"gbc"`` or ``"probe"``, see the functions of
        `sktl.selection`; or a function of features of shape (n, n_features) and ``y``
        that gives a finite number, a greater one for better features. ``"leep"`` and
        ``"nce"`` look at the classes that the network's own head sees in the pictures.
        They judge the network as a whole, so that its last stage is its one candidate
        (``layers`` "all" or -1), and want published classifiers only.
    task : {"auto", "classification", "regression"}, default="auto"
        What ``y`` is. "auto" is a regression where y has several columns or numbers
        that are not whole; say "regression" where the targets are whole numbers, with
        ``"logme"``, ``"probe"``, or a function of your own: it is handed on to a
        function that has a parameter ``task``.
    extractor : PretrainedFeatureExtractor, default=None
        Whose settings (layers, pooling, engine, cache, image_shape, verbose ...) hold
        for all networks that are given without an extractor of their own. None takes
        the default ones.
    on_error : {"raise", "nan"}, default="raise"
        What to do if images cannot be read. "raise" is an error that names them. With
        "nan", here or in an extractor, `fit` leaves their rows out, with one warning,
        and `transform` gives rows of NaN for them.
    max_samples : int, default=None
        How many pictures are looked at, drawn in the shares of the classes; None looks
        at all.
    random_state : int, RandomState instance or None, default=None
        Which pictures are drawn, and the seed of scores that draw: of functions that
        have a parameter ``random_state``. Without either, nothing is drawn.

    Attributes
    ----------
    ranking_ : BackboneRanking
        The candidates, the best one first: a table to print.
    extractor_ : PretrainedFeatureExtractor
        The best one, fitted.
    backbone_ : Backbone
        Its network, so that a fitted selector can be the ``backbone`` of other
        estimators.
    layers_ : list of str
        Its layer.
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
        From `fit`, where there is no candidate, fewer than two classes, a score that is
        no finite number, a network that gives NaN, or, for ``"leep"`` and ``"nce"``, a
        network without a published classifier.
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
    A score ranks; it is no accuracy. Two candidates whose scores are close may come in
    the other order once a model is trained on them, and scores of different kinds, or
    of different pictures, cannot be compared.

    What was ranked is in the cache of the extractors, as far as that goes: `transform`
    of the same pictures runs no network then. Of the networks themselves only the best
    so far is kept in memory, beside the one that is looked at (and the four that
    `sktl.backbones.load_backbone` remembers by their names).

    Callbacks of scikit-learn (`set_callbacks`) hear of one task for each network, and
    in it of the pass over the pictures. One that asks to stop ends the ranking there:
    it has the networks so far.

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
    >>> pipe = make_pipeline(BackboneSelector(), StandardScaler(), LogisticRegression(C=0.1))
    >>> bool(pipe.fit(X[:300], y[:300]).score(X[300:500], y[300:500]) > 0.8)
    True
    >>> len(pipe[0].ranking_.to_dict()["layer"])
    5
    """

    _parameter_constraints: dict = {
        "backbones": "no_validation",  # the extractor says what they may be
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
        """Rank the candidates.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            Labels, or targets where the score knows what to do with numbers.
        groups : array-like of shape (n_images,), default=None
            What each image belongs to, such as the subject or the original of
            near-copies: numbers or strings. A score that takes ``groups`` gets those of
            its rows: "probe" keeps a group in one fold. Not used by other scores.

        Returns
        -------
        self : BackboneSelector
            The fitted selector.
        """
        if y is None:
            raise InputError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. Features are "
                "judged by how well they suit labels."
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
                break  # a callback may ask for it
        if scored.failures:
            warn_left_out(*scored.failures)
        self.ranking_ = BackboneRanking(scored.candidates, score=score_name(self.score_func))
        self.extractor_ = scored.extractor
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
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
        # Not by its transform, which would wrap them in a table where the selector itself was told not to.
        return joined_features(self.extractor_, check_images(self.extractor_, X, reset=False))

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

    # What the extractor has not learnt, the selector has not.
    backbone_ = property(attrgetter("extractor_.backbone_"), doc="The network of the best candidate.")
    layers_ = property(attrgetter("extractor_.layers_"), doc="Its layer, in a list.")
    image_format_ = property(attrgetter("extractor_.image_format_"), doc="What `fit` learnt about ``X``.")
    n_features_in_ = property(attrgetter("extractor_.n_features_in_"), doc="Number of columns, of a table of pixels.")
    feature_names_in_ = property(
        attrgetter("extractor_.feature_names_in_"), doc="Names of columns, where ``X`` has some."
    )

    def _make_judge(self, random_state):
        """What judges features and labels; a score that draws has the same seed for all candidates."""
        is_own = callable(self.score_func)
        function = self.score_func if is_own else {**SCORES, **HEAD_SCORES}[self.score_func]
        settings = {}
        if has_parameter(function, "random_state"):
            settings["random_state"] = int(random_state.randint(2**31 - 1))
        if has_parameter(function, "task"):
            settings["task"] = self.task
        elif self.task == "regression" and not is_own:
            raise InputError(
                f"task='regression', and score_func={self.score_func!r} knows classes only. Use 'logme' or 'probe'."
            )
        return partial(function, **settings)

    def _networks(self):
        """The networks to compare, each with its name where it was given one."""
        if isinstance(self.backbones, Mapping):
            named = list(self.backbones.items())
        else:
            several = self.backbones if isinstance(self.backbones, list | tuple) else [self.backbones]
            named = [(None, backbone) for backbone in several]
        if not named:
            raise InputError(f"backbones={self.backbones!r} names no network. Give at least one.")
        return named

    def _rank(self, name, backbone, sample, judge, scored, progress):
        """Judge the layers of one network, all of them by one pass; what is left of it is what ``scored`` keeps."""
        X, y, groups, rows = sample
        extractor = fitted_extractor(backbone, X, self.extractor)
        if self.on_error == "nan" and extractor.on_error == "raise":
            extractor = copy.copy(extractor).set_params(on_error="nan")  # a frozen one is the user's
        if extractor.pooling == "none":
            raise InputError("pooling='none' gives arrays, and scores judge rows. Use 'avg', or 'flatten'.")
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
        """The names of the layers that are candidates, and of the one whose answers are judged in their place."""
        layers = self.layers if extractor.layers == -1 else extractor.layers  # nobody chose it: it is the default
        if not callable(self.score_func) and self.score_func in HEAD_SCORES:
            if layers not in ("all", -1):
                raise InputError(
                    f"score_func={self.score_func!r} judges a network as a whole, by the answers of its own head, and "
                    f"not its layers={layers!r}. Use layers='all' or -1: the last stage is the candidate then."
                )
            head = class_layer(extractor)
            if head is None:
                raise InputError(
                    f"score_func={self.score_func!r} needs the answers of a published classifier, and {name} has none "
                    "(random weights, a network of your own, or a file of weights without a head). "
                    "Leave this network out, or use a score of features, such as 'logme'."
                )
            return [extractor.backbone_.stages[-1].name], [head]
        stages = [stage.name for stage in extractor.backbone_.stages]
        return _with_layers(extractor, stages if layers == "all" else layers).layers_, []

    def _score(self, features, y, judge, whose):
        """The score of the features, a number."""
        lacking = ~np.isfinite(features).all(axis=1)
        if lacking.any():
            raise InputError(
                f"{whose}, gives NaN or infinity for {lacking.sum()} of {len(y)} pictures, all of which could be read: "
                "it is the network. Leave it out, or compute it with precision='float32'."
            )
        score = float(judge(features.astype(np.float64), y))
        if not np.isfinite(score):
            raise InputError(
                f"score_func={score_name(self.score_func)} gave {score} for {features.shape[1]} features of {len(y)} "
                f"pictures ({whose}). A score has to be a finite number."
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
    """The same fitted extractor with other layers."""
    other = copy.copy(extractor)
    other.layers = layers
    other.layers_ = name_layers(other.backbone_, layers, other.pooling)
    return other
