"""One training, from rows to weights: the callbacks it needs, the randomness it may use, and what is left of it."""

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
    soft_targets: "SoftTargets | None" = None,
    is_step: bool = False,
) -> None:
    """Train a net from its present weights on.

    Parameters
    ----------
    net : TransferNet
        What learns.
    rows : RowDataset
        What it learns from.
    valid : RowDataset or None, default=None
        What it is judged on after each epoch.
    epochs : int
        How many times it sees each row.
    seed : int
        Seed of the order of the rows and of dropout.
    schedule : str, default="constant"
        Of the learning rates.
    unfreezing : GradualUnfreezing or None, default=None
        Which stages learn when; None lets all learn from the start that are not frozen for good.
    depth : int, default=0
        How many stages of the backbone are frozen for good.
    best : KeepBest or None, default=None
        When to stop, and which weights to keep.
    start : Checkpoint or None, default=None
        Where an earlier training with the same seed, rows and schedule was: it goes on from there, with that one's
        order of rows, moments and learning rates, but with the weights that the net has now.
    callbacks : sequence of (str, skorch callback), default=()
        What else happens in this training.
    soft_targets : SoftTargets or None, default=None
        Answers beside the rows that are learnt from as well.
    is_step : bool, default=False
        Whether it is one short training of many: then a few rows that it has seen last speak for all of them.

    Raises
    ------
    DivergenceError
        Where the loss, the weights or, in the end, the outputs are no finite numbers; the net has the weights of the
        last good epoch, the best ones or, where these give none either, those of the start. ``net.kept_epoch_`` says
        which.
    KeyboardInterrupt
        Where Ctrl-C ended the training; the net has the weights of the last whole epoch, or the best ones.
    """
    last_good = LastGood()
    n_before = start.epoch if start is not None else 0
    own = _own(Schedule(schedule, n_before), unfreezing, last_good, valid)
    if unfreezing is None:
        net.module_.freeze(depth)
    # The others see an epoch before it may be the last one.
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
            first=own,
            last=after,
            soft_targets=soft_targets,
        )
        with randomness.drawn_from():
            is_sound = len(net.history) == n_epochs or net.is_sound(
                rows, _loss_of_kept(net, best), last_good.seen if is_step else None
            )
        if not is_sound:
            raise net.divergence("The outputs became no finite numbers")
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
        kept = f"of epoch {net.kept_epoch_}" if net.kept_epoch_ else "that it began with"
        error.args = (f"{error} Until then it has the weights {kept}.",)
        raise


def _own(
    schedule: Schedule, unfreezing: "GradualUnfreezing | None", last_good: LastGood, valid: "RowDataset | None"
) -> list[tuple[str, Any]]:
    """What happens in each training, in this order."""
    own: list[tuple[str, Any]] = [("epoch_number", EpochNumber()), ("last_good", last_good)]
    if unfreezing is not None:
        own.append(("unfreezing", unfreezing))
    own += [("schedule", schedule), ("keep_zeros", KeepZeros())]
    if valid is not None:
        own.append(("valid_score", ValidScore()))
    return own


def _loss_of_kept(net: TransferNet, best: "KeepBest | None") -> float:
    """The loss on the validation rows with the weights that are kept; NaN where there are none."""
    return best.best_loss_ if best is not None else net.history[-1].get("valid_loss", float("nan"))


def _put_back(net: TransferNet, rows: RowDataset, best: "KeepBest | None", last_good: LastGood) -> None:
    """Give a net that has diverged good weights."""
    (best or last_good).restore(net)
    if not net.is_sound(rows):
        last_good.restart(net)
