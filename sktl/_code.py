"""Digest of a user's function or class, equal for equal code in any process."""

import contextlib
import copyreg
import dis
import functools
import os
import sys
import types
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import xxhash

# Packages whose functions and classes are identified by name.
_KNOWN = {"sktl", "sklearn", "numpy", "scipy", "pandas", "torch", "torchvision", "skorch", "joblib", "builtins", "PIL"}
_KNOWN |= {"collections", "functools", "operator", "copyreg", "pathlib", "threading", "enum", "datetime", "_codecs"}

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), os.PathLike)
_MUTATORS = {"append", "add", "extend", "update", "setdefault", "pop", "insert", "clear", "remove", "discard"}
_VALUES = (*_PLAIN, tuple, list, dict, set, frozenset, np.ndarray, np.generic, functools.partial)


def code_key(thing: Any) -> str:
    """Digest the code of a function or class with its constants, defaults and closure.

    The digest includes the globals that the code uses: plain values, arrays, and
    functions and classes of modules that are not libraries. Objects of libraries enter
    by name, so that a new version of a library does not change the digest.

    Parameters
    ----------
    thing : callable or type
        A function, method, partial function, class or callable object.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for part in _parts(thing, set()):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


def is_library_code(thing: Any) -> bool:
    """Check whether a module, function or class belongs to a library.

    Libraries are the standard library and all installed packages, as opposed to the
    user's scripts and modules.
    """
    name = thing.__name__ if isinstance(thing, types.ModuleType) else str(getattr(thing, "__module__", ""))
    package = name.partition(".")[0]
    if package in _KNOWN or package in sys.stdlib_module_names:
        return package != "__main__"
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and ("site-packages" in file or "dist-packages" in file)


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield strings that identify a value in every process."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, tuple | frozenset):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        yield from chain(["("], *(_parts(item, seen) for item in items), [")"])
    elif isinstance(value, functools.partial):
        yield "partial"
        yield from _parts((value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        yield from _parts((value.__func__, value.__self__), seen)
    elif isinstance(value, types.CodeType):
        yield value.co_code.hex()
        yield from _parts((value.co_names, value.co_consts), seen)
    elif id(value) in seen:
        yield "again"
    else:
        seen.add(id(value))
        yield from _named_parts(value, seen)


def _named_parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield the parts of functions and classes (name and code) and of other objects."""
    if isinstance(value, types.ModuleType):
        yield value.__name__
    elif type(value) in (list, set):
        yield from _parts(tuple(value) if isinstance(value, list) else frozenset(value), seen)
    elif type(value) is dict:
        yield from _parts(tuple(value.items()), seen)
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        yield f"{value.__module__}.{value.__qualname__}"
        if not is_library_code(value):
            yield from _parts(_code_of(value), seen)
    else:
        yield from _parts((type(value), getattr(value, "__wrapped__", None), _state_of(value)), seen)


def _code_of(thing: Any) -> Any:
    """Return the code of a function, with all that it uses, or of a class."""
    if isinstance(thing, types.FunctionType):
        wrapped = getattr(thing, "__wrapped__", None)
        return thing.__code__, thing.__defaults__, thing.__kwdefaults__, wrapped, tuple(_used_by(thing))
    if isinstance(thing, type):
        members = (getattr(x, "fget", getattr(x, "__func__", x)) for x in vars(thing).values())
        plain = [(name, x) for name, x in vars(thing).items() if not name.startswith("__") and isinstance(x, _VALUES)]
        bases = tuple(base for base in thing.__bases__ if base is not object)
        return tuple(x for x in members if isinstance(x, types.FunctionType)), tuple(plain), bases
    return None


def _used_by(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function uses from its closure, globals and the user's modules.

    Code of libraries and containers that the function itself changes, such as a memo,
    are skipped.
    """
    names = _names(function.__code__)
    found: list[tuple[str, Any]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a variable without a value
            found.append((name, cell.cell_contents))
    found += [(name, function.__globals__[name]) for name in names if name in function.__globals__]
    for module in [x for _, x in found if isinstance(x, types.ModuleType) and not is_library_code(x)]:
        found += [(name, vars(module)[name]) for name in names if name in vars(module)]
    changed = _changed_names(function.__code__)
    for name, value in found:
        is_code = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
        is_memo = name in changed and not is_code
        if not (isinstance(value, types.ModuleType) or is_memo or (is_code and is_library_code(value))):
            yield value


def _changed_names(code: types.CodeType) -> set[str]:
    """Return the names of containers that the code changes."""
    changed, steps = set(), list(dis.get_instructions(code))
    for position, step in enumerate(steps):
        if step.opname.startswith(("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME")):
            # container.append(...), container[key].append(...) and container[key] = value, within a few steps
            after = steps[position + 1 : position + 5]
            if any(x.argval in _MUTATORS or x.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") for x in after):
                changed.add(step.argval)
    inner = (_changed_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return changed.union(*inner)


def _state_of(value: Any) -> Any:
    """Return the bytes of an array, or the pickled state of another object."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return str(value.dtype), value.shape, value.tobytes()
    reducer = copyreg.dispatch_table.get(type(value))
    try:
        reduced = value.__reduce_ex__(2) if reducer is None else reducer(value)
    except Exception:  # an object that cannot be pickled is identified by its class and attributes
        return getattr(value, "__dict__", None)
    if not isinstance(reduced, tuple):
        return reduced
    return (*reduced[1:3], *(tuple(items) for items in reduced[3:5] if items is not None))


def _names(code: types.CodeType) -> list[str]:
    """Return the names used by the code and by functions inside it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return list(dict.fromkeys(chain(code.co_names, *inner)))
