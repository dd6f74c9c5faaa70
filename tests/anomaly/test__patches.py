"""Which stages have patches, and how outputs become patches and patches maps."""

import numpy as np
import pytest
import torch
import torchvision

from sktl.anomaly._patches import PatchGrid, check_patch_layers, choose_patch_layers, map_shape
from sktl.backbones import load_backbone
from sktl.exceptions import BackboneError


def backbone(name, size=None):
    """A network with random weights, for images of a size."""
    size = None if size is None else {"resize_size": min(np.atleast_1d(size)), "crop_size": size}
    return load_backbone(name, weights=None, random_state=0, preprocessing=size)


def transformer(size):
    """A vision transformer with 8 x 8 pixels per token."""
    module = torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=6, mlp_dim=8)
    return load_backbone(module, preprocessing={"resize_size": size, "crop_size": size})


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("sktl_mini", None, ["layer2", "layer3"]),  # 16 x 16 and 8 x 8 of 64 x 64
        ("sktl_mini", 128, ["layer3", "layer4"]),
        ("sktl_mini", 256, ["layer3", "layer4"]),
        ("resnet18", 224, ["layer2", "layer3"]),  # as in PatchCore and PaDiM
        ("mobilenet_v2", 224, ["features.6", "features.7"]),
    ],
)
def test_the_default_stages(name, size, expected):
    """Those whose maps are nearest to 1/8 and 1/16 of the side, but no smaller than 16 x 16 and 8 x 8."""
    assert choose_patch_layers(backbone(name, size)) == expected


def test_a_transformer_has_one_default_stage():
    """Its stages have maps of one size, of which the last one is taken."""
    vit = transformer(32)
    assert choose_patch_layers(vit) == [[stage.name for stage in vit.stages if map_shape(vit, stage.name)][-1]]


def test_maps_of_all_kinds_of_layers():
    """Channels first, the tokens of a grid, and neither for what is pooled."""
    assert map_shape(backbone("sktl_mini"), "layer4") == (512, 4, 4)
    assert map_shape(backbone("sktl_mini", (64, 128)), "layer4") == (512, 4, 8)
    assert map_shape(backbone("sktl_mini"), "flatten") is None
    assert map_shape(backbone("sktl_mini"), "avgpool") is None
    vit = transformer(32)
    assert map_shape(vit, vit.stages[-1].name) == (6, 4, 4)


def test_a_network_without_maps_is_refused():
    """The error says which network it is, and which methods work with it, for layers that are given as well."""
    module = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(192, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    network = load_backbone(module, preprocessing={"resize_size": 8, "crop_size": 8})
    with pytest.raises(BackboneError, match=r"has no stage with a map, which patches require\. Use method='knn' or"):
        choose_patch_layers(network)
    with pytest.raises(BackboneError, match=r"has the shape \(4,\)\. Use method='knn' or 'mahalanobis', or a"):
        check_patch_layers(network, [network.stages[-1].name], "padim")


def test_a_layer_without_a_map_is_refused():
    """The error names the stages that have maps."""
    with pytest.raises(BackboneError, match=r"method='padim' needs .*'avgpool'.*\(512, 1, 1\).*\['stem', 'layer1'"):
        check_patch_layers(backbone("sktl_mini"), ["layer2", "avgpool"], "padim")


def slow_patches(output):
    """Means over 3 x 3 positions, with zeros around the map, by a loop; (n, channels, height, width) stays."""
    means = np.empty_like(output)
    for row in range(output.shape[2]):
        for column in range(output.shape[3]):
            part = output[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            means[:, :, row, column] = part.sum(axis=(2, 3)) / 9
    return means


def test_patches_are_means_of_their_neighborhoods():
    """The larger map as it is, the smaller one interpolated, one after the other in the channels."""
    rng = np.random.default_rng(0)
    fine, coarse = rng.random((2, 64, 16, 16), np.float32), rng.random((2, 128, 8, 8), np.float32)
    patches = PatchGrid(backbone("sktl_mini"), ["layer3", "layer2"]).patches([coarse, fine])
    assert patches.shape == (2, 256, 192)
    np.testing.assert_allclose(
        patches[:, :, 128:], slow_patches(fine).reshape(2, 64, 256).transpose(0, 2, 1), rtol=1e-5
    )
    small = slow_patches(coarse)
    # Halfway between two positions of the smaller map: a quarter of the way, and three quarters.
    expected = 0.75 * (0.75 * small[:, :, 0, 0] + 0.25 * small[:, :, 0, 1]) + 0.25 * (
        0.75 * small[:, :, 1, 0] + 0.25 * small[:, :, 1, 1]
    )
    np.testing.assert_allclose(patches[:, 17, :128], expected, rtol=1e-5)


def test_tokens_become_patches():
    """Without the class token, and with channels last."""
    vit = transformer(32)
    tokens = np.random.default_rng(0).random((3, 17, 6), np.float32)
    patches = PatchGrid(vit, [vit.stages[-1].name]).patches([tokens])
    expected = slow_patches(tokens[:, 1:].reshape(3, 4, 4, 6).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(patches, expected.reshape(3, 6, 16).transpose(0, 2, 1), rtol=1e-5)


def test_maps_have_the_size_of_the_images():
    """The value of a patch is at its position, and constant maps stay constant."""
    grid = PatchGrid(backbone("sktl_mini", (64, 128)), ["layer2", "layer3"])
    distances = np.zeros((2, 16, 32))
    distances[0, 3, 5], distances[1] = 1, 2
    maps = grid.maps(distances.reshape(2, -1))
    assert maps.shape == (2, 64, 128)
    assert maps.dtype == np.float32
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert (row // 4, column // 4) == (3, 5)
    assert (maps[1] == 2).all()
