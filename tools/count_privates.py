"""Count what reaches into another module's privates, and what one method leaves for another to find.

Reads the syntax trees of ``sktl/`` and runs nothing::

    python tools/count_privates.py          # counts
    python tools/count_privates.py --list   # and each place
    python tools/count_privates.py --root ../other-checkout

**Foreign privates**: ``thing._name``, and `getattr`, `setattr`, `hasattr` and `delattr` with the text ``"_name"``, of a
``thing`` that is neither ``self`` nor ``cls`` nor ``super()`` nor ``type(self)``, in a module that defines no ``_name``
itself (in a class, by ``self._name = ...``, or at its top); and ``from sktl.module import _name``, unless that is a
module. Whose it is the whole package says: what is defined somewhere in sktl is sktl's, and anything else a library's
(scikit-learn, torch, skorch or the standard library). Those, and the names in `PROTOCOLS`, are counted apart. A name
that this module and another one define is taken for the module's own: such places are *own or foreign*.

**Attributes from one method to another**: ``self._name = ...`` in a method of an estimator that is none of the methods
in `BEGINNINGS`, read in another method of an estimator. Estimators are all classes that have scikit-learn's
`BaseEstimator` among their bases, directly or through other classes of sktl, and the mixins beside those. A name is one
attribute, whatever number of methods set or read it.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Documented, with an underscore so that they clash with no field.
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}
# What sktl defines because a library looks for it under this name: no private of the module that does so.
PROTOCOLS = {
    "_parameter_constraints": "scikit-learn's, on the class of an estimator",
    "_validate_params": "scikit-learn's, of an estimator",
    "_repr_html_": "IPython's, of whatever is displayed",
}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}
BEGINNINGS = {"__init__", "__setstate__", "__new__"}
LIBRARY_BASES = {"BaseEstimator"}


class Place(NamedTuple):
    """Where a private name is used."""

    module: str
    line: int
    name: str
    code: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.code}"


class Privates(NamedTuple):
    """The places that reach for a private name that is not plainly their own."""

    foreign: list[Place]  # of another module of sktl
    unclear: list[Place]  # of this module and of another one
    libraries: list[Place]  # of no module of sktl


class Class(NamedTuple):
    """A class, with the names of its bases as far as they can be read."""

    name: str
    bases: list[str]
    node: ast.ClassDef


Trees = dict[str, ast.Module]


def read_modules(package: Path) -> Trees:
    """The syntax tree of each module of a package, by its dotted name."""
    files = sorted(package.rglob("*.py"))
    names = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return {name.removesuffix(".__init__"): tree for name, tree in zip(names, trees, strict=True)}


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is no special one."""
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != ""


def find_foreign_privates(trees: Trees) -> Privates:
    """All places of a package that reach for a private that is not plainly their own."""
    own = {name: definitions(tree) for name, tree in trees.items()}
    found = Privates([], [], [])
    for module, tree in trees.items():
        elsewhere = set().union(*(names for name, names in own.items() if name != module))
        for name, node in uses(tree, trees):
            place = Place(module, node.lineno, name, ast.unparse(node))
            if name in PROTOCOLS or name not in own[module] | elsewhere:
                found.libraries.append(place)
            elif name not in own[module]:
                found.foreign.append(place)
            elif name in elsewhere:
                found.unclear.append(place)
    return Privates(*map(sorted, found))


def definitions(tree: ast.Module) -> set[str]:
    """The private names that a module defines: at its top, in its classes, and on ``self``."""
    names = set()
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for statement in (statement for body in bodies for statement in body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        else:
            stored = (x for x in ast.walk(statement) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store))
            names.update(name.id for name in stored)
    names.update(node.attr for node in ast.walk(tree) if is_set_on_self(node))
    return {name for name in names if is_private(name)}


def is_set_on_self(node: ast.AST) -> bool:
    """Whether it is ``self.name`` or ``cls.name`` on the left of an assignment."""
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)


def is_self(node: ast.AST) -> bool:
    """Whether it is ``self``, ``cls``, ``super()`` or ``type(self)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "super" or (node.func.id == "type" and len(node.args) == 1 and is_self(node.args[0]))
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def uses(tree: ast.Module, trees: Trees) -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """The private names that a module takes from elsewhere than ``self``, each with its place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_self(node.value):
            if is_private(node.attr) and node.attr not in NAMED_TUPLE:
                yield node.attr, node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sktl":
            names = [alias.name for alias in node.names if f"{node.module}.{alias.name}" not in trees]
            yield from ((name, node) for name in names if is_private(name))
        elif isinstance(node, ast.Call) and (name := name_in_call(node)) and not is_self(node.args[0]):
            yield name, node


def name_in_call(node: ast.Call) -> str:
    """The private name of a `getattr` or the like; empty for any other call."""
    if not (isinstance(node.func, ast.Name) and node.func.id in BY_NAME and len(node.args) > 1):
        return ""
    name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
    return name if isinstance(name, str) and is_private(name) else ""


def find_handed_attributes(trees: Trees) -> dict[str, tuple[list[str], list[str]]]:
    """The private attributes that one method of an estimator sets and another one reads: by whom, and in what."""
    classes = estimator_classes(trees)
    families = [{name, *ancestors(name, classes)} for name in classes]
    setters: dict[str, list[tuple[str, str]]] = {}
    readers: dict[str, list[tuple[str, str]]] = {}
    for cls in classes.values():
        for method in cls.node.body:
            for name, is_read in own_attributes(method):
                if is_read:
                    readers.setdefault(name, []).append((cls.name, method.name))
                elif method.name not in BEGINNINGS:
                    setters.setdefault(name, []).append((cls.name, method.name))
    found = {}
    for name in sorted(setters.keys() & readers.keys()):
        pairs = [(a, b) for a in setters[name] for b in readers[name]
                 if a != b and any({a[0], b[0]} <= family for family in families)]  # fmt: skip
        if pairs:
            found[name] = tuple(sorted({".".join(places[i]) for places in pairs}) for i in (0, 1))
    return found


def own_attributes(method: ast.stmt) -> Iterator[tuple[str, bool]]:
    """The private attributes of ``self`` that a method uses, and whether it reads them."""
    for node in ast.walk(method) if isinstance(method, ast.FunctionDef) else ():
        if isinstance(node, ast.Attribute) and is_private(node.attr) and is_self(node.value):
            yield node.attr, isinstance(node.ctx, ast.Load)
        elif isinstance(node, ast.Call) and (name := name_in_call(node)) and is_self(node.args[0]):
            yield name, ast.unparse(node.func) in ("getattr", "hasattr")


def estimator_classes(trees: Trees) -> dict[str, Class]:
    """The classes that are estimators, and what else these are made of."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes = {node.name: Class(node.name, [base_name(base) for base in node.bases], node) for node in nodes}
    chosen = {name for name in classes if LIBRARY_BASES & ancestors(name, classes)}
    chosen |= {base for name in chosen for base in ancestors(name, classes) if base in classes}
    return {name: classes[name] for name in sorted(chosen)}


def base_name(base: ast.expr) -> str:
    """The last part of a base's name."""
    return ast.unparse(base).split("[")[0].rpartition(".")[2]


def ancestors(name: str, classes: dict[str, Class]) -> set[str]:
    """The names of all bases, and of theirs."""
    if name not in classes:
        return set()
    bases = classes[name].bases
    return {*bases, *(further for base in bases if base != name for further in ancestors(base, classes))}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout to look at")
    parser.add_argument("--list", action="store_true", help="print each place")
    options = parser.parse_args()
    trees = read_modules(options.root / "sktl")
    foreign, unclear, libraries = find_foreign_privates(trees)
    handed = find_handed_attributes(trees)
    for title, places in [
        ("accesses to another module's privates", foreign),
        ("accesses to privates that are own or foreign", unclear),
        ("accesses to privates of libraries", libraries),
    ]:
        print(f"{len(places)} {title} ({len({place.module for place in places})} modules)")
        print(*(f"  {place}" for place in places if options.list), sep="\n", end="\n" if options.list else "")
    print(f"{len(handed)} private attributes that one method of an estimator sets and another reads")
    for name, (setters, readers) in handed.items() if options.list else ():
        print(f"  {name}: set in {', '.join(setters)}; read in {', '.join(readers)}")


if __name__ == "__main__":
    main()
