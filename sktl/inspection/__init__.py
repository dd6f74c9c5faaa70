"""Pictures of what a network has learnt and of what it gets wrong, in the style of scikit-learn's displays.

They need matplotlib, the extra ``plot``.
"""

from sktl.inspection._compression import CompressionDisplay
from sktl.inspection._distillation import DistillationDisplay
from sktl.inspection._embedding import EmbeddingDisplay
from sktl.inspection._evidence_maps import grad_cam
from sktl.inspection._freeze_depth import FreezeDepthDisplay
from sktl.inspection._gradcam import GradCAMDisplay
from sktl.inspection._layer_probe import LayerProbeDisplay
from sktl.inspection._lottery import LotteryTicketDisplay
from sktl.inspection._lr_range import LRRangeDisplay
from sktl.inspection._misclassified import MisclassifiedDisplay
from sktl.inspection._training_curve import TrainingCurveDisplay
from sktl.inspection._transferability import TransferabilityDisplay

__all__ = [
    "CompressionDisplay",
    "DistillationDisplay",
    "EmbeddingDisplay",
    "FreezeDepthDisplay",
    "GradCAMDisplay",
    "LRRangeDisplay",
    "LayerProbeDisplay",
    "LotteryTicketDisplay",
    "MisclassifiedDisplay",
    "TrainingCurveDisplay",
    "TransferabilityDisplay",
    "grad_cam",
]
