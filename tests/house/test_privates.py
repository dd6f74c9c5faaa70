"""No module of the package reaches into another one's privates."""

import ast
import importlib.util
import sys
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def counter(root) -> ModuleType:
    """`tools/count_privates.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("count_privates", root / "tools" / "count_privates.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def test_no_module_reaches_into_the_privates_of_another(counter, modules):
    """What a module begins with an underscore is used in that module alone, but for subclasses' own."""
    assert list(map(str, counter.find_foreign_privates(modules).foreign)) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x): return x._hidden", ["x._hidden"]),
        ("def f(x): x.y._hidden = 1", ["x.y._hidden"]),
        ("def f(x): return getattr(x, '_hidden', None)", ["getattr(x, '_hidden', None)"]),
        ("def f(x): setattr(x, '_hidden', 1)", ["setattr(x, '_hidden', 1)"]),
        ("from sktl.owner import _hidden", ["from sktl.owner import _hidden"]),
        ("import sktl.owner\nsktl.owner._hidden", ["sktl.owner._hidden"]),
        ("class A:\n    def f(self): return self._hidden, super()._hidden, type(self)._hidden", []),
        ("class A:\n    def f(self, other):\n        self._hidden = 1\n        return other._hidden", []),
        ("def f(x): return x._of_a_library, x._replace(), x.__dict__", []),
        ("from sktl import _module", []),
        ("_hidden = 1\ndef f(x): return _hidden", []),
    ],
)
def test_the_counter_sees_all_forms(counter, code, expected):
    """What the test above rests on: each way to reach for a private is found, and nothing else."""
    trees = {"sktl.user": code, "sktl.owner": "class B:\n    _hidden = 1", "sktl._module": ""}
    found = counter.find_foreign_privates({name: ast.parse(text) for name, text in trees.items()})
    assert [place.code for place in found.foreign] == expected


def test_the_counter_follows_attributes_from_method_to_method(counter):
    """An attribute counts if another method reads it than the one that sets it, and neither is ``__init__``."""
    code = """
class Base(BaseEstimator):
    def __init__(self): self._a = 1
    def fit(self): self._b = self._c = self._d = 1; self._d
    def hook(self): return self._a, self._b
class Mixin:
    def predict(self): return getattr(self, "_c")
class Learner(Mixin, Base): pass
class Other:
    def one(self): self._e = 1
    def two(self): return self._e
"""
    found = counter.find_handed_attributes({"sktl.learner": ast.parse(code)})
    assert found == {"_b": (["Base.fit"], ["Base.hook"]), "_c": (["Base.fit"], ["Mixin.predict"])}
