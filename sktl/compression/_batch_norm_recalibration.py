"""Batch norms of a network that was made smaller: what they see has other means and variances than before."""

from typing import Any

import torch
from torch import nn

from sktl._training._dataset import RowDataset
from sktl._training._skorch_net import TransferNet

_AT_ONCE = 32  # rows, where training takes one by one


@torch.no_grad()
def recalibrate_batch_norms(net: TransferNet, rows: RowDataset) -> None:
    """Measure the statistics of the batch norms that learn anew, with one pass over the rows.

    Parameters
    ----------
    net : TransferNet
        With the smaller network.
    rows : RowDataset
        What it will be trained on. Where there is but one, the statistics stay.

    References
    ----------
    Li, Wu, Su, Wang: "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", ECCV 2020, section 3.3
    (adaptive batch normalization).
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
            if len(block) > 1:  # a row alone has no variance
                net.module_(rows.activations.batch(block.tolist(), rows.epoch).to(net.device))
    finally:
        for norm, momentum, variance in before:
            norm.momentum = momentum
            # A channel that is the same everywhere here would be blown up wherever it is not.
            norm.running_var.copy_(torch.where(norm.running_var < norm.eps, variance, norm.running_var))
        net.module_.eval()
