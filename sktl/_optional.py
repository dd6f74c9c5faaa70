"""Import of optional packages when they are needed."""

import importlib
import importlib.util
from types import ModuleType

from sktl.exceptions import MissingDependencyError


def is_installed(package: str) -> bool:
    """Check whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None


def import_optional(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a package, or raise an error that explains how to install it.

    Parameters
    ----------
    package : str
        Import name of the package, for example ``"onnxruntime"``.
    extra : str
        Extra of sktl that installs the package, for example ``"onnx"``.
    purpose : str
        Feature that needs the package, as the subject of a sentence:
        ``"engine='onnxruntime'"``.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'sktl[{extra}]'"
        ) from error
