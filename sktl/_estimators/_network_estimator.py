"""What all estimators that train a network share: the parameters, the flow of a fit, and how predictions are made."""

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
from sktl._images import Images, check_images
from sktl._params import Estimator
from sktl._threads import bounded_threads
from sktl._training._data import TrainingData
from sktl._training._schedules import OPTIMIZERS, SCHEDULES
from sktl._training._settings import TrainingSettings
from sktl._training._trainable_summary import TrainableSummary
from sktl._training._trainer import Trainer, trained_backbone
from sktl.exceptions import InputError

_PREDICTED_TOGETHER = 512  # images, so that memory stays bounded

# Of skorch's parameters: what is trained, on what and how long.
_NOT_THE_USERS = {"module", "criterion", "train_split", "max_epochs", "warm_start"}


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
    """The seeds of an estimator's trainings, one after the other.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        What they are drawn from.
    split : int or None, default=None
        Seed of the rows to evaluate on: a warm start holds out those that it has always held out. None draws it.
    """

    def __init__(self, random_state: Any, split: "int | None" = None):
        self._random_state = check_random_state(random_state)
        self.split = self.draw() if split is None else split

    def draw(self) -> int:
        """The next seed."""
        return int(self._random_state.randint(2**31 - 1))


class NetworkEstimator(TakesNetwork, CallbackSupportMixin, Estimator):
    """Trains the rest of a network behind its frozen stages, and predicts with it.

    Subclass contract: a subclass has all parameters of `NETWORK_CONSTRAINTS`, and says what is learned by

    * ``_make_coding(is_new, classes)``: what becomes of targets, a `TargetCoding`,
    * ``_make_objective(coding, table, depth, seed)``: what the network learns from them, an `Objective`.

    It may have the network under another parameter, refuse more (``_check_parameters``), choose the depth
    (``_resolve_depth``), and note or say something of a training that has come to its end (``_finish``).
    """

    def trainable_summary(self):
        """What learns, and how fast.

        Returns
        -------
        TrainableSummary
            One row for each stage, the first one first, and one for the head. It prints as a table; ``to_dict()`` and
            ``to_frame()`` give the columns ``layer``, ``parameters``, ``trainable`` and ``learning_rate`` (at the start
            of the schedule; 0 for what is frozen).
        """
        check_is_fitted(self, "net_")
        return TrainableSummary(self.backbone_, self.net_)

    def _fit(self, given, classes=None):
        """The flow of a fit: what there is to learn and how, a net, its training, and what is kept of it."""
        previous = getattr(self, "net_", None) if self.warm_start else None
        with fit_task(self, given, self.max_epochs) as tasks:
            if previous is None:
                forget_fit(self)
            trainer, data = prepare_training(self, given, is_new=previous is None, classes=classes)
            self.net_, self.freeze_depth_ = trainer.build(self.backbone_, data, previous), data.depth
            try:
                train_network(self, trainer, data, callbacks=[tasks])
                self._finish(trainer, data)
            finally:  # also if it diverged or was interrupted: it has its last good weights
                predict_fast(self)
        return self

    def _fit_step(self, given, classes=None):
        """One step of `partial_fit`: an epoch of the net as it is, with constant rates, evaluated by nobody."""
        is_first = not hasattr(self, "net_")
        with fit_task(self, given, 1) as tasks:
            how: dict[str, Any] = {
                "is_new": is_first,
                "depth": None if is_first else self.freeze_depth_,
                "evaluates": False,
            }
            trainer, data = prepare_training(self, given, classes=classes, **how)
            if is_first:
                self.net_, self.freeze_depth_ = trainer.build(self.backbone_, data), data.depth
            train_network(self, trainer, data, callbacks=[tasks], is_step=True)
        return self

    def _make_coding(self, is_new, classes):
        """What becomes of targets."""
        raise NotImplementedError

    def _make_objective(self, coding, table, depth, seed):
        """What is learned from them."""
        raise NotImplementedError

    def _check_parameters(self):
        """Refuse what cannot be trained, before anything is computed; nothing more here."""

    def _resolve_network(self):
        """The network, and what becomes of its last stage's output."""
        self.backbone_ = resolve_backbone(self, self._network_parameter).body
        check_pooling(self.backbone_, self.backbone_.stages[-1].name, self.pooling)
        self._pooling = self.pooling

    def _resolve_depth(self, table, is_new):
        """How many stages are frozen; ``is_new`` says that the network has learned nothing yet."""
        return self.backbone_.stage_index(self.freeze_depth)

    def _augmentation(self, seed):
        """What changes the images that are learned from.

        Views are the same in all folds and candidates of a search, if ``random_state`` is a number.
        """
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else seed
        return make_augmentation(self.augment, seed=seed, backbone=self.backbone_)

    def _dataset(self, table, depth, objective, augmentation=None):
        """The output of the frozen stages for a table, with what the loss wants to know of each row."""
        n_views = self.n_views if augmentation is not None else None
        is_stored = self.cache is not None and (augmentation is None or n_views is not None)
        activations = fetch_activations(
            frozen_prefix(self, depth, self.cache if is_stored else None),
            table.images,
            stored=is_stored,
            augmentation=augmentation,
            n_views=n_views,
            listeners=[PrintedProgress(self)] if self.verbose and is_stored else [],
        )
        return table.dataset(activations, objective.targets(table), objective.columns(table))

    def _finish(self, trainer, data):
        """Note what there is to note of a training that has come to its end, or to warn of; nothing here."""

    def _outputs(self, X):
        """The head's outputs for what a user gives, ndarray (n, n_outputs), float32; NaN for what cannot be read."""
        images, outputs, failures = self._try_outputs(X)
        if failures:
            warn_of_nan(images, failures)
        return outputs

    def _try_outputs(self, X):
        """Checked images, their outputs, and the error of each one that cannot be read, if there may be some."""
        check_is_fitted(self, "net_")
        images = check_images(self, X, reset=False)
        failures: dict | None = {} if is_tolerant(self, images.on_error) else None
        outputs = network_outputs(self, images, failures)
        outputs[list(failures or ())] = np.nan
        return images, outputs, failures

    def __getstate__(self):
        """What was trained is pickled once: in the net, and not in the network that was lent it."""
        state = dict(super().__getstate__())  # it may be what the estimator itself lives on
        if hasattr(self, "net_"):
            state["backbone_"] = self.net_.hollow_backbone(self.backbone_)
        return state

    def _restore(self, state):
        super()._restore(state)
        if hasattr(self, "_split_seed"):  # of a version before 0.1.0
            self._seeds = Seeds(self.__dict__.pop("_random_state"), self.__dict__.pop("_split_seed"))
        if hasattr(self, "net_"):
            self.backbone_ = self.net_.fill_backbone(self.backbone_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


def fitted_pooling(estimator: Any) -> str:
    """What becomes of the last stage's output: as it was when a network was trained, else what the parameter says."""
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
    """How the network of an estimator is trained, and what it is trained on.

    Parameters
    ----------
    estimator : NetworkEstimator
        Its parameters say how. It gets the fitted attributes that are known before a training.
    given : FitInput
        What it is fitted to.
    is_new : bool
        Whether it begins with the network that its parameters name; otherwise it goes on with the one that it has.
    classes : array-like or None, default=None
        All labels, if they are not those in ``given``.
    depth : int or None, default=None
        How many stages are frozen in the net that is trained as it is; None does as the parameters say, for a net that
        is built then.
    evaluates : bool, default=True
        Whether some rows are evaluated on: those in ``given``, or those that are held out.
    warns : bool, default=True
        Whether a warning names the images that cannot be read.
    set_aside_by : str, default=""
        Who holds out rows even if the parameters do not ask for it.
    """
    builds_net = depth is None
    if builds_net:
        check_net_params(estimator)
    estimator._check_parameters()
    if is_new:
        estimator._seeds = Seeds(estimator.random_state)
    coding = estimator._make_coding(is_new, classes)
    table, valid = checked_table(estimator, given, coding, learns=is_new, warns=warns), None
    if evaluates and given.has_validation:
        valid = checked_table(estimator, given.validation, coding, learns=False, warns=warns)
    elif evaluates and (estimator.early_stopping or set_aside_by):
        by = set_aside_by or "early_stopping=True"
        strata, share = coding.strata(table.y), estimator.validation_fraction
        table, valid = hold_out(table, strata, share, estimator._seeds.split, by=by)
    if is_new:
        estimator._resolve_network()
    depth = estimator._resolve_depth(table, is_new) if depth is None else depth
    seed = estimator._seeds.draw()
    objective = estimator._make_objective(coding, table, depth, seed)
    rows = estimator._dataset(table, depth, objective, estimator._augmentation(seed))
    if builds_net:
        refuse_single_images(estimator, depth, len(rows))
    valid_rows = None if valid is None else estimator._dataset(valid, depth, objective)
    # Random weights have no statistics to keep: norms that held on to them would not normalize at all.
    is_pretrained = not has_random_weights(estimator, network_parameter(estimator))
    settings = TrainingSettings.of(estimator, is_pretrained=is_pretrained)
    return Trainer(objective, settings, estimator._pooling), TrainingData(table, rows, valid_rows, depth, seed)


def train_network(estimator: Any, trainer: Trainer, data: TrainingData, **how: Any) -> None:
    """Train the net that an estimator has, and note what came of it; ``how`` is for `Trainer.train`."""
    try:
        trainer.train(estimator.net_, data, **how)
    finally:
        estimator.history_ = estimator.net_.history
        estimator.n_iter_ = len(estimator.history_)
        estimator.best_epoch_ = estimator.net_.kept_epoch_
        estimator.backbone_ = trained_backbone(estimator.backbone_, estimator.net_, data.depth)


def finish_training(estimator: Any, trainer: Trainer, data: TrainingData) -> None:
    """Note what there is to note of a training that has come to its end."""
    estimator._finish(trainer, data)


def predict_fast(estimator: Any) -> None:
    """Let what was trained predict as fast as what is frozen."""
    macs = sum(stage.macs for stage in estimator.backbone_.stages[estimator.freeze_depth_ :])
    estimator.net_.run_fused(resolve_batch_size("auto", macs, torch.device(estimator.net_.device)))


def frozen_prefix(estimator: Any, depth: int, cache: Any) -> FrozenPrefix:
    """The frozen stages of an estimator's network; with all of them frozen, pooled."""
    stages = [stage.name for stage in estimator.backbone_.stages]
    pooling = estimator._pooling if depth == len(stages) else "none"
    spec = PrefixSpec(estimator.backbone_, stages[depth - 1 : depth] if depth else (), pooling)
    return FrozenPrefix(spec, Runtime.of(estimator, cache=cache))


def network_outputs(estimator: Any, images: Images, failures: "dict | None" = None) -> np.ndarray:
    """The head's outputs for checked images, (n, n_outputs); the frozen stages run once per image here too.

    Parameters
    ----------
    estimator : NetworkEstimator
        Fitted.
    images : Images
        Checked.
    failures : dict or None, default=None
        Where to note the error of each image that cannot be read, by its position.
    """
    resolve_device(estimator.net_.device)  # a forked worker of a process with CUDA gets a clear error
    with bounded_threads():
        prefix = frozen_prefix(estimator, estimator.freeze_depth_, estimator.cache)
        told = PrintedProgress(estimator, is_brief=True) if estimator.verbose else None
        outputs = []
        for start in range(0, len(images), _PREDICTED_TOGETHER):
            failed: dict | None = None if failures is None else {}
            rows = prefix.run(images.take(slice(start, start + _PREDICTED_TOGETHER)), failures=failed)[0]
            outputs.append(estimator.net_.outputs(rows))
            if failures is not None and failed:
                failures.update({start + row: error for row, error in failed.items()})
            if told is not None:
                told(min(start + _PREDICTED_TOGETHER, len(images)), len(images))
    return np.concatenate(outputs)


def check_net_params(estimator: Any) -> None:
    """Refuse what ``net_params`` cannot set.

    Raises
    ------
    InputError
        If it names a parameter of skorch that is ours, or switches off what happens in each training.
    """
    net_params = dict(estimator.net_params or {})
    if isinstance(net_params.get("callbacks"), str):
        raise InputError(f"net_params={net_params!r}: callbacks has to be a list; ours cannot be switched off.")
    taken = sorted(net_params.keys() & _NOT_THE_USERS)
    if taken:
        raise InputError(f"net_params cannot set {taken}: that is what {type(estimator).__name__} is there for.")


def refuse_single_images(estimator: Any, depth: int, n_rows: int) -> None:
    """Refuse batches of one image for batch norms that learn: it has no variance.

    Raises
    ------
    InputError
        If there are such norms and such batches.
    """
    is_kept = estimator.freeze_bn and not has_random_weights(estimator, network_parameter(estimator))
    if is_kept or depth == len(estimator.backbone_.stages) or min(n_rows, estimator.batch_size) > 1:
        return
    if any(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in estimator.backbone_.module.modules()):
        raise InputError(
            f"Batch norms learn (freeze_bn={estimator.freeze_bn}, weights={estimator.weights!r}) from batches of one "
            f"picture (batch_size={estimator.batch_size}, {n_rows} different pictures): one has no variance. "
            "Use more in a batch, or freeze_bn=True and pretrained weights."
        )
