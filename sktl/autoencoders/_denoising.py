"""Reconstruction of rows with noise."""

import numpy as np
import torch

from sktl._training._skorch_net import TransferNet
from sktl.autoencoders._inference import decoded, encoded


def denoised(net: TransferNet, rows: np.ndarray, noise: str, level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Add noise to rows as in training, and reconstruct them.

    Parameters
    ----------
    net : TransferNet
        Trained net of an autoencoder.
    rows : ndarray of shape (n, n_features), or (n, height, width, channels) of uint8
        Rows of numbers, or images as the network sees them.
    noise : str
        One of `sktl.autoencoders._noise.NOISES`.
    level : float
        Amount of noise.
    seed : int
        Seed of the noise.

    Returns
    -------
    noisy, reconstruction : ndarray of the shape of ``rows``
        Pixels of 0-1, or numbers in the unit of ``rows``. Noise may leave this range.
    """
    network = net.module_.eval()
    with torch.inference_mode():
        given = network.head.standardized(network.cut(torch.from_numpy(rows).to(net.device)))
        observed = ~torch.isnan(given)
        generator = torch.Generator(given.device).manual_seed(seed)
        values, _ = network.with_noise(torch.where(observed, given, 0.0), observed, noise, level, generator)
        noisy = network.head.restored(values).cpu().numpy()
    if rows.ndim == 2:
        return noisy, decoded(net, encoded(net, noisy))
    noisy = noisy.transpose(0, 2, 3, 1)  # the network takes pixels of 0-255
    return noisy, decoded(net, encoded(net, (255 * noisy).astype(np.float32))).transpose(0, 2, 3, 1)
