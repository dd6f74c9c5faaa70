"""Compressors around compressors: three of them in several orders are one estimator like any other."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier
from sktl.compression import LowRankClassifier, PrunedClassifier, QuantizedClassifier, footprint
from sktl.compression._compressed import CompressedClassifier, compressible

NETWORK = {"freeze_depth": -1, "max_epochs": 1, "lr": 0.001, "random_state": 0}


def fine_tuned():
    return FineTunedClassifier(**NETWORK)


def distilled():
    return DistilledClassifier(LogisticRegression(), **NETWORK)


def pruned(estimator, **params):
    return PrunedClassifier(estimator, **{"amount": 0.6, "max_epochs": 1, "random_state": 0, **params})


def filtered(estimator):
    return pruned(estimator, granularity="filter", amount=0.3)


def low_rank(estimator):
    return LowRankClassifier(estimator, rank=0.6, max_epochs=1)


def codebook(estimator, **params):
    return QuantizedClassifier(estimator, scheme="codebook", bits=4, **{"max_epochs": 1, **params})


def int8(estimator):
    return QuantizedClassifier(estimator, scheme="int8")


def float16(estimator):
    return QuantizedClassifier(estimator, scheme="float16")


STACKS = {
    "pruned, low rank, int8": lambda: int8(low_rank(pruned(fine_tuned()))),
    "filters, low rank, float16": lambda: float16(low_rank(filtered(fine_tuned()))),
    "filters, weights, codebook": lambda: codebook(pruned(filtered(fine_tuned()))),
    "low rank, pruned, codebook": lambda: codebook(pruned(low_rank(fine_tuned()))),
    "distilled, filters, int8": lambda: int8(filtered(distilled())),
    "low rank, filters, weights": lambda: pruned(filtered(low_rank(distilled()))),
}


@pytest.fixture(scope="module")
def table(digits):
    """Thirty digits of three kinds, as rows of pixels, and their labels."""
    X, y = digits
    return X.reshape(len(X), -1), y


@pytest.fixture(scope="module")
def stacks(table):
    """All stacks, fitted."""
    return {name: make().fit(*table) for name, make in STACKS.items()}


@pytest.fixture(params=STACKS)
def stack(request, stacks):
    """A stack that has been fitted."""
    return stacks[request.param]


@pytest.fixture(scope="module")
def network(table):
    """What most stacks begin with, fitted."""
    return fine_tuned().fit(*table)


def steps(model):
    """The estimators of a stack, the outermost first."""
    while model is not None:
        yield model
        model = getattr(model, "estimator", None)


def layers(model) -> dict[str, nn.Module]:
    """The layers behind the cut of a fitted stack that a compressor may work on."""
    return compressible(model.estimator_.net_.module_)


@pytest.fixture(scope="module")
def elsewhere(stacks, table, in_new_process):
    """The logits of all stacks in a new process."""
    code = "result = {name: model.decision_function(X) for name, model in stacks.items()}"
    return in_new_process(code, stacks=stacks, X=table[0])


@pytest.mark.parametrize("name", STACKS)
def test_the_same_in_a_new_process(stacks, elsewhere, table, name):
    """Unpickled, here or in a new process, it predicts the same, to the bit; and so does a second pickle."""
    X, _ = table
    logits = stacks[name].decision_function(X)
    np.testing.assert_array_equal(elsewhere[name], logits)
    again = pickle.loads(pickle.dumps(stacks[name]))
    for model in (again, pickle.loads(pickle.dumps(again))):
        np.testing.assert_array_equal(model.decision_function(X), logits)
        np.testing.assert_array_equal(model.predict(X), stacks[name].predict(X))


def test_a_clone_is_the_same_stack(stack, table):
    """A clone has all parameters of all steps and nothing that was learnt; fitted, it predicts the same."""
    X, y = table
    cloned = clone(stack)
    assert not hasattr(cloned, "estimator_")
    assert [type(step) for step in steps(cloned)] == [type(step) for step in steps(stack)]
    simple = (str, int, float, bool, type(None))
    before, after = (
        {name: value for name, value in model.get_params().items() if isinstance(value, simple)}
        for model in (stack, cloned)
    )
    assert before == after
    np.testing.assert_array_equal(cloned.fit(X, y).decision_function(X), stack.decision_function(X))


def test_it_is_smaller_and_still_knows(stack, network, table):
    """Its file is shorter than that of the network it began with, and it has not forgotten what that knew."""
    assert len(pickle.dumps(stack)) < 0.75 * len(pickle.dumps(network))
    assert stack.score(*table) > 0.6


def test_the_footprint_of_a_stack(stack, table):
    """It begins with the original and has a row for each step; what each costs can be asked as of any estimator."""
    rows, own = stack.footprint_.to_dict(), footprint(stack, table[0][:4])
    below = footprint(stack._original, table[0][:4])
    assert rows["model"][0] == "original"
    inside, n_steps = stack, 0
    while isinstance(inside, CompressedClassifier):
        inside, n_steps = inside.estimator, n_steps + 1
    assert len(rows["model"]) == n_steps + 1
    for name in ("parameters", "nonzero", "macs"):
        assert list(rows[name])[-2:] == [getattr(below, name), getattr(own, name)]
    np.testing.assert_allclose(rows["nbytes"][-2:], [below.nbytes, own.nbytes], atol=2000)  # it is in its own pickle


def test_frozen_stages_stay(stack, network):
    """No step has touched what was frozen: its output is the untouched network's, to the bit."""
    last_frozen = network.backbone_.stages[network.freeze_depth_ - 1].name
    assert stack.estimator_.backbone_.fingerprint(last_frozen) == network.backbone_.fingerprint(last_frozen)


def test_step_by_step_is_all_at_once(stacks, network, table):
    """Steps fitted one by one, each given to the next as a FrozenEstimator, are the stack fitted at once."""
    X, y = table
    model = network
    for step in (low_rank, pruned, codebook):
        before = model.decision_function(X)
        model, earlier = step(FrozenEstimator(model)).fit(X, y), model
        np.testing.assert_array_equal(earlier.decision_function(X), before)
    at_once = stacks["low rank, pruned, codebook"]
    np.testing.assert_array_equal(model.decision_function(X), at_once.decision_function(X))


def test_zeros_of_a_pruned_network_are_codes(network, table):
    """Behind pruning, a codebook's zeros are those that pruning made, and count as one of its values."""
    model = pruned(FrozenEstimator(network)).fit(*table)
    zeros = {path: layer.weight == 0 for path, layer in layers(model).items()}
    shared = codebook(FrozenEstimator(model)).fit(*table)
    assert any(mask.any() for mask in zeros.values())
    for path, layer in layers(shared).items():
        assert torch.equal(layer.weight == 0, zeros[path])
        assert len(layer.weight.unique()) <= 16


def test_zeros_are_held_by_what_comes_later(network, table):
    """Layers that low rank leaves as they are keep the zeros that pruning gave them, through its training."""
    model = pruned(FrozenEstimator(network)).fit(*table)
    after = LowRankClassifier(FrozenEstimator(model), rank=200, max_epochs=2).fit(*table)
    untouched = "stages.layer4.shortcut.0"  # no layer of a rank of 200 or less becomes a sequence
    before, weight = layers(model)[untouched].weight, layers(after)[untouched].weight
    assert (before == 0).float().mean() > 0.2
    assert torch.equal(weight == 0, before == 0)
    assert not torch.equal(weight, before)


def test_a_search_reaches_every_step(table):
    """A grid search sets parameters of the steps inside, and its best stack predicts."""
    quick = fine_tuned().set_params(freeze_depth="all", head=(32,), head_init="random")
    grid = {"estimator__amount": [0.2, 0.5], "bits": [2], "estimator__estimator__lr": [0.01]}
    search = GridSearchCV(codebook(pruned(quick)), grid, cv=2).fit(*table)
    assert set(search.best_params_) == set(grid)
    best = search.best_estimator_
    assert best.estimator_.lr == 0.01
    hidden = layers(best)["head.0"].weight
    amount = search.best_params_["estimator__amount"]
    assert int((hidden == 0).sum()) == pytest.approx(amount * hidden.numel(), abs=1)
    assert all(len(layer.weight.unique()) <= 4 for layer in layers(best).values())


def test_a_search_may_be_inside(table):
    """A search over a network is what a stack may begin with."""
    quick = fine_tuned().set_params(freeze_depth="all", head=(32,))
    search = GridSearchCV(quick, {"lr": [1e-3, 1e-4]}, cv=2)
    model = codebook(pruned(search)).fit(*table)
    assert model.score(*table) > 0.6


@pytest.mark.parametrize("outer", [pruned, filtered, low_rank, codebook, int8, float16])
@pytest.mark.parametrize("inner", [codebook, int8, float16])
def test_rounded_weights_are_the_last_step(table, outer, inner):
    """Nothing can be done to a network after its weights were rounded; the error says so before anything is fitted."""
    for model in (inner(fine_tuned()), FrozenEstimator(inner(fine_tuned()))):
        with pytest.raises(
            ValueError, match=r"(?s)^QuantizedClassifier must be the last .*Make QuantizedClassifier the outermost"
        ):
            outer(model).fit(*table)


def test_rounded_weights_are_the_last_step_at_any_depth(table):
    """Also where the step that rounds is not the next one."""
    with pytest.raises(
        ValueError, match=r"(?s)^QuantizedClassifier must be the last .*Make QuantizedClassifier the outermost"
    ):
        pruned(low_rank(float16(fine_tuned()))).fit(*table)


def test_what_is_not_a_network_is_no_beginning(table):
    """A stack around a classifier without a network names what it may begin with."""
    with pytest.raises(TypeError, match="FineTunedClassifier"):
        int8(low_rank(pruned(LogisticRegression()))).fit(*table)
