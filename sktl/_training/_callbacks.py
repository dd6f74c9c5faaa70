"""Callbacks of the training loop."""

import copy
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback

from sktl._training._schedules import SCHEDULES, set_learning_rates
from sktl._training._skorch_net import StopTraining, TransferNet

_FEW = 8  # number of rows of a batch to keep


class EpochNumber(Callback):
    """Set the epoch of the dataset, so that augmentation differs between epochs."""

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Number the epochs from zero."""
        dataset_train.epoch = len(net.history) - 1


class Schedule(Callback):
    """Learning rate schedule, updated at each step and recorded in the history.

    A constant schedule sets the rates once, so that a scheduler passed by the user can
    change them.

    Parameters
    ----------
    schedule : str
        A key of `SCHEDULES`.
    n_before : int, default=0
        Number of epochs of the schedule that an earlier training has completed.
    """

    def __init__(self, schedule, n_before=0):
        self.schedule = schedule
        self.n_before = n_before

    def on_train_begin(self, net, **kwargs):
        """Reset the schedule and the learning rates."""
        self.step_ = self.n_steps_ = 0
        set_learning_rates(net.optimizer_, 1.0)

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Count the steps of the whole training and record the rate of the head."""
        if not self.n_steps_:
            n_batches = len(net.get_iterator(dataset_train, training=True))
            self.step_, self.n_steps_ = (self.n_before * n_batches, (self.n_before + net.max_epochs) * n_batches)
        self._set_rates(net)
        # The first group is the head.
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the rates of this step."""
        if training:
            self._set_rates(net)
            self.step_ += 1

    def _set_rates(self, net: TransferNet) -> None:
        if self.schedule != "constant":
            set_learning_rates(net.optimizer_, SCHEDULES[self.schedule](self.step_ / self.n_steps_))


class GradualUnfreezing(Callback):
    """Gradual unfreezing: train the head first, then one more stage every few epochs.

    Parameters
    ----------
    n_stages : int
        Number of stages of the backbone.
    depth : int
        Number of stages that stay frozen.
    every : int
        Number of epochs between two unfrozen stages.
    n_before : int, default=0
        Number of epochs in the history to ignore.

    References
    ----------
    Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
    ACL 2018, section 3.3.
    """

    def __init__(self, n_stages, depth, every, n_before=0):
        self.n_stages = n_stages
        self.depth = depth
        self.every = every
        self.n_before = n_before

    def on_epoch_begin(self, net, **kwargs):
        """Unfreeze the stages that are due and add their parameters to the optimizer.

        Parameters that are frozen again stay in the optimizer. They have no gradient,
        so neither momentum nor weight decay changes them.
        """
        epoch = len(net.history) - 1 - self.n_before
        n_frozen = max(self.depth, self.n_stages - epoch // self.every)
        net.module_.freeze(n_frozen)
        known = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
        for group in net.learning_groups():
            if not known & {id(p) for p in group["params"]}:
                net.optimizer_.add_param_group(group)
        net.history.record("n_frozen_stages", n_frozen)


class ValidScore(Callback):
    """Record the validation score of each epoch.

    The loss and the score before training are stored as ``history.start``.
    """

    def on_train_begin(self, net, **kwargs):
        """Evaluate the network before training."""
        if not net.history:  # a warm start continues the history, start included
            loss, score = judge(net)
            net.history.start = {"epoch": 0, "valid_loss": loss, "valid_score": score}

    def on_epoch_begin(self, net, **kwargs):
        """Discard the outputs of the previous epoch."""
        self.seen_: list[tuple[np.ndarray, ...]] = []

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Collect the outputs of a validation batch."""
        if not training:
            x, y = batch
            y_pred = y_pred[0] if isinstance(y_pred, tuple) else y_pred
            # The estimator's score ignores class weights, which "weight" includes.
            self.seen_.append(tuple(part.detach().cpu().numpy() for part in (y_pred, y, x["sample_weight"])))

    def on_epoch_end(self, net, **kwargs):
        """Record the score of the collected outputs."""
        if self.seen_:
            net.history.record("valid_score", net.criterion_.score(*map(np.concatenate, zip(*self.seen_, strict=True))))
        self.seen_ = []


class KeepBest(Callback):
    """Early stopping that restores the weights with the best validation loss.

    The initial weights count as epoch 0. If training only makes the loss worse, the
    initial weights are restored.

    Parameters
    ----------
    patience : int
        Number of epochs without improvement after which training stops.

    Attributes
    ----------
    best_epoch_ : int
        Number of the epoch with the best loss; 0 is the start.
    best_loss_ : float
        The best validation loss.
    """

    def __init__(self, patience):
        self.patience = patience
        self.best_epoch_ = 0
        self._weights: Any = None

    def on_train_begin(self, net, **kwargs):
        """Evaluate the network before training."""
        self.best_loss_, self.best_epoch_, self.n_worse_ = float("inf"), len(net.history), 0
        self._weights = None
        # `ValidScore` has evaluated the initial weights already.
        start = None if net.history else getattr(net.history, "start", None)
        self._judge(net, start["valid_loss"] if start else judge(net)[0], self.best_epoch_)

    def on_epoch_end(self, net, **kwargs):
        """Compare the epoch with the best one and stop if the patience is exhausted."""
        self._judge(net, net.history[-1, "valid_loss"], len(net.history))
        if self.n_worse_ >= self.patience:
            raise StopTraining

    def on_train_end(self, net, **kwargs):
        """Restore the best weights."""
        self.restore(net)

    def restore(self, net: TransferNet) -> None:
        """Restore the best weights, if training got far enough to save any."""
        if self._weights is not None:
            net.put_back(self.best_epoch_, self._weights)

    def _judge(self, net: TransferNet, loss: float, epoch: int) -> None:
        # The initial loss may be NaN.
        if loss < self.best_loss_ or self._weights is None:
            self._weights = copy.deepcopy(net.module_.state_dict())
            self.best_loss_, self.best_epoch_, self.n_worse_ = min(float("inf"), loss), epoch, 0
        else:
            self.n_worse_ += 1


class LastGood(Callback):
    """Copies of the last good weights, to restore after a divergence or a Ctrl-C.

    The loss of an epoch is computed before its last optimizer step. Weights therefore
    count as good only when the first loss of the next epoch is finite.

    Attributes
    ----------
    seen : Tensor or None
        Activations of a few rows of the last training batch.
    """

    def __init__(self):
        self.seen: torch.Tensor | None = None
        self._start: Any = None
        self._good: Any = None
        self._begun: Any = None
        self._is_unproven = False

    def on_train_begin(self, net, **kwargs):
        """Save the initial weights."""
        net.kept_epoch_ = len(net.history)
        self._start = self._good = self._begun = self._now(net, len(net.history))

    def on_epoch_begin(self, net, **kwargs):
        """Save the weights; they are not yet known to be good."""
        self._begun = self._now(net, len(net.history) - 1)
        self._is_unproven = True

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Mark the saved weights as good, since their loss is finite."""
        if training:
            self.seen = batch[0]["x"][:_FEW]
        if training and self._is_unproven:
            self._good, self._is_unproven = self._begun, False

    def on_epoch_end(self, net, **kwargs):
        """Check the weights after the last step, which no later loss may cover."""
        if not all(parameter.isfinite().all() for parameter in net.module_.parameters()):
            raise net.divergence("Weights became NaN or infinite")
        net.kept_epoch_ = len(net.history)

    def restore(self, net: TransferNet) -> None:
        """Restore the last good weights."""
        net.put_back(*self._good)

    def restart(self, net: TransferNet) -> None:
        """Restore the initial weights."""
        net.put_back(*self._start)

    def rewind(self, net: TransferNet) -> None:
        """Restore the weights of the last complete epoch if a new one has begun."""
        net.kept_epoch_ = len(net.history)
        if self._begun is not None and self._begun[0] == len(net.history):
            net.put_back(*self._begun)

    @staticmethod
    def _now(net: TransferNet, epoch: int) -> tuple[int, Any]:
        """Return an epoch of the history and a copy of the current weights."""
        return epoch, copy.deepcopy(net.module_.state_dict())


class EpochTasks(Callback):
    """Report each epoch to scikit-learn's callbacks.

    Parameters
    ----------
    estimator : estimator
        The estimator being fitted.
    context : CallbackContext
        The root callback context of the fit.
    data : dict
        ``X``, ``y`` and ``metadata``, passed to the callbacks.
    reconstruct : callable
        Returns the fitted attributes from which a callback can build an estimator with
        the current weights.
    """

    def __init__(self, estimator, context, data, reconstruct):
        self.estimator = estimator
        self.context = context
        self.data = data
        self.reconstruct = reconstruct

    def __getstate__(self):
        """Return no state: a copy of the net is not part of the running fit."""
        return {}

    def on_epoch_begin(self, net, **kwargs):
        """Begin the task of the epoch."""
        self.task_ = self.context.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net, **kwargs):
        """End the task of the epoch, and stop training if a callback requests it."""
        attributes = self.reconstruct() if hasattr(self.estimator, "_skl_callbacks") else None
        if self.task_.call_on_fit_task_end(estimator=self.estimator, **self.data, reconstruction_attributes=attributes):
            raise StopTraining


def judge(net: TransferNet) -> tuple[float, float]:
    """Return the loss and the score of the current network on the validation rows."""
    total, seen = 0.0, []
    for x, y in net.get_iterator(net.valid_rows, training=False):
        step = net.validation_step((x, y))
        outputs = step["y_pred"]
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        total += step["loss"].item() * len(y)
        seen.append(tuple(part.detach().cpu().numpy() for part in (outputs, y, x["sample_weight"])))
    columns = [np.concatenate(column) for column in zip(*seen, strict=True)]
    return total / len(columns[1]), net.criterion_.score(*columns)
