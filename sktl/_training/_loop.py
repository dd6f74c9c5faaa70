"""One training run: its callbacks, its random numbers and the weights it keeps."""

from collections.abc import Sequence
from typing import Any

import torch

from sktl._randomness import Randomness
from sktl._training._callbacks import EpochNumber, GradualUnfreezing, KeepBest, LastGood, Schedule, ValidScore
from sktl._training._checkpoint import Checkpoint
from sktl._training._dataset import RowDataset
from sktl._training._skorch_net import TransferNet
from sktl._training._soft_targets import SoftTargets
from sktl._training._sparsity import KeepZeros
from sktl.exceptions import DivergenceError


def train(
    net: TransferNet,
    rows: RowDataset,
    valid: "RowDataset | None" = None,
    *,
    epochs: int,
    seed: int,
    schedule: str = "constant",
    unfreezing: "GradualUnfreezing | None" = None,
    depth: int = 0,
    best: "KeepBest | None" = None,
    start: "Checkpoint | None" = None,
    callbacks: Sequence[tuple[str, Any]] = (),
    watchers: Sequence[tuple[str, Any]] = (),
    soft_targets: "SoftTargets | None" = None,
    is_step: bool = False,
) -> None:
    """Train a net, starting from its current weights.

    Parameters
    ----------
    net : TransferNet
        The net to train.
    rows : RowDataset
        Training rows.
    valid : RowDataset or None, default=None
        Rows on which to evaluate after each epoch.
    epochs : int
        Number of passes over the training rows.
    seed : int
        Seed of the order of the rows and of dropout.
    schedule : str, default="constant"
        Schedule of the learning rates.
    unfreezing : GradualUnfreezing or None, default=None
        Gradual unfreezing. None trains all stages from ``depth`` on from the start.
    depth : int, default=0
        Number of stages of the backbone that are frozen throughout.
    best : KeepBest or None, default=None
        Early stopping, which restores the best weights.
    start : Checkpoint or None, default=None
        Checkpoint of an earlier training with the same seed, rows and schedule.
        Training resumes there with the order of rows, moments and learning rates of the
        checkpoint, but with the current weights of the net.
    callbacks : sequence of (str, skorch callback), default=()
        Further callbacks of this training.
    watchers : sequence of (str, skorch callback), default=()
        Callbacks that run before those of the user, which see what they record.
    soft_targets : SoftTargets or None, default=None
        How the soft targets of the training rows enter the loss.
    is_step : bool, default=False
        Whether this is one of many short trainings. If so, outputs are checked for a
        few recent rows only.

    Raises
    ------
    DivergenceError
        If the loss, the weights or the final outputs become NaN or infinite. The net
        has the weights of the last good epoch, the best ones or, if their outputs are
        not finite either, the initial ones; ``net.kept_epoch_`` is their epoch.
    KeyboardInterrupt
        If training was interrupted with Ctrl-C. The net has the weights of the last
        complete epoch, or the best ones.
    """
    last_good = LastGood()
    n_before = start.epoch if start is not None else 0
    own = _own(Schedule(schedule, n_before), unfreezing, last_good, valid)
    if unfreezing is None:
        net.module_.freeze(depth)
    # User callbacks run before early stopping, so that they see the last epoch as well.
    after = [*callbacks, *([("keep_best", best)] if best is not None else [])]
    generator = torch.Generator().manual_seed(seed)
    randomness = Randomness(seed, net.device)
    if start is not None:
        with randomness.drawn_from():
            start.restore(net, generator)
    n_epochs = len(net.history)
    try:
        net.learn(
            rows,
            valid,
            epochs=epochs - n_before,
            generator=generator,
            randomness=randomness,
            first=[*own, *watchers],
            last=after,
            soft_targets=soft_targets,
        )
        with randomness.drawn_from():
            is_sound = len(net.history) == n_epochs or net.is_sound(
                rows, _loss_of_kept(net, best), last_good.seen if is_step else None
            )
        if not is_sound:
            raise net.divergence("Outputs became NaN or infinite")
    except KeyboardInterrupt:
        if best is None:
            last_good.rewind(net)
        with randomness.drawn_from():
            if len(net.history) > n_epochs and not net.is_sound(rows):
                _put_back(net, rows, best, last_good)
        raise
    except DivergenceError as error:
        with randomness.drawn_from():
            _put_back(net, rows, best, last_good)
        kept = f"the weights of epoch {net.kept_epoch_}" if net.kept_epoch_ else "its initial weights"
        error.args = (f"{error} The estimator keeps {kept}.",)
        raise


def _own(
    schedule: Schedule, unfreezing: "GradualUnfreezing | None", last_good: LastGood, valid: "RowDataset | None"
) -> list[tuple[str, Any]]:
    """Return the callbacks of every training, in order."""
    own: list[tuple[str, Any]] = [("epoch_number", EpochNumber()), ("last_good", last_good)]
    if unfreezing is not None:
        own.append(("unfreezing", unfreezing))
    own += [("schedule", schedule), ("keep_zeros", KeepZeros())]
    if valid is not None:
        own.append(("valid_score", ValidScore()))
    return own


def _loss_of_kept(net: TransferNet, best: "KeepBest | None") -> float:
    """Return the validation loss of the weights that are kept, or NaN if unknown."""
    return best.best_loss_ if best is not None else net.history[-1].get("valid_loss", float("nan"))


def _put_back(net: TransferNet, rows: RowDataset, best: "KeepBest | None", last_good: LastGood) -> None:
    """Restore good weights in a net that diverged."""
    (best or last_good).restore(net)
    if not net.is_sound(rows):
        last_good.restart(net)
