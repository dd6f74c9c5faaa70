"""Learning from the answers of another network, beside what the labels say."""

from typing import Any, NamedTuple

from torch import Tensor

from sktl.exceptions import InputError

LOGITS, WEIGHT = "soft_target", "soft_target_weight"  # columns of the rows that are learnt from


class SoftTargets(NamedTuple):
    """Adds to a loss how far the answers are from those that stand beside the rows.

    Parameters
    ----------
    alpha : float
        Share of these answers in the loss, from 0 to 1.
    temperature : float
        What softens them, see `soft_target_loss`.
    """

    alpha: float
    temperature: float

    def mix(self, loss: Tensor, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch with its part of both.

        Parameters
        ----------
        loss : Tensor of shape ()
            What the labels say.
        outputs : Tensor of shape (n, n_classes), or a tuple that begins with it
            What the network gave.
        batch : dict of str to Tensor
            What is known of the rows; among it their logits, and what each weighs, with a mean of one.
        """
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        soft = soft_target_loss(logits, batch[LOGITS].to(logits.device), self.temperature)
        answers = (soft * batch[WEIGHT].to(logits.device)).mean()
        # Nothing of the labels is nothing also where they are infinitely unlikely.
        return answers if self.alpha == 1 else (1 - self.alpha) * loss + self.alpha * answers


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's softened answers are from the teacher's.

    Parameters
    ----------
    student : Tensor of shape (n, n_classes)
        Logits.
    teacher : Tensor of shape (n, n_classes)
        Logits, or logarithms of probabilities. Finite: clip probabilities of zero before. Not detached here: compute
        them without gradients.
    temperature : float
        What the logits are divided by, greater than 0. Higher ones say more about the unlikely classes.

    Returns
    -------
    loss : Tensor of shape (n,)
        ``T² · KL(teacher_T ‖ student_T)`` of each row, the sum over the classes.

    Raises
    ------
    InputError
        Where the shapes differ, or the temperature is not positive.

    Notes
    -----
    The gradient with respect to a logit is ``T · (softmax(student / T) - softmax(teacher / T))``; it tends to the
    difference of the centred logits, divided by the number of classes, when ``T`` is large. Without the factor ``T²``
    it would shrink as ``1 / T²``, and each temperature would want another learning rate.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, sections 2 and 2.1.

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
    """KL(softmax(teacher) ‖ softmax(student)) of each row of logits (n, n_classes), shape (n,)."""
    log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


def check_logits(student: Tensor, teacher: Tensor, temperature: float) -> None:
    """Refuse logits that are not of the same rows and classes, and a temperature of nothing."""
    check_same_shape(student, teacher)
    if not temperature > 0:
        raise InputError(
            f"temperature={temperature} is not positive. Take 1 for the answers as they are, more to soften."
        )


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors that could not be compared number by number."""
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    if ours != theirs:  # they might be broadcast to something without meaning
        raise InputError(f"student has the shape {ours} and teacher {theirs}. Give both the same shape.")
