"""Sparse layers, whose zero weights stay zero in all later training."""

from collections.abc import Sequence

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

# The mark is an attribute of the layer, so copies, pickles and other estimators keep
# it. It does not change what the layer computes and is not part of its fingerprint.
_MARK = "_keeps_zeros"


def keep_zeros(layer: nn.Module) -> None:
    """Mark a layer so that the zeros in its weight stay zero in all training."""
    setattr(layer, _MARK, True)


def keeps_zeros(layer: nn.Module) -> bool:
    """Check whether a layer is marked by `keep_zeros`."""
    return getattr(layer, _MARK, False)


def find_zeros(network: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the weights of the marked layers, each with a mask of its zeros."""
    weights = [layer.get_parameter("weight") for layer in network.modules() if keeps_zeros(layer)]
    return [(weight, weight == 0) for weight in weights]


@torch.no_grad()
def restore_zeros(zeros: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Set the weights found by `find_zeros` back to zero."""
    for weight, is_zero in zeros:
        weight.masked_fill_(is_zero, 0.0)


class KeepZeros(Callback):
    """Reset zero weights after each step, since momentum may change them."""

    def on_train_begin(self, net, **kwargs):
        """Find the zeros."""
        self._zeros = find_zeros(net.module_)

    def on_batch_end(self, net, training=False, **kwargs):
        """Restore the zeros."""
        if training:
            restore_zeros(self._zeros)

    def on_train_end(self, net, **kwargs):
        """Release the masks."""
        self._zeros = []
