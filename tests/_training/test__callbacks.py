"""What happens around the epochs of a fit: rates, unfreezing, scores, the best and the last good weights."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from sktl._training import _callbacks
from sktl._training._callbacks import GradualUnfreezing, KeepBest, judge
from sktl._training._loop import train
from sktl._training._skorch_net import StopTraining
from sktl.exceptions import DivergenceError


class Spy(Callback):
    """Notes things, each by a function of the net, after the steps and after the epochs."""

    def __init__(self, after_step=None, after_epoch=None):
        self.after_step, self.after_epoch = after_step, after_epoch
        self.steps, self.epochs = [], []

    def on_batch_end(self, net, training=False, **kwargs):
        if training and self.after_step:
            self.steps.append(self.after_step(net))

    def on_epoch_end(self, net, **kwargs):
        if self.after_epoch:
            self.epochs.append(self.after_epoch(net))


def weights(net):
    return copy.deepcopy(net.module_.state_dict())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rates(net):
    return [group["lr"] for group in net.optimizer_.param_groups]


def test_rows_are_told_the_epoch(tiny, make_net, make_rows):
    """Each epoch's batches are asked for with its number, and a second training counts on; validation has none."""
    net, rows, valid = make_net(tiny, 2), make_rows(tiny, 2), make_rows(tiny, 2, seed=1)
    train(net, rows, valid, epochs=2, seed=0)
    train(net, rows, valid, epochs=1, seed=0)
    assert rows.activations.epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(valid.activations.epochs) == {0}


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
    ],
)
def test_schedule_spans_the_whole_training(tiny, make_net, make_rows, schedule, factors):
    """From the full rate at the first step to nearly none at the last, all groups in proportion, each time anew."""
    net, spy = make_net(tiny, 1, lr=0.04, lr_decay=0.5), Spy(after_step=rates)
    for _ in range(2):
        train(net, make_rows(tiny, 1), epochs=2, seed=0, schedule=schedule, callbacks=[("spy", spy)])
    expected = 0.04 * np.outer(factors, [1, 1, 0.5, 0.5, 0.25, 0.25])
    np.testing.assert_allclose(spy.steps, [*expected, *expected], rtol=1e-6)
    np.testing.assert_allclose(net.history[:, "lr"], 0.04 * np.array([factors[0], factors[3]] * 2), rtol=1e-6)


def test_constant_rates_follow_a_cosine_of_before(tiny, make_net, make_rows):
    """What an earlier schedule left of the rates is not gone on with."""
    net, spy = make_net(tiny, 2, lr=0.04), Spy(after_step=rates)
    train(net, make_rows(tiny, 2), epochs=1, seed=0, schedule="cosine")
    train(net, make_rows(tiny, 2), epochs=1, seed=0, callbacks=[("spy", spy)])
    assert spy.steps == [[0.04] * 4] * 3


def test_a_scheduler_of_the_users_moves_constant_rates(tiny, make_net, make_rows):
    """With constant rates, skorch's LRScheduler decides, and the history tells its rates."""
    scheduler = LRScheduler(policy="StepLR", step_size=1, gamma=0.1)
    net, spy = make_net(tiny, 2, lr=0.04, callbacks=[scheduler]), Spy(after_step=rates)
    train(net, make_rows(tiny, 2), epochs=3, seed=0, callbacks=[("spy", spy)])
    np.testing.assert_allclose([step[0] for step in spy.steps], np.repeat([0.04, 0.004, 0.0004], 3), rtol=1e-6)
    np.testing.assert_allclose(net.history[:, "lr"], [0.04, 0.004, 0.0004], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("depth", "every"), [(0, 1), (1, 1), (0, 2)])
def test_stages_begin_to_learn_one_by_one(tiny, make_net, make_rows, optimizer, depth, every):
    """First the head alone, then one more stage after every so many epochs; what is not due moves by no bit."""
    net = make_net(tiny, depth, optimizer=optimizer, weight_decay=0.1)
    spy, start = Spy(after_epoch=weights), weights(net)
    unfreezing = GradualUnfreezing(3, depth, every)
    train(net, make_rows(tiny, depth), epochs=5, seed=0, unfreezing=unfreezing, depth=depth, callbacks=[("spy", spy)])
    names = ["stem", "layer1", "layer2"]
    moved = [
        {name for name in names if any(f".{name}." in path and (state[path] != start[path]).any() for path in start)}
        for state in spy.epochs
    ]
    n_frozen = [max(depth, 3 - epoch // every) for epoch in range(5)]
    assert moved == [set(names[n:]) for n in n_frozen]
    assert net.history[:, "n_frozen_stages"] == n_frozen
    assert all((state["head.0.weight"] != start["head.0.weight"]).any() for state in spy.epochs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_is_frozen_again_does_not_move(tiny, make_net, make_rows, optimizer):
    """Neither momentum nor weight decay moves a stage that is frozen after it has learnt; later it can learn on."""
    net, rows = make_net(tiny, 0, optimizer=optimizer, weight_decay=0.1), make_rows(tiny, 0)
    train(net, rows, epochs=2, seed=0)
    before = weights(net)
    net.module_.freeze(2)
    net.learn(rows, None, epochs=2, generator=torch.Generator())
    after = weights(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("stages.layer2", "head")) for name in moved)
    train(net, rows, epochs=1, seed=0)
    assert (net.module_.state_dict()["stages.stem.0.weight"] != after["stages.stem.0.weight"]).any()


def test_unfreezing_counts_from_a_later_epoch(tiny, make_net, make_rows):
    """Epochs of before can be left out of the count: a second training begins with the head alone, or goes on."""
    for n_before, expected in ((0, [1, 0]), (2, [3, 2])):
        net, rows = make_net(tiny, 0), make_rows(tiny, 0)
        train(net, rows, epochs=2, seed=0, unfreezing=GradualUnfreezing(3, 0, 1))
        train(net, rows, epochs=2, seed=0, unfreezing=GradualUnfreezing(3, 0, 1, n_before=n_before))
        assert net.history[:, "n_frozen_stages"] == [3, 2, *expected]


def test_unfreezing_adds_what_the_optimizer_does_not_know(tiny, make_net, make_rows):
    """A net whose optimizer was made while stages were frozen learns them all the same, each once."""
    net = make_net(tiny, 0)
    net.module_.freeze(3)
    net.initialize_optimizer()
    assert {group["stage"] for group in net.optimizer_.param_groups} == {"head"}
    unfreezing = [("unfreezing", GradualUnfreezing(3, 0, 1))]
    net.learn(make_rows(tiny, 0), None, epochs=5, generator=torch.Generator(), first=unfreezing)
    groups = net.optimizer_.param_groups
    assert list(dict.fromkeys(group["stage"] for group in groups)) == ["head", "layer2", "layer1", "stem"]
    parameters = [id(p) for group in groups for p in group["params"]]
    assert sorted(parameters) == sorted(id(p) for p in net.module_.parameters())


def test_valid_score_and_loss(tiny, make_net, make_rows):
    """Both are those of the network after the epoch, over all rows, weighted; the score knows no class weights."""
    sample_weight, class_weight = np.arange(1, 14), np.where(np.arange(13) % 2, 9, 1)
    columns = {"weight": sample_weight * class_weight, "sample_weight": sample_weight}
    net, valid = make_net(tiny, 2, lr=1e-4), make_rows(tiny, 2, 13, seed=1, **columns)
    outputs = Spy(after_epoch=lambda net: net.outputs(valid.activations.values.numpy()))
    train(net, make_rows(tiny, 2), valid, epochs=3, seed=0, callbacks=[("spy", outputs)])
    weight = valid.columns["weight"]
    for epoch, given in zip(net.history, outputs.epochs, strict=True):
        assert epoch["valid_score"] == accuracy_score(valid.y, given.argmax(1), sample_weight=sample_weight)
        rows = torch.nn.functional.cross_entropy(torch.from_numpy(given), valid.y, reduction="none")
        assert epoch["valid_loss"] == pytest.approx(float((rows * weight).mean()), rel=1e-5)
    net._valid, net._generator = valid, None
    assert judge(net)[0] == pytest.approx(net.history[-1, "valid_loss"], rel=1e-6)


def test_the_best_weights_are_put_back(tiny, make_net, make_rows):
    """Training stops when the loss has got no better for so many epochs, with the weights of the best one."""
    spy = Spy(after_epoch=weights)
    net, valid, best = make_net(tiny, 0, lr=0.1, lr_decay=1.0), make_rows(tiny, 0, seed=1), KeepBest(3)
    train(net, make_rows(tiny, 0), valid, epochs=50, seed=0, best=best, callbacks=[("spy", spy)])
    losses = net.history[:, "valid_loss"]
    assert 0 < best.best_epoch_ == int(np.argmin(losses)) + 1
    assert best.best_loss_ == min(losses)
    assert len(losses) == len(spy.epochs) == best.best_epoch_ + 3 < 50
    assert same(weights(net), spy.epochs[best.best_epoch_ - 1])
    assert not same(weights(net), spy.epochs[-1])


@pytest.mark.parametrize("is_warm", [False, True])
def test_the_start_is_judged_once(tiny, make_net, make_rows, is_warm, monkeypatch):
    """For the history and for the comparison alike; of a warm start the number in the history is another one's."""
    net, rows = make_net(tiny, 2, lr=1e-9), make_rows(tiny, 2)
    if is_warm:
        train(net, rows, rows, epochs=2, seed=0)
        net.history.start["valid_loss"] = -1.0
    judged = []
    monkeypatch.setattr(_callbacks, "judge", lambda net: judged.append(judge(net)) or judged[-1])
    best = KeepBest(3)
    train(net, rows, rows, epochs=0, seed=0, best=best)
    assert [loss for loss, _ in judged] == [best.best_loss_]


@pytest.mark.parametrize("broken", [False, True])
def test_the_untouched_start_is_judged(tiny, make_net, make_rows, broken):
    """Where training only harms, nothing has changed in the end, whether it goes on or diverges."""
    net, start_rows = make_net(tiny, 0), make_rows(tiny, 0)
    train(net, start_rows, epochs=5, seed=0)
    start, n_before, best = weights(net), len(net.history), KeepBest(2)
    for group in net.optimizer_.param_groups:
        group["base_lr"] = 1e30 if broken else 100.0
    if broken:
        with pytest.raises(DivergenceError):
            train(net, start_rows, start_rows, epochs=9, seed=0, best=best)
    else:
        train(net, start_rows, start_rows, epochs=9, seed=0, best=best)
        assert best.best_loss_ < min(net.history[n_before:, "valid_loss"])
        assert len(net.history) == n_before + 2
    assert best.best_epoch_ == n_before
    assert same(weights(net), start)


def test_a_start_that_gives_no_number(tiny, make_net, make_rows):
    """A start whose loss is NaN is worse than any number, and is there to go back to where nothing else is."""
    net, keep = make_net(tiny, 2), KeepBest(2)
    net._valid, net._generator = make_rows(tiny, 2), None
    good = weights(net)
    with torch.no_grad():
        net.module_.head[0].bias.fill_(float("nan"))
    keep.on_train_begin(net)
    assert keep.best_loss_ == float("inf")
    keep.restore(net)
    assert net.module_.head[0].bias.isnan().all()
    net.module_.load_state_dict(good)
    net.history.new_epoch()
    net.history.record("valid_loss", 5.0)
    keep.on_epoch_end(net)
    assert (keep.best_loss_, keep.best_epoch_) == (5.0, 1)


class BreakAt(Callback):
    """Makes the weights no numbers, or too large for float32, after a step of an epoch."""

    def __init__(self, epoch, step, value):
        self.epoch, self.step, self.value = epoch, step, value

    def on_epoch_begin(self, net, **kwargs):
        self.n_steps = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_steps += training
        if training and len(net.history) == self.epoch and self.n_steps == self.step:
            with torch.no_grad():
                net.module_.head[0].bias.copy_(torch.tensor([self.value, -self.value]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_last_good_weights_are_put_back(tiny, make_net, make_rows, value, step):
    """Wherever in the third of four epochs it happens, the weights are those of a fit of two epochs, bit for bit.

    A last step that breaks the weights is seen too: no loss of that epoch speaks of it.
    """
    rows = make_rows(tiny, 1)
    expected = make_net(tiny, 1)
    train(expected, rows, epochs=2, seed=0)
    net = make_net(tiny, 1)
    with pytest.raises(DivergenceError, match=r"in epoch [34]\. .*\(lr=0\.01\) is too large.*the weights of epoch 2\."):
        train(net, rows, epochs=4, seed=0, callbacks=[("break", BreakAt(3, step, value))])
    assert same(weights(net), weights(expected))
    assert net.kept_epoch_ == 2
    assert np.isfinite(net.history[:, "train_loss"]).all()


def test_after_a_divergence_the_best_weights_go_before_the_last_good_ones(tiny, make_net, make_rows):
    """Where the best weights are kept, a divergence ends with them, though a later epoch was whole too."""
    net, spy, rows = make_net(tiny, 1), Spy(after_epoch=weights), make_rows(tiny, 1)
    harm = [("worse", BreakAt(2, 3, 50.0)), ("break", BreakAt(3, 2, float("nan"))), ("spy", spy)]
    with pytest.raises(DivergenceError, match="the weights of epoch 1"):
        train(net, rows, rows, epochs=4, seed=0, best=KeepBest(9), callbacks=harm)
    assert net.kept_epoch_ == 1
    assert len(spy.epochs) == len(net.history) == 2
    assert same(weights(net), spy.epochs[0])


def test_the_very_last_step_may_break_the_weights(tiny, make_net, make_rows):
    """Weights that are no numbers after the last epoch are an error too, though every loss was a number."""
    net = make_net(tiny, 1)
    start = weights(net)
    with pytest.raises(
        DivergenceError, match=r"^Weights became NaN or infinite in epoch 1\..* keeps its initial weights\.$"
    ):
        train(net, make_rows(tiny, 1), epochs=1, seed=0, callbacks=[("break", BreakAt(1, 3, float("nan")))])
    assert same(weights(net), start)


def test_all_callbacks_see_the_last_epoch(tiny, make_net, make_rows):
    """One that asks to stop does not keep the others from an epoch's end, nor the best weights from being kept."""

    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise StopTraining

    impatient = EarlyStopping("train_loss", patience=0, sink=lambda text: None)  # which raises KeyboardInterrupt
    for stop in (impatient, Stop()):
        spy = Spy(after_epoch=weights)
        net = make_net(tiny, 2, callbacks=[stop])
        rows, best = make_rows(tiny, 2), KeepBest(3)
        train(net, rows, rows, epochs=3, seed=0, best=best, callbacks=[("spy", spy)])
        assert len(spy.epochs) == len(net.history) == 1
        assert best.best_epoch_ == 1
        assert same(weights(net), spy.epochs[0])
