"""Losses of two views as pure functions of tensors.

Row i of both tensors belongs to the same image. Unlike most losses, these compare the
rows with each other, so that they return one number for the whole batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sktl.exceptions import InputError

_EPSILON = 1e-4  # added to variances, as in the paper: the root has a finite slope at zero


def vicreg_loss(
    first: Tensor, second: Tensor, *, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """Compute the loss of variance-invariance-covariance regularization (VICReg).

    Parameters
    ----------
    first, second : Tensor of shape (n, n_features)
        Outputs of the projector for two views of each image, with at least two rows.
    invariance : float, default=25.0
        Weight of the mean squared difference of the two views.
    variance : float, default=25.0
        Weight of the variance term, which keeps the standard deviation of each column
        above 1 and thereby prevents a collapse. Increase it if features collapse.
    covariance : float, default=1.0
        Weight of the covariance term, which decorrelates the columns.

    Returns
    -------
    loss : Tensor of shape ()
        Loss of the batch.

    Raises
    ------
    InputError
        If the shapes differ or there are fewer than two rows.

    Notes
    -----
    The terms are scaled as in the authors' implementation: the invariance term is the
    mean over rows and columns, the variance term is the mean over columns and views,
    and the covariance term is the sum of squares off the diagonal divided by the number
    of columns, added for both views.

    References
    ----------
    Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning", ICLR 2022, equations 1 to 6.

    Examples
    --------
    >>> import torch
    >>> from sktl.self_supervised import vicreg_loss
    >>> first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> second = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    >>> vicreg_loss(first, second, variance=0.0)
    tensor(66.)
    """
    _check_views(first, second)
    loss = invariance * functional.mse_loss(first, second)
    for view in (first, second):
        centered = view - view.mean(0)
        covariances = centered.T @ centered / (len(view) - 1)
        variances = covariances.diagonal()
        spread = functional.relu(1 - (variances + _EPSILON).sqrt()).mean()
        linked = (covariances.square().sum() - variances.square().sum()) / view.shape[1]
        loss = loss + variance * spread / 2 + covariance * linked
    return loss


def nt_xent_loss(first: Tensor, second: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Compute the normalized temperature-scaled cross-entropy (NT-Xent) of SimCLR.

    Each view must find the other view of its image among the views of all images of the
    batch, by cosine similarity.

    Parameters
    ----------
    first, second : Tensor of shape (n, n_features)
        Outputs of the projector for two views of each image, with at least two rows.
    temperature : float, default=0.5
        Temperature by which the similarities are divided, greater than 0. A lower one
        gives more weight to the most similar images.

    Returns
    -------
    loss : Tensor of shape ()
        Mean loss of all views of the batch.

    Raises
    ------
    InputError
        If the shapes differ, there are fewer than two rows, or the temperature is not
        positive.

    References
    ----------
    Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", ICML 2020, equation 1 and algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from sktl.self_supervised import nt_xent_loss
    >>> views = torch.eye(3)
    >>> nt_xent_loss(views, views, temperature=0.1)
    tensor(0.0002)
    """
    _check_views(first, second)
    if not temperature > 0:
        raise InputError(f"The temperature must be greater than 0. Got {temperature!r} instead.")
    n_images = len(first)
    views = functional.normalize(torch.cat([first, second]), dim=1)
    itself = torch.eye(2 * n_images, dtype=torch.bool, device=views.device)
    similarities = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    return functional.cross_entropy(similarities, torch.arange(2 * n_images, device=views.device).roll(n_images))


def _check_views(first: Tensor, second: Tensor) -> None:
    """Raise an error if two tensors are not two views of the same images."""
    if first.ndim != 2 or first.shape != second.shape or len(first) < 2:
        raise InputError(
            "The two views must be tensors of the same shape (n, n_features) with at least two rows, because rows are "
            f"compared with each other. Got {tuple(first.shape)} and {tuple(second.shape)} instead."
        )
