"""The names are torchvision's classification models and our own."""

import torchvision

from sktl.backbones import list_backbones


def test_all_names():
    """Ours first, then every classification model of torchvision in alphabetical order, and nothing else."""
    names = list_backbones()
    assert names[0] == "sktl_mini"
    assert names[1:] == sorted(torchvision.models.list_models(module=torchvision.models))
    assert len(names) >= 81


def test_patterns():
    """Shell patterns choose among them."""
    assert list_backbones("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    assert list_backbones("sktl_mini") == ["sktl_mini"]
    assert list_backbones("no_such_*") == []
