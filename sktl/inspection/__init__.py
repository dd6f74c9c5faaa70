"""Visualization of what networks learn and of the errors they make.

The displays follow scikit-learn's and need matplotlib (``pip install "sktl[plot]"``).
"""

from sktl.inspection._anomaly_map_display import AnomalyMapDisplay
from sktl.inspection._compression_display import CompressionDisplay
from sktl.inspection._distillation_display import DistillationDisplay
from sktl.inspection._embedding_display import EmbeddingDisplay
from sktl.inspection._freeze_depth_display import FreezeDepthDisplay
from sktl.inspection._gradcam_display import GradCAMDisplay
from sktl.inspection._layer_probe_display import LayerProbeDisplay
from sktl.inspection._lottery_ticket_display import LotteryTicketDisplay
from sktl.inspection._lr_range_display import LRRangeDisplay
from sktl.inspection._misclassified_display import MisclassifiedDisplay
from sktl.inspection._reconstruction_display import ReconstructionDisplay
from sktl.inspection._saliency_maps import grad_cam
from sktl.inspection._training_curve_display import TrainingCurveDisplay
from sktl.inspection._transferability_display import TransferabilityDisplay

__all__ = [
    "AnomalyMapDisplay",
    "CompressionDisplay",
    "DistillationDisplay",
    "EmbeddingDisplay",
    "FreezeDepthDisplay",
    "GradCAMDisplay",
    "LRRangeDisplay",
    "LayerProbeDisplay",
    "LotteryTicketDisplay",
    "MisclassifiedDisplay",
    "ReconstructionDisplay",
    "TrainingCurveDisplay",
    "TransferabilityDisplay",
    "grad_cam",
]
