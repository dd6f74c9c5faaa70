"""Every error and warning that sktl raises on its own account.

::

    Exception
    └── SktlError
        ├── InputError (ValueError)              a parameter or an input that makes no sense
        ├── ImageError (ValueError)              a picture that cannot be read or understood
        ├── BackboneError (ValueError)           an unknown name, layer or stage; a graph that cannot be read
        ├── WeightsError
        │   ├── WeightsDownloadError (OSError)   published weights that did not arrive
        │   └── WeightsMismatchError (ValueError) a file whose keys or shapes are another network's
        ├── CompressionError (ValueError)        a network that cannot be made smaller in the way asked for
        ├── EngineError (RuntimeError)           a network that the engine asked for cannot run
        ├── DivergenceError (ArithmeticError)    training whose losses or outputs are no finite numbers any more
        └── MissingDependencyError (ImportError) an extra that is not installed
    UserWarning
    └── SktlWarning
        ├── ImageWarning                         input that was understood by a guess worth knowing
        ├── CacheWarning                         a cache that could not be read or written; results are right
        ├── TrainingWarning                      training that does not do what its parameters seem to say
        └── TransferWarning                      a network that tells no more of the pictures than their pixels do

A message has at most about 600 characters. A longer one is cut in its middle, so that it still begins with what was
wrong and ends with what to do.

Beside these there are the errors that Python and scikit-learn have a type for: TypeError for an object of a type that
cannot be used, FileNotFoundError, NotFittedError, and scikit-learn's own ValueError for a parameter that is out of its
range.
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
    """Base class of all errors that sktl raises on its own account."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*shortened_args(args), **kwargs)


class InputError(SktlError, ValueError):
    """A parameter or an input that makes no sense, or parameters that exclude each other.

    The message names the parameter, what was given, and what to give instead.
    """


class ImageError(SktlError, ValueError):
    """A picture that cannot be read or understood.

    The message names the item's position, its path where it has one, and what is wrong.
    """


class BackboneError(SktlError, ValueError):
    """An unknown backbone, layer or stage, or a network whose graph cannot be read."""


class WeightsError(SktlError):
    """Base class of the errors about weights."""


class WeightsDownloadError(WeightsError, OSError):
    """Published weights could not be downloaded; the message says how to use a local file."""


class WeightsMismatchError(WeightsError, ValueError):
    """A weights file does not fit the network: keys or shapes differ, or it is no state dict."""


class CompressionError(SktlError, ValueError):
    """The network cannot be made smaller in the way asked for; the message says why and what still works."""


class EngineError(SktlError, RuntimeError):
    """The engine asked for cannot run this network; the message says why and names one that can."""


class DivergenceError(SktlError, ArithmeticError):
    """Training diverged: losses or outputs are no finite numbers. The weights of the last good epoch are kept."""


class MissingDependencyError(SktlError, ImportError):
    """An optional package is not installed; the message gives the ``pip install`` that adds it."""


class SktlWarning(UserWarning):
    """Base class of all warnings that sktl gives on its own account."""

    def __init__(self, *args: Any):
        super().__init__(*shortened_args(args))


class ImageWarning(SktlWarning):
    """Input that was understood by a guess worth knowing about (padding, scaling, a NaN row)."""


class CacheWarning(SktlWarning):
    """A cache could not be read or written; the features were computed and are right."""


class TrainingWarning(SktlWarning):
    """Training will not do, or has not done, what its parameters seem to say; the estimator is fitted."""


class TransferWarning(SktlWarning):
    """The features of a network tell a linear model no more of the pictures than their pixels do."""
