"""What stands for a teacher and for what it is shown: equal for equal ones, another where anything differs."""

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from sktl._estimators._content_digests import content_digest, row_digests
from sktl._images import check_images
from sktl._training._data import LabeledImages


def digests(X, in_channels=3):
    class Asking(BaseEstimator):
        pass

    owner = Asking()
    owner.in_channels = in_channels
    images = check_images(owner, X, reset=True)
    ones = np.ones(len(images))
    return row_digests(LabeledImages(images, ones, ones, ones, (X, ones)))


def test_numbers_to_the_last_bit():
    """Rows that are one picture of 8 bits to the student are two to a teacher, which sees the numbers."""
    X = np.random.default_rng(0).uniform(0, 1, (4, 64))
    near = X.copy()
    near[0, 0] += 1e-9
    assert digests(X) == digests(X.copy())
    assert [a == b for a, b in zip(digests(X), digests(near), strict=True)] == [False, True, True, True]
    assert not set(digests(X)) & set(digests(X.astype(np.float32)))


def test_columns_by_name():
    """The same numbers in columns of other names are other rows: a pipeline may choose columns by name."""
    X = np.random.default_rng(0).uniform(0, 1, (2, 4))
    first, second = pd.DataFrame(X, columns=list("abcd")), pd.DataFrame(X, columns=list("dcba"))
    assert not set(digests(first)) & set(digests(second))
    assert not set(digests(first)) & set(digests(X))


@pytest.mark.parametrize("kind", ["arrays", "pictures", "tensors"])
def test_items_in_memory_as_they_are(kind):
    """Two items that a grey student, or one that scales them, cannot tell apart are two to the teacher."""
    red, green = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0], green[..., 1] = 100, 51  # the same grey
    make = {"arrays": np.asarray, "pictures": Image.fromarray, "tensors": torch.from_numpy}[kind]
    one, other = digests([make(red), make(green)], in_channels=1)
    assert one != other
    assert digests([make(red), make(red)])[0] == digests([make(red), make(red)])[1]


MODULE = """
from sklearn.base import BaseEstimator, ClassifierMixin

def double(X):
    return {factor} * X

class Parent(ClassifierMixin, BaseEstimator):
    def weigh(self, X):
        return {factor} * X

class Child(Parent):
    pass
"""


@pytest.mark.parametrize("name", ["double", "Parent", "Child"])
def test_code_of_the_users_own(tmp_path, monkeypatch, name):
    """A function or class that was written anew under its old name is another one, and so is what inherits from it."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in (2, 2, 3):
        (tmp_path / "own_teachers.py").write_text(MODULE.format(factor=factor))
        sys.modules.pop("own_teachers", None)
        importlib.invalidate_caches()
        module = importlib.import_module("own_teachers")
        thing = getattr(module, name)
        found.append(content_digest(FunctionTransformer(thing) if name == "double" else thing()))
    sys.modules.pop("own_teachers")
    assert found[0] == found[1] != found[2]
    assert None not in found


def test_what_cannot_be_told():
    """A lambda has no digest, wherever it sits."""
    assert content_digest(FunctionTransformer(lambda X: X)) is None
    assert content_digest(LogisticRegression()) is not None
