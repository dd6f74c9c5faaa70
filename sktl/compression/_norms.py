"""Batch norms of a network that was made smaller: what they see has other means and variances than before."""

import torch
from torch import nn

from sktl._engine._net import TransferNet
from sktl._engine._rows import Rows


@torch.no_grad()
def recalibrate(net: TransferNet, rows: Rows) -> None:
    """Measure the statistics of the batch norms that learn anew, with one pass over the rows.

    Parameters
    ----------
    net : TransferNet
        With the smaller network.
    rows : Rows
        What it will be trained on. Where they come one by one, the statistics stay.

    References
    ----------
    Li, Wu, Su, Wang: "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", ECCV 2020, section 3.3
    (adaptive batch normalization).
    """
    norms = [x for x in net.module_._learning if isinstance(x, nn.modules.batchnorm._BatchNorm) and x.momentum]
    if not norms or len(next(iter(net.get_iterator(rows, training=False)))[1]) < 2:
        return
    net.module_.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for x, _ in net.get_iterator(rows, training=False):
        if len(x["x"]) > 1:  # a row alone has no variance
            net.infer(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.module_.eval()
