"""Table of the trainable parameters and their learning rates."""

from sktl._table import ReadableTable, alike
from sktl._training._skorch_net import TransferNet
from sktl.backbones import Backbone


class TrainableSummary(ReadableTable):
    """Table of the stages and the head of a fine-tuned network.

    It is returned by ``trainable_summary()`` of an estimator and has one row per stage
    and one for the head: the number of parameters, whether they are trainable, and
    their learning rate.

    Parameters
    ----------
    backbone : Backbone
        The network.
    net : skorch.NeuralNet
        The net that trained the network.
    """

    def __init__(self, backbone: Backbone, net: TransferNet) -> None:
        head = list(net.module_.head.parameters())
        rates = {group["stage"]: group["base_lr"] for group in net.learning_groups()}
        layers = [*(stage.name for stage in backbone.stages), "head"]
        parameters = [*(stage.n_parameters for stage in backbone.stages), sum(p.numel() for p in head)]
        trainable = [layer in rates for layer in layers]
        learning_rates = [rates.get(layer, 0.0) for layer in layers]
        n_trainable = sum(n for n, is_trainable in zip(parameters, trainable, strict=True) if is_trainable)
        super().__init__(
            f"{backbone.name}: {n_trainable:,} of {sum(parameters):,} parameters are trainable",
            {
                "layer": layers,
                "parameters": parameters,
                "trainable": trainable,
                "learning_rate": learning_rates,
            },
            ["layer", "parameters", "trainable", "learning rate"],
            [str, "{:,}".format, lambda is_trainable: "yes" if is_trainable else "frozen", alike(learning_rates, 3)],
            names=["layer"],
        )
