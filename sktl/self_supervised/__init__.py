"""Training of a network on images without labels."""

from sktl.self_supervised._extractor import SelfSupervisedExtractor
from sktl.self_supervised._losses import nt_xent_loss, vicreg_loss

__all__ = ["SelfSupervisedExtractor", "nt_xent_loss", "vicreg_loss"]
