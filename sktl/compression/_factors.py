"""Low rank: a sequence of smaller layers in place of a linear layer or a convolution.

A linear layer is a matrix, and the best matrix of a lower rank is the truncated singular value decomposition (Eckart &
Young 1936). A convolution has a kernel of four axes, for which there are two ways: see `factorize`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sktl.exceptions import InputError

Layer = nn.Linear | nn.Conv2d

METHODS = ("spatial", "tucker")

_N_ALTERNATIONS = 3  # of the higher-order orthogonal iteration; most of what it gains comes with the first one

# Energies that are nothing but the rounding of the weights' own float32.
_ROUNDING = 1e-12


def factorize(
    layer: Layer, *, method: str = "spatial", rank: "int | None" = None, energy: float = 1.0
) -> nn.Sequential | None:
    """Layers of lower rank that stand for ``layer``, or None where they would not have fewer parameters.

    A linear layer and a convolution with a kernel of 1 x 1 become two of their kind by the singular value
    decomposition, whatever the method.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer, which is not changed. The groups of a grouped convolution are treated one by one, with the same rank.
    method : {"spatial", "tucker"}, default="spatial"
        What becomes of a larger kernel: ``"spatial"`` makes convolutions of kh x 1 and 1 x kw [1]_; ``"tucker"`` makes
        convolutions of 1 x 1, kh x kw and 1 x 1, between fewer channels [2]_.
    rank : int, default=None
        The rank, of each mode of a Tucker decomposition; a layer (or mode) whose full rank is not above it stays as it
        is. None for what ``energy`` says.
    energy : float, default=1.0
        The share of the sum of its weights' squares that is kept, which takes the smallest rank that does so (of
        Tucker's pairs of ranks the one with the fewest parameters). All of it is kept where the layer is of low rank.

    Returns
    -------
    nn.Sequential or None
        Plain torch layers in the dtype, on the device and in the mode of ``layer``.

    Raises
    ------
    InputError
        Where ``method`` is unknown, or a weight is not finite.

    References
    ----------
    .. [1] Jaderberg, Vedaldi, Zisserman: "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC
       2014, scheme 2; by singular value decomposition: Tai et al., ICLR 2016.
    .. [2] Kim et al.: "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
       ICLR 2016, section 3.2 (Tucker-2).
    """
    # What is made here is to be trained, also where the caller only predicts.
    with torch.inference_mode(False), torch.no_grad():
        weight = _weight(layer)
        if not bool(weight.isfinite().all()):
            raise InputError(f"The weights of {layer} are not finite, and have no singular values.")
        if rank is not None:
            ranks: tuple[int, ...] = (int(rank),) * (1 + _is_tucker(layer, method))
        else:
            choices = _choices(layer, method)
            ranks = tuple(choices.ranks[choices.cheapest(energy)].tolist())
        parts = _factors(layer, weight, ranks)
    if _count(parts) >= _count([layer]):
        return None
    return nn.Sequential(*parts).train(layer.training)


def full_rank(layer: Layer, method: str) -> int:
    """The rank at which nothing is lost, and above which no rank means anything; of Tucker's two the larger one."""
    _, n_out, n_in, height, width = _weight(layer).shape
    if _is_tucker(layer, method):
        n_places = height * width
        return max(min(n_out, n_in * n_places), min(n_in, n_out * n_places))
    return min(n_out * width, n_in * height)


def energy_within(layers: Iterable[Layer], method: str, share: float) -> float | None:
    """How much of their energy, the same share of each, some layers can keep with a share of their parameters.

    So each layer loses as much as the others, in proportion: where each were given the same share of its parameters, a
    small layer that everything goes through would lose most for next to nothing.

    Parameters
    ----------
    layers : iterable of nn.Linear or nn.Conv2d
        The layers.
    method : {"spatial", "tucker"}
        See `factorize`.
    share : float
        Of the parameters of all layers, biases counted in, between 0 and 1.

    Returns
    -------
    float or None
        The largest ``energy`` with which `factorize` keeps to it; a layer that would not become smaller with it stays
        and counts as it is. None where not even rank 1 does.
    """
    layers = list(layers)
    with torch.inference_mode(False), torch.no_grad():
        choices = [_choices(layer, method) for layer in layers]
    sizes = [_count([layer]) for layer in layers]

    def n_parameters(energy: float) -> int:
        kept = (int(choice.sizes[choice.cheapest(energy)]) for choice in choices)
        return sum(min(pair) for pair in zip(kept, sizes, strict=True))

    low, high = 0.0, 1.0
    if n_parameters(low) > share * sum(sizes):
        return None
    for _ in range(40):  # one step more would be below the rounding that `_Choices` allows for
        middle = (low + high) / 2
        low, high = (middle, high) if n_parameters(middle) <= share * sum(sizes) else (low, middle)
    return low


def split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best product of two thin matrices, with the singular values shared out alike.

    Parameters
    ----------
    matrix : Tensor of shape (n_groups, n_rows, n_columns)
        One matrix per group.
    rank : int
        Of the product.

    Returns
    -------
    left : Tensor of shape (n_groups, n_rows, rank)
        ``U * sqrt(S)`` of the singular value decomposition.
    right : Tensor of shape (n_groups, rank, n_columns)
        ``sqrt(S) * V'``. A gradient reaches each factor through the other one: with all singular values on one side,
        one factor would take steps that are far too small for it, the other far too large ones.
    """
    if matrix.shape[1] > matrix.shape[2]:
        right, left = split(matrix.mT, rank)
        return left.mT, right.mT
    basis = _modes(matrix)[0][..., :rank]
    rest = basis.mT @ matrix  # S * V', exact also where a singular value is lost in the squares of the largest
    root = torch.linalg.vector_norm(rest, dim=2, keepdim=True).sqrt()
    return basis * root.mT, rest / root.clamp_min(torch.finfo(root.dtype).tiny)


def tucker(
    kernel: Tensor, rank_out: "int | None", rank_in: "int | None"
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A kernel as a smaller one between fewer channels, and what maps these to all channels (Tucker-2).

    Parameters
    ----------
    kernel : Tensor of shape (n_groups, n_out, n_in, height, width)
        One kernel per group.
    rank_out, rank_in : int or None
        How many channels are left; None for all, which needs no map.

    Returns
    -------
    core : Tensor of shape (n_groups, rank_out, rank_in, height, width)
        The smaller kernel.
    outer : Tensor of shape (n_groups, n_out, rank_out) or None
        Maps its outputs to those of ``kernel``.
    inner : Tensor of shape (n_groups, n_in, rank_in) or None
        Its transpose maps the inputs of ``kernel`` to its own:
        ``kernel[g, o, i] = sum_pq outer[g, o, p] * core[g, p, q] * inner[g, i, q]``.
    """
    outer = _leading(kernel, 1, rank_out)
    inner = _leading(kernel, 2, rank_in)
    if outer is not None and inner is not None:  # one alone is the singular value decomposition, and cannot do better
        for _ in range(_N_ALTERNATIONS):
            outer = _leading(_project(kernel, 2, inner), 1, rank_out)
            inner = _leading(_project(kernel, 1, outer), 2, rank_in)
    core = _project(_project(kernel, 1, outer), 2, inner)
    return _balance(core, outer, inner)


def _balance(
    core: Tensor, outer: "Tensor | None", inner: "Tensor | None"
) -> tuple[Tensor, "Tensor | None", "Tensor | None"]:
    """Share the size of the core out, so that all that leads into a channel weighs as much as what leads out of it.

    The three factors with the smallest sum of squares, as the square roots of singular values are for two. Each step
    solves it for one side exactly.
    """
    tiny = torch.finfo(core.dtype).tiny
    squares = core.square().sum((3, 4))  # (n_groups, rank_out, rank_in)
    p, q = torch.ones_like(squares[:, :, :1]), torch.ones_like(squares[:, :1])
    for _ in range(20 if outer is not None and inner is not None else 1):
        p = p if outer is None else (squares / q.square()).sum(2, keepdim=True).sqrt().sqrt().clamp_min(tiny**0.25)
        q = q if inner is None else (squares / p.square()).sum(1, keepdim=True).sqrt().sqrt().clamp_min(tiny**0.25)
    core = core / (p * q)[..., None, None]
    return core, None if outer is None else outer * p.mT, None if inner is None else inner * q


def _modes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (n_groups, n_rows, n_rows) of each matrix, and squared singular values (n_rows,), summed.

    From the small square matrix of inner products, five times as fast as from the wide one, and in float64 as good for
    weights that are float32 themselves.
    """
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return vectors.flip(2), values.flip(1).clamp_min(0).sum(0)


def _unfold(kernel: Tensor, axis: int) -> Tensor:
    """A kernel as matrices whose rows are its channels along ``axis``."""
    return kernel.movedim(axis, 1).flatten(2)


def _leading(kernel: Tensor, axis: int, rank: "int | None") -> Tensor | None:
    """The most important directions among the channels along ``axis``; None for all of them."""
    return None if rank is None else _modes(_unfold(kernel, axis))[0][..., :rank]


def _project(kernel: Tensor, axis: int, basis: "Tensor | None") -> Tensor:
    """A kernel between those directions only."""
    if basis is None:
        return kernel
    return torch.einsum("ga...,gar->gr...", kernel.movedim(axis, 1), basis).movedim(1, axis)


class _Choices(NamedTuple):
    """The ranks that a layer may have, those with the fewest parameters first."""

    ranks: Tensor  # (n_choices, 1 or 2)
    sizes: Tensor  # (n_choices,), parameters of the factors
    kept: Tensor  # (n_choices,), share of the energy that this choice or one before it keeps

    def cheapest(self, energy: float) -> int:
        """The first choice that keeps ``energy``."""
        return int(torch.searchsorted(self.kept, energy * (1 - _ROUNDING)))


def _choices(layer: Layer, method: str) -> _Choices:
    """What each rank costs, and keeps."""
    kernel = _weight(layer)
    groups, n_out, n_in, height, width = kernel.shape
    if _is_tucker(layer, method):
        # Between all directions of both modes the core is as large as the kernel, and what is cut off of it is what is
        # lost (what alternating brings back comes on top): so that is known of all pairs of ranks at once.
        core = _project(_project(kernel, 1, _leading(kernel, 1, n_out)), 2, _leading(kernel, 2, n_in))
        kept = core.square().sum((0, 3, 4)).cumsum(0).cumsum(1)
        out, inside = torch.meshgrid(torch.arange(1, n_out + 1), torch.arange(1, n_in + 1), indexing="ij")
        maps = n_out * out * (out < n_out) + n_in * inside * (inside < n_in)  # a mode that stays whole needs none
        sizes = groups * (out * inside * height * width + maps)
        ranks = torch.stack([out, inside], 2).flatten(0, 1)
    else:
        matrix = _as_matrices(kernel)
        kept = _modes(matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT)[1].cumsum(0)
        ranks = torch.arange(1, len(kept) + 1)[:, None]
        sizes = groups * ranks[:, 0] * (n_out * width + n_in * height)
    kept, sizes = kept.flatten(), sizes.flatten()
    order = sizes.argsort(stable=True)
    share = kept[order] / kept[-1] if kept[-1] > 0 else torch.ones_like(kept)  # nothing is all of nothing
    n_bias = 0 if layer.bias is None else len(layer.bias)
    return _Choices(ranks[order], sizes[order] + n_bias, share.cummax(0).values)


def _factors(layer: Layer, kernel: Tensor, ranks: tuple[int, ...]) -> list[nn.Module]:
    """The layers of one rank, or of two for outputs and inputs."""
    if len(ranks) == 1:
        return _pair(layer, *split(_as_matrices(kernel), *ranks))
    rank_out, rank_in = (rank if rank < n else None for rank, n in zip(ranks, kernel.shape[1:3], strict=True))
    return _triple(layer, *tucker(kernel, rank_out, rank_in))


def _as_matrices(kernel: Tensor) -> Tensor:
    """Kernels as matrices (n_groups, n_out * width, n_in * height)."""
    return kernel.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)


def _pair(layer: Layer, left: Tensor, right: Tensor) -> list[nn.Module]:
    """The layers whose weights are the factors (n_groups, n_out * width, rank) and (n_groups, rank, n_in * height)."""
    groups, n_out, n_in, height, width = _weight(layer).shape
    rank = right.shape[1]
    if isinstance(layer, nn.Linear):
        return [_linear(layer, right[0]), _linear(layer, left[0], layer.bias)]
    first = right.reshape(groups * rank, n_in, height, 1)
    last = left.reshape(groups, n_out, width, rank).transpose(2, 3).reshape(groups * n_out, rank, 1, width)
    # A stride comes as early as it can, so that less is computed: with a width of 1, all of it.
    axes = ((0,), (1,)) if width > 1 else ((0, 1), ())
    return [_convolution(layer, first, axes[0]), _convolution(layer, last, axes[1], layer.bias)]


def _triple(layer: Any, core: Tensor, outer: "Tensor | None", inner: "Tensor | None") -> list[nn.Module]:
    """The layers whose weights are the factors of a Tucker decomposition."""
    parts: list[nn.Module] = []
    if inner is not None:
        parts.append(_convolution(layer, inner.mT.flatten(0, 1)[..., None, None], ()))
    parts.append(_convolution(layer, core.flatten(0, 1), (0, 1), layer.bias if outer is None else None))
    if outer is not None:
        parts.append(_convolution(layer, outer.flatten(0, 1)[..., None, None], (), layer.bias))
    return parts


def _weight(layer: Layer) -> Tensor:
    """The weights as kernels (n_groups, n_out, n_in, height, width): float64, on the CPU, where all machines agree."""
    weight = layer.weight.detach().to("cpu", torch.float64)
    return weight.unflatten(0, (layer.groups, -1)) if isinstance(layer, nn.Conv2d) else weight[None, :, :, None, None]


def _is_tucker(layer: Layer, method: str) -> bool:
    """Whether a layer has places that Tucker's way applies to."""
    if method not in METHODS:
        raise InputError(f"method={method!r} is unknown. Use one of {METHODS}.")
    return method == "tucker" and isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) > 1


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _linear(layer: nn.Linear, weight: Tensor, bias: "Tensor | None" = None) -> nn.Linear:
    # Without memory first: torch would fill it with random numbers, from a generator that is not ours.
    new = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _with_values(new, layer, weight, bias)


def _convolution(layer: nn.Conv2d, weight: Tensor, axes: tuple[int, ...], bias: "Tensor | None" = None) -> nn.Conv2d:
    """A convolution that steps, pads and dilates as ``layer`` does along ``axes`` (0: height, 1: width) only.

    Padding with zeros in front of a later factor is right, as no factor but the last one has a bias: it maps zeros to
    zeros. The other ways of padding repeat places, which the factors along the other axis treat all alike.
    """
    new = nn.Conv2d(
        weight.shape[1] * layer.groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=_along(axes, layer.stride, 1),
        padding=layer.padding if isinstance(layer.padding, str) else _along(axes, layer.padding, 0),
        dilation=_along(axes, layer.dilation, 1),
        groups=layer.groups,
        bias=False,
        padding_mode=layer.padding_mode if axes else "zeros",
        device="meta",
    )
    return _with_values(new, layer, weight, bias)


def _along(axes: tuple[int, ...], values: Sequence[int], other: int) -> tuple[int, int]:
    """The value of each of two axes, and ``other`` for one that is not among ``axes``."""
    return values[0] if 0 in axes else other, values[1] if 1 in axes else other


def _with_values(new, layer: Layer, weight: Tensor, bias: "Tensor | None"):
    """``new`` with its values, in the form that ``layer`` has them; a bias stays what it is."""
    values = weight.contiguous().to(layer.weight.device, layer.weight.dtype)
    new.weight = nn.Parameter(values, requires_grad=layer.weight.requires_grad)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return new
