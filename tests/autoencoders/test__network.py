"""The network of an autoencoder: its start, what it hides in training, and what has no gradient."""

import numpy as np
import pytest
import torch
from torch import nn

from sktl.autoencoders._network import ACTIVATIONS, AutoencoderNetwork, make_bottleneck
from sktl.autoencoders._noise import hidden_entries
from sktl.autoencoders._start import start_from

HOW = {"activation": "relu", "seed": 0, "n_features": 0, "maps": ()}


def network(rows, *, noise=None, init="pca", hidden=(7,), k=3, level=0.5, **how):
    head = make_bottleneck(rows.shape[1:], k, hidden=hidden, **{**HOW, **how})
    head.begin(start_from(rows.numpy(), np.ones(len(rows)), k if init == "pca" else 0))
    return AutoencoderNetwork(None, 0, head, noise=noise, noise_level=level)


@pytest.fixture
def table():
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 + 100


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (9, 5)])
def test_it_starts_as_pca(table, hidden, activation):
    """Codes and errors are those of the projection on the principal axes, whatever the hidden layers are."""
    net = network(table, hidden=hidden, activation=activation).eval()
    start = start_from(table.numpy(), np.ones(30), 3)
    projected = (table.numpy() - start.mean) @ start.axes.T
    errors, code = net(table)
    np.testing.assert_allclose(net.features(table).detach(), projected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(code.detach() * start.scale, projected, rtol=1e-4, atol=1e-4)
    left = table.numpy() - start.mean - projected @ start.axes
    np.testing.assert_allclose(errors[:, 0].detach(), (left**2).mean(1) / start.scale**2, rtol=1e-3)


def test_the_random_start_is_another(table):
    """With init="random", the errors are not those of PCA, and the seed determines the weights."""
    nets = [network(table, init="random", seed=seed).eval() for seed in (0, 0, 1)]
    errors = [net(table)[0] for net in nets]
    assert torch.equal(errors[0], errors[1])
    assert not torch.equal(errors[0], errors[2])
    assert errors[0].mean() > network(table).eval()(table)[0].mean()


def test_reconstructions_have_the_units_of_the_input(table):
    """With as many components as columns, rows come back in float64."""
    net = network(table, k=8).eval()
    restored = net.reconstruction(net.features(table))
    assert restored.dtype == torch.float64
    np.testing.assert_allclose(restored.detach(), table, rtol=1e-5)


def test_missing_entries_have_no_gradient(table):
    """The gradient of the loss is exactly zero at them and in the decoder's weights of a column without entries."""
    missing = torch.rand(30, 8, generator=torch.Generator().manual_seed(1)) < 0.4
    rows = torch.where(missing, torch.nan, table)
    rows[:, 5] = torch.nan
    net, seen = network(rows), []

    def keep(module, given, output):
        output.retain_grad()
        seen.append(output)

    net.head.register_forward_hook(keep)
    net(rows)[0].sum().backward()
    gradient = seen[0].grad
    assert not gradient[torch.isnan(rows)].any()
    assert gradient[~torch.isnan(rows)].all()
    assert torch.isfinite(gradient).all()
    assert not net.head.linear_decoder.weight.grad[5].any()


def test_errors_are_of_observed_entries(table):
    """What a missing entry would have been changes nothing; rows count by their number of entries."""
    rows = table.clone()
    rows[3, 2:] = torch.nan
    net = network(rows).eval()
    errors = net(rows)[0][:, 0]
    left = net.head.standardized(table) - net.head(net.features(rows))
    expected = left.square()[3, :2].sum() / net.head.n_observed
    np.testing.assert_allclose(errors[3].detach(), expected.detach(), rtol=1e-5)


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_codes_have_no_noise(table, noise):
    """In training, two passes differ; in evaluation, errors are those of the same noise, and codes have none."""
    net, plain = network(table, noise=noise), network(table)
    net.train()
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(net(table)[0], net(table)[0])
    net.eval()
    assert torch.equal(net(table)[0], net(table)[0])
    assert not torch.equal(net(table)[0], plain(table)[0])
    assert torch.equal(net.features(table), plain.features(table))


def test_masked_entries_are_as_if_missing(table):
    """What a hidden entry was does not reach the code, and the errors are those of the hidden entries alone."""
    net = network(table, noise="masking", level=0.4).eval()
    hidden = hidden_entries(table, 0.4, torch.Generator().manual_seed(0))
    errors, code = net(table)
    rows = torch.where(hidden, torch.nan, table)
    np.testing.assert_allclose(code.detach() * net.head.scale, net.features(rows).detach(), atol=1e-4)
    left = torch.where(hidden, net.head(net.features(rows)) - net.head.standardized(table), 0)
    np.testing.assert_allclose(errors[:, 0].detach(), left.square().sum(1).detach() / (8 * 0.4), rtol=1e-3)


def test_missing_entries_are_filled_with_damped_means(table):
    """A row of which nothing is seen gets the column's means; others move with their own entries."""
    head = network(table).head
    head.damping.fill_(2.0)
    values, observed = torch.tensor([[3.0, 1.0] + [9.0] * 6, [5.0] * 8]), torch.zeros(2, 8, dtype=bool)
    observed[0, :2] = True
    expected = [[3, 1] + [4 / (2 + 2)] * 6, [0] * 8]
    assert head.filled(values, observed).tolist() == expected


def test_the_decoder_mirrors_maps():
    """It passes through the shapes of the stages in reverse order and ends with that of the input, its output zero."""
    maps = [(4, 8, 8), (6, 4, 4)]
    head = make_bottleneck((3, 16, 16), 2, hidden=(), **{**HOW, "maps": maps, "n_features": 96})
    seen = []
    for layer in head.decoder:
        if isinstance(layer, nn.Conv2d | nn.Unflatten):
            layer.register_forward_hook(lambda module, given, output: seen.append(tuple(output.shape[1:])))
    head.begin(start_from(np.random.default_rng(0).random((5, 768)), np.ones(5), 2))
    assert head(torch.randn(1, 2)).shape == (1, 768)
    assert seen == [(6, 4, 4), (4, 8, 8), (3, 16, 16)]
    assert not head.decoder(torch.randn(1, 2)).any()
