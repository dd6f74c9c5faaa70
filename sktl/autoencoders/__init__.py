"""Autoencoders: few numbers for each row or image, and what cannot be reconstructed."""

from sktl.autoencoders._autoencoder import Autoencoder

__all__ = ["Autoencoder"]
