"""The backbones by name: how each is built, what weights are published for it, and how those want their pictures."""

import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn

from sktl.backbones import _weights
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights import StateDict
from sktl.exceptions import BackboneError


class Architecture(ABC):
    """A network by its name.

    Attributes
    ----------
    name : str
        The name a user gives.
    published : tuple of str
        Names of its published weights; empty where there are none.
    default : str or None
        The best of them.
    """

    name: str
    published: tuple[str, ...]
    default: str | None

    @abstractmethod
    def build(self, state: StateDict | None) -> nn.Module:
        """The network with random weights, made in such a way that ``state`` will fit."""

    @abstractmethod
    def fetch(self, weights: str) -> StateDict:
        """The published weights of that name."""

    @abstractmethod
    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        """How the weights want their pictures: a file of a published name as those weights, else as the default."""

    def adjust(self, state: StateDict) -> StateDict:
        """Bring the keys of a weights file up to date."""
        return state


class _Torchvision(Architecture):
    """Any classification model of torchvision."""

    def __init__(self, name: str) -> None:
        self.name = name
        entries = torchvision.models.get_model_weights(name)
        self._entries: Mapping[str, Any] = {entry.name: entry for entry in entries}
        self.published = tuple(self._entries)
        self.default = entries.DEFAULT.name

    def build(self, state: StateDict | None) -> nn.Module:
        settings: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):
            # The published weights expect ImageNet's normalisation to be undone inside. The auxiliary classifiers
            # only serve training from scratch.
            settings = {"aux_logits": False, "init_weights": state is None, "transform_input": state is not None}
        if self.name.startswith("vit_") and state is not None and "encoder.pos_embedding" in state:
            # One position per patch: the file says for which image size it was trained.
            n_patches = state["encoder.pos_embedding"].shape[1] - 1
            settings = {"image_size": round(n_patches**0.5) * state["conv_proj.weight"].shape[-1]}
        return torchvision.models.get_model(self.name, weights=None, **settings)

    def fetch(self, weights: str) -> StateDict:
        entry = self._entries[weights]
        return _weights.fetch(
            lambda: entry.get_state_dict(progress=False, check_hash=True, weights_only=True),
            backbone=self.name,
            weights=weights,
            url=entry.url,
        )

    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        file_names = {entry.url.rsplit("/", 1)[-1]: name for name, entry in self._entries.items()}
        by_file = file_names.get(path.name) if path is not None else None
        preset = self._entries[weights or by_file or str(self.default)].transforms()
        return Preprocessing(
            resize_size=preset.resize_size[0],
            crop_size=preset.crop_size[0],
            interpolation=preset.interpolation.value,
            mean=preset.mean,
            std=preset.std,
        )

    def adjust(self, state: StateDict) -> StateDict:
        if self.name.startswith("densenet"):
            return _weights.modern_densenet_keys(state)
        if self.name in ("googlenet", "inception_v3"):
            return {key: tensor for key, tensor in state.items() if not re.match(r"aux\d\.|AuxLogits\.", key)}
        return state


class _Mini(Architecture):
    """The small backbone that is part of the package."""

    name = "sktl_mini"
    published = ("SKTL_V1",)
    default = "SKTL_V1"

    def build(self, state: StateDict | None) -> nn.Module:
        from sktl.backbones import _mini

        return _mini.sktl_mini()

    def fetch(self, weights: str) -> StateDict:
        return _weights.read_state_dict(Path(__file__).with_name("sktl_mini.safetensors"))

    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        from sktl.backbones import _mini

        return _mini.MINI_PREPROCESSING


@cache
def _torchvision_names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


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
    if name in _torchvision_names():
        return _Torchvision(name)
    if name.startswith("timm:"):
        from sktl.backbones import _timm

        return _timm.Timm(name)
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
        from sktl.backbones import _timm

        return _timm.list_names(pattern)
    names = [_Mini.name, *sorted(_torchvision_names())]
    return names if pattern is None else fnmatch.filter(names, pattern)
