"""The fingerprint names what a network computes: no more, no less, in every process."""

import copy

import pytest
import torch
from torch import nn

from sktl.backbones import load_backbone

SMALL = {"resize_size": 16, "crop_size": 16}


def network(**settings) -> nn.Sequential:
    """Two convolutions with fixed weights; ``settings`` go to the second."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, **settings), nn.Flatten())
    for seed, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed)))
    return module


def fingerprint(module: nn.Module, layer: str = "2") -> str:
    return load_backbone(module, preprocessing=SMALL).fingerprint(layer)


def test_equal_networks():
    """Deep copies, networks built alike and networks with other names for the same layers are equal."""
    expected = fingerprint(network())
    assert fingerprint(copy.deepcopy(network())) == expected
    renamed = nn.Sequential()
    for name, layer in zip("abcd", network(), strict=True):
        renamed.add_module(name, layer)
    assert fingerprint(renamed, "c") == expected
    assert len(expected) == 32


def test_equal_in_another_process(in_new_process):
    """No address in memory and no hash seed gets in."""
    code = "from sktl.backbones import load_backbone; result = load_backbone('sktl_mini').fingerprint('layer3')"
    assert in_new_process(code) == load_backbone("sktl_mini").fingerprint("layer3")


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "2.weight"])
def test_one_weight(name):
    """One element of one tensor, by the smallest step that float32 knows, makes another network."""
    module = network()
    values = module.state_dict()[name].view(-1)
    values[-1] = torch.nextafter(values[-1], torch.tensor(2.0))
    assert fingerprint(module) != fingerprint(network())


@pytest.mark.parametrize("settings", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"padding_mode": "reflect"}])
def test_one_setting(settings):
    """Layers with equal weights and another stride, padding or dilation are other layers."""
    assert fingerprint(network(**settings)) != fingerprint(network())


def test_epsilon():
    """So is a batch norm with another epsilon, which the weights do not tell."""
    module = network()
    module[1].eps = 1e-3
    assert fingerprint(module) != fingerprint(network())


def test_functions_and_their_arguments():
    """What is computed without layers counts as well: the function, and its numbers."""

    class Scaled(nn.Module):
        def __init__(self, function, factor):
            super().__init__()
            self.conv, self.function, self.factor = network()[0], function, factor

        def forward(self, x):
            return self.function(self.conv(x)) * self.factor

    prints = {fingerprint(Scaled(f, n), "mul") for f in (torch.relu, torch.sigmoid) for n in (1.0, 2.0)}
    assert len(prints) == 4
    assert fingerprint(Scaled(torch.relu, 1.0), "mul") in prints


class Unreadable(nn.Module):
    """A layer that torch.fx cannot follow."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def forward(self, x):
        return self._function(x) if x.sum() > 0 else self._function(x) + 1


def test_code_that_cannot_be_read_is_never_taken_for_other_code():
    """What an unreadable layer does may hide anywhere, so its network is equal to none but itself and its copies."""

    def backbone(factor):
        module = nn.Sequential(network()[0], Unreadable(lambda x: x * factor), nn.Flatten())
        return load_backbone(module, preprocessing=SMALL)

    first = backbone(2.0)
    assert first.fingerprint("1") != backbone(3.0).fingerprint("1")
    assert first.fingerprint("1") == first.fingerprint("1") == copy.deepcopy(first).fingerprint("1")
    assert first.fingerprint("0") == backbone(3.0).fingerprint("0")


def test_functions_that_torch_makes_inside_another_function():
    """max_pool2d and adaptive_max_pool2d have one qualified name and are two functions."""

    class Pooled(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.conv, self.function = network()[0], function

        def forward(self, x):
            return self.function(self.conv(x), 2)

    functions = (nn.functional.max_pool2d, nn.functional.adaptive_max_pool2d)
    first, second, again = (
        fingerprint(Pooled(f), load_backbone(Pooled(f), preprocessing=SMALL).layers[-1])
        for f in (*functions, functions[0])
    )
    assert first != second
    assert first == again


def test_what_lies_behind_the_layer_does_not_count():
    """Changing a later layer leaves the fingerprint of an earlier one, so that its cached features stay good."""
    module = network()
    with torch.no_grad():
        module[2].weight.add_(1)
    assert fingerprint(module, "1") == fingerprint(network(), "1")
    assert fingerprint(module, "1") != fingerprint(module, "0")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_any_dtype(dtype):
    """Buffers of types that NumPy does not know are digested too."""
    module = nn.Sequential(network()[0], nn.Flatten())
    module[0].register_buffer("extra", torch.ones(2, dtype=dtype))
    first = load_backbone(module, preprocessing=SMALL).fingerprint("0")
    module[0].extra[0] = 2
    assert load_backbone(module, preprocessing=SMALL).fingerprint("0") != first
