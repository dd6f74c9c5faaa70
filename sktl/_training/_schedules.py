"""Learning rates: parameter groups by stage, and schedules over the steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sktl._training._rest_network import RestNetwork, norm_parameters

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}

# Factor of the learning rate after a fraction (0 to 1) of all steps.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * min(share, 1.0))),
    "linear": lambda share: max(0.0, 1.0 - share),
}


def parameter_groups(network: RestNetwork, *, lr: float, lr_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters as groups for a torch optimizer, head first.

    The head is trained with ``lr``, the last stage with ``lr * lr_decay``, the one
    before it with ``lr * lr_decay ** 2``, and so on. Weight decay applies to matrices
    and kernels only, not to normalization layers, biases, scales, class tokens and
    position embeddings.

    Parameters
    ----------
    network : RestNetwork
        The network. Frozen parameters are left out, because momentum and weight decay
        would change them.
    lr : float
        Learning rate of the head.
    lr_decay : float
        Factor from each stage to the one before it.
    weight_decay : float
        Weight decay of convolutions, linear and attention layers.

    Returns
    -------
    list of dict
        Groups with the keys ``"params"``, ``"lr"``, ``"base_lr"``, ``"weight_decay"``
        and ``"stage"``.
    """
    norms = norm_parameters(network)
    groups = []
    for distance, (stage, named) in enumerate(reversed(list(network.parameters_by_stage()))):
        learning = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        plain = [parameter for name, parameter in learning if _is_plain(name, parameter, norms)]
        decayed = [parameter for name, parameter in learning if not _is_plain(name, parameter, norms)]
        rate = lr * lr_decay**distance
        common = {"lr": rate, "base_lr": rate, "stage": stage}
        groups += [
            {"params": parameters, "weight_decay": decay, **common}
            for parameters, decay in ((decayed, weight_decay), (plain, 0.0))
            if parameters
        ]
    return groups


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of each group to its base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _is_plain(name: str, parameter: nn.Parameter, norms: set[nn.Parameter]) -> bool:
    """Check whether a parameter is exempt from weight decay."""
    # The tracer inlines normalization layers of timm and torchvision, so their scales
    # are vectors named "weight".
    return parameter in norms or parameter.ndim < 2 or not name.endswith("weight")
