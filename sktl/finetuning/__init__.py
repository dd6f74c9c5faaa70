"""Fine-tuning: adapt a pretrained network to your pictures, with as many of its stages frozen as you like."""

from sktl.finetuning._classifier import FineTunedClassifier
from sktl.finetuning._lr_range import LRRangeTest, lr_range_test
from sktl.finetuning._regressor import FineTunedRegressor

__all__ = ["FineTunedClassifier", "FineTunedRegressor", "LRRangeTest", "lr_range_test"]
