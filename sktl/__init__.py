"""Transfer learning for images as scikit-learn estimators."""

from sktl.feature_extraction import PretrainedFeatureExtractor

__all__ = ["PretrainedFeatureExtractor", "__version__"]

__version__ = "0.1.0"
