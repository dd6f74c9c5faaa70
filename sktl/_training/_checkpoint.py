"""Checkpoints from which a training can be resumed exactly."""

import copy
from typing import Any, NamedTuple

import torch
from skorch.callbacks import Callback
from torch import Tensor

from sktl._training._skorch_net import TransferNet


class Checkpoint(NamedTuple):
    """State of a training that determines all later epochs.

    Attributes
    ----------
    epoch : int
        Number of epochs trained before the checkpoint.
    weights : dict of str to Tensor
        State of the network, including the statistics of batch normalization layers.
    loss : dict of str to Tensor
        State of the loss, which may have parameters.
    moments : dict
        State of the optimizer for each parameter, keyed by its index in the groups.
    history : skorch.history.History
        History of the epochs before the checkpoint.
    order : Tensor
        State of the generator that shuffles the rows.
    noise : tuple of Tensor
        States of the generators used by dropout: on the CPU and, if the net is on a
        GPU, on that GPU.
    """

    epoch: int
    weights: dict[str, Tensor]
    loss: dict[str, Tensor]
    moments: dict[int, Any]
    history: Any
    order: Tensor
    noise: tuple[Tensor, ...]

    def restore(self, net: TransferNet, generator: torch.Generator) -> None:
        """Restore everything except the weights, inside ``Randomness.drawn_from``."""
        net.history = copy.deepcopy(self.history)
        # A copy, because torch does not copy the tensors and training updates them.
        net.optimizer_.load_state_dict({**net.optimizer_.state_dict(), "state": copy.deepcopy(self.moments)})
        generator.set_state(self.order)
        for kept, used in zip(self.noise, _noise(net), strict=True):
            used.set_state(kept)

    def rewind(self, net: TransferNet) -> None:
        """Restore the weights."""
        net.module_.load_state_dict(self.weights)
        net.criterion_.load_state_dict(self.loss)


class Remember(Callback):
    """Make a checkpoint after an epoch.

    Parameters
    ----------
    epoch : int
        Number of epochs to train before the checkpoint; 0 is the start.

    Attributes
    ----------
    checkpoint_ : Checkpoint
        The checkpoint. Only defined once the epoch has been reached.
    """

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_begin(self, net, **kwargs):
        """Make the checkpoint of the start if it is requested."""
        self._n_before = len(net.history)
        self._remember(net, 0)

    def on_epoch_end(self, net, **kwargs):
        """Make the checkpoint of this epoch if it is requested."""
        self._remember(net, len(net.history) - self._n_before)

    def _remember(self, net: TransferNet, n_epochs: int) -> None:
        if n_epochs == self.epoch:
            self.checkpoint_ = Checkpoint(
                n_epochs,
                copy.deepcopy(net.module_.state_dict()),
                copy.deepcopy(net.criterion_.state_dict()),
                copy.deepcopy(net.optimizer_.state_dict()["state"]),
                copy.deepcopy(net.history),
                net.row_generator.get_state(),
                tuple(generator.get_state() for generator in _noise(net)),
            )


def _noise(net: TransferNet) -> list[torch.Generator]:
    """Return the generators used by dropout."""
    device = torch.device(net.device)
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
