"""What all estimators that train a network share: the parameters, the flow of a fit, and how predictions are made."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktl._device import resolve_device
from sktl._estimators._backbone_parameter import (
    BACKBONE_CONSTRAINTS,
    TakesNetwork,
    has_random_weights,
    resolve_backbone,
)
from sktl._estimators._checked_table import Enrolls, Validation
from sktl._estimators._fit_tasks import FitInEpochs
from sktl._estimators._labeled_images import LabeledImages
from sktl._frozen._activations import fetch_activations
from sktl._frozen._augmentation import AUGMENT_CONSTRAINTS, make_augmentation
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import POOLINGS, check_pooling, pooled_shape
from sktl._frozen._progress import PrintedProgress
from sktl._frozen._readable import is_tolerant, warn_of_nan
from sktl._frozen._runners import resolve_batch_size
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS, SHARED_PARAMETERS, Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._threads import bounded_threads
from sktl._training._callbacks import GradualUnfreezing, KeepBest
from sktl._training._dataset import RowDataset, unit_mean
from sktl._training._head_probe import Probe, probe_rows
from sktl._training._loop import train
from sktl._training._rest_network import RestNetwork, adopt_statistics_quickly, last_linear, make_head
from sktl._training._schedules import OPTIMIZERS, SCHEDULES
from sktl._training._skorch_net import TransferNet
from sktl._training._soft_targets import SoftTargets
from sktl._training._trainable_summary import TrainableSummary
from sktl._warnings import warn
from sktl.exceptions import InputError, TrainingWarning

_BLOCK = 512  # pictures that are predicted together, so that memory stays bounded

# Of skorch's parameters: what is trained, on what and how long.
_NOT_THE_USERS = {"module", "criterion", "train_split", "max_epochs", "warm_start"}


TRANSFER_CONSTRAINTS: dict = {
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


class Course(NamedTuple):
    """What a network is trained on: the table, its rows as the rest sees them, and those to judge on."""

    table: LabeledImages
    rows: RowDataset
    valid: "RowDataset | None"
    depth: int  # how many stages are frozen
    seed: int
    soft_targets: "SoftTargets | None" = None  # answers in the rows that are learnt from as well


class NetworkEstimator(TakesNetwork, FitInEpochs, Enrolls):
    """Trains the rest of a network behind its frozen stages.

    Subclass contract: a subclass has all parameters of `TRANSFER_CONSTRAINTS`, and says what is learnt by

    * ``_check_targets(y, weight, reset, classes)``: the encoded targets, and what their classes weigh; sets what is
      learnt from them,
    * ``_n_outputs``: how many outputs the head has,
    * ``_make_criterion()``: the loss,
    * ``_probe(features, y, weight, groups)``: a linear map to start the head with,
    * ``_stratification(y)``: what a validation split is stratified by, or None.

    A subclass may also have the network under another parameter, name layers whose output its loss wants to see
    (``_taps``), and do more in ``_prepare`` and ``_finish``.
    """

    _shared_by_copies: tuple[str, ...] = ()  # attributes that a compressor's copy need not have for itself

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None, groups=None):
        """Train the network.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            A classifier's labels of any kind, numbers or strings; a regressor's targets, one or several.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows; a weight of zero is a row that is not there.
        X_val : array-like of pictures, default=None
            Pictures to judge on after each epoch, in place of a share of ``X``.
        y_val : array-like, default=None
            Their labels or targets.
        sample_weight_val : array-like of shape (n_pictures_val,), default=None
            Their weights.
        groups : array-like of shape (n_images,), default=None
            What each row of ``X`` belongs to, such as the subject or the original of near-copies: numbers or strings.
            Rows of a group stay on one side where rows are set aside (``early_stopping``) or left out (the regressor's
            ``head_init="probe"``). Not used otherwise.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, Validation(X_val, y_val, sample_weight_val, groups))

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

    def _fit(self, X, y, sample_weight, validation, classes=None):
        """The flow of a fit."""
        previous = getattr(self, "net_", None) if self.warm_start else None
        with self._fit_task(X, y, sample_weight, n_epochs=self.max_epochs) as tasks:
            if previous is None:
                self._forget()
            course = self._enroll(X, y, sample_weight, validation, reset=previous is None, classes=classes)
            self.net_ = self._make_net(course, previous)
            self.freeze_depth_ = course.depth
            try:
                self._train(course, tasks)
                self._finish(course)
            finally:  # also where it diverged or was interrupted: it has its last good weights
                self._predict_fast()
            self._assess(course)
        return self

    def _enroll(self, X, y, sample_weight, validation, *, reset, classes=None):
        """What there is to learn from and to judge on, as the trainable rest sees it."""
        table = self._check(X, y, sample_weight, reset=reset, classes=classes, groups=validation.groups)
        learning, judging = self._split(table, validation)
        if reset:
            self._resolve_network()
        depth = self._resolve_depth(learning, is_new=reset)
        seed = self._draw_seed()
        self._prepare(learning, depth, seed)
        rows = self._rows(learning, depth, self._augmentation(seed))
        valid = self._rows(judging, depth) if judging is not None else None
        return Course(learning, rows, valid, depth, seed)

    def _step(self, X, y, sample_weight, classes=None):
        """One step of `partial_fit`: an epoch of the net as it is, with constant rates, judged by nobody."""
        is_first = not hasattr(self, "net_")
        with self._fit_task(X, y, sample_weight, n_epochs=1) as tasks:
            table = self._check(X, y, sample_weight, reset=is_first, classes=classes)
            if is_first:
                self._resolve_network()
                self.freeze_depth_ = self._resolve_depth(table, is_new=True)
            seed = self._draw_seed()
            rows = self._rows(table, self.freeze_depth_, self._augmentation(seed))
            course = Course(table, rows, None, self.freeze_depth_, seed)
            if is_first:
                self.net_ = self._make_net(course)
            self._train(course, tasks, is_step=True)
        return self

    def _resolve_network(self):
        """The network, and what becomes of its last stage's output."""
        self.backbone_ = resolve_backbone(self, self._network_parameter).body
        check_pooling(self.backbone_, self.backbone_.stages[-1].name, self.pooling)
        self._pooling = self.pooling

    def _resolve_depth(self, learning, is_new):
        """How many stages are frozen; ``is_new`` says that the network has learnt nothing yet."""
        return self.backbone_.stage_index(self.freeze_depth)

    def _prepare(self, learning, depth, seed):
        """What has to be there before the rows are, made from those to learn from; nothing here."""

    def _finish(self, course):
        """What is to be noted of a training that has come to its end; nothing here."""

    def _assess(self, course):
        """What there is to warn of after a training that has come to its end; nothing here."""

    @property
    def _taps(self):
        """The layers behind the cut whose output the loss sees beside the head's; None where it sees no more."""
        return None

    def _augmentation(self, seed):
        """What changes the pictures that are learnt from.

        Views are the same in all folds and candidates of a search, where ``random_state`` is a number.
        """
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else seed
        return make_augmentation(self.augment, seed=seed, backbone=self.backbone_)

    def _rows(self, table, depth, augmentation=None):
        """The output of the frozen stages for a table, with its targets and weights."""
        n_views = self.n_views if augmentation is not None else None
        is_stored = self.cache is not None and (augmentation is None or n_views is not None)
        activations = fetch_activations(
            self._prefix(depth, self.cache if is_stored else None),
            table.images,
            stored=is_stored,
            augmentation=augmentation,
            n_views=n_views,
            listeners=[PrintedProgress(self)] if self.verbose and is_stored else [],
        )
        return RowDataset(
            activations,
            torch.from_numpy(table.y),
            weight=unit_mean(table.weight),
            sample_weight=torch.from_numpy(table.sample_weight),
        )

    def _prefix(self, depth, cache):
        """The frozen stages; with all of them frozen, pooled."""
        stages = [stage.name for stage in self.backbone_.stages]
        pooling = self._pooling if depth == len(stages) else "none"
        spec = PrefixSpec(self.backbone_, stages[depth - 1 : depth] if depth else (), pooling)
        return FrozenPrefix(spec, Runtime.of(self, cache=cache))

    def _make_net(self, course, previous=None):
        """A net with a new head, started as ``head_init`` says; with the head and the history of a previous net."""
        rows, depth = course.rows, course.depth
        # Random weights have no statistics to keep: norms that held on to them would not normalise at all.
        is_random = has_random_weights(self, self._network_parameter)
        freeze_bn = self.freeze_bn and not is_random
        has_norms = any(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in self.backbone_.module.modules())
        if has_norms and not freeze_bn and depth < len(self.backbone_.stages) and min(len(rows), self.batch_size) == 1:
            raise InputError(
                f"Batch norms learn (freeze_bn={self.freeze_bn}, weights={self.weights!r}) from batches of one picture "
                f"(batch_size={self.batch_size}, {len(rows)} different pictures): one has no variance. Use more in a "
                "batch, or freeze_bn=True and pretrained weights."
            )
        last = self.backbone_.stages[-1]
        (n_features,) = pooled_shape(last.output_shape, self._pooling, last.channel_axis)
        head = self.head if previous is None else previous.module_.head
        head = make_head(head, n_features, self._n_outputs, dropout=self.dropout, generator_seed=course.seed)
        network = RestNetwork(self.backbone_, depth, head, pooling=self._pooling, freeze_bn=freeze_bn, taps=self._taps)
        if is_random:
            adopt_statistics_quickly(network)
        net = self._new_net(network)
        if previous is not None:
            net.history = previous.history
        elif self.head_init == "probe":
            self._start_from_probe(net, course)
        return net

    def _new_net(self, network):
        """The parameters here, and what ``net_params`` adds to them or says otherwise, as a skorch net."""
        net_params = dict(self.net_params or {})
        if isinstance(net_params.get("callbacks"), str):
            raise InputError(f"net_params={net_params!r}: callbacks has to be a list; ours cannot be switched off.")
        taken = sorted(net_params.keys() & _NOT_THE_USERS)
        if taken:
            raise InputError(f"net_params cannot set {taken}: that is what {type(self).__name__} is there for.")
        params = {
            "optimizer": self.optimizer,
            "lr": self.lr,
            "lr_decay": self.lr_decay,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "device": str(resolve_device(self.device)),
            "verbose": self.verbose,
            **({} if self.verbose else {"callbacks__print_log": None}),
            **net_params,
            "callbacks": [*(self.callbacks or []), *(net_params.get("callbacks") or [])],
        }
        try:
            return TransferNet(network, self._make_criterion(), **params).initialize()
        except (TypeError, ValueError) as error:
            if not net_params:
                raise
            raise InputError(f"net_params={net_params!r} is not what skorch.NeuralNet takes: {error}") from error

    def _start_from_probe(self, net, course):
        """Fit the head's last layer to what reaches it from the untouched network."""
        rows = course.rows
        head = net.module_.head
        linear = last_linear(head)
        if linear is None:
            raise InputError(
                f"head_init='probe' starts the head's last linear layer, and {type(head).__name__} is no sequence that "
                "ends with one. Use head_init='random', or an nn.Sequential with an nn.Linear at its end."
            )
        positions = probe_rows(len(rows), linear.in_features, course.seed)
        features = net.linear_inputs(rows, positions.tolist(), linear)
        targets, weight = (column[positions] for column in self._probe_rows(rows, course.table))
        groups = None if course.table.groups is None else course.table.groups[positions]
        probe: Probe = self._probe(features.astype(np.float64), targets, weight, groups)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(probe.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(probe.bias))

    def _probe_rows(self, rows, table):
        """Targets and weights that the head's start is fitted to."""
        return table.y, table.weight

    def _train(self, course, tasks, is_step=False, start=None, callbacks=()):
        """Train the net, and note what came of it."""
        best = KeepBest(self.n_iter_no_change) if course.valid is not None and self.early_stopping else None
        keeps_moments = False
        try:
            train(
                self.net_,
                course.rows,
                course.valid,
                epochs=1 if is_step else self.max_epochs,
                seed=course.seed,
                schedule="constant" if is_step else self.lr_schedule,
                unfreezing=self._unfreezing(is_step),
                depth=self.freeze_depth_,
                best=best,
                start=start,
                soft_targets=course.soft_targets,
                callbacks=[*callbacks, ("epoch_tasks", tasks)],
                is_step=is_step,
            )
            keeps_moments = is_step  # the next step goes on with them; a fit is over
        finally:  # also after a divergence or Ctrl-C: there are the last good weights, and what led away is forgotten
            if not keeps_moments:
                self.net_.optimizer_.state.clear()
            self.history_ = self.net_.history
            self.n_iter_ = len(self.history_)
            self.best_epoch_ = self.net_.kept_epoch_
            self._lend_backbone()

    def _predict_fast(self):
        """Let what was trained predict as fast as what is frozen."""
        macs = sum(stage.macs for stage in self.backbone_.stages[self.freeze_depth_ :])
        self.net_.run_fused(resolve_batch_size("auto", macs, torch.device(self.net_.device)))

    def _unfreezing(self, is_step):
        """Gradual unfreezing, in the epochs of this fit, or in all steps of `partial_fit` so far."""
        if self.unfreeze_every is None:
            return None
        n_stages = len(self.backbone_.stages)
        n_learning = n_stages - self.freeze_depth_
        if not is_step and n_learning * self.unfreeze_every >= self.max_epochs > 0:
            warn(
                f"unfreeze_every={self.unfreeze_every} takes {n_learning * self.unfreeze_every} epochs until all "
                f"{n_learning} stages learn that freeze_depth={self.freeze_depth!r} lets learn, and max_epochs="
                f"{self.max_epochs} ends before. Use more epochs, a smaller unfreeze_every, or freeze more.",
                TrainingWarning,
            )
        return GradualUnfreezing(
            n_stages, self.freeze_depth_, self.unfreeze_every, n_before=0 if is_step else len(self.net_.history)
        )

    def _lend_backbone(self):
        """The network with what was learnt, for whoever takes this estimator as its backbone."""
        if self.freeze_depth_ < len(self.backbone_.stages):
            self.backbone_ = self.backbone_.with_weights(self.net_.module_.stages.state_dict())

    def __getstate__(self):
        """What was trained is pickled once: in the net, and not in the network that was lent it."""
        state = dict(super().__getstate__())  # it may be what the estimator itself lives on
        if hasattr(self, "net_"):
            state["backbone_"] = self.net_.hollow_backbone(self.backbone_)
        return state

    def _restore(self, state):
        super()._restore(state)
        if hasattr(self, "net_"):
            self.backbone_ = self.net_.fill_backbone(self.backbone_)

    def _outputs(self, X):
        """The head's outputs for what a user gives, ndarray (n, n_outputs), float32; NaN for what cannot be read."""
        images, outputs, failures = self._try_outputs(X)
        if failures:
            warn_of_nan(images, failures)
        return outputs

    def _try_outputs(self, X):
        """Checked pictures, their outputs, and the error of each one that cannot be read, if there may be some."""
        check_is_fitted(self, "net_")
        images = check_images(self, X, reset=False)
        failures: dict | None = {} if is_tolerant(self, images) else None
        outputs = self._outputs_of(images, failures)
        outputs[list(failures or ())] = np.nan
        return images, outputs, failures

    def _outputs_of(self, images, failures=None):
        """Those for checked pictures; the frozen stages run once per picture here too."""
        resolve_device(self.net_.device)  # a forked worker of a process with CUDA gets a clear error
        with bounded_threads():
            prefix = self._prefix(self.freeze_depth_, self.cache)
            told = PrintedProgress(self, is_brief=True) if self.verbose else None
            outputs = []
            for start in range(0, len(images), _BLOCK):
                failed: dict | None = None if failures is None else {}
                rows = prefix.run(images.take(slice(start, start + _BLOCK)), failures=failed)[0]
                outputs.append(self.net_.outputs(rows))
                if failed:
                    failures.update({start + row: error for row, error in failed.items()})
                if told is not None:
                    told(min(start + _BLOCK, len(images)), len(images))
        return np.concatenate(outputs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


def fitted_pooling(estimator: Any) -> str:
    """What becomes of the last stage's output: as it was when a network was trained, else what the parameter says."""
    return getattr(estimator, "_pooling", estimator.pooling)
