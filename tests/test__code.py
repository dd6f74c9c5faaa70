"""The digest of a function: equal for equal code in any process, another one for other code."""

import functools
import importlib
import re
import subprocess
import sys
from collections import deque

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression

from sktl._code import code_key

CODE = """
import functools
import numpy as np
from sktl._code import code_key

def helper(x):
    return x + 1

def outer(n):
    def inner(path, scale=3):
        return [helper(n * scale) for _ in range(n)]
    return inner

SCALE, TABLE = 3, [1, 2]

def scaled(path):
    return SCALE * TABLE[0]

class Slots:
    __slots__ = ("n",)
    def __init__(self, n):
        self.n = n
    def __call__(self, path):
        return self.n

class Reader:
    def __init__(self, n):
        self.n, self.table = n, np.arange(3)
    def __call__(self, path):
        return {"a", "b", "c", n} if path else None
    def method(self):
        return self.n

things = [helper, outer(2), functools.partial(helper, x=1), Reader(2), Reader(2).method, np.load, lambda x: x, Reader]
things += [scaled, Slots(1), Slots(2)]
print([code_key(thing) for thing in things])
"""


def test_the_same_in_every_process():
    """Functions, closures, partial functions, objects, methods, other packages' functions, lambdas and classes."""

    def run(code):
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    first, second, changed = run(CODE), run(CODE), run(CODE.replace("x + 1", "x + 2"))
    assert first == second
    a, b = eval(first), eval(changed)
    assert len(set(a)) == len(a)
    assert [x == y for x, y in zip(a, b, strict=True)] == [False] * 3 + [True] * 8
    for old, new in (("SCALE, TABLE = 3", "SCALE, TABLE = 4"), ("[1, 2]", "[1, 5]")):
        c = eval(run(CODE.replace(old, new)))
        assert [x == y for x, y in zip(a, c, strict=True)] == [True] * 8 + [False, True, True]


def make(n=1, k=2):
    return lambda x, y=k: x + n + y


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make(1), make(2)),
        (make(1, 2), make(1, 3)),
        (lambda x: x + 1, lambda x: x - 1),
        (lambda x: x.real, lambda x: x.imag),
        (functools.partial(make, 1), functools.partial(make, 2)),
        (functools.partial(make, n=1), functools.partial(make, k=1)),
        (np.load, np.save),
        (np.array([1]), np.array([2])),
        (torch.tensor([1]), torch.tensor([2])),
        (re.compile("a"), re.compile("b")),
        (deque([1]), deque([2])),
        (functools.lru_cache(lambda x: x + 1), functools.lru_cache(lambda x: x + 2)),
        (LinearRegression, LogisticRegression),
    ],
)
def test_other_code_has_another_digest(one, other):
    """Closures, defaults, constants, names, arguments: each counts."""
    assert code_key(one) != code_key(other)
    assert code_key(one) == code_key(one)


def test_functions_that_call_themselves():
    """A circle ends."""

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert code_key(even) != code_key(odd)


def test_modules_of_the_user(tmp_path, monkeypatch):
    """What a function takes from another module of the user's counts; what it takes from a library does not."""
    keys = []
    monkeypatch.syspath_prepend(tmp_path)
    for version, body in enumerate(("return x + 1", "return x + 2")):
        (tmp_path / f"helpers{version}.py").write_text(f"def load(x):\n    {body}\n")
        module = importlib.import_module(f"helpers{version}")
        module.load.__module__ = module.__name__ = "helpers"
        scope = {"helpers": module, "np": np, "__name__": "readers"}
        exec("def read(path):\n    return helpers.load(np.load(path))", scope)
        keys.append(code_key(scope["read"]))
    assert keys[0] != keys[1]


def test_what_a_function_changes_is_no_constant():
    """A list of calls, a memo: the digest is the same after a call."""
    calls, memo = [], {}

    def read(path):
        calls.append(path)
        memo[path] = 1

    def unfilled():
        return later

    before = code_key(read)
    read("a.png")
    assert code_key(read) == before
    assert code_key(unfilled) != before
    later = 1


@pytest.mark.parametrize("values", [([1], [2]), (np.array([1]), np.array([2])), (re.compile("a"), re.compile("b"))])
def test_other_stores_do_not_hide_a_constant(values):
    """A function that writes into an array of its own reads its table all the same."""

    def make(table):
        def read(path):
            image = np.zeros(3)
            image[image < 3] = 0
            image.sort()
            return table, image

        return read

    assert code_key(make(values[0])) != code_key(make(values[1]))


def test_a_list_that_holds_itself():
    """It ends."""
    circle = [1]
    circle.append(circle)
    assert code_key(functools.partial(len, circle)) == code_key(functools.partial(len, circle))
