"""Docstrings tell the truth: they are in numpydoc's form, and their parameters and defaults are the signature's."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property

import pytest

# numpydoc's order
SECTIONS = [
    "Parameters",
    "Attributes",
    "Methods",
    "Returns",
    "Yields",
    "Receives",
    "Other Parameters",
    "Raises",
    "Warns",
    "Warnings",
    "See Also",
    "Notes",
    "References",
    "Examples",
]


def sections(docstring: str) -> dict[str, str]:
    """The text of each section, in the order of the docstring; what comes before the first one is ""."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(docstring) + "\n", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(section: str) -> dict[str, str]:
    """The type line of each parameter: ``{"lr": "float, default=0.1"}``."""
    found = {}
    for line in section.splitlines():
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            found.update(dict.fromkeys((name.strip().lstrip("*") for name in names.split(",")), kind))
    return found


def faults(name: str, docstring: str | None, signature: inspect.Signature | None) -> Iterator[str]:
    """What is wrong with one docstring."""
    if not docstring:
        yield f"{name} has no docstring"
        return
    found = sections(docstring)
    titles = [title for title in found if title]
    if unknown := [title for title in titles if title not in SECTIONS]:
        yield f"{name} has sections that numpydoc does not know: {unknown}"
    elif titles != sorted(titles, key=SECTIONS.index):
        yield f"{name} has its sections in the order {titles}"
    if signature is None:
        return
    documented = parameters(found.get("Parameters", "")) | parameters(found.get("Other Parameters", ""))
    expected = {key: p for key, p in signature.parameters.items() if key not in ("self", "cls")}
    if list(documented) != list(expected):
        yield f"{name} documents {list(documented)} and takes {list(expected)}"
        return
    for key, parameter in expected.items():
        yield from default_faults(f"{name}({key})", documented[key], parameter.default)


def default_faults(name: str, kind: str, default: object) -> Iterator[str]:
    """Whether ``default=`` in the type line says what the signature says."""
    if kind.lower() in ("none", "ignored"):  # scikit-learn's way to document a y that is not used
        return
    _, written, text = kind.partition("default=")
    if bool(written) != (default is not inspect.Parameter.empty):
        yield f"{name}: {kind!r}, while the signature's default is {default!r}"
    elif written and text != repr(default) and literal(text) != (type(default), default):
        yield f"{name}: default={text} in the docstring, {default!r} in the signature"


def literal(text: str) -> tuple[type, object] | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return type(value), value


def documented_objects(module_name: str) -> Iterator[tuple[str, object, Callable | None]]:
    """(name, object with the docstring, callable with the signature) of all that is public, methods included."""
    module = importlib.import_module(module_name)
    yield module_name, module, None
    for public in module.__all__:
        thing = getattr(module, public)
        if not public.startswith("__"):
            if inspect.isclass(thing):
                own_init = getattr(thing.__init__, "__module__", "").startswith("sktl") or hasattr(
                    thing, "__match_args__"
                )
                is_made_by_us = issubclass(thing, BaseException)  # nobody else needs to know what it is made of
                yield f"{module_name}.{public}", thing, thing if own_init and not is_made_by_us else None
                yield from members(f"{module_name}.{public}", thing)
            else:
                yield f"{module_name}.{public}", thing, thing if callable(thing) else None


def members(name: str, thing: type) -> Iterator[tuple[str, object, Callable | None]]:
    """Public methods and properties that are ours; what scikit-learn's mixins bring is documented there."""
    for member in inspect.classify_class_attrs(thing):
        if member.name.startswith("_") or not member.defining_class.__module__.startswith("sktl"):
            continue
        if isinstance(member.object, property | cached_property):
            yield f"{name}.{member.name}", member.object, None
        elif "method" in member.kind:
            method = getattr(thing, member.name)
            if getattr(inspect.unwrap(method), "__module__", "").startswith("sktl"):
                yield f"{name}.{member.name}", method, inspect.unwrap(method)


def test_docstrings(public_module):
    """Every public object has its sections in order, and exactly the parameters and defaults of its signature."""
    found = []
    for name, thing, signed in documented_objects(public_module):
        signature = inspect.signature(signed) if signed is not None else None
        found += faults(name, thing.__doc__, signature)
    assert found == []


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        (None, "no docstring"),
        ("Do.\n\nParameters\n----------\na : int\nb : float, default=0.5\nc : str, default='x'", None),
        ("Do.\n\nParameters\n----------\na, b : float, default=0.5\nc : str, default='x'", r"f\(a\)"),
        ('Do.\n\nParameters\n----------\na : int\nb : float, default=.5\nc : str, default="x"', None),
        ("Do.\n\nParameters\n----------\na : int\nb : float, default=1\nc : str, default='x'", r"f\(b\): default=1 "),
        ("Do.\n\nParameters\n----------\na : int\nb : float\nc : str, default='x'", r"f\(b\): 'float'"),
        ("Do.\n\nParameters\n----------\na : int\nc : str, default='x'\nb : float, default=0.5", "documents"),
        ("Do.", "documents"),
        ("Do.\n\nNotes\n-----\nN\n\nParameters\n----------\na : int", "order"),
        ("Do.\n\nExample\n-------\nE", "does not know"),
    ],
)
def test_the_reader_of_docstrings_finds_faults(docstring, fault):
    """What the test above rests on: each kind of fault is found, and a right docstring has none."""

    def f(a, b=0.5, *, c="x"):
        pass

    found = list(faults("f", docstring, inspect.signature(f)))
    assert found == [] if fault is None else re.search(fault, found[0])
