"""Importance of weights, and masks with exact numbers of pruned weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sktl._training._dataset import RowDataset
from sktl._training._skorch_net import TransferNet
from sktl._training._sparsity import keep_zeros

CRITERIA = ("magnitude", "taylor", "random")


def importance(
    net: TransferNet, rows: RowDataset, layers: Mapping[str, nn.Module], criterion: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute the importance of each weight, which is not negative.

    Parameters
    ----------
    net : TransferNet
        The net; its gradients are used and cleared.
    rows : RowDataset
        Rows on which ``"taylor"`` computes the loss.
    layers : mapping of str to Module
        The layers.
    criterion : {"magnitude", "taylor", "random"}
        ``"magnitude"`` is ``w ** 2``. ``"taylor"`` is ``(w * dLoss/dw) ** 2``, summed
        over all batches: the change of the loss without the weight, to first order.
        ``"random"`` is a random number.
    generator : torch.Generator
        Generator of the random numbers.

    Returns
    -------
    dict of str to Tensor
        Importance of the weights of each layer, in the shape of the weight.

    References
    ----------
    Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    NIPS 2015 (magnitude). Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019, equations 7 and 8 (taylor).
    """
    weights = {path: layer.get_parameter("weight") for path, layer in layers.items()}
    if criterion == "random":
        return {path: torch.rand(weight.shape, generator=generator) for path, weight in weights.items()}
    if criterion == "magnitude":
        return {path: weight.detach().cpu().square() for path, weight in weights.items()}
    scores = {path: torch.zeros_like(weight, device="cpu") for path, weight in weights.items()}
    net.module_.eval()  # dropout would hide a part of the network in each batch
    for x, y in net.get_iterator(rows, training=False):
        net.module_.zero_grad(set_to_none=True)
        net.get_loss(net.infer(x), y, x).backward()
        for path, weight in weights.items():
            if weight.grad is not None:
                scores[path] += (weight.detach() * weight.grad).square().cpu()
    net.module_.zero_grad(set_to_none=True)
    return scores


def smallest(scores: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Return masks of exactly the ``n`` smallest scores of all layers together.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Scores of the weights of each layer.
    n : int
        Number of scores to select.

    Returns
    -------
    dict of str to Tensor
        True for the smallest scores, in the shapes of ``scores``.
    """
    together = torch.cat([score.flatten() for score in scores.values()])
    together = together.nan_to_num(nan=torch.inf, posinf=torch.inf)
    largest = together.kthvalue(n).values if n else -torch.inf  # much faster than sorting millions
    chosen = together < largest
    equal = torch.nonzero(together == largest).flatten()
    chosen[equal[: n - int(chosen.sum())]] = True  # the first of equal ones
    parts = chosen.split([score.numel() for score in scores.values()])
    return {path: part.reshape(scores[path].shape) for path, part in zip(scores, parts, strict=True)}


def zero_masks(
    layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor], shares: Mapping[str, float], scope: str
) -> dict[str, Tensor]:
    """Return masks of the weights to set to zero.

    Parameters
    ----------
    layers : mapping of str to Module
        The layers.
    scores : mapping of str to Tensor
        Importance of the weights of each layer.
    shares : mapping of str to float
        Share of zeros in each layer, including weights that are zero already.
    scope : {"global", "layer"}
        Whether to rank the weights of all layers together or within each layer.
    """
    # Weights that are zero are pruned first, whatever their score.
    ranked = {
        path: torch.where(layers[path].get_parameter("weight").detach().cpu() == 0, -1.0, score)
        for path, score in scores.items()
    }
    if scope == "layer":
        return {
            path: smallest({path: score}, round(shares[path] * score.numel()))[path] for path, score in ranked.items()
        }
    return smallest(ranked, round(sum(shares[path] * score.numel() for path, score in ranked.items())))


@torch.no_grad()
def set_zeros(layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]) -> None:
    """Set weights to zero and keep them zero in later training."""
    for path, mask in masks.items():
        weight = layers[path].get_parameter("weight")
        weight.masked_fill_(mask.to(weight.device), 0.0)
        keep_zeros(layers[path])


def shuffled(masks: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return masks with randomly permuted positions within each layer."""
    return {
        path: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].reshape(mask.shape)
        for path, mask in masks.items()
    }
