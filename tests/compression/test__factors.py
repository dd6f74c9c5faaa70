"""Low rank: at full rank the layer itself, below it as near as can be, and never more parameters than asked for."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from sktl.compression._factors import (
    _as_matrices,
    _pair,
    _triple,
    _weight,
    energy_within,
    factorize,
    full_rank,
    split,
    tucker,
)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def whole(layer, method):
    """The factors of ``layer`` with all of its rank, which `factorize` would not give."""
    kernel = _weight(layer)
    if method == "tucker":
        return nn.Sequential(*_triple(layer, *tucker(kernel, *kernel.shape[1:3])))
    return nn.Sequential(*_pair(layer, *split(_as_matrices(kernel), full_rank(layer, method))))


def effective_kernel(parts, layer):
    """What a sequence of convolutions does to single points of the input: the kernel that it stands for, bias left out.

    Seen from outside, with strides and padding taken away: the slow truth about any factors.
    """
    for part in parts:
        part.bias = None
        part.stride, part.dilation = (1, 1), (1, 1)
        part.padding, part.padding_mode = tuple(size - 1 for size in part.kernel_size), "zeros"
    n_in = layer.in_channels // layer.groups
    points = torch.zeros(n_in, layer.groups, n_in, 1, 1, dtype=layer.weight.dtype)
    points[range(n_in), :, range(n_in)] = 1
    return nn.Sequential(*parts)(points.flatten(1, 2)).flip(2, 3).transpose(0, 1)


GEOMETRIES = [
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0)},
    {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    {"dilation": 2, "padding": 2},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": "valid"},
    {"padding": (1, 2), "padding_mode": "reflect"},
    {"padding": "same", "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "replicate", "stride": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("method", ["spatial", "tucker"])
@pytest.mark.parametrize("groups", [1, 2, 6], ids=["one group", "groups", "depthwise"])
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1), (1, 3), (5, 3), (2, 4), (1, 1)])
def test_all_of_the_rank_is_the_layer(method, groups, kernel):
    """With all of its rank a sequence computes what the layer does: stride, padding, dilation, groups and bias."""
    x = torch.randn(2, 6, 11, 12)
    for geometry, bias in itertools.product(GEOMETRIES, [True, False]):
        layer = nn.Conv2d(6, 12, kernel, groups=groups, bias=bias, **geometry)
        parts = whole(layer, method)
        assert len(parts) == (3 if method == "tucker" else 2)
        torch.testing.assert_close(parts(x), layer(x), rtol=1e-5, atol=1e-5, msg=f"{geometry}, {bias=}")


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 5), (5, 7), (6, 6)])
def test_all_of_the_rank_is_the_linear_layer(n_in, n_out):
    """The same of linear layers, of inputs with any number of axes."""
    layer = nn.Linear(n_in, n_out)
    x = torch.randn(2, 3, n_in)
    torch.testing.assert_close(whole(layer, "spatial")(x), layer(x), rtol=1e-5, atol=1e-5)


def test_stride_comes_early():
    """With nothing to see along the width, the first factor takes all strides, and the second computes fewer places."""
    for kernel in [(1, 1), (3, 1)]:
        first, last = whole(nn.Conv2d(8, 8, kernel, stride=2, padding=1), "spatial")
        assert (first.stride, first.padding) == ((2, 2), (1, 1))
        assert (last.stride, last.padding, last.kernel_size) == ((1, 1), (0, 0), (1, 1))
    first, last = whole(nn.Conv2d(8, 8, 3, stride=2), "spatial")
    assert (first.kernel_size, last.kernel_size, first.stride, last.stride) == ((3, 1), (1, 3), (2, 1), (1, 2))


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Linear(40, 20),
        lambda: nn.Linear(20, 40),
        lambda: nn.Conv2d(24, 16, 1),
        lambda: nn.Conv2d(8, 12, 3),
        lambda: nn.Conv2d(16, 24, (5, 3), groups=2),
    ],
    ids=["linear", "wide", "1x1", "3x3", "groups"],
)
def test_error_is_the_tail_of_the_singular_values(layer, rank):
    """What is lost is the sum of the squares of the singular values left out, the least there can be (Eckart-Young)."""
    layer = layer()
    parts = factorize(layer, method="spatial", rank=rank)
    if isinstance(layer, nn.Linear):
        matrices = [layer.weight.detach().numpy()]
        lost = (parts[1].weight @ parts[0].weight - layer.weight).square().sum().detach()
    else:
        # Height with inputs, width with outputs, in numpy's words.
        kernels = np.split(layer.weight.detach().numpy(), layer.groups)
        matrices = [np.einsum("oiyx->oxiy", k).reshape(k.shape[0] * k.shape[3], -1) for k in kernels]
        lost = (effective_kernel(parts, layer) - layer.weight).square().sum().detach()
    tail = sum((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum() for matrix in matrices)
    assert tail > 0
    assert float(lost) == pytest.approx(tail, rel=1e-4)


def test_factors_are_balanced():
    """Both factors have the singular values' square roots, so that neither outweighs the other in retraining."""
    matrix = torch.randn(2, 9, 6, dtype=torch.float64)
    for given in (matrix, matrix.mT):
        left, right = split(given, 4)
        expected = np.linalg.svd(given.numpy(), compute_uv=False)[:, :4]
        diagonal = torch.diag_embed(torch.from_numpy(expected))
        torch.testing.assert_close(left.mT @ left, diagonal)
        torch.testing.assert_close(right @ right.mT, diagonal)


def test_channels_of_tucker_are_balanced():
    """All that leads into a channel between two factors weighs as much as what leads out of it."""
    core, outer, inner = tucker(torch.randn(2, 9, 8, 3, 3, dtype=torch.float64), 4, 5)
    squares = core.square().sum((3, 4))
    torch.testing.assert_close(squares.sum(2), outer.square().sum(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(squares.sum(1), inner.square().sum(1), rtol=1e-4, atol=0)


def hosvd(kernel, rank_out, rank_in):
    """The truncated higher-order singular value decomposition of one kernel, in numpy, as a kernel."""
    u = np.linalg.svd(kernel.reshape(len(kernel), -1), full_matrices=False)[0][:, :rank_out]
    v = np.linalg.svd(kernel.swapaxes(0, 1).reshape(kernel.shape[1], -1), full_matrices=False)[0][:, :rank_in]
    return np.einsum("oiyx,op,iq,rp,sq->rsyx", kernel, u, v, u, v, optimize=True)


@pytest.mark.parametrize("ranks", [(4, 3), (2, 6), (7, 1)])
def test_tucker_loses_less_than_hosvd(ranks):
    """Alternating is nearer to the kernel than the decomposition it starts from, and not nearer than can be."""
    kernel = torch.randn(3, 10, 8, 3, 3, dtype=torch.float64)
    core, outer, inner = tucker(kernel, *ranks)
    near = torch.einsum("gpqyx,gop,giq->goiyx", core, outer, inner).numpy()
    for given, found in zip(kernel.numpy(), near, strict=True):
        lost = ((given - found) ** 2).sum()
        assert lost < 0.99 * ((given - hosvd(given, *ranks)) ** 2).sum()
        tails = [
            (np.linalg.svd(given.swapaxes(0, axis).reshape(given.shape[axis], -1), compute_uv=False)[rank:] ** 2).sum()
            for axis, rank in enumerate(ranks)
        ]
        assert lost >= max(tails)


def test_tucker_of_one_mode_is_the_singular_value_decomposition():
    """Where one mode stays whole nothing is lost but the tail of the other one, and the layer has two parts."""
    layer = nn.Conv2d(3, 32, 3)
    parts = factorize(layer, method="tucker", rank=5)
    assert [part.kernel_size for part in parts] == [(3, 3), (1, 1)]
    tail = (np.linalg.svd(layer.weight.detach().numpy().reshape(32, -1), compute_uv=False)[5:] ** 2).sum()
    assert float((effective_kernel(parts, layer) - layer.weight).square().sum().detach()) == pytest.approx(
        tail, rel=1e-4
    )


@pytest.mark.parametrize("method", ["spatial", "tucker"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_low_rank_is_found(method, groups):
    """A layer that has a low rank is reproduced by as little, whichever way the rank is asked for."""
    small = [nn.Conv2d(24, 2 * groups, (3, 1), groups=groups), nn.Conv2d(2 * groups, 32, (1, 3), groups=groups)]
    layer = nn.Conv2d(24, 32, 3, groups=groups, stride=2, padding=1)
    layer.weight.data = effective_kernel(small, layer).detach()
    x = torch.randn(2, 24, 9, 9)
    rank = 2 if method == "spatial" else 6  # two columns of each of three heights are six directions among channels
    for asked in ({"energy": 1.0}, {"rank": rank}):
        parts = factorize(layer, method=method, **asked)
        assert parts[0].out_channels == rank * groups
        torch.testing.assert_close(parts(x), layer(x), rtol=1e-5, atol=1e-5)


def test_a_separable_depthwise_kernel():
    """Of a depthwise convolution the spatial way keeps a column and a row for each channel; Tucker's has no say."""
    layer = nn.Conv2d(8, 8, 5, groups=8, padding=2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(8, 1, 5, 1) * torch.randn(8, 1, 1, 5))
    parts = factorize(layer, method="spatial", energy=0.999)
    assert [tuple(part.weight.shape) for part in parts] == [(8, 1, 5, 1), (8, 1, 1, 5)]
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(parts(x), layer(x), rtol=1e-5, atol=1e-5)
    assert factorize(layer, method="tucker", energy=0.3) is None


@pytest.mark.parametrize("method", ["spatial", "tucker"])
@pytest.mark.parametrize("share", [0.12, 0.3, 0.5, 0.8, 0.95])
def test_never_more_parameters_than_asked_for(share, method):
    """With the same share of their energy layers keep to a share of their parameters, and little of it is unused."""
    layers = [
        nn.Linear(30, 50),
        nn.Linear(64, 10, bias=False),
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(24, 36, 3, groups=3),
        nn.Conv2d(40, 8, 5),
        nn.Conv2d(20, 50, 1, bias=False),
    ]

    def n_left(energy):
        parts = [factorize(layer, method=method, energy=energy) or layer for layer in layers]
        return sum(map(count, parts))

    n_given = sum(map(count, layers))
    energy = energy_within(layers, method, share)
    assert 0.9 * share * n_given < n_left(energy) <= share * n_given
    assert n_left(energy + 1e-9) > share * n_given


def test_a_share_that_not_even_rank_1_keeps_to():
    """There is no energy that could be kept; where everything is zero, all of it is."""
    assert energy_within([nn.Linear(30, 50)], "spatial", 0.05) is None
    layer = nn.Conv2d(30, 50, 3)
    nn.init.zeros_(layer.weight)
    assert energy_within([layer], "spatial", 0.5) == pytest.approx(1)


def slow_cheapest_ranks(layer, energy):
    """All pairs of ranks, tried: of those that keep the energy, by numpy's account, the one with fewest weights."""
    kernels = np.split(layer.weight.detach().double().numpy(), layer.groups)
    n_out, n_in, height, width = kernels[0].shape
    best = (np.inf,)
    for rank_out, rank_in in itertools.product(range(1, n_out + 1), range(1, n_in + 1)):
        n = rank_out * rank_in * height * width
        n += rank_out * n_out if rank_out < n_out else 0
        n += rank_in * n_in if rank_in < n_in else 0
        lost = sum(((kernel - hosvd(kernel, rank_out, rank_in)) ** 2).sum() for kernel in kernels)
        if lost <= (1 - energy) * sum((kernel**2).sum() for kernel in kernels):
            best = min(best, (n, rank_out, rank_in))
    return best[1:]


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    "layer", [lambda: nn.Conv2d(3, 24, 3), lambda: nn.Conv2d(12, 16, 3, groups=2), lambda: nn.Conv2d(20, 6, 5)]
)
def test_the_pair_of_ranks_that_costs_least(layer, energy):
    """Of all pairs of ranks that keep an energy, groups counted together, a slow search finds the same one."""
    layer = layer()
    with torch.no_grad():  # inputs of different weight, so that all outputs may be needed and not all inputs
        layer.weight *= torch.logspace(0, -1.5, layer.weight.shape[1])[:, None, None]
    rank_out, rank_in = slow_cheapest_ranks(layer, energy)
    parts = factorize(layer, method="tucker", energy=energy)
    core = next(part for part in parts if part.kernel_size != (1, 1))
    assert core.weight.shape[:2] == (rank_out * layer.groups, rank_in)


@pytest.mark.parametrize("energy", [0.3, 0.6, 0.9, 1.0])
def test_rank_of_an_energy(energy):
    """The smallest rank whose singular values have the share of the squares' sum, of all groups together."""
    layer = nn.Linear(90, 60)
    with torch.no_grad():
        layer.weight *= torch.logspace(0, -3, 60)[:, None]
    squares = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False) ** 2
    rank = next(r for r in range(1, 61) if squares[:r].sum() >= energy * squares.sum() * (1 - 1e-12))
    parts = factorize(layer, energy=energy)
    if energy == 1.0:
        assert rank == 60
        assert parts is None
    else:
        assert parts[0].out_features == rank


def test_energy_of_groups():
    """Groups have one rank, and what they keep is counted together: one that has nothing to lose helps the other."""
    layer = nn.Conv2d(24, 32, 3, groups=2)
    with torch.no_grad():
        layer.weight[:16] = torch.randn(16, 1, 1, 3) * torch.randn(1, 12, 3, 1)  # of rank 1, and much the larger part
    kernels = layer.weight.detach().double().numpy().reshape(2, 16, 12, 3, 3)
    squares = [np.linalg.svd(np.einsum("oiyx->oxiy", k).reshape(48, 36), compute_uv=False) ** 2 for k in kernels]
    energy = 0.999
    total = np.cumsum(squares[0] + squares[1])
    rank = int(np.searchsorted(total, energy * total[-1])) + 1
    alone = [int(np.searchsorted(np.cumsum(s), energy * s.sum())) + 1 for s in squares]
    assert alone[0] < rank < alone[1]
    parts = factorize(layer, energy=energy)
    assert parts[0].out_channels == 2 * rank


@pytest.mark.parametrize(
    ("layer", "asked"),
    [
        (lambda: nn.Linear(4, 4), {"rank": 2}),
        (lambda: nn.Linear(40, 30), {"rank": 30}),
        (lambda: nn.Linear(40, 30), {"rank": 500}),
        (lambda: nn.Conv2d(16, 16, 3), {"rank": 16, "method": "tucker"}),
        (lambda: nn.Conv2d(16, 16, 3), {"energy": 1.0, "method": "tucker"}),
        (lambda: nn.Conv2d(16, 16, 3), {"energy": 1.0}),
        (lambda: nn.Conv2d(16, 16, 3), {"rank": 48}),
        (lambda: nn.Conv2d(16, 16, 3, groups=16), {"rank": 1, "method": "tucker"}),
    ],
)
def test_a_layer_that_would_not_shrink(layer, asked):
    """It is left alone: with a rank that is not below its own, or with no gain."""
    assert factorize(layer(), **asked) is None


@pytest.mark.parametrize(
    ("layer", "method", "expected"),
    [
        (nn.Linear(40, 30), "tucker", 30),
        (nn.Conv2d(40, 30, 1), "tucker", 30),
        (nn.Conv2d(40, 30, 3), "tucker", 40),
        (nn.Conv2d(40, 30, 3, groups=10), "tucker", 4),
        (nn.Conv2d(40, 2, 3), "tucker", 18),
        (nn.Conv2d(40, 30, 3), "spatial", 90),
        (nn.Conv2d(8, 8, 3, groups=8), "spatial", 3),
    ],
)
def test_full_rank(layer, method, expected):
    """The rank at which nothing is lost, and one below which something of a random layer is."""
    assert full_rank(layer, method) == expected


@pytest.mark.parametrize("layer", [lambda: nn.Linear(20, 30), lambda: nn.Conv2d(8, 12, 3, groups=2)])
def test_form_is_the_layers(layer):
    """Dtype, mode, what learns and what does not: as in the layer, which itself is not changed."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        given = layer().to(dtype).eval()
        given.weight.requires_grad_(False)
        before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
        parts = factorize(given, rank=2, method="spatial")
        assert {parameter.dtype for parameter in parts.parameters()} == {dtype}
        assert [parameter.requires_grad for parameter in parts.parameters()] == [False, False, True]
        assert not any(module.training for module in parts.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
        assert parts[-1].bias.data_ptr() != given.bias.data_ptr()
        assert torch.equal(parts[-1].bias, given.bias)
    assert all(module.training for module in factorize(layer(), rank=2).modules())
    assert factorize(layer(), rank=2)[0].bias is None


@pytest.mark.parametrize("layer", [lambda: nn.Linear(8, 12), lambda: nn.Conv2d(8, 12, 3)])
def test_nothing_global_moves(layer):
    """No random number is drawn, and what is made where only predictions are can be trained."""
    x = torch.randn(2, 8, 8, 8)
    layer = layer()
    state = torch.get_rng_state()
    with torch.inference_mode():
        parts = factorize(layer, rank=2)
    assert torch.equal(torch.get_rng_state(), state)
    parts(x).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in parts.parameters())


def test_ranks_out_of_a_grid():
    """Numpy's numbers mean what Python's do."""
    layer = nn.Conv2d(16, 16, 3)
    shapes = [[part.weight.shape for part in factorize(layer, rank=x)] for x in (np.int64(2), 2)]
    assert shapes[0] == shapes[1]


def test_a_layer_of_zeros():
    """It has no direction to keep, and is still a layer of zeros."""
    layer = nn.Conv2d(16, 16, 3)
    nn.init.zeros_(layer.weight)
    for asked in ({"rank": 2}, {"energy": 0.9}, {"energy": 1.0}):
        for method in ("spatial", "tucker"):
            parts = factorize(layer, method=method, **asked)
            assert all(parameter.isfinite().all() for parameter in parts.parameters())
            x = torch.randn(2, 16, 5, 5)
            torch.testing.assert_close(parts(x), layer(x))


def test_what_cannot_be_factorized():
    """Weights that are not finite, and a method that nobody knows, are said."""
    layer = nn.Linear(20, 20)
    with pytest.raises(ValueError, match=r"The 'method' parameter must be one of .* Got 'cp' instead\."):
        factorize(nn.Conv2d(8, 8, 3), method="cp", rank=2)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"The weights of Linear.* are NaN or infinite and cannot be factorized"):
        factorize(layer, rank=2)
