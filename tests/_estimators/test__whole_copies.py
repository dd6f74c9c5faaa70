"""Copies in memory: whole where pickles are not."""

import copy
import pickle

from sktl._estimators._whole_copies import WholeCopies


class Forgetful(WholeCopies):
    """Leaves something behind when it is pickled."""

    def __init__(self):
        self.kept, self.left = [1], [2]
        self.again = self.left

    def __getstate__(self):
        return {"kept": self.kept}


def test_a_pickle_leaves_it_behind():
    """What the class leaves out of its state is not in a pickle."""
    assert vars(pickle.loads(pickle.dumps(Forgetful()))) == {"kept": [1]}


def test_a_shallow_copy_shares_all():
    """`copy.copy` gives another object with the same attributes."""
    original = Forgetful()
    copied = copy.copy(original)
    assert type(copied) is Forgetful
    assert copied is not original
    assert copied.kept is original.kept
    assert copied.left is original.left
    copied.more = 1
    assert not hasattr(original, "more")


def test_a_deep_copy_copies_all():
    """`copy.deepcopy` copies each attribute once, also one that leads back to the object."""
    original = Forgetful()
    original.itself = original
    copied = copy.deepcopy(original)
    assert copied.left == [2]
    assert copied.left is not original.left
    assert copied.again is copied.left
    assert copied.itself is copied
