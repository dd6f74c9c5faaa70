"""What happens around the epochs of a fit."""

import copy
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback

from sktl._training._schedules import SCHEDULES, set_learning_rates
from sktl._training._skorch_net import StopTraining, TransferNet

_FEW = 8  # rows that are kept of a batch


class EpochNumber(Callback):
    """Tell the rows which epoch it is, so that augmented pictures look different in each."""

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Number the epochs from zero."""
        dataset_train.epoch = len(net.history) - 1


class Schedule(Callback):
    """Move all learning rates along a schedule, step by step, and note the head's in the history.

    With a constant one the rates are left alone after the start, for a scheduler of the user's to move them.

    Parameters
    ----------
    schedule : str
        A name in `SCHEDULES`.
    n_before : int, default=0
        Epochs of the schedule that an earlier training has been through.
    """

    def __init__(self, schedule, n_before=0):
        self.schedule = schedule
        self.n_before = n_before

    def on_train_begin(self, net, **kwargs):
        """Start a new schedule, from the full rates."""
        self.step_ = self.n_steps_ = 0
        set_learning_rates(net.optimizer_, 1.0)

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Count the steps of the whole fit."""
        if not self.n_steps_:
            n_batches = len(net.get_iterator(dataset_train, training=True))
            self.step_, self.n_steps_ = (self.n_before * n_batches, (self.n_before + net.max_epochs) * n_batches)
        self._set_rates(net)
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])  # the head's group is the first

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the rates of this step."""
        if training:
            self._set_rates(net)
            self.step_ += 1

    def _set_rates(self, net: TransferNet) -> None:
        if self.schedule != "constant":
            set_learning_rates(net.optimizer_, SCHEDULES[self.schedule](self.step_ / self.n_steps_))


class GradualUnfreezing(Callback):
    """Begin with the head alone, and let one more stage learn after every so many epochs, the last one first.

    Parameters
    ----------
    n_stages : int
        Stages of the backbone.
    depth : int
        How many of them stay frozen for good.
    every : int
        Epochs between two stages.
    n_before : int, default=0
        Epochs in the history that do not count.

    References
    ----------
    Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, section 3.3.
    """

    def __init__(self, n_stages, depth, every, n_before=0):
        self.n_stages = n_stages
        self.depth = depth
        self.every = every
        self.n_before = n_before

    def on_epoch_begin(self, net, **kwargs):
        """Unfreeze what is due. What the optimizer does not know joins it; what it knows but is frozen stays as it is.

        A frozen parameter has no gradient, and without one no optimizer moves it, neither by momentum nor by decay.
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
    """Note the score on the validation rows; of the untouched start as ``start`` of the history, with the loss."""

    def on_train_begin(self, net, **kwargs):
        """Judge the start."""
        if not net.history:  # a warm start's is the end of the training before it
            loss, score = judge(net)
            net.history.start = {"epoch": 0, "valid_loss": loss, "valid_score": score}

    def on_epoch_begin(self, net, **kwargs):
        """Forget the last epoch's outputs."""
        self.seen_: list[tuple[np.ndarray, ...]] = []

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Keep the outputs of a validation batch."""
        if not training:
            x, y = batch
            y_pred = y_pred[0] if isinstance(y_pred, tuple) else y_pred
            # The score of the estimator knows no class weights, which are in "weight".
            self.seen_.append(tuple(part.detach().cpu().numpy() for part in (y_pred, y, x["sample_weight"])))

    def on_epoch_end(self, net, **kwargs):
        """Note the score of all of them."""
        if self.seen_:
            net.history.record("valid_score", net.criterion_.score(*map(np.concatenate, zip(*self.seen_, strict=True))))
        self.seen_ = []


class KeepBest(Callback):
    """Stop when the validation loss gets no better, and put back the weights with which it was the best.

    The untouched start is judged too: where training only harms, nothing has changed in the end.

    Parameters
    ----------
    patience : int
        Epochs without a better loss after which training stops.

    Attributes
    ----------
    best_epoch_ : int
        Number of the epoch after which the loss was the best; 0 is the start.
    best_loss_ : float
        That loss.
    """

    def __init__(self, patience):
        self.patience = patience
        self.best_epoch_ = 0
        self._weights: Any = None

    def on_train_begin(self, net, **kwargs):
        """Judge the start."""
        self.best_loss_, self.best_epoch_, self.n_worse_ = float("inf"), len(net.history), 0
        self._weights = None
        # `ValidScore` has judged the start of a first training.
        start = None if net.history else getattr(net.history, "start", None)
        self._judge(net, start["valid_loss"] if start else judge(net)[0], self.best_epoch_)

    def on_epoch_end(self, net, **kwargs):
        """Judge the epoch."""
        self._judge(net, net.history[-1, "valid_loss"], len(net.history))
        if self.n_worse_ >= self.patience:
            raise StopTraining

    def on_train_end(self, net, **kwargs):
        """Put the best weights back."""
        self.restore(net)

    def restore(self, net: TransferNet) -> None:
        """Put the best weights back; where Ctrl-C came before the start was judged, it is as it was."""
        if self._weights is not None:
            net.put_back(self.best_epoch_, self._weights)

    def _judge(self, net: TransferNet, loss: float, epoch: int) -> None:
        if loss < self.best_loss_ or self._weights is None:  # the start may give no number: it is what there is
            self._weights = copy.deepcopy(net.module_.state_dict())
            self.best_loss_, self.best_epoch_, self.n_worse_ = min(float("inf"), loss), epoch, 0
        else:
            self.n_worse_ += 1


class LastGood(Callback):
    """Put back the weights of the last good epoch where training diverged, or of the last whole one after Ctrl-C.

    An epoch's loss is measured before its last step: weights are good when the next epoch's first loss says so.

    Attributes
    ----------
    seen : Tensor or None
        Activations of a few rows that were learnt from last.
    """

    def __init__(self):
        self.seen: torch.Tensor | None = None
        self._start: Any = None
        self._good: Any = None
        self._begun: Any = None
        self._is_unproven = False

    def on_train_begin(self, net, **kwargs):
        """Begin with the start."""
        net.kept_epoch_ = len(net.history)
        self._start = self._good = self._begun = self._now(net, len(net.history))

    def on_epoch_begin(self, net, **kwargs):
        """Remember the weights, which may be good."""
        self._begun = self._now(net, len(net.history) - 1)
        self._is_unproven = True

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """They are: their loss is a number."""
        if training:
            self.seen = batch[0]["x"][:_FEW]
        if training and self._is_unproven:
            self._good, self._is_unproven = self._begun, False

    def on_epoch_end(self, net, **kwargs):
        """Look at what no later loss may speak of: what the last step made."""
        if not all(parameter.isfinite().all() for parameter in net.module_.parameters()):
            raise net.divergence("The weights became no finite numbers")
        net.kept_epoch_ = len(net.history)

    def restore(self, net: TransferNet) -> None:
        """Put the last good ones back."""
        net.put_back(*self._good)

    def restart(self, net: TransferNet) -> None:
        """Put those of the untouched start back."""
        net.put_back(*self._start)

    def rewind(self, net: TransferNet) -> None:
        """Put back those of the last whole epoch, where another one has begun since."""
        net.kept_epoch_ = len(net.history)
        if self._begun is not None and self._begun[0] == len(net.history):
            net.put_back(*self._begun)

    @staticmethod
    def _now(net: TransferNet, epoch: int) -> tuple[int, Any]:
        """After how many epochs of the history the weights are what they are now."""
        return epoch, copy.deepcopy(net.module_.state_dict())


class EpochTasks(Callback):
    """Tell scikit-learn's callbacks of each epoch.

    Parameters
    ----------
    estimator : estimator
        That is being fitted.
    context : CallbackContext
        Its root context.
    data : dict
        ``X``, ``y`` and ``metadata``, for the callbacks that want them.
    reconstruct : callable
        Gives the fitted attributes that make an estimator of the present state.
    """

    def __init__(self, estimator, context, data, reconstruct):
        self.estimator = estimator
        self.context = context
        self.data = data
        self.reconstruct = reconstruct

    def __getstate__(self):
        """It belongs to the fit that is running: a copy of the net that is made meanwhile is not a part of that."""
        return {}

    def on_epoch_begin(self, net, **kwargs):
        """Begin the epoch's task."""
        self.task_ = self.context.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net, **kwargs):
        """End it; a callback may ask to stop."""
        attributes = self.reconstruct() if hasattr(self.estimator, "_skl_callbacks") else None
        if self.task_.call_on_fit_task_end(estimator=self.estimator, **self.data, reconstruction_attributes=attributes):
            raise StopTraining


def judge(net: TransferNet) -> tuple[float, float]:
    """The loss and the score on the validation rows as the network is now."""
    total, seen = 0.0, []
    for x, y in net.get_iterator(net.valid_rows, training=False):
        step = net.validation_step((x, y))
        outputs = step["y_pred"]
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        total += step["loss"].item() * len(y)
        seen.append(tuple(part.detach().cpu().numpy() for part in (outputs, y, x["sample_weight"])))
    columns = [np.concatenate(column) for column in zip(*seen, strict=True)]
    return total / len(columns[1]), net.criterion_.score(*columns)
