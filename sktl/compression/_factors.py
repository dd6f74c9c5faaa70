"""Low rank: a sequence of smaller layers in place of a linear layer or a convolution.

A linear layer is a matrix, and the best matrix of a lower rank is the truncated singular value decomposition (Eckart &
Young 1936). A convolution has a kernel of four axes, for which there are two ways: see `factorize`.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d

METHODS = ("spatial", "tucker")

_N_ALTERNATIONS = 3  # of the higher-order orthogonal iteration; most of what it gains comes with the first one

# Energies that are nothing but the rounding of the weights' own float32.
_ROUNDING = 1e-12


def factorize(
    layer: Layer, *, method: str = "tucker", rank: "float | None" = None, energy: "float | None" = None
) -> nn.Sequential | None:
    """Layers of lower rank that stand for ``layer``, or None where they would not have fewer parameters.

    A linear layer and a convolution with a kernel of 1 x 1 become two of their kind by the singular value
    decomposition, whatever the method.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer, which is not changed. The groups of a grouped convolution are treated one by one, with the same rank.
    method : {"tucker", "spatial"}, default="tucker"
        What becomes of a larger kernel: ``"tucker"`` makes convolutions of 1 x 1, kh x kw and 1 x 1, between fewer
        channels [1]_; ``"spatial"`` makes one of kh x 1 and one of 1 x kw [2]_.
    rank : int or float, default=None
        A whole number is the rank itself, of each mode of a Tucker decomposition; a layer (or mode) whose full rank is
        not above it stays as it is. A float between 0 and 1 is the share of the layer's parameters that its factors
        may have; they take the largest rank that fits, of Tucker's pairs of ranks the one that loses least.
    energy : float, default=None
        The smallest rank whose singular values have this share of the sum of their squares, per mode of a Tucker
        decomposition. Exactly one of ``rank`` and ``energy`` is given.

    Returns
    -------
    nn.Sequential or None
        Plain torch layers in the dtype, on the device and in the mode of ``layer``.

    Raises
    ------
    ValueError
        Where ``method`` is unknown, or a weight is not finite.

    References
    ----------
    .. [1] Kim et al.: "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
       ICLR 2016, section 3.2 (Tucker-2).
    .. [2] Jaderberg, Vedaldi, Zisserman: "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC
       2014, scheme 2; by singular value decomposition: Tai et al., ICLR 2016.
    """
    # What is made here is to be trained, also where the caller only predicts.
    with torch.inference_mode(False), torch.no_grad():
        weight = _weight(layer)
        if not bool(weight.isfinite().all()):
            raise ValueError(f"The weights of {layer} are not finite, and have no singular values.")
        if isinstance(layer, nn.Conv2d) and _is_tucker(layer, method):
            parts = _tucker_parts(layer, weight, rank, energy)
        else:
            parts = _pair_parts(layer, weight, rank, energy)
    if parts is None or _count(parts) >= _count([layer]):
        return None
    return nn.Sequential(*parts).train(layer.training)


def full_rank(layer: Layer, method: str) -> int:
    """The rank at which nothing is lost, and above which no rank means anything; of Tucker's two the larger one."""
    _, n_out, n_in, height, width = _weight(layer).shape
    if _is_tucker(layer, method):
        n_places = height * width
        return max(min(n_out, n_in * n_places), min(n_in, n_out * n_places))
    return min(n_out * width, n_in * height)


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


def _rank_of_energy(energies: Tensor, energy: float) -> int:
    """The smallest rank that has ``energy`` of the sum of descending ``energies``."""
    reached = energies.cumsum(0) >= energy * (1 - _ROUNDING) * energies.sum()
    return int(reached.int().argmax()) + 1


def _pair_parts(layer: Layer, weight: Tensor, rank: "float | None", energy: "float | None") -> "list[nn.Module] | None":
    """Two layers by the singular value decomposition: one that looks along the height, one along the width."""
    matrix = _as_matrices(weight)
    if energy is not None:
        number = _rank_of_energy(_modes(matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT)[1], energy)
    elif isinstance(rank, Integral):
        number = int(rank)
    else:
        number = _room(layer, rank) // (matrix.shape[0] * sum(matrix.shape[1:]))
    return _pair(layer, *split(matrix, number)) if 1 <= number < min(matrix.shape[1:]) else None


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


def _tucker_parts(
    layer: nn.Conv2d, weight: Tensor, rank: "float | None", energy: "float | None"
) -> "list[nn.Module] | None":
    """A smaller convolution between one of 1 x 1 that makes its inputs and one that makes the outputs of it."""
    _, n_out, n_in, _, _ = weight.shape
    if isinstance(rank, Integral):
        ranks: tuple[int, int] | None = int(rank), int(rank)
    elif energy is not None:
        out, inside = (_modes(_unfold(weight, axis))[1] for axis in (1, 2))
        ranks = _rank_of_energy(out, energy), _rank_of_energy(inside, energy)
    else:
        ranks = _ranks_within(weight, _room(layer, rank))
    if ranks is None:
        return None
    rank_out, rank_in = (rank if rank < n else None for rank, n in zip(ranks, (n_out, n_in), strict=True))
    return _triple(layer, *tucker(weight, rank_out, rank_in))


def _ranks_within(kernel: Tensor, room: int) -> tuple[int, int] | None:
    """The ranks of outputs and inputs whose factors have no more than ``room`` weights, and lose least.

    Between all directions of both modes the core is as large as the kernel, and what is cut off of it is what is lost:
    so that is known of all pairs of ranks at once. With the same share of both modes, three colours would become one.
    """
    groups, n_out, n_in, height, width = kernel.shape
    room, n_places = room // groups, height * width
    core = _project(_project(kernel, 1, _leading(kernel, 1, n_out)), 2, _leading(kernel, 2, n_in))
    kept = core.square().sum((0, 3, 4)).cumsum(0).cumsum(1)
    candidates = []
    for rank_in in range(1, n_in + 1):
        left = room - (rank_in * n_in if rank_in < n_in else 0)
        is_whole = left >= rank_in * n_places * n_out  # then no map is needed behind
        rank_out = n_out if is_whole else min(left // (rank_in * n_places + n_out), n_out - 1)
        if rank_out >= 1:
            candidates.append((float(kept[rank_out - 1, rank_in - 1]), rank_out, rank_in))
    return max(candidates)[1:] if candidates else None


def _triple(layer: nn.Conv2d, core: Tensor, outer: "Tensor | None", inner: "Tensor | None") -> list[nn.Module]:
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
        raise ValueError(f"method={method!r} is unknown. Use one of {METHODS}.")
    return method == "tucker" and isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) > 1


def _room(layer: Layer, share: Any) -> int:
    """How many weights the factors may have, beside the bias, which stays."""
    return int(share * _count([layer])) - (layer.bias.numel() if layer.bias is not None else 0)


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
