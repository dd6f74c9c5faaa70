"""State dicts: where they come from, and how they get into a network. Nothing here ever unpickles code."""

import os
from collections.abc import Callable, Mapping
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import HTTPError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sktl._messages import shortened
from sktl.exceptions import BackboneError, WeightsDownloadError, WeightsMismatchError

StateDict = dict[str, Tensor]

_SUFFIXES = (".safetensors", ".pt", ".pth")

# How checkpoints of training scripts wrap the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def as_weights_path(weights: "str | PathLike[str]", *, backbone: str, choices: str) -> Path:
    """The weights file that ``weights`` names; ``choices`` tells what else could have been meant.

    Raises
    ------
    BackboneError
        Where it is neither a published name nor the path of a weights file.
    FileNotFoundError
        Where it looks like a path and there is no such file.
    """
    path = Path(weights).expanduser()
    if path.suffix not in _SUFFIXES:
        raise BackboneError(
            f"weights={str(weights)!r} is unknown for backbone={backbone!r}. Use {choices}, "
            f"or the path of a file {', '.join(_SUFFIXES)}."
        )
    if not os.path.isfile(path):  # unlike Path.is_file, it is False for a name that is too long for the system
        raise FileNotFoundError(shortened(f"weights={str(weights)!r}: there is no such file."))
    return path


def read_state_dict(path: Path) -> StateDict:
    """Read a weights file; floating-point tensors come back as float32.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or a ``.pt`` or ``.pth`` file, of which nothing but tensors and containers is read.

    Raises
    ------
    WeightsMismatchError
        Where the file is no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, LookupError, UnpicklingError) as error:
        raise WeightsMismatchError(
            f"weights={str(path)!r} cannot be read as a state dict ({type(error).__name__}). It may be broken, or hold "
            "a whole pickled model, which would run code when it is read. Save the weights alone: "
            "torch.save(model.state_dict(), path), or safetensors.torch.save_file(model.state_dict(), path)."
        ) from error
    return as_state_dict(content, origin=str(path))


def as_state_dict(content: Any, *, origin: str) -> StateDict:
    """Unwrap what training scripts wrap around a state dict, and cast to float32.

    DataParallel and torch.compile put their own names in front of the network's, in either order.
    The tensors are copies: those of a file may be windows into it, and would change when it is written again.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsMismatchError(
            f"weights={origin!r} holds something else than a state dict, which maps names to tensors. "
            "Save it with torch.save(model.state_dict(), path)."
        )
    return {
        name.removeprefix("_orig_mod.").removeprefix("module.").removeprefix("_orig_mod."): tensor.to(
            torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True
        )
        for name, tensor in content.items()
    }


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
        Where keys are missing or unexpected or shapes differ anywhere but in the head.
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
    if missing or unexpected or misshaped:
        problems = [
            f"{len(keys)} {kind} ({_first_few(keys)})"
            for kind, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
            if keys
        ]
        raise WeightsMismatchError(
            f"weights={origin!r} do not fit {type(module).__name__}: {', '.join(problems)}. "
            "Use the backbone= that the file was made for, or another file."
        )
    state = {key: state[key].reshape(tensor.shape) for key, tensor in expected.items() if key in state}
    module.load_state_dict(state, strict=False, assign=True)
    return has_head


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
