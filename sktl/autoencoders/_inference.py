"""Codes, reconstructions and errors of a trained autoencoder, the same in any batch."""

import numpy as np
import torch

from sktl._training._skorch_net import TransferNet

_DECODED_TOGETHER = 64  # always this many, since rounding depends on the number of rows


def encoded(net: TransferNet, rows: np.ndarray) -> np.ndarray:
    """Return codes (n, n_components), float32, for what arrives at the cut."""
    return net.features(rows)


def decoded(net: TransferNet, codes: np.ndarray) -> np.ndarray:
    """Return reconstructions (n, ...), float64, for codes."""
    network = net.module_.eval()
    n_rows = len(codes)
    codes = np.resize(codes.astype(np.float32), (n_rows + -n_rows % _DECODED_TOGETHER, codes.shape[1]))
    with torch.inference_mode():
        blocks = torch.from_numpy(codes).to(net.device).split(_DECODED_TOGETHER)
        values = torch.cat([network.reconstruction(block) for block in blocks])
    return values[:n_rows].cpu().numpy()


def scored(net: TransferNet, rows: np.ndarray) -> np.ndarray:
    """Return minus the mean squared error of each row, over its observed entries."""
    with torch.inference_mode():
        target = net.module_.cut(torch.from_numpy(rows)).numpy()
    difference = np.square(decoded(net, encoded(net, rows)) - target).reshape(len(rows), -1)
    return -np.nanmean(difference, axis=1)
