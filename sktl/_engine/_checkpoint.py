"""A point in a training that another one can go on from as if it were the same."""

import copy
from typing import Any, NamedTuple

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

from sktl._engine._net import TransferNet


class Checkpoint(NamedTuple):
    """All that the rest of a training depends on.

    Attributes
    ----------
    epoch : int
        Epochs before it.
    weights : dict of str to Tensor
        The state of the network, statistics of batch norms included.
    moments : dict
        The state of the optimizer for each parameter, by its place in the groups.
    history : skorch.history.History
        Of the epochs before it.
    order, noise : Tensor
        The states of the generators of the rows' order, and of dropout.
    """

    epoch: int
    weights: dict[str, Tensor]
    moments: dict[int, Any]
    history: Any
    order: Tensor
    noise: Tensor

    def restore(self, net: TransferNet, generator: torch.Generator) -> None:
        """Bring all but the weights back; inside a forked global generator."""
        net.history = copy.deepcopy(self.history)
        net.optimizer_.load_state_dict({**net.optimizer_.state_dict(), "state": self.moments})
        generator.set_state(self.order)
        torch.default_generator.set_state(self.noise)

    def rewind(self, network: nn.Module) -> None:
        """Bring the weights back."""
        network.load_state_dict(self.weights)


class Remember(Callback):
    """Make a checkpoint.

    Parameters
    ----------
    epoch : int
        After how many epochs; 0 is the untouched start.

    Attributes
    ----------
    checkpoint_ : Checkpoint
        It is there once the training has come so far.
    """

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_begin(self, net, **kwargs):
        """The start."""
        self._n_before = len(net.history)
        self._remember(net, 0)

    def on_epoch_end(self, net, **kwargs):
        """The end of an epoch."""
        self._remember(net, len(net.history) - self._n_before)

    def _remember(self, net: TransferNet, n_epochs: int) -> None:
        if n_epochs == self.epoch:
            self.checkpoint_ = Checkpoint(
                n_epochs,
                copy.deepcopy(net.module_.state_dict()),
                copy.deepcopy(net.optimizer_.state_dict()["state"]),
                copy.deepcopy(net.history),
                net._generator.get_state(),
                torch.default_generator.get_state(),
            )
