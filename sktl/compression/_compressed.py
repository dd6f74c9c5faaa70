"""Base class of the compressors: fitting, retraining, footprint and pickles."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._metadata_requests import _routing_enabled, process_routing
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import nn

from sktl._estimators._backbone_parameter import without_networks
from sktl._estimators._checked_table import FitInput
from sktl._estimators._find_fitted import find_fitted, require_fitted
from sktl._estimators._fit_tasks import fit_task, forget_fit
from sktl._estimators._footprint import Footprints, footprints
from sktl._estimators._groups import accepts_groups
from sktl._estimators._network_classifier import NetworkClassifier
from sktl._estimators._network_estimator import (
    finish_training,
    network_outputs,
    predict_fast,
    prepare_training,
    train_network,
)
from sktl._estimators._whole_copies import WholeCopies, independent_copy
from sktl._frozen._readable import readable_rows
from sktl._images import check_images, refuse_single
from sktl._messages import shortened
from sktl._params import Estimator
from sktl._training._data import TrainingData
from sktl._training._rest_network import RestNetwork, adopt_statistics_quickly, last_linear
from sktl._training._soft_targets import SoftTargets
from sktl._training._sparsity import find_zeros, restore_zeros
from sktl._training._trainer import Trainer
from sktl.backbones import Backbone
from sktl.compression._batch_norm_recalibration import recalibrate_batch_norms
from sktl.compression._compression_chain import MadeOfAnother, compression_chain
from sktl.compression._packed_pickle import Packed, bare
from sktl.compression._refuse_regressors import refuse_regressor
from sktl.exceptions import CompressionError, DivergenceError, InputError

_N_TIMED = 16  # images on which the time is measured
_N_AGREED = 256  # maximum number of images on which agreement is measured

COMPRESSION_CONSTRAINTS: dict = {
    "estimator": [HasMethods(["fit", "predict"])],
    "freeze_depth": [Integral, str, None],
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither"), None],
    "lr_decay": [Interval(Real, 0, None, closed="neither")],
    "alpha": [Interval(Real, 0, 1, closed="both")],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "random_state": ["random_state"],
}


class CompressedClassifier(
    WholeCopies, MadeOfAnother, CallbackSupportMixin, MetaEstimatorMixin, ClassifierMixin, Estimator
):
    """Base class of classifiers that compress the network of another classifier.

    Subclasses have the parameters of `COMPRESSION_CONSTRAINTS` and implement

    * ``_compress(inner, given, tasks)``, which compresses the network of ``inner``, a
      copy of the fitted classifier, in place and retrains it, and
    * ``_count_epochs()``, the total number of epochs, if it is not ``max_epochs``,

    or override ``_run(given, tasks)``, which sets ``_original`` and ``estimator_``.
    """

    _is_last = False  # whether it must be the last compression step
    _sample: Any = None
    _footprints: "Footprints | None" = None

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None, groups=None):
        """Fit the estimator, compress its network and retrain it.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,)
            Labels of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out.
        X_val : array-like of images, default=None
            Images on which to evaluate after each epoch, instead of holding out a
            fraction of ``X``.
        y_val : array-like of shape (n_samples_val,), default=None
            Labels of ``X_val``.
        sample_weight_val : array-like of shape (n_samples_val,), default=None
            Weights of the rows of ``X_val``.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. Rows of one group stay on the same side of the validation
            split. They are also passed to the estimator if it takes ``groups``.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        refuse_regressor(self)
        self._check_parameters()
        refuse_single(X)
        given = FitInput(X, y, sample_weight, X_val, y_val, sample_weight_val, groups)
        with fit_task(self, given, self._count_epochs()) as tasks:
            forget_fit(self)
            self._original = self._sample = self._footprints = None
            try:
                self._run(given, tasks)
            except BaseException as error:
                # Interrupted training keeps the last good weights. Before training, the
                # compression is incomplete.
                if not isinstance(error, DivergenceError | KeyboardInterrupt) or not hasattr(self, "estimator_"):
                    forget_fit(self)
                raise
            finally:
                if hasattr(self, "estimator_"):
                    self._remember(X)
                    predict_fast(self.estimator_)
        return self

    def predict(self, X):
        """Predict class labels.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            The most probable label of each image.
        """
        return self._fitted().predict(X)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy on the given images and labels.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`. If the estimator has
            ``on_error="nan"``, unreadable images are left out.
        y : array-like of shape (n_samples,)
            True labels of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Share of correct labels, from 0 to 1.
        """
        return self._fitted().score(X, y, sample_weight)

    def predict_proba(self, X):
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), float32
            Probabilities in the order of ``classes_``.
        """
        return self._fitted().predict_proba(X)

    def predict_log_proba(self, X):
        """Predict logarithms of class probabilities.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), float32
            Logarithms of probabilities in the order of ``classes_``.
        """
        return self._fitted().predict_log_proba(X)

    def decision_function(self, X):
        """Compute the logits of the classes.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,), float32
            Logits in the order of ``classes_``. For two classes, the logit of the
            second class minus that of the first class.
        """
        return self._fitted().decision_function(X)

    @property
    def footprint_(self):
        """Size, speed and agreement of the original and the compressed classifier.

        Measured on first access on images seen during `fit`, and kept in pickles from
        then on. The original classifier itself is not pickled.

        Returns
        -------
        Footprints
            One row for the original and one for each compression step. It prints as a
            table; ``to_dict()`` and ``to_frame()`` return the columns ``model``,
            ``parameters``, ``nonzero``, ``nbytes`` (size of the pickle, without your
            own network passed as a parameter), ``macs`` (multiply-accumulates per
            image), ``milliseconds`` (time per image in a call with 16 images) and
            ``agreement`` (share of equal labels on at most 256 training images).
        """
        check_is_fitted(self, "estimator_")
        if self._footprints is None:
            if self._original is None or self._sample is None:
                raise AttributeError(
                    "footprint_ needs the original classifier, which is not pickled. Access footprint_ before "
                    "pickling, or use sktl.compression.footprint(estimator, X) for each classifier."
                )
            some = _safe_indexing(self._sample, np.arange(min(_N_TIMED, _num_samples(self._sample))))
            models = {name: _as_pickled(model) for name, model in compression_chain(self).items()}
            answers = [model.predict(self._sample) for model in models.values()]
            agreement = [float(np.mean(answer == answers[0])) for answer in answers]
            note = self.estimator_.net_.note
            self._footprints = Footprints(footprints(models, some), agreement=agreement, note=note)
        return self._footprints

    def get_metadata_routing(self):
        """Get the metadata routing of this object.

        Returns
        -------
        MetadataRouter
            A `sklearn.utils.metadata_routing.MetadataRouter`; see the user guide of
            scikit-learn.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add_self_request(self).add(estimator=self.estimator, method_mapping=mapping)

    def _count_epochs(self):
        """Return the total number of epochs of retraining."""
        return self.max_epochs

    def _run(self, given, tasks):
        """Fit the estimator and compress a copy of its network."""
        self._original, inner = self._begin(given)
        self._compress(inner, given, tasks)
        self._adopt(inner)

    def _check_parameters(self):
        """Check the estimator before it is fitted."""
        check_estimator_to_compress(self.estimator)

    def _begin(self, given):
        """Return the fitted original and a copy whose network can be compressed."""
        original = self._fit_original(given)
        network = require_fitted(original, "net_", "it has no network to compress").estimator
        inner = independent_copy(network)
        depth = inner.freeze_depth_ if self.freeze_depth is None else inner.backbone_.stage_index(self.freeze_depth)
        inner.set_params(freeze_depth=depth)
        return original, inner

    def _fit_original(self, given):
        """Fit a clone of the estimator, or return it unchanged if it is frozen."""
        if isinstance(self.estimator, FrozenEstimator):
            return self.estimator
        params = {name: value for name, value in given._asdict().items() if value is not None and name not in "Xy"}
        if _routing_enabled():
            metadata = {name: params.pop(name) for name in ("sample_weight", "groups") if name in params}
            params.update(process_routing(self, "fit", **metadata).estimator.fit)
        elif not accepts_groups(self.estimator):
            params.pop("groups", None)
        return self._seeded_clone().fit(given.X, given.y, **params)

    def _seeded_clone(self):
        """Clone the estimator and set each ``random_state`` that is not set."""
        copied = clone(self.estimator)
        if self.random_state is not None:
            seeds = check_random_state(self.random_state)
            names = [name for name, value in sorted(copied.get_params().items()) if value is None]
            names = [name for name in names if name.rpartition("__")[2] == "random_state"]
            copied.set_params(**{name: int(seeds.randint(2**31 - 1)) for name in names})
        return copied

    def _prepare(self, inner, given):
        """Split the network at ``freeze_depth``; return the trainer and the rows."""
        is_told = isinstance(self.estimator, FrozenEstimator)  # others have warned when fitted
        trainer, data = prepare_training(inner, given, is_new=False, warns=is_told)
        inner.net_ = trainer.build(inner.backbone_, data, inner.net_)
        inner.freeze_depth_ = data.depth
        if self.alpha and self._count_epochs():  # outputs of the network before compression
            answers = network_outputs(inner, data.table.images)
            data = data.with_answers(answers, SoftTargets(self.alpha, self.temperature))
        return trainer, data

    def _retrain(self, inner, trainer, data, callbacks=()):
        """Train the current network of ``inner`` and set it as ``estimator_``."""
        trainer = trainer.but(
            max_epochs=self.max_epochs,
            lr=self.lr or inner.lr,
            lr_decay=self.lr_decay,
            unfreeze_every=None,
            # Compression changes the statistics. A batch of one image has no variance.
            freeze_bn=inner.freeze_bn and min(len(data.rows), inner.batch_size) == 1,
        )
        try:
            renew(inner, trainer, data)
            adopt_statistics_quickly(inner.net_.module_)
            self._recover(inner, trainer, data)
            self._adopt(inner)  # for callbacks that predict, and if training is interrupted
            train_network(inner, trainer, data, callbacks=callbacks)
            finish_training(inner, trainer, data)
        finally:
            inner.net_.module_.freeze_bn = inner.freeze_bn  # for later training

    def _recover(self, inner, trainer, data):
        """Refit batch normalization statistics and the head, without gradients."""
        recalibrate_batch_norms(inner.net_, data.rows)
        if inner.head_init == "probe":
            zeros = find_zeros(inner.net_.module_.head)
            trainer.objective.start(inner.net_, data)
            restore_zeros(zeros)

    def _adopt(self, inner):
        """Set the attributes of a fitted classifier."""
        self.estimator_ = inner
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def _remember(self, X):
        """Keep the images on which the footprint is measured."""
        some = np.sort(np.random.default_rng(0).permutation(_num_samples(X))[:_N_AGREED])
        sample = _safe_indexing(indexable(X)[0], some)
        images = check_images(self.estimator_, sample, reset=False)
        rows = readable_rows(self.estimator_, images, np.arange(len(some)), is_told=False)
        self._sample, self._footprints = _safe_indexing(sample, rows), None

    def _fitted(self):
        check_is_fitted(self, "estimator_")
        return self.estimator_

    def __getstate__(self):
        """Return the state without the original and with compressed tensors."""
        state = dict(super().__getstate__())
        if "estimator_" in state:
            for name in ("_original", "_sample"):
                state.pop(name, None)
            state["estimator"] = without_networks(self.estimator)
            state["estimator_"] = Packed.of(self.estimator_)
        return state

    def _restore(self, state):
        packed = state.get("estimator_")
        super()._restore({**state, "estimator_": packed.estimator()} if isinstance(packed, Packed) else state)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def check_estimator_to_compress(estimator: Any) -> None:
    """Check that an estimator has a network to compress.

    Raises
    ------
    TypeError
        If it is neither an sktl classifier nor a search over one.
    InputError
        If it is a compressor that must be the last step.
    NotFittedError
        If it is frozen and not fitted.
    """
    if isinstance(estimator, FrozenEstimator):
        check_estimator_to_compress(estimator.estimator)
        try:
            check_is_fitted(estimator.estimator)
        except NotFittedError:
            raise NotFittedError(
                shortened(
                    f"estimator={estimator!r} is frozen and not fitted. Fit it first, or pass it without "
                    "FrozenEstimator."
                )
            ) from None
    elif isinstance(estimator, CompressedClassifier):
        if estimator._is_last:
            raise InputError(
                f"{type(estimator).__name__} must be the last compression step, because other steps would change its "
                f"rounded weights. Got estimator={estimator!r}. Make {type(estimator).__name__} the outermost "
                "estimator."
            )
        check_estimator_to_compress(estimator.estimator)
    elif not isinstance(estimator, NetworkClassifier):
        if not isinstance(estimator, BaseSearchCV):  # others may change the predictions
            raise TypeError(
                shortened(
                    "The 'estimator' parameter of a compressor must be a FineTunedClassifier, a DistilledClassifier, "
                    "another compressor, a search over one of these, or one of these fitted and inside a "
                    f"sklearn.frozen.FrozenEstimator. Got {estimator!r} instead. To use a pipeline or a "
                    "TunedThresholdClassifierCV, pass the compressor to it."
                )
            )
        check_estimator_to_compress(estimator.estimator)


def _as_pickled(model: Any) -> Any:
    """Return a model as it is pickled, without a network passed as a parameter."""
    compressor = find_fitted(model, MadeOfAnother)
    if compressor is not None:
        return compressor.estimator
    return bare(require_fitted(model, "net_", "it has no network to compress").estimator)


def adopt_network(inner: NetworkClassifier) -> None:
    """Make the trained network the estimator's ``backbone_``."""
    inner.backbone_ = adopted(inner, inner.net_.module_)


def renew(inner: NetworkClassifier, trainer: Trainer, data: TrainingData) -> None:
    """Build a net with a matching loss for the current network."""
    adopt_network(inner)
    inner.net_ = trainer.build(inner.backbone_, data, inner.net_)


def adopted(inner: NetworkClassifier, network: RestNetwork) -> Backbone:
    """Return the backbone of an estimator with the trained stages of ``network``."""
    stages = network.stages  # not a graph if all stages are frozen
    return inner.backbone_.with_modules(stages) if isinstance(stages, torch.fx.GraphModule) else inner.backbone_


def compressible(network: RestNetwork) -> dict[str, nn.Module]:
    """Return trained convolutions and linear layers by path, the head last."""
    learning = {f"stages.{path}": layer for path, layer in network.stages.named_modules() if layer in network.learning}
    head = {f"head.{path}" if path else "head": layer for path, layer in network.head.named_modules()}
    return {path: layer for path, layer in {**learning, **head}.items() if type(layer) in (nn.Linear, nn.Conv2d)}


def require_layers(layers: dict[str, nn.Module], freeze_depth: Any) -> dict[str, nn.Module]:
    """Return the layers, or raise a CompressionError if the dict is empty."""
    if not layers:
        raise CompressionError(
            f"freeze_depth={freeze_depth!r} leaves no convolution or linear layer to prune. Freeze fewer stages, or "
            "use a head with a linear layer."
        )
    return layers


def inner_layers(network: RestNetwork) -> dict[str, nn.Module]:
    """Return the compressible layers except the output layer, which is small."""
    last = last_linear(network.head)
    return {path: layer for path, layer in compressible(network).items() if layer is not last}
