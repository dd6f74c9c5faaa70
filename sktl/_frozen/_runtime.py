"""How a network is run, in one word: the engine and its numerics, the cache, the device, the threads."""

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

# The parameters that mean the same in every estimator that runs a network. `batch_size` of one that trains is that of
# its training, and it leaves out what cannot be read before a prefix runs: whoever means these two says so.
SHARED_PARAMETERS = ("engine", "precision", "cache", "device", "n_jobs")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a network is run.

    Parameters
    ----------
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        What runs the network.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numerics of the network.
    batch_size : int or "auto", default="auto"
        Images that go through the network at once.
    cache : "auto", path-like, Cache or None, default="auto"
        Where outputs are kept: in this process, in a directory, or nowhere. The attribute is the opened cache, or None.
    device : str or torch.device, default="auto"
        Where the network runs. The attribute is the device that this means here.
    n_jobs : int or None, default=None
        Threads that read, decode and (in ONNX Runtime) run images; None takes as many as torch has.
    on_error : {"raise", "nan"}, default="raise"
        What an image that cannot be read becomes: an error, or a row of NaN and a warning.

    Raises
    ------
    InputError
        If the device is not there, or if engine, precision and device exclude each other.
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
        """How an estimator runs its network: what its parameters say, but for what is replaced.

        Parameters
        ----------
        estimator : estimator
            Read: `SHARED_PARAMETERS`, as far as it has them.
        **replaced : object
            What is another here, and what does not mean the same in every estimator: ``batch_size`` and ``on_error``.
        """
        shared = {name: getattr(estimator, name) for name in SHARED_PARAMETERS if hasattr(estimator, name)}
        return cls(**(shared | replaced))

    @property
    def n_threads(self) -> int:
        """Threads that read, decode and (in ONNX Runtime) run images."""
        return count_threads(self.n_jobs)


def count_threads(n_jobs: "int | None") -> int:
    """How many threads read and decode images: as many as torch uses, if no number is given."""
    return torch.get_num_threads() if n_jobs is None else joblib.effective_n_jobs(n_jobs)


def _check_numerics(engine: str, precision: str, device: torch.device) -> None:
    """Refuse what no engine can do."""
    if precision == "float16" and device.type == "cpu":
        raise InputError("precision='float16' needs device='cuda'. On a CPU use 'float32' or 'bfloat16'.")
    if engine == "onnxruntime" and (precision != "float32" or device.type != "cpu"):
        raise InputError(
            f"engine='onnxruntime' runs in float32 on the CPU, but precision={precision!r} and device={device.type!r} "
            "were asked for. Use engine='auto' or 'torch'."
        )
