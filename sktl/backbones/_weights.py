"""State dicts: how published ones are fetched, and how they get into a network."""

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

# Larger numbers have squares that float32 does not hold: no network has learnt them.
_LARGEST = 1e18


def fetch(download: Callable[[], Mapping[str, Tensor]], *, backbone: str, weights: str, url: str) -> StateDict:
    """Run ``download`` and turn whatever goes wrong into one error that says what to do.

    Raises
    ------
    WeightsDownloadError
        Where the weights did not arrive whole.
    """
    try:
        return as_state_dict(download(), origin=url)
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the server's answer too, with an open connection
        cached = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
        if not isinstance(error, (OSError, HTTPException)) and cached.is_file():
            problem = (
                f"are in the file {str(cached)!r}, which is broken ({type(error).__name__}). Delete it, and it is "
                f"downloaded again from {url}"
            )
        else:
            # torch's advice on a file that it cannot read is to let it run code: not to be passed on
            reason = "the file is broken" if isinstance(error, UnpicklingError) else str(error)
            problem = f"could not be had from {url} ({type(error).__name__}: {reason})"
        raise WeightsDownloadError(
            f"The weights {weights!r} of backbone={backbone!r} {problem}. Download that file where there is a network "
            f"and pass its path, weights='/path/to/{url.rsplit('/', 1)[-1] or 'file.safetensors'}'; use "
            "backbone='sktl_mini', which is part of sktl; or use weights=None for random weights."
        ) from error


def load_state_dict(module: nn.Module, state: StateDict, *, origin: str) -> bool:
    """Load ``state`` into ``module``, whose source head may be another one in the file, or none.

    A file with another number of classes gives the head that size; a file without a head leaves the network without
    one (the last layer becomes an identity), for there is nothing to put there but noise.

    Returns
    -------
    bool
        Whether the network has its head.

    Raises
    ------
    WeightsMismatchError
        Where keys are missing or unexpected or shapes differ anywhere but in the head, integers stand where floats
        belong, or numbers are none to compute with.
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
                ("of another shape", misshaped),
                ("of another dtype", retyped),
            )
            if keys
        ]
        raise WeightsMismatchError(
            f"weights={origin!r} do not fit {type(module).__name__}: {', '.join(problems)}. "
            "Use the backbone= that the file was made for, or another file."
        )
    state = {key: state[key].reshape(tensor.shape) for key, tensor in expected.items() if key in state}
    parameters = {key for key, _ in module.named_parameters()}
    check_numbers(
        (pair for pair in state.items() if pair[0] in parameters or is_statistic(pair[0])), whose=f"weights={origin!r}"
    )
    module.load_state_dict(state, strict=False, assign=True)
    return has_head


def check_numbers(tensors: Iterable[tuple[str, Tensor]], *, whose: str) -> None:
    """Refuse weights that give no numbers.

    Raises
    ------
    WeightsMismatchError
        If one of them is NaN, infinite or beyond what float32 can compute with, or a variance is negative.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            continue
        low, high = (float(x) for x in torch.aminmax(tensor.detach()))
        lowest = 0.0 if name.endswith("running_var") else -_LARGEST
        if not (lowest <= low and high <= _LARGEST):
            is_number = high - low < float("inf")
            found = f"numbers from {low:.3g} to {high:.3g}" if is_number else "NaN or infinity"
            raise WeightsMismatchError(
                f"{whose}: the tensor {name!r} has {found}, with which nothing can be computed. Training may have "
                "diverged, or the file is damaged: use other weights."
            )


def is_statistic(name: str) -> bool:
    """Whether a buffer is what a norm has learnt; others, such as masks, may hold infinity on purpose."""
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def _first_few(keys: list[str], n: int = 3) -> str:
    return "; ".join(keys[:n]) + ("; …" if len(keys) > n else "")


def _fit_head(module: nn.Module, state: StateDict) -> bool:
    """Make the last layer of ``module`` what it is in ``state``: of another size, or absent. Whether there is one."""
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
    """Path and module of the last layer that has weights of its own."""
    weighted = [
        (path, layer)
        for path, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    return weighted[-1] if weighted else ("", None)
