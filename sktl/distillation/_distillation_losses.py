"""Distillation losses as pure functions of tensors.

Each function returns the loss of each row; the mean over the rows is the published loss
of a batch. Values and gradients are also finite if a formula divides by zero: for equal
rows, a single row, maps of zeros, two classes, and probabilities of 0 or 1.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sktl._training._soft_targets import check_logits, check_same_shape, divergence
from sktl.exceptions import InputError

_ANGLES_TOGETHER = 2**18  # angles that are compared at once: few enough to fit in a CPU cache


def decoupled_loss(student: Tensor, teacher: Tensor, target: Tensor, temperature: float, beta: float = 8.0) -> Tensor:
    """Compute the loss of decoupled knowledge distillation.

    Parameters
    ----------
    student : Tensor of shape (n, n_classes)
        Logits of the student.
    teacher : Tensor of shape (n, n_classes)
        Logits or log-probabilities of the teacher, which must be finite. Not detached;
        compute them under ``torch.no_grad()``.
    target : Tensor of shape (n,)
        Class index of each row, int64.
    temperature : float
        Temperature by which the logits are divided, greater than 0.
    beta : float, default=8.0
        Weight of NCKD, the loss of the classes other than the target. The weight of
        TCKD is 1.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row, ``T² · (TCKD + beta · NCKD)``.

    Raises
    ------
    InputError
        If the shapes differ or the temperature is not positive.

    Notes
    -----
    TCKD is the Kullback-Leibler divergence between the teacher's and the student's
    binary distributions of target and non-target. NCKD is the divergence between their
    distributions over the non-target classes, normalized without the target; it is 0 if
    there are two classes. The loss of Hinton et al. equals
    ``T² · (TCKD + (1 - p) · NCKD)``, with the teacher's probability ``p`` of the
    target. It thus suppresses NCKD if the teacher is confident, which the decoupled
    loss avoids.

    References
    ----------
    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7 with
    ``alpha = 1``.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import decoupled_loss
    >>> student = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
    >>> teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    >>> decoupled_loss(student, teacher, torch.tensor([0, 2]), temperature=4.0)
    tensor([1.0268, 0.0000])
    """
    check_logits(student, teacher, temperature)
    n_classes = student.shape[1]
    if n_classes < 2:
        return divergence(student, teacher)  # zero, since the only class has probability 1
    target = target.unsqueeze(1)
    number = torch.arange(n_classes - 1, device=student.device)
    others = number + (number >= target)  # (n, n_classes - 1): all class indices but the target

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        softened = logits / temperature
        rest = softened.gather(1, others)
        return torch.cat([softened.gather(1, target), rest.logsumexp(1, keepdim=True)], 1), rest

    (student_target, student_rest), (teacher_target, teacher_rest) = parts(student), parts(teacher)
    tckd, nckd = divergence(student_target, teacher_target), divergence(student_rest, teacher_rest)
    return temperature**2 * (tckd + beta * nckd)


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the mean squared difference of activations, the hint loss of FitNets.

    Parameters
    ----------
    student : Tensor of shape (n, ...)
        Activations of the student, mapped to the space of the teacher.
    teacher : Tensor of shape (n, ...)
        Activations of the teacher, of the same shape. Not detached; compute them under
        ``torch.no_grad()``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean squared difference of each row.

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    The paper uses half the sum of squares. The mean, used by most implementations,
    equals this sum times ``2 / n_entries``, so that the same weight works for
    activations of any size.

    References
    ----------
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import hint_loss
    >>> hint_loss(torch.tensor([[1.0, 2.0], [3.0, 3.0]]), torch.tensor([[1.0, 4.0], [3.0, 3.0]]))
    tensor([2., 0.])
    """
    check_same_shape(student, teacher)
    return (student - teacher).square().reshape(len(student), -1).mean(1)


def attention_map(activation: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute the spatial attention map of an activation.

    Parameters
    ----------
    activation : Tensor of shape (n, n_channels, ...)
        Activation with any number of spatial axes, such as the height and width of a
        convolution or the tokens of a transformer.
    channel_axis : int, default=1
        Axis of the channels; use -1 for tokens of shape (n, n_tokens, n_channels).

    Returns
    -------
    attention : Tensor of shape (n, n_positions)
        Sum of squares over the channels, with the positions in row-major order.

    References
    ----------
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section
    3.1, F²sum.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import attention_map
    >>> attention_map(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[16., 26., 40., 58.]])
    """
    return activation.square().sum(channel_axis).reshape(len(activation), -1)


def attention_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Compute the loss of attention transfer between attention maps.

    Parameters
    ----------
    student_map : Tensor of shape (n, n_positions)
        Attention map of the student, as returned by `attention_map`.
    teacher_map : Tensor of shape (n, n_positions)
        Attention map of the teacher at the same resolution. Not detached; compute it
        under ``torch.no_grad()``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row: the mean squared difference of the two maps after division by
        their 2-norms. A map of zeros stays zero and has no gradient.

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    This is the loss of the authors' code. Equation 2 of the paper uses half the norm of
    the difference instead, which is neither squared nor divided by the number of
    positions. The loss of a row is at most ``2 / n_positions``, since attention maps
    are non-negative. The authors weight the loss by 1000.

    References
    ----------
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section
    3.1.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import attention_loss
    >>> student_map = torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    >>> teacher_map = torch.tensor([[0.0, 5.0], [3.0, 3.0]])
    >>> attention_loss(student_map, teacher_map).round(decimals=6)
    tensor([1., 0.])
    """
    check_same_shape(student_map, teacher_map)
    return (_unit(student_map) - _unit(teacher_map)).square().mean(1)


def relational_distance_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the distance-wise loss of relational knowledge distillation.

    Parameters
    ----------
    student : Tensor of shape (n, d_student)
        Embeddings of the student. Further axes are flattened.
    teacher : Tensor of shape (n, d_teacher)
        Embeddings of the teacher. Their dimension may differ. Not detached; compute
        them under ``torch.no_grad()``.
    weight : Tensor of shape (n,), default=None
        Weights of the rows in the loss of the other rows. If None, all weights are 1.
        The loss of row i is not multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row i: the mean over all rows j, including i, of the Huber loss
        (delta = 1) between the student's and the teacher's distance from i to j.
        Distances are divided by the mean of the positive distances in their space.

    Raises
    ------
    InputError
        If the numbers of rows differ.

    Notes
    -----
    The loss of the batch is ``(weight * loss).sum() / weight.sum()``. An integer weight
    is equivalent to that many copies of the row. Copies have a distance of 0 and do not
    count in the mean distance, nor does the distance of a row to itself. Published
    implementations compute distances from inner products, which gives copies a small
    positive distance due to rounding, and include it in the mean.

    References
    ----------
    Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 4 to 6.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import relational_distance_loss
    >>> teacher = torch.tensor([[0.0], [1.0], [2.0]])
    >>> relational_distance_loss(torch.tensor([[0.0, 0.0], [0.0, 5.0], [0.0, 10.0]]), teacher).round(decimals=6)
    tensor([0., 0., 0.])
    >>> relational_distance_loss(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]), teacher)
    tensor([0.0521, 0.1042, 0.1354])
    """
    _check_same_rows(student, teacher)
    share = _shares(student, weight)
    student_relative, teacher_relative = _relative_distances(student, share), _relative_distances(teacher, share)
    return functional.smooth_l1_loss(student_relative, teacher_relative, reduction="none") @ share


def relational_angle_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the angle-wise loss of relational knowledge distillation.

    Parameters
    ----------
    student : Tensor of shape (n, d_student)
        Embeddings of the student. Further axes are flattened.
    teacher : Tensor of shape (n, d_teacher)
        Embeddings of the teacher. Their dimension may differ. Not detached; compute
        them under ``torch.no_grad()``.
    weight : Tensor of shape (n,), default=None
        Weights of the rows in the loss of the other rows. If None, all weights are 1.
        The loss of row i is not multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row i: the mean over all pairs (j, k) of the Huber loss (delta = 1)
        between the student's and the teacher's cosine of the angle at i. If j or k
        coincides with i, the cosine is set to 0 and has no gradient.

    Raises
    ------
    InputError
        If the numbers of rows differ.

    Notes
    -----
    The loss of the batch is ``(weight * loss).sum() / weight.sum()``. An integer weight
    is equivalent to that many copies of the row. The computation is cubic in the batch
    size. The memory is not: large batches are processed in chunks of rows, which are
    computed again in the backward pass.

    References
    ----------
    Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 7 and 8.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import relational_angle_loss
    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> relational_angle_loss(corner, 3 * corner).abs().max() < 1e-6
    tensor(True)
    >>> line = torch.tensor([[0.0], [1.0], [2.0]])
    >>> relational_angle_loss(line, corner)
    tensor([0.1111, 0.2682, 0.0095])
    """
    _check_same_rows(student, teacher)
    n, share = len(student), _shares(student, weight)
    relations = [*_differences(student), *_differences(teacher)]
    n_vertices = max(1, _ANGLES_TOGETHER // n**2)
    if n_vertices >= n:
        return _angle_losses(slice(n), share, *relations)
    recomputed = partial(checkpoint, _angle_losses, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([recomputed(slice(i, i + n_vertices), share, *relations) for i in range(0, n, n_vertices)])


def similarity_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the loss of similarity-preserving knowledge distillation.

    Parameters
    ----------
    student : Tensor of shape (n, ...)
        Activations of the student. All axes but the first are flattened.
    teacher : Tensor of shape (n, ...)
        Activations of the teacher. Only the number of rows must match. Not detached;
        compute them under ``torch.no_grad()``.
    weight : Tensor of shape (n,), default=None
        Weights of the rows in the loss of the other rows. If None, all weights are 1.
        The loss of row i is not multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row i: the mean over all rows j of the squared difference between
        the entries (i, j) of the student's and the teacher's matrix of inner products,
        after division of each matrix row by its 2-norm. An activation of zeros has a
        similarity of 0 to all rows, and no gradient.

    Raises
    ------
    InputError
        If the numbers of rows differ.

    Notes
    -----
    The loss of the batch is ``(weight * loss).sum() / weight.sum()``. An integer weight
    is equivalent to that many copies of the row. The matrix rows have unit norm, so
    their entries shrink as the batch grows: the loss of a row is at most ``4 / n``.
    Published weights of this loss are therefore in the thousands.

    References
    ----------
    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations
    1 to 4.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import similarity_loss
    >>> teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> similarity_loss(torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0]]), teacher)
    tensor([0., 0.])
    >>> similarity_loss(torch.tensor([[2.0], [2.0]]), teacher)
    tensor([0.2929, 0.2929])
    """
    _check_same_rows(student, teacher)
    weight = _weights(student, weight)

    def similarities(activation: Tensor) -> Tensor:
        flat = activation.flatten(1)
        # With the root of a row's weight, norms and squared differences count the row
        # as often as its weight.
        return _unit(flat @ flat.T * weight.sqrt())

    squares = (similarities(student) - similarities(teacher)).square().sum(1)
    return squares / _or_infinite(weight.sum())


def _distances(x: Tensor) -> Tensor:
    """Return the distances between all rows, shape (n, n)."""
    # Not from inner products, whose rounding gives equal rows a positive distance.
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _relative_distances(x: Tensor, share: Tensor) -> Tensor:
    """Return the distances between all rows divided by the mean positive distance."""
    distances, pairs = _distances(x.flatten(1)), torch.outer(share, share)
    mean = (pairs * distances).sum() / _or_infinite((pairs * (distances > 0)).sum())
    return distances / _or_infinite(mean)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return inner products and inverse distances, from which cosines are computed.

    Both have shape (n, n), and the inverse of a distance of 0 is 0. The differences of
    all rows, of shape (n, n, d), would take n times as long. Inner products suffer from
    cancellation and are therefore computed in double precision if the device supports
    it.
    """
    x = x.flatten(1)
    exact = x if x.device.type == "mps" else x.double()
    return exact @ exact.T, 1 / _or_infinite(_distances(x))


def _angle_losses(
    vertices: slice, share: Tensor, student: Tensor, student_inverse: Tensor, teacher: Tensor, teacher_inverse: Tensor
) -> Tensor:
    """Return the losses of the rows ``vertices``, from the angles at each of them."""

    def cosines(products: Tensor, inverse: Tensor) -> Tensor:
        mixed, inverse = products[vertices], inverse[vertices]  # (n_vertices, n)
        own = products.diagonal()[vertices].reshape(-1, 1, 1)
        # <j - i, k - i> = <j, k> - <i, j> - <i, k> + <i, i>
        numerators = products - mixed.unsqueeze(2) - mixed.unsqueeze(1) + own
        return (numerators * inverse.unsqueeze(2) * inverse.unsqueeze(1)).to(share.dtype)

    student_cosines, teacher_cosines = cosines(student, student_inverse), cosines(teacher, teacher_inverse)
    return functional.smooth_l1_loss(student_cosines, teacher_cosines, reduction="none") @ share @ share


def _unit(x: Tensor) -> Tensor:
    """Divide vectors along the last axis by their norm; zeros have no gradient.

    `torch.nn.functional.normalize` would multiply the gradient of a zero vector by
    1e12.
    """
    return x / _or_infinite(torch.linalg.vector_norm(x, dim=-1, keepdim=True))


def _or_infinite(divisor: Tensor) -> Tensor:
    """Replace a divisor of 0 with infinity: the quotient and its gradients are then 0.

    Divisors whose square is subnormal count as 0, since few of their bits are
    significant.
    """
    return torch.where(divisor > torch.finfo(divisor.dtype).tiny ** 0.5, divisor, torch.inf)


def _weights(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weights of the rows of ``x``, shape (n,); 1 by default."""
    return x.new_ones(len(x)) if weight is None else weight.to(x)


def _shares(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weights of the rows of ``x``, shape (n,), normalized to a sum of 1."""
    weight = _weights(x, weight)
    return weight / _or_infinite(weight.sum())


def _check_same_rows(student: Tensor, teacher: Tensor) -> None:
    if len(student) != len(teacher):
        raise InputError(
            "'student' and 'teacher' must have the same number of rows. Got "
            f"{len(student)} and {len(teacher)} rows instead."
        )
