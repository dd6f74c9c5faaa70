"""Download of published weights, and loading of state dicts into networks."""

from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import HTTPError

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sktl.backbones._weights_files import StateDict, as_state_dict
from sktl.exceptions import WeightsDownloadError, WeightsMismatchError

# Squares of larger numbers overflow float32.
_LARGEST = 1e18


def fetch(download: Callable[[], Mapping[str, Tensor]], *, backbone: str, weights: str, url: str) -> StateDict:
    """Call ``download`` and raise a single error with instructions for all failures.

    Raises
    ------
    WeightsDownloadError
        If the download fails or is incomplete.
    """
    try:
        return as_state_dict(download(), origin=url)
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds an open connection
        cached = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
        if not isinstance(error, (OSError, HTTPException)) and cached.is_file():
            problem = (
                f"cannot be read from the file {str(cached)!r}, which is corrupt ({type(error).__name__}). Delete the "
                f"file to download it again from {url}"
            )
        else:
            # torch's message suggests letting the file run code, so it is not passed on.
            reason = "the file is corrupt" if isinstance(error, UnpicklingError) else str(error)
            problem = f"could not be downloaded from {url} ({type(error).__name__}: {reason})"
        raise WeightsDownloadError(
            f"The weights {weights!r} of backbone={backbone!r} {problem}. Without internet access, download the file "
            f"elsewhere and pass its path, weights='/path/to/{url.rsplit('/', 1)[-1] or 'file.safetensors'}', use "
            "backbone='sktl_mini', which ships with sktl, or use weights=None for random weights."
        ) from error


def load_state_dict(module: nn.Module, state: StateDict, *, origin: str) -> bool:
    """Load ``state`` into ``module`` and return whether the network has its head.

    The head is adapted to the number of classes in ``state``. If ``state`` has no head,
    the last layer becomes an identity, since random values would be noise.

    Raises
    ------
    WeightsMismatchError
        If keys, shapes or dtypes do not match outside the head, or values are not
        finite.
    """
    has_head = _fit_head(module, state)
    expected = module.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshaped = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape and (tensor.ndim or state[key].numel() != 1)
    ]
    retyped = [
        f"{key} is {str(state[key].dtype).removeprefix('torch.')}, not {str(tensor.dtype).removeprefix('torch.')}"
        for key, tensor in expected.items()
        if key in state
        and state[key].is_floating_point() != tensor.is_floating_point()
        and not key.endswith("num_batches_tracked")
    ]
    if missing or unexpected or misshaped or retyped:
        problems = [
            f"{len(keys)} {kind} ({_first_few(keys)})"
            for kind, keys in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("with another shape", misshaped),
                ("with another dtype", retyped),
            )
            if keys
        ]
        raise WeightsMismatchError(
            f"weights={origin!r} do not match the network {type(module).__name__}: {', '.join(problems)}. Use the "
            "backbone that the weights were trained for, or another file."
        )
    state = {key: state[key].reshape(tensor.shape) for key, tensor in expected.items() if key in state}
    parameters = {key for key, _ in module.named_parameters()}
    check_numbers(
        (pair for pair in state.items() if pair[0] in parameters or is_statistic(pair[0])), whose=f"weights={origin!r}"
    )
    module.load_state_dict(state, strict=False, assign=True)
    return has_head


def check_numbers(tensors: Iterable[tuple[str, Tensor]], *, whose: str) -> None:
    """Raise an error for weights that cannot be computed with.

    Raises
    ------
    WeightsMismatchError
        If a value is NaN, infinite or too large for float32, or a variance is negative.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            continue
        low, high = (float(x) for x in torch.aminmax(tensor.detach()))
        lowest = 0.0 if name.endswith("running_var") else -_LARGEST
        if not (lowest <= low and high <= _LARGEST):
            is_number = high - low < float("inf")
            found = f"values from {low:.3g} to {high:.3g}" if is_number else "NaN or infinite values"
            raise WeightsMismatchError(
                f"{whose}: the tensor {name!r} has {found}, so that the network has no meaningful output. Training may "
                "have diverged, or the file may be corrupt. Use other weights."
            )


def is_statistic(name: str) -> bool:
    """Check whether a buffer is a running mean or variance.

    Other buffers, such as masks, may contain infinity on purpose.
    """
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def _first_few(keys: list[str], n: int = 3) -> str:
    return "; ".join(keys[:n]) + ("; …" if len(keys) > n else "")


def _fit_head(module: nn.Module, state: StateDict) -> bool:
    """Adapt the last layer of ``module`` to ``state``; return whether it is a head."""
    path, head = _last_layer(module)
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        return False
    weight = state.get(f"{path}.weight")
    new: nn.Module | None = None
    if weight is None:
        new = nn.Identity()
    elif weight.shape[1:] == head.weight.shape[1:] and weight.shape[0] != head.weight.shape[0]:
        bias = f"{path}.bias" in state
        if isinstance(head, nn.Linear):
            new = nn.Linear(head.in_features, weight.shape[0], bias=bias)
        elif head.groups == 1:
            new = nn.Conv2d(head.in_channels, weight.shape[0], head.kernel_size, head.stride, head.padding, bias=bias)  # type: ignore[arg-type]
    if new is not None:
        owner, _, attribute = path.rpartition(".")
        setattr(module.get_submodule(owner), attribute, new)
    return weight is not None


def _last_layer(module: nn.Module) -> tuple[str, nn.Module | None]:
    """Return the path and the module of the last layer with its own weights."""
    weighted = [
        (path, layer)
        for path, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    return weighted[-1] if weighted else ("", None)
