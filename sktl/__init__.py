"""Transfer learning for images as scikit-learn estimators."""

import importlib
import typing

from sktl import _moved
from sktl._version import __version__

if typing.TYPE_CHECKING:
    from sktl._stores import clear_caches
    from sktl.distillation import DistilledClassifier, DistilledRegressor
    from sktl.feature_extraction import PretrainedFeatureExtractor
    from sktl.finetuning import FineTunedClassifier, FineTunedRegressor

__all__ = [
    "DistilledClassifier",
    "DistilledRegressor",
    "FineTunedClassifier",
    "FineTunedRegressor",
    "PretrainedFeatureExtractor",
    "__version__",
    "clear_caches",
]

# Modules are imported on first use: feature extraction does not load training code.
_ROOMS = {
    "DistilledClassifier": "distillation",
    "DistilledRegressor": "distillation",
    "FineTunedClassifier": "finetuning",
    "FineTunedRegressor": "finetuning",
    "PretrainedFeatureExtractor": "feature_extraction",
    "clear_caches": "_stores",
}


_moved.register()  # here, because unpickling anything of sktl imports this module first


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
