"""Autoencoders: few numbers for each row or image, and what cannot be reconstructed."""

from sktl.autoencoders._autoencoder import Autoencoder
from sktl.autoencoders._reconstruction_classifier import ReconstructionClassifier

__all__ = ["Autoencoder", "ReconstructionClassifier"]
