"""Backbones of timm, named ``"timm:<name>"``."""

from pathlib import Path
from typing import Any

from torch import nn

from sktl._optional import import_optional
from sktl.backbones import _weights
from sktl.backbones._architecture import Architecture
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights_files import StateDict
from sktl.exceptions import BackboneError

_PREFIX = "timm:"


def _timm() -> Any:
    return import_optional("timm", extra="timm", purpose="A backbone whose name starts with 'timm:'")


def list_names(pattern: str) -> list[str]:
    """Return the prefixed names of timm models that match ``"timm:<pattern>"``."""
    return [_PREFIX + name for name in _timm().list_models(pattern.removeprefix(_PREFIX))]


class Timm(Architecture):
    """A timm model; a tag in its name (``"timm:resnet50.a1_in1k"``) selects weights."""

    swept = False  # more than a thousand, different in each version

    def __init__(self, name: str) -> None:
        timm = _timm()
        self.name = name
        self._model = name.removeprefix(_PREFIX)
        if not timm.is_model(self._model):
            raise BackboneError(
                f"backbone={name!r} is not a model of timm {timm.__version__}. Use a name listed by "
                "sktl.backbones.list_backbones('timm:*')."
            )
        self._config = timm.get_pretrained_cfg(self._model)
        self.classifies = getattr(self._config, "num_classes", 0) > 0
        has_weights = self._config is not None and self._config.has_weights
        self.published = ("DEFAULT",) if has_weights else ()
        self.default = "DEFAULT" if has_weights else None
        crop_mode = getattr(self._config, "crop_mode", None) or "center"
        if crop_mode != "center":
            self.caveat = f"timm's crop_mode={crop_mode!r}, while sktl resizes the shorter side and crops the center"

    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        return _timm().create_model(self._model, pretrained=False)

    def fetch(self, weights: str) -> StateDict:
        timm = _timm()
        return _weights.fetch(
            lambda: timm.create_model(self._model, pretrained=True).state_dict(),
            backbone=self.name,
            weights=weights,
            url=self._config.url or f"https://huggingface.co/{self._config.hf_hub_id}",
        )

    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        settings = import_optional("timm.data", extra="timm", purpose=self.name).resolve_data_config(
            {}, pretrained_cfg=self._config.to_dict() if self._config is not None else {}
        )
        height, width = settings["input_size"][1:]
        return Preprocessing(
            resize_size=int(min(height, width) / settings["crop_pct"]),
            crop_size=height if height == width else (height, width),
            interpolation=settings["interpolation"],
            mean=settings["mean"],
            std=settings["std"],
        )
