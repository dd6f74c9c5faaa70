"""The tree of exceptions is the one that is drawn."""

import inspect
import re

import pytest

from sktl import exceptions

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]


def drawn() -> dict[str, set[str]]:
    """The bases of each class, as the drawing in the module's docstring gives them."""
    bases, path = {}, []
    for line in inspect.cleandoc(exceptions.__doc__).splitlines():
        if not (match := re.match(r"^ {4}([│ ]*(?:[├└]── )?)([A-Z]\w+)(?: \((\w+)\))?", line)):
            continue
        indent, name, second = match.groups()
        del path[len(indent) // 4 :]
        bases[name] = {base for base in (path[-1] if path else None, second) if base}
        path.append(name)
    return bases


def test_the_drawing_is_the_tree():
    """Every class of the module is drawn below its base, with its other base in brackets, and nothing else is drawn."""
    real = {cls.__name__: {base.__name__ for base in cls.__bases__} for cls in CLASSES}
    assert {name: bases for name, bases in drawn().items() if bases} == real


@pytest.mark.parametrize("cls", CLASSES)
def test_each_says_when_it_comes(cls):
    """A docstring of its own, and a message that is kept."""
    assert cls.__doc__ not in {base.__doc__ for base in cls.__bases__}
    assert str(cls("what was wrong")) == "what was wrong"


def test_errors_and_warnings_are_apart():
    """``except SktlError`` catches every error of ours; a filter on SktlWarning every warning."""
    for cls in CLASSES:
        assert issubclass(cls, exceptions.SktlError) != issubclass(cls, exceptions.SktlWarning)
