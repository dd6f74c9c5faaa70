"""Choice of the device that runs a network."""

import torch

from sktl.exceptions import InputError


def resolve_device(device: "str | torch.device") -> torch.device:
    """Return the torch device for the ``device`` parameter of an estimator.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` uses CUDA if available and the CPU otherwise. Other values are passed
        to `torch.device`.

    Raises
    ------
    InputError
        If the device does not exist or is not available, or if it is CUDA in a forked
        process, which cannot initialize CUDA again.
    """
    in_bad_fork = torch.cuda._is_in_bad_fork()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not in_bad_fork else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r} is not a torch device. Use 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    if resolved.type == "cuda" and in_bad_fork:
        raise InputError(
            f"device={device!r} cannot be used in a forked process, because CUDA cannot be initialized again. "
            "Use n_jobs=1, joblib's 'loky' backend, or device='cpu'."
        )
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r} is not available, because torch finds no CUDA device. Use device='auto'.")
    return resolved
