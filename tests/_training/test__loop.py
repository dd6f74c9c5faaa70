"""One training: the same numbers for the same seed, and nothing global is changed."""

import copy
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sktl._training._callbacks import GradualUnfreezing, KeepBest
from sktl._training._loop import train
from sktl.backbones import load_backbone
from sktl.exceptions import DivergenceError


def weights(net):
    return copy.deepcopy(net.module_.state_dict())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def global_state():
    numpys = pickle.dumps(np.random.get_state())  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpys, random.getstate()


def trained(make_net, tiny, rows, seed, **kwargs):
    net = make_net(tiny, 0, dropout=0.3, lr_decay=1.0)
    train(net, rows, epochs=3, seed=seed, **kwargs)
    return weights(net), net.history[:, "train_loss"]


def test_a_seed_decides_everything(tiny, make_net, make_rows):
    """Order and dropout come from the seed alone, whatever the global generators hold, and those stay as they were."""
    rows = make_rows(tiny, 0)
    before = global_state()
    first = trained(make_net, tiny, rows, 1)
    assert global_state() == before
    torch.rand(5)
    again, other = trained(make_net, tiny, rows, 1), trained(make_net, tiny, rows, 2)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], other[0])


def test_dropout_is_seeded_too(tiny, make_net, make_rows):
    """With one batch an epoch, and so with nothing to shuffle that counts, the seed still decides what is dropped."""
    rows = make_rows(tiny, 2, 8)
    results = []
    for seed in (1, 1, 2):
        net = make_net(tiny, 2, dropout=0.5)
        train(net, rows, epochs=2, seed=seed)
        results.append(net.history[:, "train_loss"])
    assert results[0] == results[1]
    assert results[0] != pytest.approx(results[2], abs=1e-4)


class Fail(Callback):
    def on_batch_end(self, net, **kwargs):
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError, DivergenceError])
def test_an_error_leaves_everything_as_it_was(tiny, make_net, make_rows, error):
    """After a failure the generators are as they were, the lock is free, and the net can be trained again."""
    net, rows, fail = make_net(tiny, 0), make_rows(tiny, 0), Fail()
    fail.error = error
    before = global_state()
    n_callbacks = len(net.callbacks_)
    with pytest.raises(error):
        train(net, rows, epochs=3, seed=0, callbacks=[("fail", fail)])
    assert global_state() == before
    assert len(net.callbacks_) == n_callbacks
    assert not net.history
    assert not hasattr(net, "_valid")
    other = threading.Thread(target=train, args=(net, rows), kwargs={"epochs": 1, "seed": 0}, daemon=True)
    other.start()
    other.join(60)
    assert len(net.history) == 1


def test_trainings_in_threads(tiny, make_net, make_rows):
    """Trainings at once in several threads give what each gives alone, and the generator is left as it was found."""
    rows = make_rows(tiny, 0)
    expected = [trained(make_net, tiny, rows, seed) for seed in range(4)]
    results = {}
    before = global_state()
    threads = [
        threading.Thread(
            target=lambda seed: results.update({seed: trained(make_net, tiny, copy.deepcopy(rows), seed)}),
            args=(seed,),
            daemon=True,
        )
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert global_state() == before
    for seed in range(4):
        assert same(results[seed][0], expected[seed][0])
        assert results[seed][1] == expected[seed][1]


def test_a_training_within_a_training(tiny, make_net, make_rows):
    """A callback may train another net; neither waits for itself, nor changes what the other draws."""

    class Within(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.inner = trained(make_net, tiny, make_rows(tiny, 0), 7)

    rows, within = make_rows(tiny, 0), Within()
    outer = []
    thread = threading.Thread(  # if it waited for itself, this test would fail, and not hang
        target=lambda: outer.append(trained(make_net, tiny, rows, 1, callbacks=[("within", within)])), daemon=True
    )
    thread.start()
    thread.join(60)
    assert same(outer[0][0], trained(make_net, tiny, rows, 1)[0])
    assert same(within.inner[0], trained(make_net, tiny, rows, 7)[0])


def test_a_network_loaded_beside_changes_nothing(tiny, make_net, make_rows):
    """What another thread draws for the first weights of a network is not missing in the dropout of a training."""
    rows, stop = make_rows(tiny, 0), threading.Event()
    expected = trained(make_net, tiny, rows, 1)

    def load_all_the_time():
        while not stop.is_set():
            load_backbone("sktl_mini", weights=None, random_state=np.random.RandomState(0))

    thread = threading.Thread(target=load_all_the_time, daemon=True)
    thread.start()
    try:
        found = trained(make_net, tiny, rows, 1)
    finally:
        stop.set()
        thread.join(60)
    assert same(found[0], expected[0])


def test_all_stages_learn_where_none_is_to_be_unfrozen(tiny, make_net, make_rows):
    """What an earlier training left frozen for the time being learns in one without gradual unfreezing."""
    net, rows = make_net(tiny, 1), make_rows(tiny, 1)
    train(net, rows, epochs=1, seed=0, unfreezing=GradualUnfreezing(3, 1, 1), depth=1)
    before = weights(net)
    train(net, rows, epochs=1, seed=0, depth=1)
    assert not torch.equal(before["stages.layer1.0.weight"], net.module_.state_dict()["stages.layer1.0.weight"])


@pytest.mark.parametrize("is_step", [True, False])
def test_a_step_fetches_each_row_once(tiny, make_net, make_rows, is_step, monkeypatch):
    """Whether outputs are numbers is seen from rows that it has; a whole training looks at some of all rows again."""
    rows, fetched = make_rows(tiny, 1), []
    batch = rows.activations.batch
    monkeypatch.setattr(rows.activations, "batch", lambda rows, epoch: fetched.extend(rows) or batch(rows, epoch))
    train(make_net(tiny, 1), rows, epochs=1, seed=0, is_step=is_step)
    assert sorted(fetched) == sorted(list(range(len(rows))) * (1 if is_step else 2))


def test_a_step_that_breaks_the_outputs_is_noticed(tiny, make_net, make_rows):
    """Every loss and all weights are numbers, and what the network then gives is none: the start is put back."""
    net = make_net(tiny, 1)
    start = weights(net)

    class Inflate(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            with torch.no_grad():
                for parameter in net.module_.parameters():
                    parameter.fill_(3e38)

    rows = make_rows(tiny, 1, 4)
    with pytest.raises(DivergenceError, match=r"^Outputs became NaN or infinite in epoch 1\."):
        train(net, rows, epochs=1, seed=0, is_step=True, callbacks=[("inflate", Inflate())])
    assert same(weights(net), start)
    assert net.kept_epoch_ == 0


def test_callbacks_see_what_was_noted(tiny, make_net, make_rows):
    """A callback of one training sees losses, score and rate of its epochs, before the last of them ends training."""

    class Note(Callback):
        def on_train_begin(self, net, **kwargs):
            self.seen = []

        def on_epoch_end(self, net, **kwargs):
            self.seen.append({"train_loss", "valid_loss", "valid_score", "lr"} <= set(net.history[-1]))

    net, note, rows, best = make_net(tiny, 2, lr=1e-9), Note(), make_rows(tiny, 2), KeepBest(1)
    train(net, rows, make_rows(tiny, 2), epochs=5, seed=0, best=best, callbacks=[("note", note)])
    assert note.seen == [True] * len(net.history)
    assert best.best_epoch_ <= len(net.history) <= 5
    train(net, rows, rows, epochs=0, seed=0, best=best)
    assert best.best_epoch_ == len(net.history)
