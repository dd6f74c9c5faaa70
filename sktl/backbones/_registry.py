"""Registry of the backbones by name."""

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
    """The small backbone that ships with sktl."""

    name = "sktl_mini"
    published = ("SKTL_V1",)
    default = "SKTL_V1"
    classifies = False  # its head predicts principal components of other networks' features

    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        return _mini.sktl_mini()

    def fetch(self, weights: str) -> StateDict:
        return _weights_files.read_state_dict(Path(__file__).with_name("sktl_mini.safetensors"))

    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        return _mini.MINI_PREPROCESSING


def find_architecture(name: str) -> Architecture:
    """Return the architecture of this name.

    Raises
    ------
    BackboneError
        If the name is unknown; the message suggests similar names.
    MissingDependencyError
        If the name starts with ``timm:`` and timm is not installed.
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
        + " Use a name listed by sktl.backbones.list_backbones(), 'timm:<name>' for a timm model, or an nn.Module."
    )


def list_backbones(pattern: str | None = None) -> list[str]:
    """Return the names of the available backbones.

    Parameters
    ----------
    pattern : str, default=None
        Shell-style pattern of the names to return, such as ``"resnet*"``. A pattern
        that starts with ``"timm:"`` selects models of timm. If None, the names of all
        backbones except those of timm are returned.

    Returns
    -------
    list of str
        ``"sktl_mini"``, followed by all other names in alphabetical order.

    Raises
    ------
    MissingDependencyError
        If the pattern starts with ``"timm:"`` and timm is not installed.

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
