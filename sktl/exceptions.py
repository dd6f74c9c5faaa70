"""Errors and warnings of sktl.

::

    Exception
    └── SktlError
        ├── InputError (ValueError)               invalid parameter or input
        ├── ImageError (ValueError)               unreadable image, or not an image
        ├── BackboneError (ValueError)            unknown backbone, layer or stage
        ├── WeightsError
        │   ├── WeightsDownloadError (OSError)    failed download of published weights
        │   └── WeightsMismatchError (ValueError) weights of another network
        ├── CompressionError (ValueError)         network that cannot be compressed
        ├── EngineError (RuntimeError)            network that the engine cannot run
        ├── DivergenceError (ArithmeticError)     NaN or infinite values in training
        └── MissingDependencyError (ImportError)  optional package not installed
    UserWarning
    └── SktlWarning
        ├── ImageWarning                          images read under an assumption
        ├── CacheWarning                          cache that cannot be read or written
        ├── TrainingWarning                       training differs from its parameters
        └── TransferWarning                       features no better than raw pixels

Messages are limited to about 600 characters. Longer messages are shortened in the
middle, so that they still begin with the problem and end with the solution.

Standard errors are raised as usual: TypeError for an object of an unsupported type,
FileNotFoundError, scikit-learn's NotFittedError, and scikit-learn's ValueError for
parameters with invalid values.
"""

from typing import Any

from sktl._messages import shortened_args

__all__ = [
    "BackboneError",
    "CacheWarning",
    "CompressionError",
    "DivergenceError",
    "EngineError",
    "ImageError",
    "ImageWarning",
    "InputError",
    "MissingDependencyError",
    "SktlError",
    "SktlWarning",
    "TrainingWarning",
    "TransferWarning",
    "WeightsDownloadError",
    "WeightsError",
    "WeightsMismatchError",
]


class SktlError(Exception):
    """Base class of all errors of sktl."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*shortened_args(args), **kwargs)


class InputError(SktlError, ValueError):
    """Error raised if a parameter or an input is invalid.

    The message names the parameter, the invalid value and the valid values.
    """


class ImageError(SktlError, ValueError):
    """Error raised if an image cannot be read, or if an input does not contain images.

    The message gives the position of the image in ``X``, its path if it has one, and
    the reason.
    """


class BackboneError(SktlError, ValueError):
    """Error raised if a backbone, layer or stage is unknown or not supported."""


class WeightsError(SktlError):
    """Base class of the errors about pretrained weights."""


class WeightsDownloadError(WeightsError, OSError):
    """Error raised if published weights cannot be downloaded.

    The message explains how to use a local file instead.
    """


class WeightsMismatchError(WeightsError, ValueError):
    """Error raised if a weights file does not match the network.

    The keys or shapes differ, or the file does not contain a state dict.
    """


class CompressionError(SktlError, ValueError):
    """Error raised if a network cannot be compressed as requested.

    The message gives the reason and an alternative.
    """


class EngineError(SktlError, RuntimeError):
    """Error raised if the requested engine cannot run a network.

    The message gives the reason and an engine that can run the network.
    """


class DivergenceError(SktlError, ArithmeticError):
    """Error raised if training diverges.

    The loss, the weights or the outputs became NaN or infinite. The estimator keeps the
    weights of the last good epoch.
    """


class MissingDependencyError(SktlError, ImportError):
    """Error raised if an optional package is not installed.

    The message contains the ``pip install`` command.
    """


class SktlWarning(UserWarning):
    """Base class of all warnings of sktl."""

    def __init__(self, *args: Any):
        super().__init__(*shortened_args(args))


class ImageWarning(SktlWarning):
    """Warning about images that were padded, rescaled, or could not be read."""


class CacheWarning(SktlWarning):
    """Warning about a cache that cannot be read or written.

    Results are not affected, because the features are computed instead.
    """


class TrainingWarning(SktlWarning):
    """Warning about training that differs from what its parameters suggest.

    The estimator is fitted nevertheless.
    """


class TransferWarning(SktlWarning):
    """Warning about features that do not improve on raw pixels."""
