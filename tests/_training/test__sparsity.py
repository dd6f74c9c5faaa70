"""Zeros that stay zeros: through momentum and weight decay, in copies, and nowhere else."""

import copy
import pickle

import pytest
import torch

from sktl._training._callbacks import KeepBest
from sktl._training._loop import train
from sktl._training._sparsity import KeepZeros, find_zeros, keep_zeros, keeps_zeros

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.5},
    "adam": {"optimizer": "adam", "lr": 0.01},
}


def thin_out(net, share=0.6):
    """Make most weights of two layers zero; the layers, and where their zeros are."""
    layers = [net.module_.stages.get_submodule("layer1.0"), net.module_.head[-1]]
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(layer.weight.shape, generator=generator) < share for layer in layers]
    for layer, mask in zip(layers, masks, strict=True):
        with torch.no_grad():
            layer.weight[mask] = 0.0
        keep_zeros(layer)
    return layers, masks


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("best", [None, 2])
def test_zeros_through_a_training(tiny, make_net, make_rows, optimizer, best):
    """With momentum and weight decay the marked layers end with their zeros, plain ones; all others have moved."""
    net = make_net(tiny, 0, dropout=0.2, **OPTIMIZERS[optimizer])
    layers, masks = thin_out(net)
    before = [layer.weight.detach().clone() for layer in layers]
    valid = make_rows(tiny, 0, 8, seed=1) if best else None
    train(net, make_rows(tiny, 0), valid, epochs=4, seed=0, best=KeepBest(best) if best else None)
    for layer, mask, old in zip(layers, masks, before, strict=True):
        assert torch.equal(layer.weight == 0, mask)
        assert not torch.signbit(layer.weight[mask]).any()
        if best is None:
            assert (layer.weight[~mask] != old[~mask]).all()
    assert (net.module_.stages.get_submodule("layer2.0").weight != 0).all()


def test_unmarked_zeros_learn(tiny, make_net, make_rows):
    """Zeros of a layer that is not marked are weights like others."""
    net = make_net(tiny, 0)
    head = net.module_.head[-1]
    with torch.no_grad():
        head.weight.zero_()
    train(net, make_rows(tiny, 0), epochs=2, seed=0)
    assert (head.weight != 0).any()


def test_zeros_are_put_back_after_each_step(tiny, make_net, make_rows):
    """What a callback of the user sees after each step of training has the zeros already."""
    from skorch.callbacks import Callback

    net = make_net(tiny, 0, **OPTIMIZERS["sgd"])
    layers, masks = thin_out(net)
    seen = []

    class Look(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            seen.append(all(bool((layer.weight[mask] == 0).all()) for layer, mask in zip(layers, masks, strict=True)))

    train(net, make_rows(tiny, 0), epochs=2, seed=0, callbacks=[("look", Look())])
    assert seen == [True] * 6


def test_a_training_after_the_other(tiny, make_net, make_rows):
    """The next training notes the zeros anew: those that were added in between are held too."""
    net = make_net(tiny, 0, **OPTIMIZERS["sgd"])
    layers, masks = thin_out(net)
    train(net, make_rows(tiny, 0), epochs=1, seed=0)
    with torch.no_grad():
        layers[0].weight[0] = 0.0
    masks[0][0] = True
    train(net, make_rows(tiny, 0), epochs=1, seed=1)
    for layer, mask in zip(layers, masks, strict=True):
        assert torch.equal(layer.weight == 0, mask)


def test_nothing_is_kept_of_a_training(tiny, make_net, make_rows):
    """The callback forgets the weights, and a network without marks has no such callback."""
    callback = KeepZeros()
    net = make_net(tiny, 0)
    thin_out(net)
    train(net, make_rows(tiny, 0), epochs=1, seed=0, callbacks=[("own", callback)])
    assert callback._zeros == []


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_mark_goes_with_its_layer(tiny, make_net, how):
    """Copies and pickles of a network have the marks, and its own state has no more tensors for them."""
    network = make_net(tiny, 0).module_
    names = set(network.state_dict())
    for layer in (network.stages.get_submodule("stem.0"), network.head[-1]):
        keep_zeros(layer)
    copied = copy.deepcopy(network) if how == "deepcopy" else pickle.loads(pickle.dumps(network))
    assert set(copied.state_dict()) == names
    marked = [name for name, layer in copied.named_modules() if keeps_zeros(layer)]
    assert marked == ["stages.stem.0", "head.0"]
    assert [weight.shape for weight, _ in find_zeros(copied)] == [(4, 3, 3, 3), (2, 8)]
    own = {id(parameter) for parameter in copied.parameters()}
    assert all(id(weight) in own for weight, _ in find_zeros(copied))


def test_a_mark_is_no_part_of_a_fingerprint(tiny):
    """A marked layer computes what it did: a cache finds its output."""
    marked = copy.deepcopy(tiny)
    marked._fingerprints.clear()
    keep_zeros(marked.module.stem[0])
    assert marked.fingerprint("layer2") == tiny.fingerprint("layer2")
