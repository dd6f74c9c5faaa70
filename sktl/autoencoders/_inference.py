"""Codes, reconstructions and errors of a trained autoencoder, the same in any batch."""

import numpy as np
import torch

from sktl._training._skorch_net import TransferNet

_DECODED_TOGETHER = 64  # always this many, since rounding depends on the number of rows


def encoded(net: TransferNet, rows: np.ndarray) -> np.ndarray:
    """Return codes (n, n_components), float32, for what arrives at the cut."""
    return net.features(rows)


def decoded(net: TransferNet, codes: np.ndarray, *, is_limited: bool = False) -> np.ndarray:
    """Return reconstructions (n, ...), float64, for codes.

    With ``is_limited``, codes are first clipped to the range of usual codes.
    """
    network = net.module_.eval()
    n_rows = len(codes)
    codes = np.resize(codes.astype(np.float32), (n_rows + -n_rows % _DECODED_TOGETHER, codes.shape[1]))
    with torch.inference_mode():
        blocks = torch.from_numpy(codes).to(net.device).split(_DECODED_TOGETHER)
        blocks = [network.head.usual(block) for block in blocks] if is_limited else blocks
        values = torch.cat([network.reconstruction(block) for block in blocks])
    return values[:n_rows].cpu().numpy()


def scored(net: TransferNet, rows: np.ndarray) -> np.ndarray:
    """Return minus the mean squared error of each row, over its observed entries.

    Codes are clipped to the range of usual codes. A linear decoder extrapolates without
    limit: it would also reconstruct rows that are far from all training rows.
    """
    with torch.inference_mode():
        target = net.module_.cut(torch.from_numpy(rows)).numpy()
    difference = decoded(net, encoded(net, rows), is_limited=True) - target
    with np.errstate(over="ignore"):  # the score of entries beyond 1e154 is minus infinity
        return -np.nanmean(np.square(difference).reshape(len(rows), -1), axis=1)
