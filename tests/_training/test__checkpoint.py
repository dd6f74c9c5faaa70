"""A training that is taken up at a checkpoint is the one that was never left, to the bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sktl._training._checkpoint import Remember
from sktl._training._loop import train
from sktl._training._losses import ClassificationLoss
from sktl.exceptions import DivergenceError

EPOCHS = 5
SETTINGS = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "dropout": 0.4, "freeze_bn": False},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "dropout": 0.4, "weight_decay": 0.1},
    "rates": {"optimizer": "sgd", "lr": 0.05, "lr_decay": 0.5, "dropout": 0.4},
}


class Scaled(ClassificationLoss):
    """A loss that learns: a factor of the outputs."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def per_row(self, outputs, y):
        return super().per_row(outputs * self.factor, y)


def state(net):
    return {
        name: tensor.clone()
        for name, tensor in [*net.module_.state_dict().items(), *net.criterion_.state_dict().items()]
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_rewound_is_straight(tiny, make_net, make_rows, schedule, name, epoch):
    """From a checkpoint on, with its weights, five epochs end where they end at once: also the third time.

    With dropout, norms that learn, momentum or moments, a loss that learns, and any schedule: weights, statistics,
    losses and rates.
    """
    rows, seed = make_rows(tiny, 1), 3
    settings = {**SETTINGS[name], "criterion": Scaled()}
    straight = make_net(tiny, 1, **copy.deepcopy(settings))
    remember = Remember(epoch)
    train(straight, rows, epochs=EPOCHS, seed=seed, schedule=schedule, callbacks=[("remember", remember)])
    expected, start = state(straight), remember.checkpoint_
    assert start.epoch == epoch
    assert len(start.history) == epoch
    for noise in range(3):
        torch.rand(noise + 1)
        net = make_net(tiny, 1, **copy.deepcopy(settings))
        start.rewind(net)
        before = torch.get_rng_state()
        train(net, rows, epochs=EPOCHS, seed=seed, schedule=schedule, start=start)
        assert torch.equal(torch.get_rng_state(), before)
        assert same(state(net), expected)
        for column in ("epoch", "train_loss", "lr"):
            assert net.history[:, column] == straight.history[:, column]


def test_every_part_counts(tiny, make_net, make_rows):
    """Without the moments, the order, the noise or the rates of the checkpoint the end is another one."""
    rows = make_rows(tiny, 1)
    remember = Remember(2)
    settings = SETTINGS["sgd"]
    straight = make_net(tiny, 1, **settings)
    train(straight, rows, epochs=EPOCHS, seed=0, schedule="cosine", callbacks=[("remember", remember)])
    start = remember.checkpoint_
    other = torch.Generator().manual_seed(99).get_state()
    for change in ({"moments": {}}, {"order": other}, {"noise": (other,)}, {"epoch": 1}):
        net = make_net(tiny, 1, **settings)
        start.rewind(net)
        train(net, rows, epochs=EPOCHS, seed=0, schedule="cosine", start=start._replace(**change))
        assert not same(state(net), state(straight))


def test_other_weights_go_on_from_there(tiny, make_net, make_rows):
    """Weights are the net's own: what was not rewound is trained on as it is."""
    rows, remember = make_rows(tiny, 1), Remember(1)
    train(make_net(tiny, 1), rows, epochs=3, seed=0, callbacks=[("remember", remember)])
    net = make_net(tiny, 1)
    before = state(net)
    train(net, rows, epochs=1, seed=0, start=remember.checkpoint_)
    assert same(state(net), before)  # there was no epoch left
    assert len(net.history) == 1


def test_a_checkpoint_is_not_changed_by_what_comes_after(tiny, make_net, make_rows):
    """Neither the training that it was made in nor one that starts from it writes to it, nor does a failing one."""
    rows, remember = make_rows(tiny, 1), Remember(2)
    settings = {"optimizer": "sgd", "lr": 0.05}
    checkpoints = []

    class Keep(Remember):
        def on_epoch_end(self, net, **kwargs):
            if net.history[-1, "epoch"] == 2:
                checkpoints.append(copy.deepcopy(remember.checkpoint_))

    train(make_net(tiny, 1, **settings), rows, epochs=4, seed=0, callbacks=[("a", remember), ("b", Keep(99))])
    start = remember.checkpoint_

    def check():
        for name in ("weights", "loss"):
            assert same(getattr(start, name), getattr(checkpoints[0], name))
        assert start.moments.keys() == checkpoints[0].moments.keys()
        for number, moment in start.moments.items():
            assert torch.equal(moment["momentum_buffer"], checkpoints[0].moments[number]["momentum_buffer"])
        assert torch.equal(start.order, checkpoints[0].order)
        assert len(start.history) == 2

    check()
    for lr in (0.05, 1e30):
        net = make_net(tiny, 1, **{**settings, "lr": lr})
        start.rewind(net)
        if lr == 0.05:
            train(net, rows, epochs=4, seed=0, start=start)
        else:
            with pytest.raises(DivergenceError):
                train(net, rows, epochs=4, seed=0, start=start)
        check()


@pytest.mark.parametrize("epoch", [3, 4])
def test_an_epoch_that_never_comes(tiny, make_net, make_rows, epoch):
    """There is a checkpoint where training came so far, after its last epoch too, and none where it did not."""
    remember = Remember(epoch)
    train(make_net(tiny, 1), make_rows(tiny, 1), epochs=3, seed=0, callbacks=[("remember", remember)])
    assert hasattr(remember, "checkpoint_") == (epoch == 3)


def test_epochs_before_do_not_count(tiny, make_net, make_rows):
    """A net that has been trained before begins to count anew."""
    net, rows, remember = make_net(tiny, 1), make_rows(tiny, 1), Remember(0)
    train(net, rows, epochs=2, seed=0)
    expected = state(net)
    train(net, rows, epochs=2, seed=0, callbacks=[("remember", remember)])
    assert same({**remember.checkpoint_.weights, **remember.checkpoint_.loss}, expected)
    np.testing.assert_array_equal(remember.checkpoint_.history[:, "epoch"], [1, 2])
