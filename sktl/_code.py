"""A digest of what a user's function or class does: equal for equal code, in any process."""

import functools
import os
import types
from collections.abc import Iterator
from itertools import chain
from typing import Any

import xxhash

# Packages whose functions and classes are known by their names.
KNOWN = {"sktl", "sklearn", "numpy", "scipy", "pandas", "torch", "torchvision", "skorch", "joblib", "builtins", "PIL"}
KNOWN |= {"collections", "functools", "operator", "copyreg", "pathlib", "threading", "enum", "datetime", "_codecs"}

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), os.PathLike)


def code_key(thing: Any) -> str:
    """Digest what a function or class does, as far as it can be seen: its code, constants, defaults and closure.

    Functions and classes of the same module that it names are a part of it. Other packages are known by their names: a
    new version of one does not change the digest.

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


def is_known(thing: Any) -> bool:
    """Whether a function or class is one of a package that is known by its names."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] in KNOWN


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Texts that stand for a value and are the same in every process."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, tuple | list | frozenset | set):
        items = sorted(value, key=repr) if isinstance(value, frozenset | set) else value
        yield from chain(["("], *(_parts(item, seen) for item in items), [")"])
    elif isinstance(value, dict):
        yield from _parts(list(value.items()), seen)
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
    """Of a function or class its name and, if it is a user's, its code; of an object also what it holds."""
    named = value if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) else type(value)
    if isinstance(value, types.ModuleType):
        yield value.__name__
        return
    yield f"{named.__module__}.{named.__qualname__}"
    if not is_known(named):
        if isinstance(named, types.FunctionType):
            cells = [cell.cell_contents for cell in named.__closure__ or ()]
            globals_ = (named.__globals__.get(name) for name in _names(named.__code__))
            own = [x for x in globals_ if getattr(x, "__module__", None) == named.__module__]
            yield from _parts((named.__code__, named.__defaults__, named.__kwdefaults__, cells, own), seen)
        elif isinstance(named, type):
            members = [getattr(x, "fget", getattr(x, "__func__", x)) for x in vars(named).values()]
            yield from _parts([x for x in members if isinstance(x, types.FunctionType)], seen)
            yield from _parts([base for base in named.__bases__ if base is not object], seen)
    if named is not value:
        yield from _parts(value.tobytes() if hasattr(value, "tobytes") else getattr(value, "__dict__", None), seen)


def _names(code: types.CodeType) -> list[str]:
    """The names that code uses, and those of the functions inside it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return list(dict.fromkeys(chain(code.co_names, *inner)))
