"""Lottery tickets: where each round begins, how many weights it has, what the controls are, and what is left behind."""

import itertools
import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier
from sktl._randomness import Randomness
from sktl._training._loop import train
from sktl._training._sparsity import keeps_zeros
from sktl.compression import LotteryTicketClassifier, PrunedClassifier, _lottery
from sktl.compression._compressed import compressible
from sktl.exceptions import CompressionError, InputError

# What is checked is the compressor: the classifier in it learns the same in small images.
SMALL_IMAGES = {"resize_size": 16, "crop_size": 16}


@parametrize_with_checks(
    [LotteryTicketClassifier(FineTunedClassifier(max_epochs=1, preprocessing=SMALL_IMAGES), n_rounds=1, controls=False)]
)
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """It passes every common check of scikit-learn, none is excluded; one round of one epoch is done in time."""
    check(estimator)


@pytest.fixture
def draw(make):
    """Makes a lottery of two rounds around a classifier with dropout, momentum, a schedule and norms that learn."""

    def lottery(estimator=None, **params):
        settings = {"dropout": 0.3, "optimizer": "sgd", "lr": 0.005, "lr_schedule": "cosine", "freeze_bn": False}
        estimator = make(max_epochs=3, **settings) if estimator is None else estimator
        return LotteryTicketClassifier(estimator, **{"n_rounds": 2, "random_state": 0, **params})

    return lottery


@pytest.fixture
def trainings(monkeypatch):
    """What each training began with and ended with, and all that it was told, in the order of the trainings."""
    seen = []

    def watched(net, rows, valid=None, **kwargs):
        begin = {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}
        train(net, rows, valid, **kwargs)
        end = {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}
        seen.append({"begin": begin, "end": end, "history": net.history, "rows": rows, "valid": valid, **kwargs})

    monkeypatch.setattr("sktl._training._trainer.train", watched)
    return seen


def pruned_names(model):
    """The names of the weights that rounds take from."""
    return [f"{path}.weight" for path in compressible(model.estimator_.net_.module_)]


def same(first, second, names=None):
    return all(torch.equal(first[name], second[name]) for name in names or first)


def test_classes_of_one_row(draw, make, table):
    """Tickets are compared on rows set aside: without two of any class, the error says who wants them; X_val helps."""
    X, y = table
    _, first = np.unique(y, return_index=True)
    lottery = draw(make(max_epochs=1, early_stopping=False), n_rounds=1, controls=False)
    with pytest.raises(
        InputError, match=r"^LotteryTicketClassifier holds out .* needs a class.*X_val and y_val\.$"
    ) as caught:
        lottery.fit(X[first], y[first])
    assert "early_stopping" not in str(caught.value)
    lottery.fit(X[first], y[first], X_val=X[:12], y_val=y[:12])
    assert len(lottery.curve_.to_dict()["score"]) == 2
    again = clone(lottery.estimator_).fit(X[first], y[first])  # when that is fitted again, nothing need be set aside
    assert "valid_loss" not in again.history_[-1]


# --- rewinding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewind_epoch", [0, 1, 2])
def test_each_round_begins_where_the_first_was(table, draw, trainings, monkeypatch, rewind_epoch):
    """Weights, statistics, moments, order of rows and dropout are those of the checkpoint, but for what is zero.

    With nothing taken away, each round is the first one over again, to the bit.
    """
    monkeypatch.setattr(_lottery, "set_zeros", lambda layers, masks: None)
    draw(rewind_epoch=rewind_epoch, controls=False, n_rounds=3).fit(*table)
    first, *later = trainings
    assert len(later) == 3
    for training in later:
        assert same(training["end"], first["end"])
        for column in ("train_loss", "valid_loss", "lr"):
            assert training["history"][:, column] == first["history"][:, column]
        assert training["rows"] is first["rows"]
    assert not same(first["begin"], first["end"])


@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_what_is_not_zero_is_the_beginning(table, draw, trainings, rewind_epoch):
    """The winning ticket and the random mask begin with the first values where they are not zero; nothing else differs.

    New values are new everywhere, in the same places as the winning ticket's.
    """
    model = draw(rewind_epoch=rewind_epoch).fit(*table)
    names, start = pruned_names(model), trainings[1]["start"].weights
    rest = [name for name in start if name not in names]
    if rewind_epoch == 0:
        assert same(start, trainings[0]["begin"])
    else:
        assert not same(start, trainings[0]["begin"])
    for number in (0, 1):
        anew, elsewhere, winning = (training["begin"] for training in trainings[1 + 3 * number : 4 + 3 * number])
        for name in names:
            for begin in (elsewhere, winning):
                left = begin[name] != 0
                assert torch.equal(begin[name][left], start[name][left])
            assert torch.equal(anew[name] == 0, winning[name] == 0)
            left = anew[name] != 0
            assert (anew[name][left] != start[name][left]).all()
            assert (elsewhere[name] == 0).sum() == (winning[name] == 0).sum()
            assert not torch.equal(elsewhere[name] == 0, winning[name] == 0)
        assert same(winning, start, rest)
        assert same(elsewhere, start, rest)
        assert (anew["stages.layer1.1.running_mean"] == 0).all()
    assert not same(trainings[1]["begin"], trainings[4]["begin"], names)  # other values in the next round


def test_the_first_round_is_the_estimators_own_fit(table, make, draw, state):
    """Judged on the same rows, the dense network learns what it learns alone."""
    X, y = table
    settings = {"max_epochs": 3, "dropout": 0.3}
    given = {"X_val": X[30:], "y_val": y[30:]}
    alone = make(**settings).fit(X[:30], y[:30], **given)
    model = draw(make(**settings), controls=False, n_rounds=1).fit(X[:30], y[:30], **given)
    np.testing.assert_equal(state(model._original), state(alone))
    assert model.curve_.to_dict()["score"][0] == alone.score(X[30:], y[30:])
    early = make(**settings, early_stopping=True).fit(X, y)
    model = draw(make(**settings, early_stopping=True), controls=False, n_rounds=1).fit(X, y)
    np.testing.assert_equal(state(model._original), state(early))


class Noted(nn.Module):
    """A head whose dropout draws, and notes what it drew."""

    drawn: list = []

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x):
        if self.training:
            noise = torch.rand(len(x))
            self.drawn.append(noise)
            x = x * (noise[:, None] > 0.3)
        return self.linear(x)


@pytest.mark.parametrize("rewind_epoch", [0, 2])
def test_each_round_sees_the_same_noise(table, make, draw, rewind_epoch):
    """What dropout draws in an epoch it draws in that epoch of all rounds and controls; torch's own state stays."""
    Noted.drawn.clear()
    with torch.random.fork_rng():
        estimator = make(max_epochs=3, head=Noted(), head_init="random")
    before = torch.get_rng_state()
    draw(estimator, rewind_epoch=rewind_epoch, n_rounds=2).fit(*table)
    assert torch.equal(torch.get_rng_state(), before)
    n_first = len(Noted.drawn) * 3 // (3 + 6 * (3 - rewind_epoch))
    first, later = Noted.drawn[:n_first], Noted.drawn[n_first:]
    part = first[n_first * rewind_epoch // 3 :]
    assert len(later) == 6 * len(part)
    for number, noise in enumerate(later):
        assert torch.equal(noise, part[number % len(part)])


def test_what_a_loss_learns_is_rewound_too(table, make, fitted, trainings):
    """A student's map to its teacher's layers is, at the rewound epoch, what it was."""
    teacher = FrozenEstimator(fitted)
    settings = {"freeze_depth": 1, "max_epochs": 3, "lr": 0.01, "batch_size": 8, "random_state": 0}
    student = DistilledClassifier(teacher, fitted.backbone_, knowledge={"response": 1, "feature": 1}, **settings)
    model = LotteryTicketClassifier(student, n_rounds=2, rewind_epoch=1, controls=False, prune_fraction=1e-6)
    model.fit(*table)
    assert any(tensor.numel() > 1 for tensor in trainings[1]["start"].loss.values())
    first, *later = trainings
    for training in later:  # no weight has been taken away
        assert same(training["end"], first["end"])
    assert model.estimator_.teacher_ is not None
    assert 0 <= model.estimator_.footprint_.to_dict()["agreement"][1] <= 1


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks(table, draw, trainings, scope):
    """Rounds take the share from each layer, half of it from the last one, or from all together; what is gone stays.

    Zeros hold through training, and the curve says how many there are.
    """
    model = draw(scope=scope, n_rounds=3, controls=False, prune_fraction=0.3).fit(*table)
    names = pruned_names(model)
    total = sum(trainings[0]["begin"][name].numel() for name in names)
    earlier: dict[str, torch.Tensor] = {}
    counts = []
    for number, training in enumerate(trainings):
        zeros = {name: training["begin"][name] == 0 for name in names}
        assert same(zeros, {name: training["end"][name] == 0 for name in names})
        assert all((zeros[name] >= earlier.get(name, zeros[name])).all() for name in names)
        if scope == "layer":
            shares = [*[0.3] * (len(names) - 1), 0.15]
            expected = [
                round((1 - (1 - share) ** number) * zeros[name].numel())
                for name, share in zip(names, shares, strict=True)
            ]
            assert [int(zeros[name].sum()) for name in names] == expected
        else:
            assert sum(int(mask.sum()) for mask in zeros.values()) == round((1 - 0.7**number) * total)
        earlier = zeros
        counts.append(sum(int(mask.sum()) for mask in zeros.values()))
    curve = model.curve_.to_dict()
    np.testing.assert_allclose(curve["sparsity"], np.array(counts) / total)
    np.testing.assert_allclose(curve["weights_left"], 1 - np.array(counts) / total)


def test_the_smallest_of_the_trained_go(table, draw, trainings):
    """A round takes what is smallest at the end of the round before, not at its beginning."""
    model = draw(controls=False, n_rounds=2, prune_fraction=0.4).fit(*table)
    for before, after in itertools.pairwise(trainings):
        for name in pruned_names(model)[:-1]:
            trained, gone = before["end"][name].abs(), after["begin"][name] == 0
            assert trained[gone].max() <= trained[~gone].min()


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_the_curve(table, draw, trainings):
    """A row for each training, in their order, with the score of its end and the epoch of its lowest loss."""
    model = draw().fit(*table)
    curve = model.curve_.to_dict()
    order = ["random_init", "random_mask", "winning"]
    assert list(curve["ticket"]) == ["winning", *order, *order]
    assert list(curve["round"]) == [0, 1, 1, 1, 2, 2, 2]
    losses = [training["history"][:, "valid_loss"] for training in trainings]
    assert list(curve["early_stopping_epoch"]) == [int(np.argmin(column)) + 1 for column in losses]
    assert [training["history"][-1, "valid_score"] for training in trainings] == pytest.approx(list(curve["score"]))
    assert "dense network" in str(model.curve_)


@pytest.mark.parametrize("ticket", ["winning", "random_init", "random_mask"])
@pytest.mark.parametrize("controls", [True, False])
def test_the_classifier_is_the_ticket_asked_for(table, draw, trainings, ticket, controls):
    """It predicts with the network of the last round's ticket, and has that one's history; the rest was not trained."""
    model = draw(ticket=ticket, controls=controls).fit(*table)
    curve = model.curve_.to_dict()
    (number,) = (i for i in range(len(trainings)) if (curve["ticket"][i], curve["round"][i]) == (ticket, 2))
    assert len(trainings) == (7 if controls else 3 + (ticket != "winning"))
    assert same(model.estimator_.net_.module_.state_dict(), trainings[number]["end"])
    assert model.estimator_.history_ is trainings[number]["history"]
    lent = model.estimator_.backbone_.module.state_dict()
    for name in ("layer1.0.weight", "layer2.1.running_mean"):
        assert torch.equal(lent[name], trainings[number]["end"][f"stages.{name}"])
    n_epochs = sum(len(training["history"]) for training in trainings)
    assert model._count_epochs() == n_epochs


@pytest.mark.parametrize("again", [lambda model: model, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_the_winning_ticket(table, draw, trainings, again, rewind_epoch):
    """An unfitted estimator with the last round's beginning, also out of a pickle; trained, its zeros stay."""
    model = again(draw(rewind_epoch=rewind_epoch, ticket="random_init").fit(*table))
    ticket, begin = model.winning_ticket_, trainings[-1]["begin"]
    assert type(ticket) is FineTunedClassifier
    assert not hasattr(ticket, "net_")
    untrained = clone(ticket).set_params(max_epochs=0).fit(*table)
    assert same(untrained.net_.module_.state_dict(), begin)
    trained = clone(ticket).fit(*table)
    for name in pruned_names(model):
        weight = trained.net_.module_.state_dict()[name]
        assert torch.equal(weight == 0, begin[name] == 0)
        assert not torch.equal(weight, begin[name])
    assert all(keeps_zeros(layer) for layer in compressible(trained.net_.module_).values())


def test_one_seed_is_one_lottery(table, draw):
    """The same seed gives the same network and curve, also where it is the only one; another one other controls."""
    estimator = draw().estimator.set_params(random_state=None)
    models = [draw(clone(estimator), random_state=seed).fit(*table) for seed in (1, 1, 2)]
    logits = [model.decision_function(table[0]) for model in models]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert models[0].curve_.to_dict()["score"] == models[1].curve_.to_dict()["score"]
    assert not np.array_equal(logits[0], logits[2])


def test_new_values_are_drawn_in_turns(table, draw):
    """While another thread draws from torch's generator under its lock, the control of new values waits."""
    expected = draw(ticket="random_init", controls=False, n_rounds=1).fit(*table).decision_function(table[0])
    done = threading.Event()

    def draw_all_the_time():
        while not done.is_set():
            with Randomness(5).drawn_from():
                first = torch.rand(3)
            with Randomness(5).drawn_from():
                torch.rand(1)
                found.append(torch.equal(torch.rand(2), first[1:]))

    found: list[bool] = []
    thread = threading.Thread(target=draw_all_the_time, daemon=True)
    thread.start()
    try:
        model = draw(ticket="random_init", controls=False, n_rounds=1).fit(*table)
    finally:
        done.set()
        thread.join(60)
    assert all(found)
    np.testing.assert_array_equal(model.decision_function(table[0]), expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_has_no_beginning(table, make, fitted):
    """Fitted, searched and compressed estimators are refused before anything is fitted, with what would do instead."""
    search = GridSearchCV(make(), {"lr": [0.01]})
    for estimator in (FrozenEstimator(fitted), search, PrunedClassifier(make()), LogisticRegression()):
        with pytest.raises(
            TypeError, match=r"(?s)must be a FineTunedClassifier or a DistilledClassifier\. Got .*Use PrunedClassifier"
        ):
            LotteryTicketClassifier(estimator).fit(*table)


def test_unreachable_epochs(table, make, draw):
    """An epoch that is the last one, or that early stopping does not let come, is refused, with the way out."""
    for rewind_epoch in (2, 3):
        with pytest.raises(
            ValueError, match=rf"'rewind_epoch' parameter .* less than max_epochs=2 .*Got {rewind_epoch} instead"
        ):
            draw(make(), rewind_epoch=rewind_epoch).fit(*table)
    stopping = make(max_epochs=9, early_stopping=True, n_iter_no_change=1, lr=30.0, optimizer="sgd", freeze_depth="all")
    with pytest.raises(ValueError, match=r"^Training stopped early, before rewind_epoch=8\."):
        draw(stopping, rewind_epoch=8).fit(*table)
    with pytest.raises(
        ValueError, match=r"^rewind_epoch=1 cannot be used with unfreeze_every=1 .*Use unfreeze_every=None or rewind"
    ):
        draw(make(unfreeze_every=1), rewind_epoch=1).fit(*table)


def test_parameters_of_the_estimator_are_checked(table, make, draw):
    """What the estimator would refuse in its own fit is refused here too."""
    with pytest.raises(ValueError, match="'max_epochs' parameter of FineTunedClassifier"):
        draw(make(max_epochs=-1)).fit(*table)


class Scale(nn.Module):
    """A head without a layer that could lose weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x[:, :3] * self.weight


def test_nothing_to_prune(table, make, draw):
    """Where no convolution and no linear layer learns, that is said before training."""
    model = draw(make(freeze_depth="all", head=Scale(), head_init="random"))
    with pytest.raises(CompressionError, match=r"^freeze_depth='all' leaves no .*Freeze fewer stages"):
        model.fit(*table)
    assert not hasattr(model, "estimator_")


def test_only_the_head(table, make, draw, trainings):
    """With all stages frozen the rounds take from the head alone, half of the share."""
    model = draw(make(freeze_depth="all"), prune_fraction=0.5, n_rounds=1).fit(*table)
    assert pruned_names(model) == ["head.0.weight"]
    assert model.curve_.to_dict()["weights_left"][-1] == pytest.approx(0.75)
    assert model.winning_ticket_.fit(*table).score(*table) > 0.5


class InterruptWhen(Callback):
    """Ctrl-C in the first batch for which a function says so."""

    def __init__(self, when):
        self.when = when

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and self.when():
            raise KeyboardInterrupt


@pytest.mark.parametrize(("controls", "n_whole", "n_rounds"), [(False, 2, 1), (True, 2, 0)])
def test_interrupted(table, make, draw, trainings, zeros, controls, n_whole, n_rounds):
    """Ctrl-C ends the search: what is left is as after the last round that was whole."""
    interrupt = InterruptWhen(lambda: len(trainings) == n_whole)
    model = draw(make(callbacks=[interrupt]), n_rounds=3, controls=controls)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert len(trainings) == n_whole
    assert model.curve_.to_dict()["round"] == list(range(n_rounds + 1))
    assert any(mask.any() for mask in zeros(model).values()) == (n_rounds > 0)
    if n_rounds:
        whole = draw(make(), n_rounds=n_rounds, controls=controls).fit(*table)
        np.testing.assert_array_equal(model.decision_function(table[0]), whole.decision_function(table[0]))
        expected, found = (x.winning_ticket_.fit(*table).decision_function(table[0]) for x in (whole, model))
        np.testing.assert_array_equal(found, expected)


def test_interrupted_before_the_first_round(table, make, draw):
    """Ctrl-C in the dense network's training leaves that network: there is no ticket, not an earlier one either."""
    model = draw(make(), n_rounds=1).fit(*table)
    model.set_params(estimator=make(callbacks=[InterruptWhen(lambda: True)]))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert model.estimator_.n_iter_ == 0
    assert model.predict(table[0]).shape == (40,)
    assert not hasattr(model, "curve_")
    assert not hasattr(model, "winning_ticket_")
