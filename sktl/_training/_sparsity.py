"""Layers whose zeros stay zeros, whoever trains them next."""

from collections.abc import Sequence

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

# On the layer itself: so it goes wherever the layer goes, into copies, pickles and other estimators' networks. It is no
# setting of the function that the layer computes, and so no part of its fingerprint.
_MARK = "_keeps_zeros"


def keep_zeros(layer: nn.Module) -> None:
    """Mark a layer: the zeros in its weight are to stay, through all training."""
    setattr(layer, _MARK, True)


def keeps_zeros(layer: nn.Module) -> bool:
    """Whether the zeros in a layer's weight stay."""
    return getattr(layer, _MARK, False)


def find_zeros(network: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """The weights of the layers that keep their zeros, and where these are."""
    weights = [layer.get_parameter("weight") for layer in network.modules() if keeps_zeros(layer)]
    return [(weight, weight == 0) for weight in weights]


@torch.no_grad()
def restore_zeros(zeros: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Put the zeros back that `find_zeros` has found."""
    for weight, is_zero in zeros:
        weight.masked_fill_(is_zero, 0.0)


class KeepZeros(Callback):
    """Put the zeros back after each step, whatever momentum and weight decay have made of them."""

    def on_train_begin(self, net, **kwargs):
        """Note where they are."""
        self._zeros = find_zeros(net.module_)

    def on_batch_end(self, net, training=False, **kwargs):
        """Put them back."""
        if training:
            restore_zeros(self._zeros)

    def on_train_end(self, net, **kwargs):
        """Forget where they were."""
        self._zeros = []
