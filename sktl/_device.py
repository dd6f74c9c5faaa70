"""Where a network runs."""

import torch

from sktl.exceptions import InputError


def resolve_device(device: "str | torch.device") -> torch.device:
    """The torch device that ``device`` means on this machine.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` takes CUDA where there is one and the CPU otherwise; anything else is handed to `torch.device`.

    Raises
    ------
    InputError
        Where the device is unknown or not there, or where CUDA is asked for inside a forked worker, which cannot
        initialise it again.
    """
    in_bad_fork = torch.cuda._is_in_bad_fork()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not in_bad_fork else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r} is no torch device. Use 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    if resolved.type == "cuda" and in_bad_fork:
        raise InputError(
            f"device={device!r} cannot be used in a forked worker: CUDA is initialised once per process. "
            "Use n_jobs=1, joblib's 'loky' backend, or device='cpu'."
        )
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r} was asked for, but torch sees no CUDA device. Use device='auto'.")
    return resolved
