"""The one training loop: what it computes, how it is stopped, and what is left of it."""

import copy
import functools
import gc
import pickle
import signal
import weakref

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, PrintLog
from torch import nn

from sktl._training._callbacks import GradualUnfreezing, KeepBest
from sktl._training._loop import train
from sktl._training._losses import ClassificationLoss
from sktl._training._skorch_net import StopTraining


def weights(net):
    return copy.deepcopy(net.module_.state_dict())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def learn(net, rows, valid=None, *, epochs=1, seed=0, **kwargs):
    net.learn(rows, valid, epochs=epochs, generator=torch.Generator().manual_seed(seed), **kwargs)


def test_training_equals_a_plain_loop(tiny, make_net, make_rows):
    """Losses and weights are those of a loop of ten lines with torch's optimizer, weights of rows included."""
    rows = make_rows(tiny, 1, weight=np.arange(1, 23))
    net = make_net(tiny, 1, optimizer="sgd", lr_decay=0.5, freeze_bn=False)
    network = copy.deepcopy(net.module_).train()
    network.stages.get_submodule("layer1.3").p = net.module_.stages.get_submodule("layer1.3").p = 0.0
    groups = [
        {"params": list(network.stages.get_submodule(name).parameters()), "lr": lr}
        for name, lr in (("layer1", 0.0025), ("layer2", 0.005))
    ]
    optimizer = torch.optim.SGD([{"params": network.head.parameters()}, *groups], lr=0.01, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # what a DataLoader seeds its workers with
        order = torch.randperm(22, generator=generator)
        for batch in order.split(8):
            optimizer.zero_grad()
            outputs = network(rows.activations.values[batch])
            loss = nn.functional.cross_entropy(outputs, rows.y[batch], reduction="none") @ rows.columns["weight"][batch]
            (loss / len(batch)).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    learn(net, rows, epochs=2)
    np.testing.assert_allclose(net.history[:, "train_loss"], np.reshape(losses, (2, 3)).sum(1) / 22, rtol=1e-5)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(net.module_.state_dict()[name], tensor, msg=name)


def test_a_weight_of_two_is_a_row_twice(tiny, make_net, make_rows):
    """In full batches, weighted and repeated rows train the same network."""
    rows = make_rows(tiny, 2, 6)
    index = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
    weight = torch.bincount(index).float()
    trained = []
    for positions, column in ((torch.arange(6), weight), (index, torch.ones(9))):
        table = copy.deepcopy(rows)
        table.activations.values, table.y = rows.activations.values[positions], rows.y[positions]
        table.columns = {"weight": column / column.mean()}
        net = make_net(tiny, 2, batch_size=50)
        learn(net, table, epochs=5)
        trained.append(weights(net))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, msg=name)


def test_a_last_batch_of_one_trains_batch_norms(tiny, make_net, make_rows):
    """Nine rows in batches of eight are no error for a batch norm that learns."""
    net = make_net(tiny, 0, freeze_bn=False, head=nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2)))
    learn(net, make_rows(tiny, 0, 9))
    assert np.isfinite(net.history[-1, "train_loss"])


class Interrupt(Callback):
    """Raises at a place of the loop, in the second batch of the second epoch."""

    def __init__(self, place, kind):
        self.place, self.kind = place, kind
        self.n_batches = 0

    def raise_at(self, place, net, training=True):
        if training and place == "on_batch_begin":
            self.n_batches += 1
            self.before = weights(net)
        if training and place == self.place and self.n_batches == 5:
            raise self.kind

    def on_batch_begin(self, net, training=False, **kwargs):
        self.raise_at("on_batch_begin", net, training)

    def on_grad_computed(self, net, training=False, **kwargs):
        self.raise_at("on_grad_computed", net)

    def on_batch_end(self, net, training=False, **kwargs):
        self.raise_at("on_batch_end", net, training)


@pytest.mark.parametrize("place", ["on_batch_begin", "on_grad_computed", "on_batch_end", "loss"])
def test_an_interruption_in_a_batch_keeps_what_was_learnt(tiny, make_net, make_rows, place):
    """Ctrl-C is raised again with a note; of the unfinished epoch nothing is in the history, and training can go on."""
    interrupt = Interrupt(place, KeyboardInterrupt)

    class Loss(ClassificationLoss):
        def per_row(self, outputs, y):
            if place == "loss" and interrupt.n_batches == 5:
                raise KeyboardInterrupt
            return super().per_row(outputs, y)

    net = make_net(tiny, 1, criterion=Loss())
    with pytest.raises(KeyboardInterrupt) as raised:
        learn(net, make_rows(tiny, 1), epochs=4, first=[("interrupt", interrupt)])
    assert raised.value.__notes__ == ["Training was interrupted after 1 complete epochs."]
    assert len(net.history) == 1
    assert same(weights(net), interrupt.before) == (place != "on_batch_end")
    interrupt.n_batches = 100
    learn(net, make_rows(tiny, 1), epochs=2)
    assert net.history[:, "epoch"] == [1, 2, 3]


def test_an_interruption_in_front_of_the_first_epoch(tiny, make_net, make_rows):
    """Where nothing has been learnt yet, Ctrl-C is what it is everywhere."""

    class Early(Callback):
        def on_train_begin(self, net, **kwargs):
            raise KeyboardInterrupt

    net = make_net(tiny, 2)
    with pytest.raises(KeyboardInterrupt):
        learn(net, make_rows(tiny, 2), first=[("early", Early())])
    assert not net.history


def test_skorchs_early_stopping_is_no_interruption(tiny, make_net, make_rows):
    """A callback of the user's that stops training does so without a warning, after a whole epoch."""
    net = make_net(tiny, 2, callbacks=[EarlyStopping("train_loss", patience=2, threshold=10.0, sink=lambda text: None)])
    learn(net, make_rows(tiny, 2), epochs=20)
    assert len(net.history) == 1 + 2  # the first epoch is better than none


def test_ctrl_c_at_the_end_of_an_epoch(tiny, make_net, make_rows):
    """A real signal there is no wish of skorch: the epoch is whole, all callbacks see it, and it is raised again."""

    class Press(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                signal.raise_signal(signal.SIGINT)

    class Count(Callback):
        n_epochs = 0

        def on_epoch_end(self, net, **kwargs):
            self.n_epochs += 1

    count = Count()
    early = EarlyStopping("train_loss", patience=1, threshold=10.0, sink=lambda text: None)  # wants to stop there too
    net = make_net(tiny, 2, callbacks=[Press(), early, count])
    with pytest.raises(KeyboardInterrupt):
        learn(net, make_rows(tiny, 2), epochs=20)
    assert len(net.history) == count.n_epochs == 2


def test_ctrl_c_inside_skorchs_early_stopping(tiny, make_net, make_rows):
    """A signal is the user's, wherever it comes, and no wish of the callback in which it does."""

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("number", int(signal.SIGINT))

    early = EarlyStopping("number")
    early._is_score_improved = signal.raise_signal  # which leaves no frame of its own
    with pytest.raises(KeyboardInterrupt):
        learn(make_net(tiny, 2, callbacks=[Note(), early]), make_rows(tiny, 2), epochs=2)


def test_ctrl_c_inside_skorchs_other_callbacks(tiny, make_net, make_rows):
    """As while a line is printed into a slow pipe: only early stopping asks by a KeyboardInterrupt."""
    quiet = PrintLog(sink=functools.partial(signal.default_int_handler, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        learn(make_net(tiny, 2, callbacks=[quiet]), make_rows(tiny, 2), epochs=2)


@pytest.mark.parametrize("place", ["on_batch_begin", "on_batch_end"])
def test_stop_training_in_a_batch(tiny, make_net, make_rows, place):
    """A callback of ours may stop anywhere, quietly; an unfinished epoch is not in the history."""
    net = make_net(tiny, 2)
    learn(net, make_rows(tiny, 2), epochs=4, first=[("stop", Interrupt(place, StopTraining))])
    assert len(net.history) == 1


def test_what_the_user_says_wins(tiny, make_net):
    """skorch's own parameters go before ours: those of the optimizer, its rate and its decay included."""
    net = make_net(
        tiny, 1, optimizer="sgd", optimizer__momentum=0.5, optimizer__lr=0.2, optimizer__weight_decay=0.3, lr_decay=0.1
    )
    groups = net.optimizer_.param_groups
    assert [group["lr"] for group in groups] == [group["base_lr"] for group in groups]
    np.testing.assert_allclose([group["lr"] for group in groups], [0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0] * 3
    assert {(group["momentum"], group["nesterov"]) for group in groups} == {(0.5, True)}
    betas = make_net(tiny, 1, optimizer__betas=(0.5, 0.6)).optimizer_
    assert type(betas) is torch.optim.AdamW
    assert {group["betas"] for group in betas.param_groups} == {(0.5, 0.6)}
    assert type(make_net(tiny, 1, optimizer=torch.optim.RMSprop).optimizer_) is torch.optim.RMSprop


def test_batch_sizes_of_either_loader(tiny, make_net, make_rows):
    """Batches to learn from and to judge may have sizes of their own."""
    net = make_net(tiny, 2, iterator_train__batch_size=11, iterator_valid__batch_size=4)
    learn(net, make_rows(tiny, 2, 22), make_rows(tiny, 2, 22))
    assert (net.history[-1, "train_batch_count"], net.history[-1, "valid_batch_count"]) == (2, 6)


def test_outputs_are_those_of_eval_mode(tiny, make_net, make_rows):
    """Predictions do not depend on the batch, on the mode that was left or on dropout, and change nothing."""
    net, rows = make_net(tiny, 1, dropout=0.5, freeze_bn=False), make_rows(tiny, 1)
    learn(net, rows)
    x = rows.activations.values.numpy()
    with torch.no_grad():
        expected = copy.deepcopy(net.module_).eval()(rows.activations.values)
    net.module_.train()
    before = weights(net)
    outputs = net.outputs(x)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([net.outputs(x[i : i + 1]) for i in range(22)]), outputs, atol=1e-6)
    assert same(weights(net), before)


def test_linear_inputs(tiny, make_net, make_rows):
    """What reaches a layer of the head is read in eval mode, row by row as asked for, and no hook stays behind."""
    net, rows = make_net(tiny, 1, head=(5,), dropout=0.5), make_rows(tiny, 1)
    linear = net.module_.head[-1]
    positions = [3, 1, *range(5, 20)]
    with torch.no_grad():
        features = copy.deepcopy(net.module_).eval()
        features.head = features.head[:-1]
        expected = features(rows.activations.values[positions])
    inputs = net.linear_inputs(rows, positions, linear)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    rows.activations.values = rows.activations.values[:, :2]
    with pytest.raises(RuntimeError):
        net.linear_inputs(rows, positions, linear)
    assert not linear._forward_pre_hooks


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_predict_and_learn_alike(tiny, make_net, make_rows, copied):
    """A copy gives the same outputs and, trained on, becomes what the original becomes; neither moves the other."""
    net, rows = make_net(tiny, 0, lr_decay=0.5), make_rows(tiny, 0)
    train(net, rows, epochs=2, seed=0, unfreezing=GradualUnfreezing(3, 0, 1))
    other, before = copied(net), weights(net)
    x = rows.activations.values.numpy()
    np.testing.assert_array_equal(other.outputs(x), net.outputs(x))
    assert [dict(epoch) for epoch in other.history] == [dict(epoch) for epoch in net.history]
    train(other, rows, epochs=3, seed=1, unfreezing=GradualUnfreezing(3, 0, 1))
    assert same(weights(net), before)
    train(net, rows, epochs=3, seed=1, unfreezing=GradualUnfreezing(3, 0, 1))
    assert same(weights(net), weights(other))
    assert not same(weights(net), before)


def test_nothing_of_the_data_stays(tiny, make_net, make_rows):
    """After a training the rows are gone, the net is as large as its weights and moments, and asks for no memory."""
    net = make_net(tiny, 1, head=(4000,))
    rows, valid = make_rows(tiny, 1, 200), make_rows(tiny, 1, 50)
    unfreezing, best = GradualUnfreezing(3, 0, 1), KeepBest(2)
    train(net, rows, valid, epochs=2, seed=0, best=best, unfreezing=unfreezing, schedule="cosine")
    gone = [weakref.ref(held) for held in (rows, valid, rows.activations)]
    del rows, valid
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    n_bytes = sum(4 * parameter.numel() for parameter in net.module_.parameters())
    assert len(pickle.dumps(net)) < 3.3 * n_bytes + 50_000
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    assert not any(module.training for module in net.module_.modules())
    assert [name for name, _ in net.callbacks_] == ["epoch_timer", "train_loss", "valid_loss"]


@pytest.mark.parametrize("depth", [0, 2, 3])
def test_arrays_are_taken_for_activations(tiny, make_net, make_rows, depth):
    """skorch's own methods take arrays, tensors and rows alike, in batches that do not change what comes out."""
    net, rows = make_net(tiny, depth), make_rows(tiny, depth)
    values = rows.activations.values
    expected = net.outputs(values.numpy())
    for X in (values.numpy(), values, rows):
        np.testing.assert_allclose(net.forward(X).numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(net.predict(X), expected.argmax(1))
    assert len(set(net.predict(values))) == 2 or depth < 3


class MappedLoss(ClassificationLoss):
    """Cross-entropy of outputs times a factor that is trained too, until it is dropped."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def per_row(self, outputs, y):
        return super().per_row(outputs * self.factor, y)

    def forget(self):
        had = self.factor.requires_grad
        self.factor = nn.Parameter(torch.ones(()), requires_grad=False)
        return had


def test_training_that_goes_on_keeps_what_the_loss_learned(tiny, make_net, make_rows):
    """Between the steps of partial_fit, moments and parameters of the loss stay; after the last one they go."""
    net = make_net(tiny, 3, criterion=MappedLoss())
    learn(net, make_rows(tiny, 3), epochs=2)
    factor, optimizer, n_states = net.criterion_.factor, net.optimizer_, len(net.optimizer_.state)
    assert factor.item() != 1
    net.forget_training(keeps_moments=True)
    assert net.criterion_.factor is factor
    assert net.optimizer_ is optimizer
    assert len(optimizer.state) == n_states > 0
    net.forget_training()
    assert net.criterion_.factor is not factor
    assert not net.optimizer_.state
