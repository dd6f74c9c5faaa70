"""Training objective of autoencoders: the network, its start and its loss."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from sktl._training._data import TrainingData
from sktl._training._head_probe import probe_rows
from sktl._training._losses import WeightedLoss
from sktl._training._objective import Objective
from sktl._training._rest_network import RestNetwork
from sktl._training._settings import TrainingSettings
from sktl._training._skorch_net import TransferNet
from sktl.autoencoders._network import AutoencoderNetwork, make_bottleneck
from sktl.autoencoders._start import start_from
from sktl.backbones import Backbone


class ReconstructionLoss(WeightedLoss):
    """Squared error of the reconstruction, with an L1 penalty on the code.

    Parameters
    ----------
    sparsity : float
        Factor of the mean absolute code, in units of the common scale.
    """

    def __init__(self, sparsity: float):
        super().__init__()
        self.sparsity = sparsity

    def per_row(self, outputs: Any, y: Tensor) -> Tensor:
        """Return the loss of each row from the errors (n, 1) and codes of a network.

        Without codes, as for the score, it has no penalty.
        """
        if not isinstance(outputs, tuple):
            return outputs[:, 0]
        errors, code = outputs
        return errors[:, 0] + self.sparsity * code.abs().mean(1)


@dataclass(frozen=True)
class Design:
    """Design of an autoencoder.

    Attributes
    ----------
    shape : tuple of int
        Shape of what is reconstructed.
    maps : sequence of tuple of int
        Shapes of the outputs of the trained stages.
    n_components : int
        Number of numbers in a code.
    hidden : sequence of int
        Widths of the hidden layers if no stage is trained.
    activation, init, noise, noise_level, sparsity
        Parameters of `Autoencoder`.
    """

    shape: tuple[int, ...]
    maps: Sequence[tuple[int, ...]]
    n_components: int
    hidden: Sequence[int]
    activation: str
    init: str
    noise: "str | None"
    noise_level: float
    sparsity: float

    @property
    def n_values(self) -> int:
        """Number of values of what is reconstructed."""
        return int(np.prod(self.shape))


class AutoencoderObjective(Objective):
    """Reconstruction of what arrives at the cut.

    Parameters
    ----------
    design : Design
        The design.
    """

    def __init__(self, design: Design):
        super().__init__(1)
        self.design = design

    def loss(self, backbone: Any) -> WeightedLoss:
        """Return the squared error of the reconstruction."""
        return ReconstructionLoss(self.design.sparsity)

    def head(
        self, n_features: int, settings: TrainingSettings, seed: int, previous: "nn.Module | None" = None
    ) -> nn.Module:
        """Return a bottleneck with random weights, or a copy of the previous one."""
        if previous is not None:
            return copy.deepcopy(previous).cpu()
        design = self.design
        return make_bottleneck(
            design.shape,
            design.n_components,
            hidden=design.hidden,
            maps=design.maps,
            n_features=n_features,
            activation=design.activation,
            seed=seed,
        )

    def network(
        self, backbone: "Backbone | None", depth: int, head: nn.Module, *, pooling: str, freeze_bn: bool
    ) -> RestNetwork:
        """Return the network that encodes and reconstructs."""
        design = self.design
        return AutoencoderNetwork(
            backbone,
            depth,
            head,
            noise=design.noise,
            noise_level=design.noise_level,
            pooling=pooling,
            freeze_bn=freeze_bn,
        )

    def start(self, net: TransferNet, data: TrainingData) -> None:
        """Set mean and scale from the training rows, and start as their PCA."""
        design, network = self.design, net.module_
        positions = probe_rows(len(data.rows), design.n_values, data.seed)
        batch = data.rows.activations.batch(positions, data.rows.epoch)
        rows = network.cut(batch).flatten(1).numpy()
        n_axes = design.n_components if design.init == "pca" else 0
        network.head.begin(start_from(rows, data.table.weight[positions], n_axes))
