"""Runtime of a network: engine, numerics, cache, device and threads."""

import os
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import joblib
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._device import resolve_device
from sktl._frozen._cache import Cache, open_cache
from sktl.exceptions import InputError

ENGINES = ("auto", "torch", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16")

RUNTIME_CONSTRAINTS: dict = {
    "engine": [StrOptions(set(ENGINES))],
    "precision": [StrOptions(set(PRECISIONS))],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "cache": [str, os.PathLike, None],
    "device": [str, torch.device],
    "n_jobs": [Integral, None],
    "on_error": [StrOptions({"raise", "nan"})],
}

# Parameters with the same meaning in every estimator that runs a network. `batch_size`
# and `on_error` are not among them: estimators that train use the first for training,
# and leave out unreadable images before a prefix runs.
SHARED_PARAMETERS = ("engine", "precision", "cache", "device", "n_jobs")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Settings that define how a network is run.

    Parameters
    ----------
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        Engine that runs the network.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Floating-point precision of the network.
    batch_size : int or "auto", default="auto"
        Number of images that go through the network at once.
    cache : "auto", path-like, Cache or None, default="auto"
        Where to keep the outputs: in this process, in a directory, or nowhere. The
        attribute is the opened cache, or None.
    device : str or torch.device, default="auto"
        Device that runs the network. The attribute is the resolved device.
    n_jobs : int or None, default=None
        Number of threads that read, decode and (in ONNX Runtime) run images. None uses
        as many as torch does.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read: raise an error, or warn and return a row
        of NaN.

    Raises
    ------
    InputError
        If the device is not available, or engine, precision and device are
        incompatible.
    """

    engine: str = "auto"
    precision: str = "float32"
    batch_size: "int | str" = "auto"
    cache: "Cache | None" = "auto"  # type: ignore[assignment]  # it is opened below
    device: torch.device = "auto"  # type: ignore[assignment]  # likewise
    n_jobs: "int | None" = None
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if not isinstance(self.cache, Cache):
            object.__setattr__(self, "cache", open_cache(self.cache))
        object.__setattr__(self, "device", resolve_device(self.device))
        _check_numerics(self.engine, self.precision, self.device)

    @classmethod
    def of(cls, estimator: Any, **replaced: Any) -> "Runtime":
        """Read the runtime parameters of an estimator.

        Parameters
        ----------
        estimator : estimator
            Estimator with some of the `SHARED_PARAMETERS`.
        **replaced : object
            Values that replace parameters of the estimator, or are not shared:
            ``batch_size`` and ``on_error``.
        """
        shared = {name: getattr(estimator, name) for name in SHARED_PARAMETERS if hasattr(estimator, name)}
        return cls(**(shared | replaced))

    @property
    def n_threads(self) -> int:
        """Number of threads that read, decode and (in ONNX Runtime) run images."""
        return count_threads(self.n_jobs)


def count_threads(n_jobs: "int | None") -> int:
    """Return the number of threads for ``n_jobs``. None uses as many as torch does."""
    return torch.get_num_threads() if n_jobs is None else joblib.effective_n_jobs(n_jobs)


def _check_numerics(engine: str, precision: str, device: torch.device) -> None:
    """Check that engine, precision and device are compatible."""
    if precision == "float16" and device.type == "cpu":
        raise InputError("precision='float16' needs device='cuda'. On a CPU, use 'float32' or 'bfloat16'.")
    if engine == "onnxruntime" and (precision != "float32" or device.type != "cpu"):
        raise InputError(
            "engine='onnxruntime' needs precision='float32' and device='cpu'. "
            f"Got precision={precision!r} and device={device.type!r} instead. Use engine='auto' or 'torch'."
        )
