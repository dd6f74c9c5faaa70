"""Trainer: builds a net, initializes its head and trains it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sktl._device import resolve_device
from sktl._frozen._prefix_network import pooled_shape
from sktl._training._callbacks import GradualUnfreezing, KeepBest
from sktl._training._checkpoint import Checkpoint
from sktl._training._data import TrainingData
from sktl._training._loop import train
from sktl._training._objective import Objective
from sktl._training._rest_network import RestNetwork, adopt_statistics_quickly
from sktl._training._settings import TrainingSettings
from sktl._training._skorch_net import TransferNet
from sktl._warnings import warn
from sktl.backbones import Backbone
from sktl.exceptions import InputError, TrainingWarning


@dataclass(frozen=True)
class Trainer:
    """Trains the rest of a network for an objective, independent of any estimator.

    Parameters
    ----------
    objective : Objective
        The objective.
    settings : TrainingSettings, default=TrainingSettings()
        Hyperparameters of the training.
    pooling : str, default="avg"
        Pooling of the output of the last stage before the head.
    """

    objective: Objective
    settings: TrainingSettings = TrainingSettings()  # noqa: RUF009, it is frozen
    pooling: str = "avg"

    def but(self, **settings: Any) -> "Trainer":
        """Return the same trainer with some settings replaced."""
        return replace(self, settings=self.settings.but(**settings))

    def build(
        self, backbone: "Backbone | None", data: TrainingData, previous: "TransferNet | None" = None
    ) -> TransferNet:
        """Return a net with an initialized head, or with that of a previous net.

        A previous net also passes on its history. ``backbone`` is None for learners
        that take numbers instead of images.
        """
        n_features = 0
        if backbone is not None:
            last = backbone.stages[-1]
            (n_features,) = pooled_shape(last.output_shape, self.pooling, last.channel_axis)
        earlier = None if previous is None else previous.module_.head
        head = self.objective.head(n_features, self.settings, data.seed, earlier)
        network = self.objective.network(
            backbone, data.depth, head, pooling=self.pooling, freeze_bn=self.settings.keeps_statistics
        )
        if not self.settings.is_pretrained:
            adopt_statistics_quickly(network)
        net = self._net(network, backbone)
        if previous is not None:
            net.history = previous.history
        elif self.settings.head_init == "probe":
            self.objective.start(net, data)
        return net

    def train(
        self,
        net: TransferNet,
        data: TrainingData,
        *,
        callbacks: Sequence[tuple[str, Any]] = (),
        watchers: Sequence[tuple[str, Any]] = (),
        start: "Checkpoint | None" = None,
        is_step: bool = False,
    ) -> None:
        """Train the net, starting from its current weights.

        Parameters
        ----------
        net : TransferNet
            A net made by `build`.
        data : TrainingData
            Training and validation rows.
        callbacks : sequence of (str, skorch callback), default=()
            Further callbacks of this training.
        watchers : sequence of (str, skorch callback), default=()
            Callbacks that run before those of the user, which see what they record.
        start : Checkpoint or None, default=None
            Checkpoint of an earlier training with the same data to resume, see
            `sktl._training._loop.train`.
        is_step : bool, default=False
            Whether this is one of many calls of a single epoch, with constant rates and
            without evaluation.

        Raises
        ------
        DivergenceError
            If the loss, the weights or the outputs become NaN or infinite. The net has
            its last good weights.
        KeyboardInterrupt
            If training was interrupted with Ctrl-C. The net has the weights of the last
            complete epoch, or the best ones.
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
                watchers=watchers,
                is_step=is_step,
            )
            keeps_moments = is_step  # the next step continues with them
        finally:
            # A divergence or Ctrl-C restored good weights, which old moments do not fit.
            net.forget_training(keeps_moments=keeps_moments)

    def _net(self, network: RestNetwork, backbone: "Backbone | None") -> TransferNet:
        """Return a skorch net. ``net_params`` take precedence over the settings."""
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
            raise InputError(f"net_params={net_params!r} is not accepted by skorch.NeuralNet: {error}") from error

    def _unfreezing(self, net: TransferNet, depth: int, is_step: bool) -> "GradualUnfreezing | None":
        """Return the callback for gradual unfreezing; warn if epochs are too few."""
        every, n_epochs = self.settings.unfreeze_every, self.settings.max_epochs
        if every is None:
            return None
        n_stages = net.module_.n_stages
        n_learning = n_stages - depth
        if not is_step and n_learning * every >= n_epochs > 0:
            warn(
                f"With unfreeze_every={every}, it takes {n_learning * every} epochs to unfreeze all {n_learning} "
                f"stages that freeze_depth={self.settings.freeze_depth!r} leaves trainable, but training ends after "
                f"max_epochs={n_epochs}. Increase max_epochs, use a smaller unfreeze_every, or freeze more stages.",
                TrainingWarning,
            )
        return GradualUnfreezing(n_stages, depth, every, n_before=0 if is_step else len(net.history))


def trained_backbone(backbone: Backbone, net: TransferNet, depth: int) -> Backbone:
    """Return the backbone with the trained weights."""
    return backbone.with_weights(net.module_.stages.state_dict()) if depth < len(backbone.stages) else backbone
