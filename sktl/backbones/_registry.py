"""The backbones by name."""

import fnmatch
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from sktl.backbones import _mini, _timm, _weights_files
from sktl.backbones._architecture import Architecture
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights_files import StateDict
from sktl.exceptions import BackboneError


class _Mini(Architecture):
    """The small backbone that is part of the package."""

    name = "sktl_mini"
    published = ("SKTL_V1",)
    default = "SKTL_V1"
    classifies = False  # its head gives the principal components of other networks' features

    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        return _mini.sktl_mini()

    def fetch(self, weights: str) -> StateDict:
        return _weights_files.read_state_dict(Path(__file__).with_name("sktl_mini.safetensors"))

    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        return _mini.MINI_PREPROCESSING


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises
    ------
    BackboneError
        Where there is none; the message names the nearest.
    MissingDependencyError
        Where the name starts with ``timm:`` and timm is not installed.
    """
    if name == _Mini.name:
        return _Mini()
    if name.startswith("timm:"):
        return _timm.Timm(name)
    from sktl.backbones import _torchvision  # loads torchvision

    if name in _torchvision.list_names():
        return _torchvision.Torchvision(name)
    nearest = get_close_matches(name, list_backbones(), n=3)
    raise BackboneError(
        f"backbone={name!r} is unknown."
        + (f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else "")
        + " sktl.backbones.list_backbones() lists all; 'timm:<name>' takes one of timm; an nn.Module works too."
    )


def list_backbones(pattern: str | None = None) -> list[str]:
    """The names that ``backbone=`` understands.

    Parameters
    ----------
    pattern : str, default=None
        A shell pattern such as ``"resnet*"``. Names of timm are listed where it starts with ``"timm:"``.

    Returns
    -------
    list of str
        In alphabetical order, ``"sktl_mini"`` first.

    Raises
    ------
    MissingDependencyError
        Where timm's names are asked for and timm is not installed.

    Examples
    --------
    >>> from sktl.backbones import list_backbones
    >>> list_backbones("*mini")
    ['sktl_mini']
    >>> list_backbones("resnet?8")
    ['resnet18']
    """
    if pattern is not None and pattern.startswith("timm:"):
        return _timm.list_names(pattern)
    from sktl.backbones import _torchvision  # loads torchvision

    names = [_Mini.name, *_torchvision.list_names()]
    return names if pattern is None else fnmatch.filter(names, pattern)
