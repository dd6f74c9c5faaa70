"""Detection of anomalous images with models of normal images."""

from sktl.anomaly._detector import AnomalyDetector

__all__ = ["AnomalyDetector"]
