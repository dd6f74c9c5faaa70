"""Low-rank factorization of linear layers and convolutions into smaller layers.

The best low-rank approximation of a linear layer is the truncated singular value
decomposition (Eckart & Young 1936). The kernel of a convolution has four axes, for
which there are two methods: see `factorize`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sktl.exceptions import InputError

Layer = nn.Linear | nn.Conv2d

METHODS = ("spatial", "tucker")

_N_ALTERNATIONS = 3  # of the higher-order orthogonal iteration; the first one gains most
_ROUNDING = 1e-12  # energies below this are rounding errors of float32 weights


def factorize(
    layer: Layer, *, method: str = "spatial", rank: "int | None" = None, energy: float = 1.0
) -> nn.Sequential | None:
    """Return layers of lower rank that approximate ``layer``, or None if not smaller.

    Linear layers and 1 x 1 convolutions become two layers of the same kind by singular
    value decomposition, with either method.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        The layer, which is not changed. The groups of a grouped convolution are
        factorized separately, with the same rank.
    method : {"spatial", "tucker"}, default="spatial"
        How to factorize a larger kernel: ``"spatial"`` returns convolutions of kh x 1
        and 1 x kw [1]_; ``"tucker"`` returns convolutions of 1 x 1, kh x kw and 1 x 1,
        between fewer channels [2]_.
    rank : int, default=None
        Rank, for each mode of a Tucker decomposition; a layer or mode whose full rank
        is not larger is left unchanged. None uses ``energy`` instead.
    energy : float, default=1.0
        Share of the sum of squared weights to keep, with the smallest sufficient rank
        (for Tucker, the pair of ranks with the fewest parameters). With 1.0, only a
        layer that has low rank becomes smaller.

    Returns
    -------
    nn.Sequential or None
        Plain torch layers with the dtype, device and mode of ``layer``.

    Raises
    ------
    InputError
        If ``method`` is unknown, or a weight is NaN or infinite.

    References
    ----------
    .. [1] Jaderberg, Vedaldi, Zisserman: "Speeding up Convolutional Neural Networks
           with Low Rank Expansions", BMVC 2014, scheme 2; by singular value
           decomposition: Tai et al., ICLR 2016.
    .. [2] Kim et al.: "Compression of Deep Convolutional Neural Networks for Fast and
           Low Power Mobile Applications", ICLR 2016, section 3.2 (Tucker-2).
    """
    # The layers will be trained, even if the caller is in inference mode.
    with torch.inference_mode(False), torch.no_grad():
        weight = _weight(layer)
        if not bool(weight.isfinite().all()):
            raise InputError(f"The weights of {layer} are NaN or infinite and cannot be factorized.")
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
    """Return the rank at which nothing is lost; for Tucker, the larger of the two."""
    _, n_out, n_in, height, width = _weight(layer).shape
    if _is_tucker(layer, method):
        n_pixels = height * width
        return max(min(n_out, n_in * n_pixels), min(n_in, n_out * n_pixels))
    return min(n_out * width, n_in * height)


def energy_within(layers: Iterable[Layer], method: str, share: float) -> float | None:
    """Return the energy that all layers can keep with a share of their parameters.

    All layers lose the same share of their energy. If instead each kept the same share
    of its parameters, a small layer that all data flows through would lose most and
    save little.

    Parameters
    ----------
    layers : iterable of nn.Linear or nn.Conv2d
        The layers.
    method : {"spatial", "tucker"}
        See `factorize`.
    share : float
        Share of the parameters of all layers, biases included, between 0 and 1.

    Returns
    -------
    float or None
        The largest ``energy`` with which `factorize` stays within the share; layers
        that would not become smaller count unchanged. None if rank 1 is too large.
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
    for _ in range(40):  # one step more would be below `_ROUNDING`
        middle = (low + high) / 2
        low, high = (middle, high) if n_parameters(middle) <= share * sum(sizes) else (low, middle)
    return low


def split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best product of two thin matrices, with balanced singular values.

    Parameters
    ----------
    matrix : Tensor of shape (n_groups, n_rows, n_columns)
        One matrix per group.
    rank : int
        Rank of the product.

    Returns
    -------
    left : Tensor of shape (n_groups, n_rows, rank)
        ``U * sqrt(S)`` of the singular value decomposition.
    right : Tensor of shape (n_groups, rank, n_columns)
        ``sqrt(S) * V'``. The gradient of each factor is scaled by the other one: with
        all singular values in one factor, its steps would be far too small and those of
        the other far too large.
    """
    if matrix.shape[1] > matrix.shape[2]:
        right, left = split(matrix.mT, rank)
        return left.mT, right.mT
    basis = _modes(matrix)[0][..., :rank]
    rest = basis.mT @ matrix  # S * V', exact even for small singular values, whose squares are lost
    root = torch.linalg.vector_norm(rest, dim=2, keepdim=True).sqrt()
    return basis * root.mT, rest / root.clamp_min(torch.finfo(root.dtype).tiny)


def tucker(
    kernel: Tensor, rank_out: "int | None", rank_in: "int | None"
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return a smaller kernel and maps from its channels to all channels (Tucker-2).

    Parameters
    ----------
    kernel : Tensor of shape (n_groups, n_out, n_in, height, width)
        One kernel per group.
    rank_out, rank_in : int or None
        Number of channels of the smaller kernel. None keeps all channels, without a
        map.

    Returns
    -------
    core : Tensor of shape (n_groups, rank_out, rank_in, height, width)
        The smaller kernel.
    outer : Tensor of shape (n_groups, n_out, rank_out) or None
        Map from the outputs of ``core`` to those of ``kernel``.
    inner : Tensor of shape (n_groups, n_in, rank_in) or None
        The transpose maps the inputs of ``kernel`` to those of ``core``:
        ``kernel[g, o, i] = sum_pq outer[g, o, p] * core[g, p, q] * inner[g, i, q]``.
    """
    outer = _leading(kernel, 1, rank_out)
    inner = _leading(kernel, 2, rank_in)
    if outer is not None and inner is not None:  # one alone is optimal already
        for _ in range(_N_ALTERNATIONS):
            outer = _leading(_project(kernel, 2, inner), 1, rank_out)
            inner = _leading(_project(kernel, 1, outer), 2, rank_in)
    core = _project(_project(kernel, 1, outer), 2, inner)
    return _balance(core, outer, inner)


def _balance(
    core: Tensor, outer: "Tensor | None", inner: "Tensor | None"
) -> tuple[Tensor, "Tensor | None", "Tensor | None"]:
    """Rescale core and maps so that weights into and out of a channel have equal size.

    This minimizes the sum of squares of the three factors, as square roots of singular
    values do for two. Each step solves one side exactly.
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
    """Return left singular vectors and sums of squared singular values over the groups.

    The small matrix of inner products is decomposed, which is five times as fast and,
    in float64, precise enough for float32 weights.
    """
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return vectors.flip(2), values.flip(1).clamp_min(0).sum(0)


def _unfold(kernel: Tensor, axis: int) -> Tensor:
    """Return a kernel as matrices whose rows are its channels along ``axis``."""
    return kernel.movedim(axis, 1).flatten(2)


def _leading(kernel: Tensor, axis: int, rank: "int | None") -> Tensor | None:
    """Return the leading directions of the channels along ``axis``, or None for all."""
    return None if rank is None else _modes(_unfold(kernel, axis))[0][..., :rank]


def _project(kernel: Tensor, axis: int, basis: "Tensor | None") -> Tensor:
    """Project the channels along ``axis`` on a basis."""
    if basis is None:
        return kernel
    return torch.einsum("ga...,gar->gr...", kernel.movedim(axis, 1), basis).movedim(1, axis)


class _Choices(NamedTuple):
    """Possible ranks of a layer, sorted by number of parameters."""

    ranks: Tensor  # (n_choices, 1 or 2)
    sizes: Tensor  # (n_choices,), parameters of the factors
    kept: Tensor  # (n_choices,), share of the energy that this choice or one before it keeps

    def cheapest(self, energy: float) -> int:
        """Return the index of the smallest choice that keeps ``energy``."""
        return int(torch.searchsorted(self.kept, energy * (1 - _ROUNDING)))


def _choices(layer: Layer, method: str) -> _Choices:
    """Compute the size and the energy of each rank."""
    kernel = _weight(layer)
    groups, n_out, n_in, height, width = kernel.shape
    if _is_tucker(layer, method):
        # With full ranks the core is as large as the kernel, and smaller ranks lose the
        # energy that is cut off (up to what alternations regain). So the energies of
        # all pairs of ranks follow from one decomposition.
        core = _project(_project(kernel, 1, _leading(kernel, 1, n_out)), 2, _leading(kernel, 2, n_in))
        kept = core.square().sum((0, 3, 4)).cumsum(0).cumsum(1)
        out, inside = torch.meshgrid(torch.arange(1, n_out + 1), torch.arange(1, n_in + 1), indexing="ij")
        maps = n_out * out * (out < n_out) + n_in * inside * (inside < n_in)  # a full mode needs no map
        sizes = groups * (out * inside * height * width + maps)
        ranks = torch.stack([out, inside], 2).flatten(0, 1)
    else:
        matrix = _as_matrices(kernel)
        kept = _modes(matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT)[1].cumsum(0)
        ranks = torch.arange(1, len(kept) + 1)[:, None]
        sizes = groups * ranks[:, 0] * (n_out * width + n_in * height)
    kept, sizes = kept.flatten(), sizes.flatten()
    order = sizes.argsort(stable=True)
    share = kept[order] / kept[-1] if kept[-1] > 0 else torch.ones_like(kept)  # a kernel of zeros keeps all
    n_bias = 0 if layer.bias is None else len(layer.bias)
    return _Choices(ranks[order], sizes[order] + n_bias, share.cummax(0).values)


def _factors(layer: Layer, kernel: Tensor, ranks: tuple[int, ...]) -> list[nn.Module]:
    """Return the layers for one rank, or for two ranks (outputs, inputs)."""
    if len(ranks) == 1:
        return _pair(layer, *split(_as_matrices(kernel), *ranks))
    rank_out, rank_in = (rank if rank < n else None for rank, n in zip(ranks, kernel.shape[1:3], strict=True))
    return _triple(layer, *tucker(kernel, rank_out, rank_in))


def _as_matrices(kernel: Tensor) -> Tensor:
    """Return kernels as matrices (n_groups, n_out * width, n_in * height)."""
    return kernel.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)


def _pair(layer: Layer, left: Tensor, right: Tensor) -> list[nn.Module]:
    """Return two layers whose weights are the factors returned by `split`."""
    groups, n_out, n_in, height, width = _weight(layer).shape
    rank = right.shape[1]
    if isinstance(layer, nn.Linear):
        return [_linear(layer, right[0]), _linear(layer, left[0], layer.bias)]
    first = right.reshape(groups * rank, n_in, height, 1)
    last = left.reshape(groups, n_out, width, rank).transpose(2, 3).reshape(groups * n_out, rank, 1, width)
    # Early strides save computations: apply all of them at once if the width is 1.
    axes = ((0,), (1,)) if width > 1 else ((0, 1), ())
    return [_convolution(layer, first, axes[0]), _convolution(layer, last, axes[1], layer.bias)]


def _triple(layer: Any, core: Tensor, outer: "Tensor | None", inner: "Tensor | None") -> list[nn.Module]:
    """Return the layers of a Tucker decomposition."""
    parts: list[nn.Module] = []
    if inner is not None:
        parts.append(_convolution(layer, inner.mT.flatten(0, 1)[..., None, None], ()))
    parts.append(_convolution(layer, core.flatten(0, 1), (0, 1), layer.bias if outer is None else None))
    if outer is not None:
        parts.append(_convolution(layer, outer.flatten(0, 1)[..., None, None], (), layer.bias))
    return parts


def _weight(layer: Layer) -> Tensor:
    """Return kernels (n_groups, n_out, n_in, height, width) in float64 on the CPU."""
    weight = layer.weight.detach().to("cpu", torch.float64)
    return weight.unflatten(0, (layer.groups, -1)) if isinstance(layer, nn.Conv2d) else weight[None, :, :, None, None]


def _is_tucker(layer: Layer, method: str) -> bool:
    """Check whether a layer has a spatial kernel to factorize with Tucker's method."""
    if method not in METHODS:
        raise InputError(f"The 'method' parameter must be one of {METHODS}. Got {method!r} instead.")
    return method == "tucker" and isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) > 1


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _linear(layer: nn.Linear, weight: Tensor, bias: "Tensor | None" = None) -> nn.Linear:
    # On "meta", so that torch does not draw initial values from its global generator.
    new = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _with_values(new, layer, weight, bias)


def _convolution(layer: nn.Conv2d, weight: Tensor, axes: tuple[int, ...], bias: "Tensor | None" = None) -> nn.Conv2d:
    """Return a convolution with the geometry of ``layer`` along ``axes`` only.

    The geometry is stride, padding and dilation. Axis 0 is the height, 1 the width.
    Zero padding before a later factor is correct, since only the last factor has a bias
    and zeros stay zero. Other padding modes repeat pixels, which the factors along the
    other axis treat alike.
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
    """Return the value of each axis in ``axes``, and ``other`` for the other axes."""
    return values[0] if 0 in axes else other, values[1] if 1 in axes else other


def _with_values(new, layer: Layer, weight: Tensor, bias: "Tensor | None"):
    """Set weight (with dtype and device of ``layer``) and bias of ``new``."""
    values = weight.contiguous().to(layer.weight.device, layer.weight.dtype)
    new.weight = nn.Parameter(values, requires_grad=layer.weight.requires_grad)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return new
