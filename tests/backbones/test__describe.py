"""The table says what the stages are, in every form."""

import pytest

from sktl.backbones import describe_backbone, load_backbone
from sktl.exceptions import BackboneError

TEXT = """\
resnet18: 5 stages, 11,176,512 parameters, 1,813.6 million multiply-accumulates (MACs) per 224 x 224 image

layers=  stage   n_layers   output shape  parameters  share of MACs
      0  stem           4   64 x 56 x 56       9,536           6.5%
      1  layer1        14   64 x 56 x 56     147,968          25.5%
      2  layer2        16  128 x 28 x 28     525,568          22.7%
      3  layer3        16  256 x 14 x 14   2,099,712          22.7%
      4  layer4        16    512 x 7 x 7   8,393,728          22.7%"""


def test_text():
    """It prints as a table that a person can read."""
    assert repr(describe_backbone("resnet18")) == TEXT


def test_columns():
    """The columns are the stages' own values, and the shares add up to one."""
    backbone = load_backbone("sktl_mini")
    columns = describe_backbone(backbone).to_dict()
    assert [backbone.stages[number].name for number in columns["number"]] == columns["stage"]
    assert columns["output_shape"] == [backbone.output_shape(name) for name in columns["stage"]]
    assert sum(columns["parameters"]) == sum(stage.n_parameters for stage in backbone.stages)
    assert sum(columns["share_of_macs"]) == pytest.approx(1)


def test_frame():
    """As a DataFrame it has one row per stage."""
    table = describe_backbone("sktl_mini")
    frame = table.to_frame()
    assert frame.to_dict("list") == table.to_dict()


def test_html():
    """In a notebook it is a table with the same cells, and names cannot break it."""
    table = describe_backbone("resnet18")
    html = table._repr_html_()
    assert html.count("<tr>") == 6
    for cell in ("layer3", "256 x 14 x 14", "2,099,712", "22.7%"):
        assert f">{cell}</td>" in html
    table._title = "<script>"
    assert "<script>" not in table._repr_html_()


def test_the_size_of_the_pictures_counts():
    """Smaller pictures give smaller outputs."""
    table = describe_backbone("resnet18", preprocessing={"resize_size": 64, "crop_size": 64})
    assert table.to_dict()["output_shape"][-1] == (512, 2, 2)


def test_unknown():
    """An unknown name is an error of its own."""
    with pytest.raises(BackboneError, match="resnet18"):
        describe_backbone("resnet19")
