"""Layers whose zeros stay zeros, whoever trains them next."""

from collections.abc import Iterator

import torch
from skorch.callbacks import Callback
from torch import nn

# On the layer itself: so it goes wherever the layer goes, into copies, pickles and other estimators' networks. It is no
# setting of the function that the layer computes, and so no part of its fingerprint.
_MARK = "_keeps_zeros"


def keep_zeros(layer: nn.Module) -> None:
    """Mark a layer: the zeros in its weight are to stay, through all training."""
    setattr(layer, _MARK, True)


def keeps_zeros(layer: nn.Module) -> bool:
    """Whether the zeros in a layer's weight stay."""
    return getattr(layer, _MARK, False)


def sparse_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of the layers that keep their zeros."""
    return (layer.get_parameter("weight") for layer in network.modules() if keeps_zeros(layer))


class KeepZeros(Callback):
    """Put the zeros back after each step, whatever momentum and weight decay have made of them."""

    def on_train_begin(self, net, **kwargs):
        """Note where they are."""
        self._zeros = [(weight, weight == 0) for weight in sparse_weights(net.module_)]

    @torch.no_grad()
    def on_batch_end(self, net, training=False, **kwargs):
        """Put them back."""
        if training:
            for weight, zeros in self._zeros:
                weight.masked_fill_(zeros, 0.0)

    def on_train_end(self, net, **kwargs):
        """Forget where they were."""
        self._zeros = []
