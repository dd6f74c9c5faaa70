"""What a student is asked to have in common with its teacher: each loss a pure function of tensors, row by row.

Each function gives the loss of each row, and the mean over the rows is the published loss of the batch. Nothing is
detached here: who calls computes the teacher's tensors without gradients. Values and gradients stay finite where a
formula read literally divides by zero: equal rows, a single row, maps of zeros, two classes, answers that are certain.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sktl._training._soft_targets import check_logits, check_same_shape, divergence
from sktl.exceptions import InputError

_ANGLES_TOGETHER = 2**18  # angles that are compared at once: few enough to stay in a processor's cache


def decoupled_loss(student: Tensor, teacher: Tensor, target: Tensor, temperature: float, beta: float = 8.0) -> Tensor:
    """How far the student's softened answers are from the teacher's: the target class, and apart from it the others.

    Parameters
    ----------
    student : Tensor of shape (n, n_classes)
        Logits.
    teacher : Tensor of shape (n, n_classes)
        Logits, or logarithms of probabilities, finite. Not detached here: compute them without gradients.
    target : Tensor of shape (n,)
        The class number of each row, int64.
    temperature : float
        What the logits are divided by, greater than 0.
    beta : float, default=8.0
        Weight of what is said about the classes that are not the target; that of the target is 1.

    Returns
    -------
    loss : Tensor of shape (n,)
        ``T² · (TCKD + beta · NCKD)`` of each row.

    Raises
    ------
    InputError
        Where the shapes differ, or the temperature is not positive.

    Notes
    -----
    TCKD is the divergence between the distributions (target, any other class), and NCKD the one between the
    distributions over the other classes alone, as if there were no target. With two classes there is one other class,
    and NCKD is 0. Hinton's divergence is ``TCKD + (1 - p) · NCKD`` with the teacher's ``p(target)``: a confident
    teacher silences what it knows about the other classes, and this loss does not.

    References
    ----------
    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7 with alpha = 1.

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
        return divergence(student, teacher)  # of a single class all is known
    target = target.unsqueeze(1)
    number = torch.arange(n_classes - 1, device=student.device)
    others = number + (number >= target)  # (n, n_classes - 1): all class numbers but the target's

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        softened = logits / temperature
        rest = softened.gather(1, others)
        return torch.cat([softened.gather(1, target), rest.logsumexp(1, keepdim=True)], 1), rest

    (student_target, student_rest), (teacher_target, teacher_rest) = parts(student), parts(teacher)
    tckd, nckd = divergence(student_target, teacher_target), divergence(student_rest, teacher_rest)
    return temperature**2 * (tckd + beta * nckd)


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the student's activations are from the teacher's.

    Parameters
    ----------
    student : Tensor of shape (n, ...)
        Activations, after the learned map into the teacher's space.
    teacher : Tensor of shape (n, ...)
        Activations, of the same shape. Not detached here: compute them without gradients.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean squared difference of each row.

    Raises
    ------
    InputError
        Where the shapes differ.

    Notes
    -----
    The paper's loss is half the sum of the squares. The mean, which most published code takes, is that times
    ``2 / n_entries``: so one weight serves maps of any size.

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
    """Where a layer looks: how strong its activation is at each place.

    Parameters
    ----------
    activation : Tensor of shape (n, n_channels, ...)
        Any number of axes of places: height and width of a convolution's maps, or the tokens of a transformer.
    channel_axis : int, default=1
        Which axis has the channels; -1 for tokens of shape (n, n_tokens, n_channels).

    Returns
    -------
    places : Tensor of shape (n, n_places)
        Sum of the squares over the channels, the places in row-major order.

    References
    ----------
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1, F²sum.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import attention_map
    >>> attention_map(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[16., 26., 40., 58.]])
    """
    return activation.square().sum(channel_axis).reshape(len(activation), -1)


def attention_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """How differently student and teacher spread their attention over the places.

    Parameters
    ----------
    student_map : Tensor of shape (n, n_places)
        What `attention_map` gives.
    teacher_map : Tensor of shape (n, n_places)
        The same of the teacher, at the same resolution. Not detached here: compute it without gradients.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over the places of the squared difference between the maps, each divided by its 2-norm. A map of zeros
        stays one, and passes no gradient on.

    Raises
    ------
    InputError
        Where the shapes differ.

    Notes
    -----
    This is the loss of the authors' program. Equation 2 of the paper has half of the norm of the difference instead,
    not squared and not divided by the number of places. No row's loss is more than ``2 / n_places``, as maps have no
    negative entries; the authors' weight for it is 1000.

    References
    ----------
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1.

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
    """How differently the rows of a batch lie apart from each other, for the student and for the teacher.

    Parameters
    ----------
    student : Tensor of shape (n, d_student)
        Embeddings; further axes are flattened.
    teacher : Tensor of shape (n, d_teacher)
        Embeddings, of any other dimension. Not detached here: compute them without gradients.
    weight : Tensor of shape (n,), default=None
        How much each row counts as a partner of the others; None is 1 for each. The loss of row i is still to be
        multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over all partners j, the row itself among them, of the Huber loss (with delta 1) between the distances
        from i to j, each divided by the mean of the positive distances in its space.

    Raises
    ------
    InputError
        Where the numbers of rows differ.

    Notes
    -----
    ``(weight * loss).sum() / weight.sum()`` is the loss of the batch; a whole weight is exactly that many copies of
    its row. A copy is at distance 0 from the row, so the two have nothing to be compared in, and neither the pair nor
    a row with itself counts in the mean distance. Published code computes distances through scalar products, which
    gives copies a small positive one by rounding; it counts there.

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
    ours, theirs = _relative_distances(student, share), _relative_distances(teacher, share)
    return functional.smooth_l1_loss(ours, theirs, reduction="none") @ share


def relational_angle_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """How different the angles are that each row of a batch sees between two others, for the student and the teacher.

    Parameters
    ----------
    student : Tensor of shape (n, d_student)
        Embeddings; further axes are flattened.
    teacher : Tensor of shape (n, d_teacher)
        Embeddings, of any other dimension. Not detached here: compute them without gradients.
    weight : Tensor of shape (n,), default=None
        How much each row counts as a partner of the others; None is 1 for each. The loss of row i is still to be
        multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over all pairs (j, k) of the Huber loss (with delta 1) between the cosines of the angles at i. Where j or
        k is at the same place as i there is no angle: the cosine is taken as 0, and passes no gradient on.

    Raises
    ------
    InputError
        Where the numbers of rows differ.

    Notes
    -----
    ``(weight * loss).sum() / weight.sum()`` is the loss of the batch; a whole weight is exactly that many copies of
    its row. The work grows with the third power of the batch; the memory does not, as large batches are computed some
    vertices at a time, and once more in the backward pass.

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
    """How differently the rows of a batch are similar to each other, for the student and for the teacher.

    Parameters
    ----------
    student : Tensor of shape (n, ...)
        Activations; all axes but the first are flattened.
    teacher : Tensor of shape (n, ...)
        Activations, of any other shape. Not detached here: compute them without gradients.
    weight : Tensor of shape (n,), default=None
        How much each row counts as a partner of the others; None is 1 for each. The loss of row i is still to be
        multiplied by ``weight[i]``.

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over all partners j of the squared difference between the entries (i, j) of the two matrices of scalar
        products, each row divided by its 2-norm. An activation of zeros is similar to nothing, and passes no gradient
        on.

    Raises
    ------
    InputError
        Where the numbers of rows differ.

    Notes
    -----
    ``(weight * loss).sum() / weight.sum()`` is the loss of the batch; a whole weight is exactly that many copies of
    its row. Rows of unit length have entries that shrink as the batch grows: no row's loss is more than ``4 / n``,
    and published weights of this loss are in the thousands.

    References
    ----------
    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 1 to 4.

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
        # With the root of the partner's weight, norms and squared differences count each partner as often as it weighs.
        return _unit(flat @ flat.T * weight.sqrt())

    squares = (similarities(student) - similarities(teacher)).square().sum(1)
    return squares / _or_infinite(weight.sum())


def _distances(x: Tensor) -> Tensor:
    """Distances between all rows, shape (n, n)."""
    # Not through scalar products, whose rounding puts equal rows apart.
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _relative_distances(x: Tensor, share: Tensor) -> Tensor:
    """Distances between all rows, divided by the mean of those that are not 0, shape (n, n)."""
    distances, pairs = _distances(x.flatten(1)), torch.outer(share, share)
    mean = (pairs * distances).sum() / _or_infinite((pairs * (distances > 0)).sum())
    return distances / _or_infinite(mean)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """What the cosines between differences of rows are made of: scalar products, and inverse distances or 0.

    Both of shape (n, n). The differences themselves, (n, n, d), would take n times as long. The price is that digits
    cancel, so the products are in double precision where the device has it.
    """
    x = x.flatten(1)
    exact = x if x.device.type == "mps" else x.double()
    return exact @ exact.T, 1 / _or_infinite(_distances(x))


def _angle_losses(
    vertices: slice, share: Tensor, student: Tensor, student_inverse: Tensor, teacher: Tensor, teacher_inverse: Tensor
) -> Tensor:
    """The losses of some rows, from their angles between all pairs of rows, as many as there are vertices."""

    def cosines(products: Tensor, inverse: Tensor) -> Tensor:
        mixed, inverse = products[vertices], inverse[vertices]  # (n_vertices, n)
        own = products.diagonal()[vertices].reshape(-1, 1, 1)
        # <j - i, k - i> = <j, k> - <i, j> - <i, k> + <i, i>
        numerators = products - mixed.unsqueeze(2) - mixed.unsqueeze(1) + own
        return (numerators * inverse.unsqueeze(2) * inverse.unsqueeze(1)).to(share.dtype)

    ours, theirs = cosines(student, student_inverse), cosines(teacher, teacher_inverse)
    return functional.smooth_l1_loss(ours, theirs, reduction="none") @ share @ share


def _unit(x: Tensor) -> Tensor:
    """The vectors along the last axis, divided by their length; one of zeros stays so and passes no gradient on.

    `torch.nn.functional.normalize` would pass on what comes back to a vector of zeros, times 1e12.
    """
    return x / _or_infinite(torch.linalg.vector_norm(x, dim=-1, keepdim=True))


def _or_infinite(divisor: Tensor) -> Tensor:
    """A divisor, or infinity where it is 0: so both the quotient and its gradients are 0 there.

    What is too small for its square to be a normal number counts as 0: it is known to a few bits only.
    """
    return torch.where(divisor > torch.finfo(divisor.dtype).tiny ** 0.5, divisor, torch.inf)


def _weights(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weights of the rows of ``x``, shape (n,), 1 by default."""
    return x.new_ones(len(x)) if weight is None else weight.to(x)


def _shares(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weights of the rows of ``x``, shape (n,), with a sum of 1."""
    weight = _weights(x, weight)
    return weight / _or_infinite(weight.sum())


def _check_same_rows(student: Tensor, teacher: Tensor) -> None:
    if len(student) != len(teacher):
        raise InputError(f"student has {len(student)} rows and teacher {len(teacher)}. Give the same rows to both.")
