"""Objectives of training without labels: agreement of two views, and rotations."""

import copy
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sktl._frozen._activations import Activations, Positions
from sktl._part import without_tracing
from sktl._training._data import TrainingData
from sktl._training._losses import WeightedLoss
from sktl._training._objective import Objective
from sktl._training._rest_network import RestNetwork, linear_layer
from sktl._training._settings import TrainingSettings
from sktl._training._skorch_net import TransferNet
from sktl.backbones import Backbone
from sktl.exceptions import InputError
from sktl.self_supervised._losses import nt_xent_loss, vicreg_loss

ViewLoss = Callable[[Tensor, Tensor], Tensor]

TWO_VIEWS: dict[str, ViewLoss] = {"vicreg": vicreg_loss, "simclr": nt_xent_loss}
N_ROTATIONS = 4


class ViewsOfImages:
    """Activations whose rows are images, each with several views.

    Parameters
    ----------
    activations : Activations
        Activations whose batches have the first view of all images, then the second
        one, and so on.
    n_views : int
        Number of views of each image.
    """

    def __init__(self, activations: Activations, n_views: int):
        self._activations = activations
        self._n_views = n_views

    def __len__(self) -> int:
        return len(self._activations)

    def batch(self, positions: Positions, epoch: int) -> Tensor:
        """Return the views of some images in an epoch, shape (n, n_views, ...)."""
        views = self._activations.batch(positions, epoch)
        return views.unflatten(0, (self._n_views, len(positions))).transpose(0, 1)


class ViewNetwork(RestNetwork):
    """Network that maps several views of each image to the outputs of the head.

    All views of a batch go through the network together, so that batch normalization
    uses the statistics of all of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map views (n, n_views, ...) to outputs (n, n_views, n_outputs)."""
        outputs = super().forward(x.transpose(0, 1).flatten(0, 1))
        return outputs.unflatten(0, (x.shape[1], len(x))).transpose(0, 1)


class ViewObjective(Objective):
    """Base class of objectives that compare the views of images."""

    n_views = 2  # of each image in a batch

    def network(
        self, backbone: "Backbone | None", depth: int, head: nn.Module, *, pooling: str, freeze_bn: bool
    ) -> RestNetwork:
        """Return a network for several views of each image."""
        return ViewNetwork(backbone, depth, head, pooling=pooling, freeze_bn=freeze_bn)

    def start(self, net: TransferNet, data: TrainingData) -> None:
        """Leave the head random, since it cannot be fitted to targets."""


class TwoViewObjective(ViewObjective):
    """Agreement of the projections of two views.

    Parameters
    ----------
    loss : callable
        Function of two tensors (n, d) that returns a scalar.
    projector : tuple of int or nn.Module
        Widths of the layers of the projector, or the projector.
    """

    def __init__(self, loss: ViewLoss, projector: "Sequence[int] | nn.Module"):
        super().__init__(0 if isinstance(projector, nn.Module) else projector[-1])
        self._loss = loss
        self._projector = projector

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Return the loss of two views."""
        return TwoViewLoss(self._loss)

    def head(
        self, n_features: int, settings: TrainingSettings, seed: int, previous: "nn.Module | None" = None
    ) -> nn.Module:
        """Return a new projector, or a copy of the previous one."""
        if previous is not None and not isinstance(previous, _RotationHead):
            return without_tracing(copy.deepcopy(previous)).cpu()
        if isinstance(self._projector, nn.Module):
            projector = without_tracing(copy.deepcopy(self._projector)).cpu()
            _check_projector(projector, n_features)
            return projector
        return _projector(n_features, self._projector, seed)


class RotationObjective(ViewObjective):
    """Recognition of the rotation of an image, with one logit per quarter turn."""

    n_views = N_ROTATIONS

    def __init__(self) -> None:
        super().__init__(N_ROTATIONS)

    def loss(self, backbone: Backbone) -> WeightedLoss:
        """Return the cross-entropy of the four rotations."""
        return RotationLoss()

    def head(
        self, n_features: int, settings: TrainingSettings, seed: int, previous: "nn.Module | None" = None
    ) -> nn.Module:
        """Return a linear layer, or a copy of the previous one."""
        if isinstance(previous, _RotationHead):
            return copy.deepcopy(previous).cpu()
        return _RotationHead(linear_layer(n_features, N_ROTATIONS, torch.Generator().manual_seed(seed)))


class TwoViewLoss(WeightedLoss):
    """Loss of two views, for a whole batch.

    Parameters
    ----------
    loss : callable
        Function of two tensors (n, d) that returns a scalar.
    """

    def __init__(self, loss: ViewLoss):
        super().__init__()
        self._loss = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss

    def forward(self, outputs: Tensor, y: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch of outputs (n, 2, d). Weights are not used."""
        loss = self._loss(*outputs.unbind(1))
        if not isinstance(loss, Tensor) or loss.ndim:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                "A callable 'task' must map two tensors of shape (n, n_features) to a tensor with a single number, the "
                f"loss of the batch. Got {what} instead. Return the mean over the rows."
            )
        return loss

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the batch for each row, since rows are compared."""
        return self(outputs, y, {}).expand(len(outputs))


class RotationLoss(WeightedLoss):
    """Cross-entropy of the rotations of each image.

    References
    ----------
    Gidaris et al., "Unsupervised Representation Learning by Predicting Image
    Rotations", ICLR 2018, equation 3.
    """

    def forward(self, outputs: Tensor, y: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch. Weights are not used."""
        return self.per_row(outputs, y).mean()

    def per_row(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of the rotations of each image, (n, 4, 4) to (n,)."""
        turns = torch.arange(N_ROTATIONS, device=outputs.device).expand(len(outputs), -1)
        return functional.cross_entropy(outputs.transpose(1, 2), turns, reduction="none").mean(1)


class _RotationHead(nn.Sequential):
    """Linear layer for the rotations, which differs from a projector by its class."""


def is_projector(value: Any) -> bool:
    """Check for a module, or a sequence of at least one positive width."""
    if isinstance(value, nn.Module):
        return True
    is_sequence = isinstance(value, list | tuple) and len(value) > 0
    return is_sequence and all(isinstance(width, Integral) and int(width) > 0 for width in value)


def _projector(n_features: int, widths: Sequence[int], seed: int) -> nn.Sequential:
    """Return linear layers with batch normalization and ReLU between them."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in zip([n_features, *widths], widths, strict=False):
        layers += [linear_layer(int(n_in), int(n_out), generator), nn.BatchNorm1d(int(n_out)), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def _check_projector(projector: nn.Module, n_features: int) -> None:
    """Raise an error if a module does not map features to vectors."""
    modes = {module: module.training for module in projector.modules()}
    what: Any
    try:
        with torch.no_grad():
            outputs = projector.eval()(torch.zeros(2, n_features))
        what = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    except Exception as error:
        raise InputError(
            f"projector={type(projector).__name__} fails on features of shape (n, {n_features}): {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 2:
        raise InputError(
            f"projector={type(projector).__name__} must map features of shape (2, {n_features}) to outputs of shape "
            f"(2, n_outputs). Got {what} instead."
        )
