"""What all compressors share: the classifier that is made smaller, its retraining, its footprint and its pickle."""

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

_N_TIMED = 16  # pictures that the footprint is measured with
_N_AGREED = 256  # pictures that agreement is measured with, at most

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
    """Makes the network of another classifier smaller.

    Subclass contract: the parameters of `COMPRESSION_CONSTRAINTS`, and

    * ``_compress(inner, given, tasks)``: makes the network of ``inner``, a copy of the fitted classifier, smaller in
      place, and retrains it,
    * ``_count_epochs()``: how many epochs that takes, ``max_epochs`` where nothing else is said.

    or another ``_run(given, tasks)``, which leaves ``_original`` and ``estimator_`` behind.
    """

    _is_last = False  # whether nothing can be made smaller that has been through this
    _sample: Any = None
    _footprints: "Footprints | None" = None

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None, groups=None):
        """Fit the estimator, make its network smaller, and retrain it.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,)
            Labels.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows, for the estimator and for what is trained here.
        X_val : array-like of pictures, default=None
            Pictures to judge on after each epoch, see the estimator.
        y_val : array-like of shape (n_pictures_val,), default=None
            Their labels.
        sample_weight_val : array-like of shape (n_pictures_val,), default=None
            Their weights.
        groups : array-like of shape (n_images,), default=None
            What each row of ``X`` belongs to, such as the subject or the original of near-copies: numbers or strings.
            Rows of a group stay on one side where rows are set aside, by the estimator and here. Not used otherwise.

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
                # Trained again, it has the last good weights; before that, it is smaller in part, or not at all.
                if not isinstance(error, DivergenceError | KeyboardInterrupt) or not hasattr(self, "estimator_"):
                    forget_fit(self)
                raise
            finally:
                if hasattr(self, "estimator_"):
                    self._remember(X)
                    predict_fast(self.estimator_)
        return self

    def predict(self, X):
        """Labels.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        y : ndarray of shape (n_pictures,)
            The most probable label of each picture.
        """
        return self._fitted().predict(X)

    def score(self, X, y, sample_weight=None):
        """Accuracy: the share of right labels.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen. With ``on_error="nan"`` of the estimator, those that cannot be
            read are left out.
        y : array-like of shape (n_pictures,)
            Their true labels.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            From 0 to 1.
        """
        return self._fitted().score(X, y, sample_weight)

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        probabilities : ndarray of shape (n_pictures, n_classes), float32
            In the order of ``classes_``.
        """
        return self._fitted().predict_proba(X)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        log_probabilities : ndarray of shape (n_pictures, n_classes), float32
            In the order of ``classes_``.
        """
        return self._fitted().predict_log_proba(X)

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        logits : ndarray of shape (n_pictures, n_classes) or (n_pictures,), float32
            One per class; with two classes, that of the second one minus that of the first one.
        """
        return self._fitted().decision_function(X)

    @property
    def footprint_(self):
        """What the original and the compressed classifier cost, and how often they agree.

        Measured when it is first asked for, with pictures of the fit, and kept from then on, in pickles too; the
        original is not in a pickle.

        Returns
        -------
        Footprints
            One row for the original and one for each step, of which there are several in a stack. It prints as a
            table; ``to_dict()`` and ``to_frame()`` give the columns ``model``, ``parameters``, ``nonzero``, ``nbytes``
            (on disk, pickled; a network of your own that was a parameter is not in it), ``macs``
            (multiply-accumulates that are executed for one picture), ``milliseconds`` (for one of 16 pictures) and
            ``agreement`` (the share of equal labels, on at most 256 pictures of the fit).
        """
        check_is_fitted(self, "estimator_")
        if self._footprints is None:
            if self._original is None or self._sample is None:
                raise AttributeError(
                    "footprint_ is measured beside the original classifier, which a pickled one has left behind. Ask "
                    "for it before pickling, or use sktl.compression.footprint(estimator, X) on each."
                )
            some = _safe_indexing(self._sample, np.arange(min(_N_TIMED, _num_samples(self._sample))))
            models = {name: _as_pickled(model) for name, model in compression_chain(self).items()}
            answers = [model.predict(self._sample) for model in models.values()]
            agreement = [float(np.mean(answer == answers[0])) for answer in answers]
            note = self.estimator_.net_.note
            self._footprints = Footprints(footprints(models, some), agreement=agreement, note=note)
        return self._footprints

    def get_metadata_routing(self):
        """Who gets what of the metadata given to `fit`: this estimator, and the one that it fits.

        Returns
        -------
        MetadataRouter
            See the user guide of scikit-learn.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add_self_request(self).add(estimator=self.estimator, method_mapping=mapping)

    def _count_epochs(self):
        """How many epochs are trained here."""
        return self.max_epochs

    def _run(self, given, tasks):
        """Fit the estimator, and make a copy of its network smaller."""
        self._original, inner = self._begin(given)
        self._compress(inner, given, tasks)
        self._adopt(inner)

    def _check_parameters(self):
        """Say what is wrong with the estimator before it is fitted for hours."""
        check_estimator_to_compress(self.estimator)

    def _begin(self, given):
        """The original, fitted; and a copy of its network's estimator, to be made smaller."""
        original = self._fit_original(given)
        network = require_fitted(original, "net_", "it has no network that could be made smaller").estimator
        inner = independent_copy(network)
        depth = inner.freeze_depth_ if self.freeze_depth is None else inner.backbone_.stage_index(self.freeze_depth)
        inner.set_params(freeze_depth=depth)
        return original, inner

    def _fit_original(self, given):
        """The estimator fitted; a frozen one as it is."""
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
        """The estimator unfitted; what has no seed of its own in it gets one, where there is one here."""
        copied = clone(self.estimator)
        if self.random_state is not None:
            seeds = check_random_state(self.random_state)
            names = [name for name, value in sorted(copied.get_params().items()) if value is None]
            names = [name for name in names if name.rpartition("__")[2] == "random_state"]
            copied.set_params(**{name: int(seeds.randint(2**31 - 1)) for name in names})
        return copied

    def _prepare(self, inner, given):
        """How the smaller network is trained and what on; the network is cut where compression begins."""
        is_told = isinstance(self.estimator, FrozenEstimator)  # any other was fitted just now, and has warned
        trainer, data = prepare_training(inner, given, is_new=False, warns=is_told)
        inner.net_ = trainer.build(inner.backbone_, data, inner.net_)
        inner.freeze_depth_ = data.depth
        if self.alpha and self._count_epochs():  # what the network that is still whole says of each row
            answers = network_outputs(inner, data.table.images)
            data = data.with_answers(answers, SoftTargets(self.alpha, self.temperature))
        return trainer, data

    def _retrain(self, inner, trainer, data, callbacks=()):
        """Adopt ``inner``, and train its network as it is now."""
        trainer = trainer.but(
            max_epochs=self.max_epochs,
            lr=self.lr or inner.lr,
            lr_decay=self.lr_decay,
            unfreeze_every=None,
            # Statistics of what the network was do not fit what it becomes; an image alone has none.
            freeze_bn=inner.freeze_bn and min(len(data.rows), inner.batch_size) == 1,
        )
        try:
            renew(inner, trainer, data)
            adopt_statistics_quickly(inner.net_.module_)
            self._recover(inner, trainer, data)
            self._adopt(inner)  # callbacks may predict; Ctrl-C and a divergence leave its last good weights
            train_network(inner, trainer, data, callbacks=callbacks)
            finish_training(inner, trainer, data)
        finally:
            inner.net_.module_.freeze_bn = inner.freeze_bn  # whoever trains it next says so himself

    def _recover(self, inner, trainer, data):
        """Bring back what a few passes without gradients can: statistics of batch norms, and a head that fits."""
        recalibrate_batch_norms(inner.net_, data.rows)
        if inner.head_init == "probe":
            zeros = find_zeros(inner.net_.module_.head)
            trainer.start_head(inner.net_, data)
            restore_zeros(zeros)

    def _adopt(self, inner):
        """The attributes of a fitted classifier."""
        self.estimator_ = inner
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def _remember(self, X):
        """What the footprint will be measured with."""
        some = np.sort(np.random.default_rng(0).permutation(_num_samples(X))[:_N_AGREED])
        sample = _safe_indexing(indexable(X)[0], some)
        images = check_images(self.estimator_, sample, reset=False)
        rows = readable_rows(self.estimator_, images, np.arange(len(some)), is_told=False)
        self._sample, self._footprints = _safe_indexing(sample, rows), None

    def _fitted(self):
        check_is_fitted(self, "estimator_")
        return self.estimator_

    def __getstate__(self):
        """It is pickled without the original, and with each tensor in the shortest exact form that it has."""
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
    """Refuse what has no network that could be made smaller.

    Raises
    ------
    TypeError
        Where it is no classifier of sktl, nor a search over one.
    InputError
        Where it is a compressor that has to be the outermost.
    NotFittedError
        Where it is frozen and not fitted.
    """
    if isinstance(estimator, FrozenEstimator):
        check_estimator_to_compress(estimator.estimator)
        try:
            check_is_fitted(estimator.estimator)
        except NotFittedError:
            raise NotFittedError(
                shortened(
                    f"estimator={estimator!r} is frozen and not fitted. Fit it first, or give it without "
                    "FrozenEstimator."
                )
            ) from None
    elif isinstance(estimator, CompressedClassifier):
        if estimator._is_last:
            raise InputError(
                f"estimator={estimator!r} has a network whose weights are rounded, which no later step could keep. "
                f"Make {type(estimator).__name__} the outermost."
            )
        check_estimator_to_compress(estimator.estimator)
    elif not isinstance(estimator, NetworkClassifier):
        if not isinstance(estimator, BaseSearchCV):  # whatever else wraps one may decide otherwise than it does
            raise TypeError(
                shortened(
                    f"estimator={estimator!r} has no network that could be made smaller. Give a FineTunedClassifier, a "
                    "DistilledClassifier, another compressor, a search over one of them, or a fitted one inside a "
                    "sklearn.frozen.FrozenEstimator; in a pipeline, or in what tunes a threshold, the compressor is "
                    "the estimator."
                )
            )
        check_estimator_to_compress(estimator.estimator)


def _as_pickled(model: Any) -> Any:
    """A model that is pickled as a compressed one is: without a network that was its parameter."""
    compressor = find_fitted(model, MadeOfAnother)
    if compressor is not None:
        return compressor.estimator
    return bare(require_fitted(model, "net_", "it has no network that could be made smaller").estimator)


def adopt_network(inner: NetworkClassifier) -> None:
    """Make what became of the trained network the estimator's network, which it lends to others."""
    inner.backbone_ = adopted(inner, inner.net_.module_)


def renew(inner: NetworkClassifier, trainer: Trainer, data: TrainingData) -> None:
    """Give a classifier a net for the network as it is now, with a loss that fits it."""
    adopt_network(inner)
    inner.net_ = trainer.build(inner.backbone_, data, inner.net_)


def adopted(inner: NetworkClassifier, network: RestNetwork) -> Backbone:
    """The estimator's network with the stages of another one behind the cut."""
    stages = network.stages  # a graph, but where all are frozen
    return inner.backbone_.with_modules(stages) if isinstance(stages, torch.fx.GraphModule) else inner.backbone_


def compressible(network: RestNetwork) -> dict[str, nn.Module]:
    """The convolutions and linear layers that learn, by their paths; those of the head last."""
    learning = {f"stages.{path}": layer for path, layer in network.stages.named_modules() if layer in network.learning}
    head = {f"head.{path}" if path else "head": layer for path, layer in network.head.named_modules()}
    return {path: layer for path, layer in {**learning, **head}.items() if type(layer) in (nn.Linear, nn.Conv2d)}


def require_layers(layers: dict[str, nn.Module], freeze_depth: Any) -> dict[str, nn.Module]:
    """The layers, of which there has to be one.

    Raises
    ------
    CompressionError
        Where there is none.
    """
    if not layers:
        raise CompressionError(
            f"freeze_depth={freeze_depth!r} leaves no convolution and no linear layer to take weights from. Freeze "
            "less, or use a head that has one."
        )
    return layers


def inner_layers(network: RestNetwork) -> dict[str, nn.Module]:
    """Those without the one that gives the outputs, which is small, and each of whose weights somebody needs."""
    last = last_linear(network.head)
    return {path: layer for path, layer in compressible(network).items() if layer is not last}
