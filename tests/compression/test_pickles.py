"""Fitted compressors in files, in copies and in figures: what is in them, and what is not."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn

from sktl.compression import footprint


def test_the_same_in_a_new_process(compress, table, in_new_process):
    """Loaded where nothing else is, it predicts the same."""
    X, y = table
    labels = np.array(["zero", "one", "two"])[y]
    model = compress().fit(X, labels)
    got = in_new_process("result = model.predict(X), model.predict_proba(X)", model=model, X=X)
    assert got[0].tolist() == model.predict(X).tolist()
    np.testing.assert_allclose(got[1], model.predict_proba(X), rtol=1e-4, atol=1e-5)


@pytest.fixture
def wide():
    """A network whose weights are most of a file: 600 kB."""
    layers = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.ReLU()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 5))


@pytest.mark.parametrize("is_frozen", [False, True])
def test_no_dense_weights_in_a_pickle(wide, make, prune, table, is_frozen):
    """With a tenth of the weights the file is a fraction of the original's: that is not in it, nor the parameter."""
    size = {"resize_size": 16, "crop_size": 16}
    estimator = make(backbone=wide, preprocessing=size, freeze_depth=0, lr=0.001)
    original = clone(estimator).fit(*table)
    model = prune(FrozenEstimator(original) if is_frozen else estimator, amount=0.9).fit(*table)
    dense = sum(4 * parameter.numel() for parameter in original.net_.module_.parameters())
    assert len(pickle.dumps(original)) > dense
    assert len(pickle.dumps(model)) < 0.35 * dense
    again = pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(again)) == pytest.approx(len(pickle.dumps(model)), rel=0.02)
    np.testing.assert_array_equal(again.predict_proba(table[0]), model.predict_proba(table[0]))
    with pytest.raises(
        (ValueError, NotFittedError),
        match=r"pickled without its original network\. Set backbone to a network first\.$|frozen and not fitted",
    ):
        again.fit(*table)
    assert isinstance(
        model.estimator.get_params()["estimator" if is_frozen else "backbone"],
        type(estimator) if is_frozen else nn.Module,
    )


def test_a_network_that_was_left_behind(small, make, prune, table):
    """Refitting what came out of a pickle says that the network is not there, and with a new one it goes."""
    estimator = make(backbone=small, preprocessing={"resize_size": 16, "crop_size": 16})
    model = prune(estimator).fit(*table)
    again = pickle.loads(pickle.dumps(model))
    assert "not included in the pickle" in repr(again.estimator.backbone)
    with pytest.raises(ValueError, match=r"Set backbone to a network first\.$"):
        clone(again).fit(*table)
    again.set_params(estimator__backbone=small).fit(*table)
    np.testing.assert_array_equal(again.decision_function(table[0]), model.decision_function(table[0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(prune, table, copied):
    """Copies predict the same, and training one leaves the other alone."""
    model = prune().fit(*table)
    logits = model.decision_function(table[0])
    other = copied(model)
    np.testing.assert_array_equal(other.decision_function(table[0]), logits)
    other.estimator_.partial_fit(*table)
    assert not np.array_equal(other.decision_function(table[0]), logits)
    np.testing.assert_array_equal(model.decision_function(table[0]), logits)


# --- footprint --------------------------------------------------------------------------------------------------------


def test_what_a_footprint_says(prune, table, zeros):
    """Numbers that are not zero, bytes as pickle writes them, and agreement, counted another way."""
    X, _ = table
    model = prune(amount=0.9).fit(*table)
    rows = model.footprint_.to_dict()
    assert list(rows["model"]) == ["original", "pruned"]
    model._footprints = None
    n_bytes = len(pickle.dumps(model, pickle.HIGHEST_PROTOCOL))
    # The addresses that torch writes compress to a few bytes more or less.
    assert rows["nbytes"][1] == pytest.approx(n_bytes, rel=2e-3)
    assert rows["parameters"][1] == rows["parameters"][0]
    n_gone = sum(int(mask.sum()) for mask in zeros(model).values())
    assert rows["parameters"][1] - rows["nonzero"][1] == pytest.approx(n_gone, abs=5)
    assert rows["macs"][1] == rows["macs"][0]
    expected = np.mean(model._original.predict(X) == model.predict(X))
    assert list(rows["agreement"]) == [1.0, expected]
    assert footprint(model, X[:4]).nonzero == rows["nonzero"][1]


def test_a_footprint_is_kept_where_it_was_asked_for(compress, table):
    """A pickle has the footprint that was asked for; of one that was not, it says why there is none."""
    model = compress().fit(*table)
    unasked = pickle.loads(pickle.dumps(model))
    with pytest.raises(AttributeError, match=r"^footprint_ needs the original .* Access footprint_ before pickling"):
        _ = unasked.footprint_
    rows = model.footprint_.to_dict()
    assert pickle.loads(pickle.dumps(model)).footprint_.to_dict() == rows
    assert model.footprint_.to_dict() == rows
    assert copy.deepcopy(unasked).predict(table[0]).shape == (40,)
    model.fit(*table)
    assert model._footprints is None
