"""Pretrained networks: their names and weights, their stages, and where to cut them."""

from sktl.backbones._backbone import Backbone
from sktl.backbones._describe import describe_backbone
from sktl.backbones._load import load_backbone
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._registry import list_backbones
from sktl.backbones._stages import Stage

__all__ = ["Backbone", "Preprocessing", "Stage", "describe_backbone", "list_backbones", "load_backbone"]
