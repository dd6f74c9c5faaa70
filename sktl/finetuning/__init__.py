"""Fine-tuning of pretrained networks."""

from sktl.finetuning._classifier import FineTunedClassifier
from sktl.finetuning._lr_range import LRRangeTest, lr_range_test
from sktl.finetuning._regressor import FineTunedRegressor

__all__ = ["FineTunedClassifier", "FineTunedRegressor", "LRRangeTest", "lr_range_test"]
