"""Soft targets: learning from the outputs of another network as well as from labels."""

from typing import Any, NamedTuple

from torch import Tensor

from sktl.exceptions import InputError

LOGITS, WEIGHT = "soft_target", "soft_target_weight"  # columns of the training rows


class SoftTargets(NamedTuple):
    """Mix of the loss of the labels with the loss of the soft targets.

    Parameters
    ----------
    alpha : float
        Weight of the soft targets in the loss, from 0 to 1.
    temperature : float
        Temperature of the soft targets, see `soft_target_loss`.
    """

    alpha: float
    temperature: float

    def mix(self, loss: Tensor, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the mixed loss of a batch.

        Parameters
        ----------
        loss : Tensor of shape ()
            Loss of the labels.
        outputs : Tensor of shape (n, n_classes), or a tuple that begins with it
            Output of the network.
        batch : dict of str to Tensor
            Columns of the batch, including the teacher's logits and their weights.
        """
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        soft = soft_target_loss(logits, batch[LOGITS].to(logits.device), self.temperature)
        answers = (soft * batch[WEIGHT].to(logits.device)).mean()
        # With alpha=1 the labels do not count, even if their loss is infinite.
        return answers if self.alpha == 1 else (1 - self.alpha) * loss + self.alpha * answers


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute the distillation loss between softened student and teacher outputs.

    Parameters
    ----------
    student : Tensor of shape (n, n_classes)
        Logits of the student.
    teacher : Tensor of shape (n, n_classes)
        Logits of the teacher, or logarithms of its probabilities. They must be finite,
        so clip probabilities of zero. The teacher is not detached: compute its logits
        without gradients.
    temperature : float
        Divisor of the logits, greater than 0. A higher temperature gives more weight to
        the unlikely classes.

    Returns
    -------
    loss : Tensor of shape (n,)
        Loss of each row, ``T² · KL(teacher_T ‖ student_T)``, summed over the classes.

    Raises
    ------
    InputError
        If the shapes differ, or the temperature is not positive.

    Notes
    -----
    The gradient with respect to a logit is
    ``T · (softmax(student / T) - softmax(teacher / T))``. For large ``T`` it tends to
    the difference of the centered logits, divided by the number of classes. Without the
    factor ``T²`` it would shrink as ``1 / T²``, and each temperature would need a
    different learning rate.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    sections 2 and 2.1.

    Examples
    --------
    >>> import torch
    >>> from sktl.distillation import soft_target_loss
    >>> student = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
    >>> teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    >>> soft_target_loss(student, teacher, temperature=4.0)
    tensor([0.1066, 0.0000])
    """
    check_logits(student, teacher, temperature)
    return temperature**2 * divergence(student / temperature, teacher / temperature)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(softmax(teacher) ‖ softmax(student)) of each row of logits."""
    log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


def check_logits(student: Tensor, teacher: Tensor, temperature: float) -> None:
    """Check that the shapes of the logits match and the temperature is positive."""
    check_same_shape(student, teacher)
    if not temperature > 0:
        raise InputError(
            f"temperature must be greater than 0. Got {temperature} instead. Use 1 to leave the logits unchanged, or "
            "more to soften them."
        )


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Check that student and teacher have the same shape."""
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    if ours != theirs:  # broadcasting could hide the mismatch
        raise InputError(f"student and teacher must have the same shape. Got {ours} and {theirs} instead.")
