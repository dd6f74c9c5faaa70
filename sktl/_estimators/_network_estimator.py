"""Base class of estimators that train a network: parameters, fit and predictions."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktl._device import resolve_device
from sktl._estimators._backbone_parameter import (
    BACKBONE_CONSTRAINTS,
    TakesNetwork,
    has_random_weights,
    network_parameter,
    resolve_backbone,
)
from sktl._estimators._checked_table import FitInput, checked_table
from sktl._estimators._fit_tasks import fit_task, forget_fit
from sktl._estimators._validation_split import hold_out
from sktl._frozen._activations import fetch_activations
from sktl._frozen._augmentation import AUGMENT_CONSTRAINTS, make_augmentation
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import POOLINGS, check_pooling
from sktl._frozen._progress import PrintedProgress
from sktl._frozen._readable import is_tolerant, warn_of_nan
from sktl._frozen._runners import resolve_batch_size
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS, SHARED_PARAMETERS, Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._frozen._views import fetch_views
from sktl._images import Images, check_images
from sktl._params import Estimator
from sktl._threads import bounded_threads
from sktl._training._data import TrainingData
from sktl._training._schedules import OPTIMIZERS, SCHEDULES
from sktl._training._settings import TrainingSettings
from sktl._training._trainable_summary import TrainableSummary
from sktl._training._trainer import Trainer, trained_backbone
from sktl.backbones import Backbone
from sktl.exceptions import InputError

_PREDICTED_TOGETHER = 512  # images per chunk, to bound memory

# Parameters of skorch's nets that sktl sets itself.
_RESERVED = {"module", "criterion", "train_split", "max_epochs", "warm_start"}


NETWORK_CONSTRAINTS: dict = {
    **BACKBONE_CONSTRAINTS,
    **AUGMENT_CONSTRAINTS,
    **{name: RUNTIME_CONSTRAINTS[name] for name in ("on_error", *SHARED_PARAMETERS)},
    "freeze_depth": [Integral, str],
    "head": [str, list, tuple, torch.nn.Module],
    "head_init": [StrOptions({"probe", "random"})],
    "pooling": [StrOptions(set(POOLINGS) - {"none"})],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither")],
    "lr_decay": [Interval(Real, 0, None, closed="neither")],
    "lr_schedule": [StrOptions(set(SCHEDULES))],
    "optimizer": [StrOptions(set(OPTIMIZERS)), type],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "freeze_bn": ["boolean"],
    "unfreeze_every": [Interval(Integral, 1, None, closed="left"), None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "net_params": [dict, None],
    "verbose": ["verbose"],
}


class Seeds:
    """Seeds of the successive fits of an estimator.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Source of the seeds.
    split : int or None, default=None
        Seed of the validation split, which a warm start keeps. None draws a seed.
    """

    def __init__(self, random_state: Any, split: "int | None" = None):
        self._random_state = check_random_state(random_state)
        self.split = self.draw() if split is None else split

    def draw(self) -> int:
        """Draw the next seed."""
        return int(self._random_state.randint(2**31 - 1))


class NetworkEstimator(TakesNetwork, CallbackSupportMixin, Estimator):
    """Base class of estimators that train the unfrozen stages of a network.

    A subclass has all parameters of `NETWORK_CONSTRAINTS` and defines

    * ``_make_coding(is_new, classes)``: the encoding of the targets, a `TargetCoding`,
    * ``_make_objective(coding, table, depth, seed)``: the loss, an `Objective`.

    It may rename the network parameter (``_network_parameter``), check more parameters
    (``_check_parameters``), check ``X`` in its own way (``_check_images``), choose the
    network and the freeze depth (``_resolve_network``, ``_resolve_depth``), prepare the
    rows (``_dataset``), watch the training (``_watchers``), and act after training, if
    it was complete (``_finish``) and in any case (``_settle``).
    """

    # What to use if rows cannot be held out, for messages.
    _instead_of_held_out = "X_val and y_val, or early_stopping=False"

    def trainable_summary(self):
        """Summarize which stages are trained, with their learning rates.

        Returns
        -------
        TrainableSummary
            Table with one row per stage, from first to last, and one row for the head.
            ``to_dict()`` and ``to_frame()`` return its columns ``layer``,
            ``parameters``, ``trainable`` and ``learning_rate``. The learning rate is
            that at the start of the schedule, and 0 for frozen stages.
        """
        check_is_fitted(self, "net_")
        return TrainableSummary(self.backbone_, self.net_)

    def _fit(self, given, classes=None):
        """Prepare the data, build the net, train it, and set the fitted attributes."""
        previous = getattr(self, "net_", None) if self.warm_start else None
        with fit_task(self, given, self.max_epochs) as tasks:
            if previous is None:
                forget_fit(self)
            trainer, data = prepare_training(self, given, is_new=previous is None, classes=classes)
            self.net_, self.freeze_depth_ = trainer.build(backbone_or_none(self), data, previous), data.depth
            try:
                train_network(self, trainer, data, callbacks=[tasks], watchers=self._watchers(data))
                self._finish(trainer, data)
            finally:  # also after a divergence or interrupt, with the last good weights
                predict_fast(self)
                self._settle(data)
        return self

    def _fit_step(self, given, classes=None):
        """Train for one epoch at constant rates and without validation."""
        is_first = not hasattr(self, "net_")
        with fit_task(self, given, 1) as tasks:
            how: dict[str, Any] = {
                "is_new": is_first,
                "depth": None if is_first else self.freeze_depth_,
                "evaluates": False,
            }
            trainer, data = prepare_training(self, given, classes=classes, **how)
            if is_first:
                self.net_, self.freeze_depth_ = trainer.build(backbone_or_none(self), data), data.depth
            train_network(self, trainer, data, callbacks=[tasks], watchers=self._watchers(data), is_step=True)
        return self

    def _make_coding(self, is_new, classes):
        """Return the encoding of the targets."""
        raise NotImplementedError

    def _make_objective(self, coding, table, depth, seed):
        """Return the objective of the training."""
        raise NotImplementedError

    def _check_parameters(self):
        """Check further parameters before anything is computed. Does nothing here."""

    def _check_images(self, X, *, reset):
        """Check the images of ``X``; with ``reset``, infer their format."""
        return check_images(self, X, reset=reset)

    @property
    def _needs_held_out(self):
        """True if rows are held out even with ``early_stopping=False``."""
        return False

    def _resolve_network(self):
        """Load the network and check how its last stage is pooled."""
        self.backbone_ = resolve_backbone(self, self._network_parameter).body
        check_pooling(self.backbone_, self.backbone_.stages[-1].name, self.pooling)
        self._pooling = self.pooling

    def _resolve_depth(self, table, is_new):
        """Return the number of frozen stages."""
        return self.backbone_.stage_index(self.freeze_depth)

    def _augmentation(self, seed):
        """Return the augmentation of the training images."""
        # With an int as random_state, folds and candidates of a search share views.
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else seed
        return make_augmentation(self.augment, seed=seed, backbone=self.backbone_)

    def _dataset(self, table, depth, objective, augmentation=None):
        """Return the output of the frozen stages with targets and weights."""
        stored = self.cache is not None
        prefix = frozen_prefix(self, depth, self.cache)
        listeners = [PrintedProgress(self)] if self.verbose and stored else []
        if augmentation is not None and self.n_views is None:
            activations = fetch_views(prefix, table.images, augmentation, listeners=listeners)
        else:
            how = {} if augmentation is None else {"augmentation": augmentation, "n_views": self.n_views}
            activations = fetch_activations(prefix, table.images, stored=stored, listeners=listeners, **how)
        return table.dataset(activations, objective.targets(table), objective.columns(table))

    def _watchers(self, data):
        """Return further (name, skorch callback) pairs of this training, here none."""
        return []

    def _finish(self, trainer, data):
        """Set attributes or warn after training. Does nothing here."""

    def _settle(self, data):
        """Set what predictions need besides the trained net. Does nothing here."""

    def _outputs(self, X):
        """Return the outputs of the head, with NaN for unreadable images."""
        images, outputs, failures = self._try_outputs(X)
        if failures:
            warn_of_nan(images, failures)
        return outputs

    def _try_outputs(self, X):
        """Return checked images, their outputs, and the errors of unreadable images."""
        check_is_fitted(self, "net_")
        images = self._check_images(X, reset=False)
        failures: dict | None = {} if is_tolerant(self, images.on_error) else None
        outputs = network_outputs(self, images, failures)
        outputs[list(failures or ())] = np.nan
        return images, outputs, failures

    def __getstate__(self):
        """Pickle the trained weights in the net alone; ``backbone_`` shares them."""
        state = dict(super().__getstate__())  # a copy, because it may be the estimator's own __dict__
        if hasattr(self, "net_") and hasattr(self, "backbone_"):
            state["backbone_"] = self.net_.hollow_backbone(self.backbone_)
        return state

    def _restore(self, state):
        super()._restore(state)
        if hasattr(self, "_split_seed"):  # pickled before 0.1.0
            self._seeds = Seeds(self.__dict__.pop("_random_state"), self.__dict__.pop("_split_seed"))
        if hasattr(self, "net_") and hasattr(self, "backbone_"):
            self.backbone_ = self.net_.fill_backbone(self.backbone_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


def backbone_or_none(estimator: Any) -> "Backbone | None":
    """Return the network that an estimator trains, or None if it takes numbers."""
    return getattr(estimator, "backbone_", None)


def fitted_pooling(estimator: Any) -> str:
    """Return the pooling used in training, or the parameter before training."""
    return getattr(estimator, "_pooling", estimator.pooling)


def prepare_training(
    estimator: Any,
    given: FitInput,
    *,
    is_new: bool,
    classes: Any = None,
    depth: "int | None" = None,
    evaluates: bool = True,
    warns: bool = True,
    set_aside_by: str = "",
) -> tuple[Trainer, TrainingData]:
    """Prepare the trainer and the data for the training of an estimator's network.

    Parameters
    ----------
    estimator : NetworkEstimator
        The estimator, whose fitted attributes that do not depend on training are set.
    given : FitInput
        The input of ``fit``.
    is_new : bool
        Whether to start from the network that the parameters name, rather than from the
        fitted one.
    classes : array-like or None, default=None
        All labels, if ``given`` may not contain all of them.
    depth : int or None, default=None
        Number of frozen stages of an existing net that is trained further. None builds
        a net with the depth of the parameters.
    evaluates : bool, default=True
        Whether to evaluate on the validation rows in ``given`` or on held-out rows.
    warns : bool, default=True
        Whether to warn about images that cannot be read.
    set_aside_by : str, default=""
        Name of a class that holds out rows even with ``early_stopping=False``, for
        messages.
    """
    builds_net = depth is None
    if builds_net:
        check_net_params(estimator)
    estimator._check_parameters()
    if is_new:
        estimator._seeds = Seeds(estimator.random_state)
    coding = estimator._make_coding(is_new, classes)
    how: dict[str, Any] = {"warns": warns, "door": estimator._check_images}
    table, valid = checked_table(estimator, given, coding, learns=is_new, **how), None
    if evaluates and given.has_validation:
        valid = checked_table(estimator, given.validation, coding, learns=False, **how)
    elif evaluates and (getattr(estimator, "early_stopping", False) or set_aside_by or estimator._needs_held_out):
        how = {"instead": estimator._instead_of_held_out}
        if set_aside_by:
            how = {"by": set_aside_by, "instead": "or X_val and y_val"}
        strata, share = coding.strata(table.y), estimator.validation_fraction
        table, valid = hold_out(table, strata, share, estimator._seeds.split, **how)
    if is_new:
        estimator._resolve_network()
    depth = estimator._resolve_depth(table, is_new) if depth is None else depth
    seed = estimator._seeds.draw()
    objective = estimator._make_objective(coding, table, depth, seed)
    rows = estimator._dataset(table, depth, objective, estimator._augmentation(seed))
    # Random weights have no pretrained running statistics to keep.
    is_pretrained = not has_random_weights(estimator, network_parameter(estimator))
    settings = TrainingSettings.of(estimator, is_pretrained=is_pretrained)
    if builds_net:
        refuse_single_images(estimator, settings, depth, len(rows))
    valid_rows = None if valid is None else estimator._dataset(valid, depth, objective)
    return Trainer(objective, settings, estimator._pooling), TrainingData(table, rows, valid_rows, depth, seed)


def train_network(estimator: Any, trainer: Trainer, data: TrainingData, **how: Any) -> None:
    """Train the net of an estimator and set its fitted attributes."""
    try:
        trainer.train(estimator.net_, data, **how)
    finally:
        estimator.history_ = estimator.net_.history
        estimator.n_iter_ = len(estimator.history_)
        estimator.best_epoch_ = estimator.net_.kept_epoch_
        if backbone_or_none(estimator) is not None:
            estimator.backbone_ = trained_backbone(estimator.backbone_, estimator.net_, data.depth)


def finish_training(estimator: Any, trainer: Trainer, data: TrainingData) -> None:
    """Set attributes or warn after training."""
    estimator._finish(trainer, data)


def predict_fast(estimator: Any) -> None:
    """Fuse the trained layers so that predictions are fast."""
    if backbone_or_none(estimator) is None:
        return
    macs = sum(stage.macs for stage in estimator.backbone_.stages[estimator.freeze_depth_ :])
    estimator.net_.run_fused(resolve_batch_size("auto", macs, torch.device(estimator.net_.device)))


def frozen_prefix(estimator: Any, depth: int, cache: Any) -> FrozenPrefix:
    """Return the frozen stages of a network, pooled if all stages are frozen."""
    stages = [stage.name for stage in estimator.backbone_.stages]
    pooling = estimator._pooling if depth == len(stages) else "none"
    spec = PrefixSpec(estimator.backbone_, stages[depth - 1 : depth] if depth else (), pooling)
    return FrozenPrefix(spec, Runtime.of(estimator, cache=cache))


def network_outputs(
    estimator: Any,
    images: Images,
    failures: "dict | None" = None,
    function: "Callable[[np.ndarray], np.ndarray] | None" = None,
) -> np.ndarray:
    """Return the outputs of the head for checked images, (n_samples, n_outputs).

    Parameters
    ----------
    estimator : NetworkEstimator
        Fitted estimator.
    images : Images
        Checked images.
    failures : dict or None, default=None
        Filled with the error of each image that cannot be read, by position.
    function : callable or None, default=None
        Function of the output of the frozen stages to return instead.
    """
    function = estimator.net_.outputs if function is None else function
    resolve_device(estimator.net_.device)  # raises a clear error in a forked process that cannot use CUDA
    with bounded_threads():
        prefix = frozen_prefix(estimator, estimator.freeze_depth_, estimator.cache)
        told = PrintedProgress(estimator, is_brief=True) if estimator.verbose else None
        outputs = []
        for start in range(0, len(images), _PREDICTED_TOGETHER):
            failed: dict | None = None if failures is None else {}
            rows = prefix.run(images.take(slice(start, start + _PREDICTED_TOGETHER)), failures=failed)[0]
            outputs.append(function(rows))
            if failures is not None and failed:
                failures.update({start + row: error for row, error in failed.items()})
            if told is not None:
                told(min(start + _PREDICTED_TOGETHER, len(images)), len(images))
    return np.concatenate(outputs)


def check_net_params(estimator: Any) -> None:
    """Check that ``net_params`` overrides nothing that sktl sets itself.

    Raises
    ------
    InputError
        If it does.
    """
    net_params = dict(estimator.net_params or {})
    if isinstance(net_params.get("callbacks"), str):
        raise InputError(
            "net_params['callbacks'] must be a list; sktl's own callbacks cannot be disabled. "
            f"Got {net_params['callbacks']!r} instead."
        )
    taken = sorted(net_params.keys() & _RESERVED)
    if taken:
        raise InputError(f"net_params may not set {taken}; use the parameters of {type(estimator).__name__} instead.")


def refuse_single_images(estimator: Any, settings: TrainingSettings, depth: int, n_rows: int) -> None:
    """Check that trained batch normalization layers get more than one image.

    Raises
    ------
    InputError
        If all batches have one image, which has no variance.
    """
    backbone = backbone_or_none(estimator)
    is_kept = backbone is None or settings.keeps_statistics or depth == len(backbone.stages)
    if is_kept or min(n_rows, settings.batch_size) > 1:
        return
    if any(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in estimator.backbone_.module.modules()):
        raise InputError(
            f"Batch normalization with freeze_bn={settings.freeze_bn} and weights={estimator.weights!r} needs at "
            f"least two images per batch. Got batch_size={settings.batch_size} and {n_rows} different images instead. "
            "Use larger batches, or freeze_bn=True with pretrained weights."
        )
