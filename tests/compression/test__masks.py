"""Which weights go: exact counts, ties or not; importance against a loop; masks that hold what was zero before."""

import numpy as np
import pytest
import torch
from torch import nn

from sktl._training._losses import ClassificationLoss
from sktl._training._rest_network import RestNetwork, make_head
from sktl._training._skorch_net import TransferNet
from sktl._training._sparsity import keeps_zeros
from sktl.compression._compressed import compressible
from sktl.compression._masks import importance, set_zeros, shuffled, smallest, zero_masks


@pytest.fixture
def rows(as_rows):
    """Seventeen pictures of different weights in two classes, the last one in a batch of its own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (17, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return as_rows(x, torch.arange(17) % 2, torch.rand(17, generator=generator))


@pytest.fixture
def net(backbone):
    """A net of the small network, with a dropout in front of its head."""
    head = make_head("linear", 16, 2, dropout=0.5, generator_seed=0)
    network = RestNetwork(backbone, 0, head)
    return TransferNet(network, ClassificationLoss(), batch_size=8, callbacks__print_log=None).initialize()


def two_layers(first, second):
    """Two layers with given weights."""
    layers = {"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}
    for layer, weight in zip(layers.values(), (first, second), strict=True):
        layer.weight = nn.Parameter(torch.tensor(weight))
    return layers


@pytest.mark.parametrize("n", [0, 1, 5, 7, 11, 12])
def test_exactly_so_many(n):
    """Where all scores are equal, or many, as many are chosen as were asked for, none larger than one that stays."""
    for first in (torch.ones(2, 3), torch.tensor([[1.0, 0, 1]] * 2)):
        scores = {"a": first, "b": torch.ones(6)}
        masks = smallest(scores, n)
        assert {path: mask.shape for path, mask in masks.items()} == {"a": (2, 3), "b": (6,)}
        chosen = np.concatenate([mask.flatten().numpy() for mask in masks.values()])
        values = np.concatenate([score.flatten().numpy() for score in scores.values()])
        assert chosen.sum() == n
        if 0 < n < 12:
            assert values[chosen].max() <= values[~chosen].min()


@pytest.mark.parametrize("n", [0, 1, 13, 50, 59, 60])
def test_they_are_the_first_of_a_stable_sort(n):
    """Of equal scores the first ones are chosen, and those that are no number come last."""
    scores = torch.randint(0, 5, (60,), generator=torch.Generator().manual_seed(0)).float() / 4
    scores[scores == 1] = torch.nan
    chosen = torch.nonzero(smallest({"a": scores}, n)["a"]).flatten()
    assert chosen.tolist() == sorted(torch.argsort(scores, stable=True)[:n].tolist())


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.87, 1.0])
def test_shares_of_ties(scope, share):
    """With all weights equal, the share that was asked for is left out, of all weights together or of each layer."""
    layers = two_layers(np.ones((7, 9), np.float32), np.ones((10, 10), np.float32))
    scores = {path: layer.weight.detach().square() for path, layer in layers.items()}
    masks = zero_masks(layers, scores, dict.fromkeys(layers, share), scope)
    counts = {path: int(mask.sum()) for path, mask in masks.items()}
    if scope == "layer":
        assert counts == {"a": round(63 * share), "b": round(100 * share)}
    assert sum(counts.values()) == pytest.approx(163 * share, abs=1)


def test_layers_have_shares_of_their_own():
    """Each layer loses its own share of its own smallest weights."""
    layers = two_layers([[1.0, 2.0, 3.0, 4.0]], [[10.0, 20.0, 30.0, 40.0]])
    scores = {path: layer.weight.detach().square() for path, layer in layers.items()}
    masks = zero_masks(layers, scores, {"a": 0.25, "b": 0.75}, "layer")
    assert {path: mask.tolist() for path, mask in masks.items()} == {
        "a": [[True, False, False, False]],
        "b": [[True, True, True, False]],
    }
    masks = zero_masks(layers, scores, {"a": 0.25, "b": 0.75}, "global")
    assert {path: mask.tolist() for path, mask in masks.items()} == {"a": [[True] * 4], "b": [[False] * 4]}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_what_is_gone_goes_first(scope):
    """Zeros are counted in and stay chosen, however much a score makes of them."""
    layers = two_layers([[0.0, -0.0, 3.0, 4.0]], [[0.0, 1.0, 2.0, 0.5]])
    scores = {"a": torch.tensor([[9.0, 9.0, 0.0, 0.0]]), "b": torch.tensor([[9.0, 1.0, 2.0, 0.5]])}
    masks = zero_masks(layers, scores, {"a": 0.5, "b": 0.25}, scope)
    assert {path: mask.tolist() for path, mask in masks.items()} == {
        "a": [[True, True, False, False]],
        "b": [[True, False, False, False]],
    }


def test_zeros_are_plain_and_kept():
    """Weights become 0 and not -0, only where the mask is, and their layers are marked, others are not."""
    layers = two_layers([[-1.0, 2.0]], [[-3.0, 4.0]])
    set_zeros(layers, {"a": torch.tensor([[True, False]])})
    assert layers["a"].weight.tolist() == [[0.0, 2.0]]
    assert not torch.signbit(layers["a"].weight).any()
    assert layers["b"].weight.tolist() == [[-3.0, 4.0]]
    assert [keeps_zeros(layer) for layer in layers.values()] == [True, False]
    assert layers["a"].weight.requires_grad


def test_shuffled_masks():
    """As many places in each layer, others than before, from the generator alone."""
    masks = {"a": torch.arange(40).reshape(5, 8) < 13, "b": torch.arange(30) < 7}
    before = torch.get_rng_state()
    first, again, other = (shuffled(masks, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for path, mask in masks.items():
        assert first[path].shape == mask.shape
        assert first[path].sum() == mask.sum()
        assert torch.equal(first[path], again[path])
        assert not torch.equal(first[path], mask)
        assert not torch.equal(first[path], other[path])


def test_magnitude(net, rows):
    """The square of each weight; of a filter's weights together that is what torch.norm makes of them."""
    layers = compressible(net.module_)
    scores = importance(net, rows, layers, "magnitude", torch.Generator())
    assert list(scores) == list(layers)
    for path, layer in layers.items():
        weight = layer.weight.detach()
        np.testing.assert_array_equal(scores[path], weight.numpy() ** 2)
        norms = torch.linalg.vector_norm(weight.flatten(1), dim=1) ** 2
        np.testing.assert_allclose(scores[path].flatten(1).sum(1), norms, rtol=1e-5)


def test_taylor(net, rows):
    """The square of weight times gradient, batch by batch, against a loop that knows nothing of nets; in eval mode.

    The network, its mode and its gradients are afterwards as they were.
    """
    layers = compressible(net.module_)
    before = {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}
    scores = importance(net, rows, layers, "taylor", torch.Generator())
    expected = {path: np.zeros(tuple(layer.weight.shape)) for path, layer in layers.items()}
    network = net.module_.eval()
    for start in (0, 8, 16):
        index = torch.arange(start, min(start + 8, 17))
        losses = nn.functional.cross_entropy(network(rows.activations.values[index]), rows.y[index], reduction="none")
        loss = (losses * rows.columns["weight"][index]).mean()
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
        for (path, layer), gradient in zip(layers.items(), gradients, strict=True):
            expected[path] += (layer.weight * gradient).detach().numpy() ** 2
    for path in layers:
        np.testing.assert_allclose(scores[path], expected[path], rtol=1e-4, atol=1e-12)
        assert (scores[path] >= 0).all()
        assert scores[path].any()
    after = net.module_.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in net.module_.parameters())


def test_taylor_is_the_change_of_the_loss(net, rows, as_rows):
    """To first order: without one small weight the loss of a batch changes by the root of its importance."""
    rows = as_rows(rows.activations.values[:8], rows.y[:8])
    layers = {"head": compressible(net.module_)["head.1"]}
    weight = layers["head"].weight
    with torch.no_grad():
        weight.mul_(0.01)
    score = importance(net, rows, layers, "taylor", torch.Generator())["head"]

    def loss():
        with torch.no_grad():
            return nn.functional.cross_entropy(net.module_.eval()(rows.activations.values), rows.y).item()

    whole = loss()
    for place in [(0, 3), (1, 8)]:
        old = weight[place].item()
        with torch.no_grad():
            weight[place] = 0
            change = abs(loss() - whole)
            weight[place] = old
        assert np.sqrt(score[place].item()) == pytest.approx(change, rel=0.1, abs=2e-7)


def test_random(net, rows):
    """Any number, from the generator alone."""
    layers = compressible(net.module_)
    first, again = (importance(net, rows, layers, "random", torch.Generator().manual_seed(3)) for _ in range(2))
    for path, layer in layers.items():
        assert first[path].shape == layer.weight.shape
        assert torch.equal(first[path], again[path])
        assert len(first[path].unique()) > 1
