"""Smaller and faster networks: pruning, quantization, low rank and lottery tickets."""

from sktl._estimators._footprint import Footprint, footprint
from sktl.compression._lottery import LotteryTicketClassifier
from sktl.compression._low_rank import LowRankClassifier
from sktl.compression._pruned import PrunedClassifier
from sktl.compression._quantized import QuantizedClassifier

__all__ = [
    "Footprint",
    "LotteryTicketClassifier",
    "LowRankClassifier",
    "PrunedClassifier",
    "QuantizedClassifier",
    "footprint",
]
