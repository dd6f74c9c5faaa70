"""A point in a training that another one can go on from as if it were the same."""

import copy
from typing import Any, NamedTuple

import torch
from skorch.callbacks import Callback
from torch import Tensor

from sktl._training._skorch_net import TransferNet


class Checkpoint(NamedTuple):
    """All that the rest of a training depends on.

    Attributes
    ----------
    epoch : int
        Epochs before it.
    weights : dict of str to Tensor
        The state of the network, statistics of batch norms included.
    loss : dict of str to Tensor
        The state of the loss, which may have parameters of its own.
    moments : dict
        The state of the optimizer for each parameter, by its place in the groups.
    history : skorch.history.History
        Of the epochs before it.
    order : Tensor
        The state of the generator of the rows' order.
    noise : tuple of Tensor
        The states of those that dropout draws from: the CPU's, and that of the GPU where the net is on one.
    """

    epoch: int
    weights: dict[str, Tensor]
    loss: dict[str, Tensor]
    moments: dict[int, Any]
    history: Any
    order: Tensor
    noise: tuple[Tensor, ...]

    def restore(self, net: TransferNet, generator: torch.Generator) -> None:
        """Bring all but the weights back; where its own numbers are drawn from."""
        net.history = copy.deepcopy(self.history)
        # A copy: torch takes the very tensors that it is given, and training goes on in them.
        net.optimizer_.load_state_dict({**net.optimizer_.state_dict(), "state": copy.deepcopy(self.moments)})
        generator.set_state(self.order)
        for kept, used in zip(self.noise, _noise(net), strict=True):
            used.set_state(kept)

    def rewind(self, net: TransferNet) -> None:
        """Bring the weights back."""
        net.module_.load_state_dict(self.weights)
        net.criterion_.load_state_dict(self.loss)


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
                copy.deepcopy(net.criterion_.state_dict()),
                copy.deepcopy(net.optimizer_.state_dict()["state"]),
                copy.deepcopy(net.history),
                net.row_generator.get_state(),
                tuple(generator.get_state() for generator in _noise(net)),
            )


def _noise(net: TransferNet) -> list[torch.Generator]:
    """The generators that dropout draws from."""
    device = torch.device(net.device)
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
