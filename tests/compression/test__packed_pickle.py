"""Fitted classifiers as they are pickled: what is frozen as it is, what was trained in its shortest exact form."""

import pickle
import zlib

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sktl._estimators._backbone_parameter import MissingNetwork
from sktl.backbones._hollow import is_hollow
from sktl.compression._packed_pickle import Packed, bare


@pytest.fixture(scope="module")
def sparse(make, table):
    """A fitted classifier of which nine in ten trained weights are zero."""
    model = make().fit(*table)
    with torch.no_grad():
        for parameter in model.net_.module_.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.flatten()[torch.arange(parameter.numel()) % 10 > 0] = 0
    return model


def test_it_comes_back_as_it_was(sparse, table):
    """Through a pickle, to the bit: tensors, types, predictions and parameters."""
    again = pickle.loads(pickle.dumps(Packed.of(sparse))).estimator()
    assert type(again) is type(sparse)
    np.testing.assert_array_equal(again.decision_function(table[0]), sparse.decision_function(table[0]))
    for (name, got), (expected_name, expected) in zip(
        again.net_.module_.state_dict().items(), sparse.net_.module_.state_dict().items(), strict=True
    ):
        assert (name, got.dtype) == (expected_name, expected.dtype)
        assert torch.equal(got, expected)
    refitted = clone(again).set_params(backbone=sparse.backbone).fit(*table)
    assert refitted.get_params() == sparse.get_params()
    assert refitted.n_iter_ == sparse.n_iter_


def test_numbers_are_in_it_once(sparse):
    """The skeleton holds none, frozen tensors stand as they are, and zeros of trained ones take hardly any room."""
    packed = Packed.of(sparse)
    n_trained = sum(tensor.nbytes for tensor in sparse.net_.tensors().values())
    assert len(pickle.dumps(packed.trained)) < 0.35 * n_trained
    values = sparse.backbone_.module.state_dict()
    frozen = {name for name, value in packed.frozen.items() if value.numel() > 1}  # single numbers are left in place
    assert frozen == {name for name, value in values.items() if value.numel() > 1 and name.startswith("stem")}
    assert all(torch.equal(packed.frozen[name], values[name]) for name in frozen)
    kind, state = pickle.loads(zlib.decompress(packed.skeleton))
    assert kind is type(sparse)
    empty = state["backbone_"].module.state_dict()
    assert all(is_hollow(tensor) for tensor in empty.values() if tensor.numel() > 1)


def test_the_estimator_is_not_touched(sparse, table):
    """Packing empties a copy; what is packed predicts as before, and keeps the network of its parameter."""
    expected = sparse.decision_function(table[0])
    Packed.of(sparse)
    np.testing.assert_array_equal(sparse.decision_function(table[0]), expected)
    assert not any(is_hollow(tensor) for tensor in sparse.backbone_.module.state_dict().values())
    assert not isinstance(sparse.backbone, MissingNetwork)


def test_bare(sparse, table):
    """It predicts the same with the same network, and has left behind the one that this was made of."""
    other = bare(sparse)
    assert other.net_ is sparse.net_
    assert isinstance(other.backbone, MissingNetwork)
    assert not isinstance(sparse.backbone, MissingNetwork)
    np.testing.assert_array_equal(other.decision_function(table[0]), sparse.decision_function(table[0]))
