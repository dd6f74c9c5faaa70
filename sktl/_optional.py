"""Optional packages: imported when they are needed, with an error that names the extra."""

import importlib
import importlib.util
from types import ModuleType

from sktl.exceptions import MissingDependencyError


def is_installed(package: str) -> bool:
    """Whether ``package`` could be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def import_optional(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``package`` or raise an error that says what it is for and how to install it.

    Parameters
    ----------
    package : str
        The package as it is imported, for example ``"onnxruntime"``.
    extra : str
        The extra of sktl that installs it, for example ``"onnx"``.
    purpose : str
        What it is needed for, as the subject of a sentence: ``"engine='onnxruntime'"``.

    Raises
    ------
    MissingDependencyError
        Where the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'sktl[{extra}]'"
        ) from error
