"""Which weights a network can do without, and how many of them: exact counts, ties or not."""

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
    """How much each weight matters, not negative; a filter matters as much as its weights do together.

    Parameters
    ----------
    net : TransferNet
        With the network; its gradients are used and cleared.
    rows : RowDataset
        What ``"taylor"`` looks at.
    layers : mapping of str to Module
        The layers.
    criterion : {"magnitude", "taylor", "random"}
        ``w ** 2``; ``(w * dLoss/dw) ** 2``, the change of the loss without the weight to first order, over all batches;
        or a random number.
    generator : torch.Generator
        Where these come from.

    Returns
    -------
    dict of str to Tensor
        For each layer, of the shape of its weight.

    References
    ----------
    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NIPS 2015 (magnitude).
    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equations 7 and 8 (taylor).
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
    """Masks of the ``n`` smallest scores of all layers together: exactly so many, also where scores are equal.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Of the weights of each layer, of any shape.
    n : int
        How many.

    Returns
    -------
    dict of str to Tensor
        True for the smallest ones, of the shapes of the scores.
    """
    together = torch.cat([score.flatten() for score in scores.values()])
    together = together.nan_to_num(nan=torch.inf, posinf=torch.inf)
    largest = together.kthvalue(n).values if n else -torch.inf  # many times faster than sorting millions
    chosen = together < largest
    equal = torch.nonzero(together == largest).flatten()
    chosen[equal[: n - int(chosen.sum())]] = True  # of equals the first
    parts = chosen.split([score.numel() for score in scores.values()])
    return {path: part.reshape(scores[path].shape) for path, part in zip(scores, parts, strict=True)}


def zero_masks(
    layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor], shares: Mapping[str, float], scope: str
) -> dict[str, Tensor]:
    """Where the weights are to be zero.

    Parameters
    ----------
    layers : mapping of str to Module
        The layers.
    scores : mapping of str to Tensor
        How much each weight matters.
    shares : mapping of str to float
        The share of each layer's weights that is to be zero, those that are so already counted in.
    scope : {"global", "layer"}
        Whether weights of all layers are ranked together, or those of each.
    """
    # What is gone is gone: it is the first to go again, whatever a random score or a gradient of zero says.
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
    """Make weights zero, now and for good."""
    for path, mask in masks.items():
        weight = layers[path].get_parameter("weight")
        weight.masked_fill_(mask.to(weight.device), 0.0)
        keep_zeros(layers[path])


def shuffled(masks: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Masks with as many places in each layer, at random."""
    return {
        path: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].reshape(mask.shape)
        for path, mask in masks.items()
    }
