"""Interface of a fitted network that estimators use, independent of its engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import fx, nn

from sktl.backbones import Backbone

# Parameters, nonzero parameters, and multiply-accumulates per image.
Counts = tuple[int, int, int]


class Net(ABC):
    """Part of a fitted network after its frozen stages.

    Attributes
    ----------
    device : str
        Device that runs the network.
    is_trainable : bool
        Whether the network can be trained further, inspected layer by layer and
        differentiated.
    """

    device: str
    is_trainable: bool

    @property
    def note(self) -> str:
        """Remark about the measured time, if any."""
        return ""

    @abstractmethod
    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Return outputs (n, n_outputs) in float32 for outputs of the frozen stages.

        The result of a row does not depend on the other rows.
        """

    @abstractmethod
    def run_fused(self, batch_size: int) -> None:
        """Switch to the fastest way of predicting, with batches of this size."""

    @abstractmethod
    def count(self, backbone: Backbone) -> Counts:
        """Count parameters and operations, including those of the frozen stages."""

    @abstractmethod
    def content(self) -> Any:
        """Return a value that is equal, in any process, for equal predictions."""

    @abstractmethod
    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """Return the backbone without this net's tensors, to pickle both together."""

    @abstractmethod
    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """Undo `hollow_backbone`."""

    @abstractmethod
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return all tensors of the net by name, with shared ones listed once."""

    @abstractmethod
    def hollow(self) -> Self:
        """Return the net without its `tensors`, to pickle it separately from them."""

    @abstractmethod
    def fill(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the tensors back into a hollow net."""


def count_parts(stages: fx.GraphModule, head: nn.Module) -> Counts:
    """Count the parameters and operations of the stages of a network and its head."""
    parameters = {*stages.parameters(), *head.parameters()}
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        # Counted node by node, because branches share the nodes before them.
        sum(node.meta.get("macs", 0) for node in stages.graph.nodes)
        + sum(layer.in_features * layer.out_features for layer in linear),
    )
