"""timm's networks can be named, and read and cut like any other."""

import sys
from dataclasses import replace

import pytest
import torch

from sktl.backbones import list_backbones, load_backbone
from sktl.exceptions import BackboneError, MissingDependencyError, WeightsDownloadError

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "first", "last", "axis"),
    [
        ("timm:resnet10t", "conv1", "layer4", 1),
        ("timm:test_vit", "stem", "blocks.5", -1),
        ("timm:test_convnext", "stem", "stages.3", 1),
        ("timm:test_efficientnet", "stem", "blocks.4", 1),
    ],
)
def test_stages(name, first, last, axis):
    """Stages are found by the same rules, and cutting there changes nothing."""
    backbone = load_backbone(name, weights=None, random_state=0)
    stages = backbone.stages
    assert [stages[0].name, stages[-1].name] == [first, last]
    assert stages[-1].channel_axis == axis
    picture = torch.randn(2, 3, *backbone.preprocessing.crop_shape)
    expected = backbone.module(picture)
    for stage in stages:
        prefix, rest = backbone.cut(stage.name)
        torch.testing.assert_close(rest(prefix(picture)), expected, rtol=1e-4, atol=1e-5)


def test_a_class_token_is_known():
    """The vision transformer's first token is its class token, in every stage."""
    backbone = load_backbone("timm:test_vit", weights=None, random_state=0)
    assert all(backbone.has_cls_token(stage.name) for stage in backbone.stages)


def test_preprocessing_is_timms():
    """Size, crop and normalisation come from timm's own configuration."""
    preprocessing = load_backbone("timm:resnet10t", weights=None, random_state=0).preprocessing
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg("resnet10t").to_dict())
    assert preprocessing.crop_shape == config["input_size"][1:]
    assert preprocessing.resize_size == int(config["input_size"][1] / config["crop_pct"])
    assert (preprocessing.mean, preprocessing.std) == (config["mean"], config["std"])


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_another_way_to_crop(mode, monkeypatch, tmp_path):
    """Weights trained on squashed or bordered pictures get cropped ones only where that is asked for."""
    config = replace(timm.get_pretrained_cfg("test_vit"), crop_mode=mode)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_vit", pretrained=False, pretrained_cfg=config).state_dict(), path)
    for weights in ("default", path):
        with pytest.raises(
            BackboneError, match=rf"backbone='timm:test_vit' were .*crop_mode='{mode}'.*preprocessing={{}}"
        ):
            load_backbone("timm:test_vit", weights=weights)
    crop_shape = load_backbone("timm:test_vit", weights=path, preprocessing={}).preprocessing.crop_shape
    assert crop_shape == config.input_size[1:]
    assert load_backbone("timm:test_vit", weights=None, random_state=0).preprocessing.crop_shape == crop_shape


def test_a_local_file(tmp_path):
    """A state dict of timm loads."""
    module = timm.create_model("test_vit", pretrained=False)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    backbone = load_backbone("timm:test_vit", weights=tmp_path / "weights.pt")
    picture = torch.randn(1, 3, *backbone.preprocessing.crop_shape)
    torch.testing.assert_close(backbone.module(picture), module.eval()(picture), rtol=0, atol=0)


def test_a_download_that_fails(monkeypatch):
    """What timm raises where there is no network becomes the one error of failed downloads."""

    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsDownloadError, match=r"'timm:test_vit' .*no network"):
        load_backbone("timm:test_vit")


def test_names():
    """timm's names are listed where they are asked for, and only there."""
    assert "timm:resnet18" in list_backbones("timm:resnet1*")
    assert not any(name.startswith("timm:") for name in list_backbones())
    with pytest.raises(BackboneError, match="timm:no_such_model"):
        load_backbone("timm:no_such_model", weights=None)


def test_without_timm(monkeypatch):
    """Without timm the error says how to install it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"sktl\[timm\]"):
        load_backbone("timm:resnet18")
