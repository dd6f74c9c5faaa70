"""Weight sharing: what k-means finds is what k-means is, and what is shared stays shared while it learns."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from skorch.callbacks import Callback
from torch import nn

from sktl._frozen._activations import GivenActivations
from sktl._training._dataset import RowDataset
from sktl._training._loop import train
from sktl._training._losses import ClassificationLoss
from sktl._training._rest_network import RestNetwork
from sktl._training._skorch_net import TransferNet
from sktl.backbones import load_backbone
from sktl.compression._codebook import KeepShared, share_weights
from sktl.compression._codec import encode


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers as a layer's weights are."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int) -> torch.Tensor:
    """Numbers among which no code of a linear start is without any."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.4


def slow_k_means(values: list[float], n_codes: int) -> list[float]:
    """Lloyd's algorithm as it stands in a textbook; the start is linear, and no group may become empty."""
    low, high = min(values), max(values)
    codes = [low + (high - low) * i / (n_codes - 1) for i in range(n_codes)]
    while True:
        groups: list[list[float]] = [[] for _ in codes]
        for value in values:
            groups[min(range(n_codes), key=lambda i: abs(value - codes[i]))].append(value)
        means = [sum(group) / len(group) for group in groups]
        if means == codes:
            return codes
        codes = means


def best_distance(values: np.ndarray, n_codes: int) -> float:
    """The least sum of squared distances that any codes have: all ways to cut the sorted values, step by step."""
    values = np.sort(values.astype(float))
    best = np.array([0.0] + [np.inf] * len(values))  # of the first n values with the codes so far
    for _ in range(n_codes):
        new = np.full_like(best, np.inf)
        new[0] = 0.0
        for stop in range(1, len(best)):
            new[stop] = min(best[start] + len(x) * x.var() for start in range(stop) for x in [values[start:stop]])
        best = new
    return float(best[-1])


def distance(weight: torch.Tensor, shared: torch.Tensor) -> float:
    return float((weight.double() - shared.double()).square().sum())


@pytest.mark.parametrize("n_codes", [2, 3, 8])
def test_like_a_slow_loop(n_codes):
    """The values are the centroids that the textbook's loop ends with, from the same start."""
    weight = uniform(300)
    np.testing.assert_allclose(
        share_weights(weight, n_codes).unique(), slow_k_means(weight.tolist(), n_codes), rtol=1e-6
    )


@pytest.mark.parametrize(("n", "n_codes"), [(2_000, 2), (20_000, 16), (20_000, 32)])
def test_like_scikit_learn(n, n_codes):
    """KMeans, from the same start and without an end before the end, has the same centroids and the same groups."""
    weight = uniform(n).double().numpy()
    start = np.linspace(weight.min(), weight.max(), n_codes)[:, None]
    k_means = KMeans(n_codes, init=start, n_init=1, max_iter=10_000, tol=0).fit(weight[:, None])
    shared = share_weights(torch.from_numpy(weight), n_codes)
    np.testing.assert_allclose(shared.unique(), np.sort(k_means.cluster_centers_.ravel()), rtol=1e-9)
    np.testing.assert_allclose(shared, k_means.cluster_centers_.ravel()[k_means.labels_], rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_codes", [2, 16, 255])
def test_codes_are_means_and_weights_have_the_nearest(dtype, n_codes):
    """Each value is the mean of its group, each weight has the nearest value, and shape and dtype stay."""
    weight = normal(40, 5, 3, 3).to(dtype)
    before = weight.clone()
    shared = share_weights(weight, n_codes)
    assert torch.equal(weight, before)
    assert (shared.shape, shared.dtype) == (weight.shape, weight.dtype)
    codes = shared.unique().double()
    assert len(codes) == n_codes
    tolerance = 2 * torch.finfo(dtype).eps
    for code in shared.unique():
        assert weight[shared == code].double().mean().item() == pytest.approx(code.item(), rel=tolerance, abs=1e-6)
    nearest = (weight.double().flatten()[:, None] - codes).abs().min(1).values
    torch.testing.assert_close((weight.double() - shared.double()).abs().flatten(), nearest, atol=4 * tolerance, rtol=0)


@pytest.mark.parametrize("n_codes", [2, 5, 16])
def test_zeros_stay_and_are_a_code(n_codes):
    """In a pruned layer what is zero and nothing else is zero after, and the other weights have one value less."""
    weight = normal(64, 64)
    weight = weight.masked_fill(weight.abs() < 1.5, 0.0)
    shared = share_weights(weight, n_codes)
    assert torch.equal(shared == 0, weight == 0)
    assert len(shared.unique()) == n_codes
    only = share_weights(weight[weight != 0], n_codes - 1) if n_codes > 2 else weight[weight != 0].mean().expand(1)
    torch.testing.assert_close(shared[shared != 0], only.expand_as(shared[shared != 0]))


def test_zeros_that_are_nothing_special():
    """Where zeros need not stay, a few of them take no value for themselves."""
    weight = torch.cat([normal(5000), torch.zeros(2)])
    kept, shared = (share_weights(weight, 8, keep_zeros=keep_zeros) for keep_zeros in (True, False))
    assert (shared != 0).all()
    assert len(shared.unique()) == len(kept.unique()) == 8
    assert distance(weight, shared) < 0.9 * distance(weight, kept)


@pytest.mark.parametrize("seed", range(5))
def test_no_code_is_wasted(seed):
    """With a few weights far out all values are used, and together they are near the best that there are."""
    weight = torch.cat([normal(60, seed=seed), torch.tensor([30.0, 31.0, -50.0])])
    shared = share_weights(weight, 12)
    assert len(shared.unique()) == 12
    assert distance(weight, shared) <= 1.2 * best_distance(weight.numpy(), 12)


def test_values_that_occur_often():
    """Groups of equal weights are not halved, wherever the values that are left over are."""
    weight = torch.cat([torch.full((1000,), 1.0), torch.full((1000,), 1.001), torch.arange(10.0), torch.tensor([1e4])])
    shared = share_weights(weight, 11)
    assert len(shared.unique()) == 11
    assert distance(weight, shared) < 1


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(4, 3),
        torch.full((7,), -0.3),
        torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0]),
        torch.ones(0),
        torch.tensor(2.0),
    ],
    ids=["zeros", "one value", "three values", "empty", "a number"],
)
def test_few_values_stay_as_they_are(weight):
    """A layer that has no more values than it may have is the same after."""
    shared = share_weights(weight, 3)
    assert torch.equal(shared, weight)
    assert shared.data_ptr() != weight.data_ptr() or not weight.numel()


def test_the_order_does_not_matter():
    """The same weights in another order, or with other strides, get the same values, each time."""
    weight = normal(50, 60)
    shared = share_weights(weight, 16)
    assert torch.equal(share_weights(weight.flip(0), 16), shared.flip(0))
    assert torch.equal(share_weights(weight.T, 16), shared.T)
    assert torch.equal(share_weights(nn.Parameter(weight), 16), shared)


def test_one_code_is_an_error():
    """A layer of equal weights is none."""
    with pytest.raises(ValueError, match=r"^n_codes must be at least 2\. Got 1 instead\.$"):
        share_weights(normal(5), 1)


def test_what_it_takes_to_store():
    """Sixteen values take at most four bits each, a pruned layer with them far less."""
    weight = normal(300, 1000)
    assert encode(share_weights(weight, 16)).nbytes * 8 < 4.01 * weight.numel()
    pruned = weight.masked_fill(weight.abs() < 1.65, 0.0)
    assert encode(share_weights(pruned, 16)).nbytes * 8 < 0.9 * weight.numel()


class Spy(Callback):
    """Keeps the weights of the layers after each step."""

    def __init__(self):
        self.steps = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.steps.append(weights(net))


LAYERS = ["head.1", "head.4"]


def weights(net) -> list[torch.Tensor]:
    return [net.module_.get_submodule(path).weight.detach().clone() for path in LAYERS]


@pytest.fixture
def rows():
    """Features of sixty pictures of two kinds."""
    x = normal(60, 64) + 0.5 * (torch.arange(60) % 2)[:, None]
    return RowDataset(
        GivenActivations(x), torch.arange(60) % 2, weight=torch.ones(60), sample_weight=torch.ones(60).double()
    )


@pytest.fixture
def make_net():
    """Makes a net of a convolution with zeros in it and a linear layer, each with a few values for its weights."""

    def make(n_codes=5, **params):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = nn.Unflatten(1, (4, 4, 4)), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)
        for layer in layers:
            if hasattr(layer, "weight"):
                weight = layer.weight.detach()
                if isinstance(layer, nn.Conv2d):
                    weight = weight.masked_fill(weight.abs() < weight.abs().median(), 0.0)
                layer.weight.data = share_weights(weight, n_codes)
        backbone = load_backbone("sktl_mini")
        network = RestNetwork(backbone, len(backbone.stages), nn.Sequential(*layers))
        params = {"lr": 0.01, "batch_size": 10, "callbacks__print_log": None, **params}
        return TransferNet(network, ClassificationLoss(), **params).initialize()

    return make


def retrain(net, rows, epochs=3, keep=True, valid=None):
    """Train, and give the layers' weights after each step."""
    spy = Spy()
    callbacks = [("keep_shared", KeepShared(LAYERS)), ("spy", spy)]
    train(net, rows, valid, epochs=epochs, seed=0, depth=net.module_.n_stages, callbacks=callbacks[0 if keep else 1 :])
    return spy.steps


class Careless(torch.optim.SGD):
    """Rounds each place in another way."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter *= 1 + 1e-5 * torch.linspace(0, 1, parameter.numel()).view(parameter.shape)
        return loss


OPTIMIZERS = [
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "optimizer__nesterov": True, "lr": 0.1},
    {"optimizer": torch.optim.RMSprop, "optimizer__momentum": 0.5},
    {"optimizer": Careless},
]


@pytest.mark.parametrize("params", OPTIMIZERS, ids=lambda params: str(params["optimizer"]))
def test_shared_weights_stay_shared(make_net, rows, params):
    """After every step, under momentum and weight decay, there are no more values than before; all but zero move."""
    net = make_net(**params)
    start = weights(net)
    steps = retrain(net, rows, valid=rows)
    assert len(steps) == 18
    for now in steps:
        for weight, before in zip(now, start, strict=True):
            values, groups = before.unique(return_inverse=True)
            assert len(weight.unique()) <= len(values) == 5
            assert torch.equal(weight.unique()[weight.unique(return_inverse=True)[1]], weight)
            assert all((weight[groups == i] == weight[groups == i][0]).all() for i in range(len(values)))
            assert (weight[before == 0] == 0).all()
            assert (weight[before != 0] != before[before != 0]).all()
    loose = retrain(make_net(**params), rows, keep=False)
    assert all(len(weight.unique()) > 20 for weight in loose[-1])


def test_a_value_moves_by_the_mean_of_its_gradients(make_net, rows):
    """One step of plain SGD, against a loop over the groups."""
    net = make_net(optimizer=torch.optim.SGD, lr=0.5, batch_size=60)
    net.module_.train()
    start = weights(net)
    nn.functional.cross_entropy(net.module_(rows.activations.batch(range(60), 0)), rows.y).backward()
    gradients = [net.module_.get_submodule(path).weight.grad.clone() for path in LAYERS]
    (found,) = retrain(net, rows, epochs=1)
    for weight, before, gradient in zip(found, start, gradients, strict=True):
        for value in before.unique():
            here = before == value
            expected = value - 0.5 * gradient[here].mean() if value else torch.zeros(())
            torch.testing.assert_close(weight[here], expected.expand(int(here.sum())))


class Indexed(nn.Module):
    """A layer whose parameters are its codes."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        codes, self.groups = layer.weight.detach().unique(return_inverse=True)
        self.codes = nn.Parameter(codes)
        self.is_zero = codes == 0
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.call = nn.functional.linear if isinstance(layer, nn.Linear) else nn.functional.conv2d

    def forward(self, x):
        return self.call(x, self.codes.masked_fill(self.is_zero, 0.0)[self.groups], self.bias)


def test_like_training_the_codes_themselves(make_net, rows):
    """With Adam, to which the size of a gradient means nothing, it is as if the codes were the parameters.

    Their gradients are the sums that the reference takes.
    """
    params = {"optimizer": torch.optim.Adam, "optimizer__eps": 1e-30, "lr": 0.01}
    shared, direct = make_net(**params), make_net(**params)
    for place in (1, 4):
        direct.module_.head[place] = Indexed(direct.module_.head[place])
    direct.initialize_optimizer()
    retrain(shared, rows)
    train(direct, rows, epochs=3, seed=0, depth=direct.module_.n_stages)
    for place, weight in zip((1, 4), weights(shared), strict=True):
        layer = direct.module_.head[place]
        expected = layer.codes.detach().masked_fill(layer.is_zero, 0.0)[layer.groups]
        torch.testing.assert_close(weight, expected, atol=1e-4, rtol=1e-3)
    assert max((a - b).abs().max() for a, b in zip(weights(shared), weights(make_net()), strict=True)) > 0.05


def test_a_layer_that_does_not_learn(make_net, rows):
    """One that is frozen, and has no gradient, keeps its weights to the bit while the other learns."""
    net = make_net(optimizer=torch.optim.SGD)
    net.module_.head[1].weight.requires_grad_(False)
    net.initialize_optimizer()
    start = weights(net)
    found = retrain(net, rows)[-1]
    assert torch.equal(found[0], start[0])
    assert not torch.equal(found[1], start[1])


def test_groups_are_found_in_each_training(make_net, rows):
    """Another training with the same callback takes the weights as they are then, and nothing of them stays in it."""
    callback = KeepShared(LAYERS)
    for n_codes in (3, 6):
        net = make_net(n_codes)
        train(net, rows, epochs=1, seed=0, depth=net.module_.n_stages, callbacks=[("keep_shared", callback)])
        assert [len(weight.unique()) for weight in weights(net)] == [n_codes, n_codes]
        assert len(pickle.dumps(callback)) < 300
        assert "keep_shared" not in dict(net.callbacks_)


def test_other_layers_learn_as_ever(make_net, rows):
    """A layer that is not named has its own value for each weight."""
    net = make_net()
    before = copy.deepcopy(net.module_.head[4])
    callbacks = [("keep_shared", KeepShared(["head.1"]))]
    train(net, rows, epochs=1, seed=0, depth=net.module_.n_stages, callbacks=callbacks)
    assert len(net.module_.head[4].weight.unique()) > 20 > len(before.weight.unique())
