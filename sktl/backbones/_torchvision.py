"""Backbones of torchvision: all its classification models."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn

from sktl.backbones import _weights
from sktl.backbones._architecture import Architecture
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights_files import StateDict


@cache
def list_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models."""
    return tuple(sorted(torchvision.models.list_models(module=torchvision.models)))


class Torchvision(Architecture):
    """A classification model of torchvision."""

    def __init__(self, name: str) -> None:
        self.name = name
        entries = torchvision.models.get_model_weights(name)
        self._entries: Mapping[str, Any] = {entry.name: entry for entry in entries}
        self.published = tuple(self._entries)
        self.default = entries.DEFAULT.name

    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        settings: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):
            # The published weights need transform_input. Auxiliary classifiers are only
            # useful for training from scratch.
            settings = {"aux_logits": False, "init_weights": state is None, "transform_input": state is not None}
        if self.name.startswith("vit_"):
            # A vision transformer has position embeddings for a single image size.
            settings = {"image_size": preprocessing.crop_shape[0] if state is None else _image_size(state)}
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
            return _modern_densenet_keys(state)
        if self.name in ("googlenet", "inception_v3"):
            return {key: tensor for key, tensor in state.items() if not re.match(r"aux\d\.|AuxLogits\.", key)}
        return state


def _image_size(vit: StateDict) -> int:
    """Return the image size of a vision transformer from its position embeddings.

    There is one embedding per patch and one for the class token.
    """
    try:
        n_patches = vit["encoder.pos_embedding"].shape[1] - 1
        return round(n_patches**0.5) * vit["conv_proj.weight"].shape[-1]
    except (LookupError, AttributeError):  # file of another network: loading raises the error
        return 224


def _modern_densenet_keys(state: StateDict) -> StateDict:
    """Rename the keys of old DenseNet files, in which ``norm1`` is ``norm.1``."""
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    return {pattern.sub(r"\1\2.", key): tensor for key, tensor in state.items()}
