"""The one trainer: it builds a net, starts its head, trains it, and hands over what was learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sktl._device import resolve_device
from sktl._frozen._prefix_network import pooled_shape
from sktl._training._callbacks import GradualUnfreezing, KeepBest
from sktl._training._checkpoint import Checkpoint
from sktl._training._data import TrainingData
from sktl._training._head_probe import Probe, probe_rows
from sktl._training._loop import train
from sktl._training._objective import Objective
from sktl._training._rest_network import RestNetwork, adopt_statistics_quickly, last_linear, make_head
from sktl._training._settings import TrainingSettings
from sktl._training._skorch_net import TransferNet
from sktl._warnings import warn
from sktl.backbones import Backbone
from sktl.exceptions import InputError, TrainingWarning


@dataclass(frozen=True)
class Trainer:
    """Trains the rest of a network for an objective, as the settings say; it knows no estimator.

    Parameters
    ----------
    objective : Objective
        What is learned.
    settings : TrainingSettings, default=TrainingSettings()
        How it is learned.
    pooling : str, default="avg"
        What becomes of the last stage's output on its way to the head.
    """

    objective: Objective
    settings: TrainingSettings = TrainingSettings()  # noqa: RUF009, it is frozen
    pooling: str = "avg"

    def but(self, **settings: Any) -> "Trainer":
        """The same training with these settings replaced."""
        return replace(self, settings=self.settings.but(**settings))

    def build(self, backbone: Backbone, data: TrainingData, previous: "TransferNet | None" = None) -> TransferNet:
        """A net with a new head, started as ``head_init`` says; with the head and the history of a previous net."""
        last = backbone.stages[-1]
        (n_features,) = pooled_shape(last.output_shape, self.pooling, last.channel_axis)
        head = make_head(
            self.settings.head if previous is None else previous.module_.head,
            n_features,
            self.objective.n_outputs,
            dropout=self.settings.dropout,
            generator_seed=data.seed,
        )
        network = RestNetwork(
            backbone,
            data.depth,
            head,
            pooling=self.pooling,
            freeze_bn=self.settings.keeps_statistics,
            taps=self.objective.taps(backbone),
        )
        if not self.settings.is_pretrained:
            adopt_statistics_quickly(network)
        net = self._net(network, backbone)
        if previous is not None:
            net.history = previous.history
        elif self.settings.head_init == "probe":
            self.start_head(net, data)
        return net

    def start_head(self, net: TransferNet, data: TrainingData) -> None:
        """Fit the head's last layer to what reaches it from the untouched network."""
        head = net.module_.head
        linear = last_linear(head)
        if linear is None:
            raise InputError(
                f"head_init='probe' starts the head's last linear layer, and {type(head).__name__} is no sequence that "
                "ends with one. Use head_init='random', or an nn.Sequential with an nn.Linear at its end."
            )
        positions = probe_rows(len(data.rows), linear.in_features, data.seed)
        features = net.linear_inputs(data.rows, positions.tolist(), linear)
        probe: Probe = self.objective.probe(features.astype(np.float64), data, positions)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(probe.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(probe.bias))

    def train(
        self,
        net: TransferNet,
        data: TrainingData,
        *,
        callbacks: Sequence[tuple[str, Any]] = (),
        start: "Checkpoint | None" = None,
        is_step: bool = False,
    ) -> None:
        """Train the net from its present weights on.

        Parameters
        ----------
        net : TransferNet
            As `build` makes it.
        data : TrainingData
            What it learns from and is evaluated on.
        callbacks : sequence of (str, skorch callback), default=()
            What else happens in this training.
        start : Checkpoint or None, default=None
            Where an earlier training with the same data was, which it goes on from; see `sktl._training._loop.train`.
        is_step : bool, default=False
            Whether it is one epoch of many calls, whose rates are constant and which is evaluated by nobody.

        Raises
        ------
        DivergenceError
            If the loss, the weights or the outputs are no finite numbers. The net has its last good weights.
        KeyboardInterrupt
            If Ctrl-C ended the training. The net has the weights of the last whole epoch, or the best ones.
        """
        settings = self.settings
        is_judged = data.valid is not None and settings.early_stopping
        keeps_moments = False
        try:
            train(
                net,
                data.rows,
                data.valid,
                epochs=1 if is_step else settings.max_epochs,
                seed=data.seed,
                schedule="constant" if is_step else settings.lr_schedule,
                unfreezing=self._unfreezing(net, data.depth, is_step),
                depth=data.depth,
                best=KeepBest(settings.n_iter_no_change) if is_judged else None,
                start=start,
                soft_targets=data.soft_targets,
                callbacks=callbacks,
                is_step=is_step,
            )
            keeps_moments = is_step  # the next step goes on with them; a fit is over
        finally:  # also after a divergence or Ctrl-C: there are the last good weights, and what led away is forgotten
            net.forget_training(keeps_moments=keeps_moments)

    def _net(self, network: RestNetwork, backbone: Backbone) -> TransferNet:
        """A skorch net, with what ``net_params`` adds to the settings or says otherwise."""
        settings = self.settings
        net_params = dict(settings.net_params or {})
        params = {
            "optimizer": settings.optimizer,
            "lr": settings.lr,
            "lr_decay": settings.lr_decay,
            "weight_decay": settings.weight_decay,
            "batch_size": settings.batch_size,
            "device": str(resolve_device(settings.device)),
            "verbose": settings.verbose,
            **({} if settings.verbose else {"callbacks__print_log": None}),
            **net_params,
            "callbacks": [*(settings.callbacks or []), *(net_params.get("callbacks") or [])],
        }
        try:
            return TransferNet(network, self.objective.loss(backbone), **params).initialize()
        except (TypeError, ValueError) as error:
            if not net_params:
                raise
            raise InputError(f"net_params={net_params!r} is not what skorch.NeuralNet takes: {error}") from error

    def _unfreezing(self, net: TransferNet, depth: int, is_step: bool) -> "GradualUnfreezing | None":
        """Gradual unfreezing, in the epochs of this training, or in all steps so far."""
        every, n_epochs = self.settings.unfreeze_every, self.settings.max_epochs
        if every is None:
            return None
        n_stages = net.module_.n_stages
        n_learning = n_stages - depth
        if not is_step and n_learning * every >= n_epochs > 0:
            warn(
                f"unfreeze_every={every} takes {n_learning * every} epochs until all {n_learning} stages learn that "
                f"freeze_depth={self.settings.freeze_depth!r} lets learn, and max_epochs={n_epochs} ends before. Use "
                "more epochs, a smaller unfreeze_every, or freeze more.",
                TrainingWarning,
            )
        return GradualUnfreezing(n_stages, depth, every, n_before=0 if is_step else len(net.history))


def trained_backbone(backbone: Backbone, net: TransferNet, depth: int) -> Backbone:
    """The network with what the net has learned, for whoever takes it as a backbone."""
    return backbone.with_weights(net.module_.stages.state_dict()) if depth < len(backbone.stages) else backbone
