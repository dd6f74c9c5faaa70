"""Recalibration of batch normalization layers after compression."""

from typing import Any

import torch
from torch import nn

from sktl._training._dataset import RowDataset
from sktl._training._skorch_net import TransferNet

_AT_ONCE = 32  # rows per batch if training uses batches of one


@torch.no_grad()
def recalibrate_batch_norms(net: TransferNet, rows: RowDataset) -> None:
    """Recompute the running statistics of trained batch normalization layers.

    Takes one pass over the rows. The statistics are not changed if there is only one
    row.

    Parameters
    ----------
    net : TransferNet
        The net with the compressed network.
    rows : RowDataset
        The training rows.

    References
    ----------
    Li, Wu, Su, Wang: "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network
    Pruning", ECCV 2020, section 3.3 (adaptive batch normalization).
    """
    kind = nn.modules.batchnorm._BatchNorm
    norms: list[Any] = [x for x in net.module_.learning if isinstance(x, kind) and x.running_var is not None]
    if not norms or len(rows) < 2:
        return
    net.module_.eval()
    before = [(norm, norm.momentum, norm.running_var.clone()) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        for block in torch.arange(len(rows)).split(net.batch_size if net.batch_size > 1 else _AT_ONCE):
            if len(block) > 1:  # a single row has no variance
                net.module_(rows.activations.batch(block.tolist(), rows.epoch).to(net.device))
    finally:
        for norm, momentum, variance in before:
            norm.momentum = momentum
            # A channel that is constant on these rows would be scaled up on others.
            norm.running_var.copy_(torch.where(norm.running_var < norm.eps, variance, norm.running_var))
        net.module_.eval()
