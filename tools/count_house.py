"""Count the lines, names and tests of the house, and the places that say again what should be said once.

Reads the files of ``sktl/`` and ``tests/`` and runs nothing::

    python tools/count_house.py          # counts
    python tools/count_house.py --list   # and what was counted
    python tools/count_house.py --root ../other-checkout

**Lines** are all lines of Python files; code has neither blank lines nor comments nor docstrings. A **room** is what
stands in ``sktl/`` itself, a folder or a file; its share is that of all lines.

A **test file** belongs to a source of the same folder if it is called ``test_`` and the source's name, with or without
the underscore in front; ``__init__`` needs none, and ``tests/house`` mirrors nothing.

**Run parameters** are engine, precision, batch_size, cache, device, n_jobs and on_error. A place copies them by name if
it has three of them as texts in a list, tuple or set, or reads three of them off one object to pass them on under the
same name. A place is a function, or a statement outside of any; dicts of constraints and the ``__init__``
of an estimator copy nothing. A function that takes three or more one by one is counted apart.

A place **looks for the fitted network** if it names one of the attributes in `WRAPPERS`, in which scikit-learn keeps
what it has fitted; a place **sniffs int8** if it asks whether something has a ``module_`` or whether a ``net_`` is of a
class.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RUN = {"engine", "precision", "batch_size", "cache", "device", "n_jobs", "on_error"}
AT_LEAST = 3
WRAPPERS = {"best_estimator_", "named_steps", "transformers_", "named_transformers_", "transformer_list"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """A function, or a statement outside of any."""

    file: str
    line: int
    name: str
    node: ast.stmt

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}"


def sources(root: Path, folder: str) -> list[Path]:
    """The Python files below a folder, as paths from it."""
    return [file.relative_to(root / folder) for file in sorted((root / folder).rglob("*.py"))]


def count_code(text: str) -> int:
    """The lines that have neither blanks nor comments nor docstrings alone on them."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [x for x in tokenize.generate_tokens(io.StringIO(text).readline) if x.type not in silent]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    owners = (ast.Module, ast.ClassDef, *FUNCTIONS.__args__)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def room(file: Path) -> str:
    """What stands in the package itself and holds a file."""
    return file.parts[0].removesuffix(".py")


def twice(files: list[Path]) -> dict[str, list[Path]]:
    """The basenames that stand more than once."""
    by_name = defaultdict(list)
    for file in files:
        if file.name != "__init__.py":
            by_name[file.name].append(file)
    return {name: found for name, found in by_name.items() if len(found) > 1}


def match_tests(files: list[Path], tests: list[Path]) -> tuple[list[Path], list[Path], Counter]:
    """The sources without a test, the tests without a source, and how many go by which rule."""
    own = {test for test in tests if test.name.startswith("test_") and test.parts[0] != "house"}
    untested, rules = [], Counter()
    for file in files:
        exact, short = (file.with_name(f"test_{stem}.py") for stem in (file.stem, file.stem.lstrip("_")))
        rule = "test_ and the whole name" if exact in own else "without the underscore" if short in own else ""
        if rule:
            rules[rule] += 1
            own.remove(exact if exact in own else short)
        elif file.name != "__init__.py":
            untested.append(file)
    return untested, sorted(own), rules


def places(root: Path) -> Iterator[Place]:
    """The functions of the package, those of classes too, and the statements outside of them."""
    for file in sources(root, "sktl"):
        tree = ast.parse((root / "sktl" / file).read_text(encoding="utf-8"))
        bodies = [("", tree.body)]
        for owner, body in bodies:
            for node in body:
                if isinstance(node, ast.ClassDef):
                    bodies.append((f"{owner}{node.name}.", node.body))
                else:
                    name = node.name if isinstance(node, FUNCTIONS) else ast.unparse(node).split("\n")[0][:60]
                    yield Place(file.as_posix(), node.lineno, owner + name, node)


def copies_run_parameters(place: Place) -> bool:
    """Whether a place has three run parameters in a list, or hands on three of one object."""
    if place.name.endswith(".__init__"):
        return False
    handed: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(place.node):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            texts = {x.value for x in node.elts if isinstance(x, ast.Constant)}
            if len(RUN & texts) >= AT_LEAST:
                return True
        pairs = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(key.value, x) for key, x in zip(node.keys, node.values, strict=True) if is_text(key)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Name):
            target = node.targets[0]
            pairs = [(target.id if isinstance(target, ast.Name) else target.attr, node.value)]
        for name, value in pairs:
            if name in RUN and isinstance(value, ast.Attribute) and value.attr == name:
                handed[ast.unparse(value.value)].add(name)
    return any(len(names) >= AT_LEAST for names in handed.values())


def is_text(node: ast.AST | None) -> bool:
    """Whether it is a text in the source."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def takes_run_parameters(place: Place) -> bool:
    """Whether a function, and no ``__init__``, takes three run parameters one by one."""
    if not isinstance(place.node, FUNCTIONS) or place.node.name == "__init__":
        return False
    arguments = place.node.args
    return len(RUN & {x.arg for x in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}) >= AT_LEAST


def looks_for_network(place: Place) -> bool:
    """Whether a place names an attribute in which scikit-learn keeps what it has fitted."""
    for node in ast.walk(place.node):
        if isinstance(node, ast.Attribute) and node.attr in WRAPPERS and ast.unparse(node.value) != "self":
            return True
        if isinstance(node, ast.Tuple | ast.List | ast.Call):  # several names in turn, or one for getattr
            texts = node.args[1:] if isinstance(node, ast.Call) else node.elts
            if any(is_text(x) and x.value in WRAPPERS for x in texts):
                return True
    return False


def sniffs_int8(place: Place) -> bool:
    """Whether a place asks for a ``module_`` or for the class of a ``net_``."""
    for node in ast.walk(place.node):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            function, (thing, what) = ast.unparse(node.func), node.args[:2]
            if function in ("hasattr", "getattr") and is_text(what) and what.value == "module_":
                return True
            if function == "isinstance" and ast.unparse(thing).rpartition(".")[2] == "net_":
                return True
    return False


def print_counted(title: str, found: list, is_listed: bool) -> None:
    """Print how many there are, and each of them where that is asked for."""
    print(f"{len(found)} {title}")
    for one in found if is_listed else ():
        print(f"  {one}")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout to look at")
    parser.add_argument("--list", action="store_true", help="print what was counted")
    options = parser.parse_args()
    root, is_listed = options.root, options.list
    files = sources(root, "sktl")
    texts = {file: (root / "sktl" / file).read_text(encoding="utf-8") for file in files}
    lines: Counter = Counter()
    for file, text in texts.items():
        lines[room(file)] += len(text.splitlines())
    total = sum(lines.values())
    print(f"{total} lines of sktl/ in {len(files)} files; {sum(map(count_code, texts.values()))} lines of code")
    for name, number in lines.most_common(None if is_listed else 1):
        print(f"  {number / total:6.1%} {number:6d} {name}")
    print_counted(
        "basenames stand twice", [f"{k}: {', '.join(map(str, v))}" for k, v in twice(files).items()], is_listed
    )
    untested, unsourced, rules = match_tests(files, sources(root, "tests"))
    print(f"test files by rule: {', '.join(f'{number} {rule}' for rule, number in rules.items())}")
    print_counted("files have no test file", untested, is_listed)
    print_counted("test files have no source", unsourced, is_listed)
    for title, counts in [
        ("places copy run parameters by name", copies_run_parameters),
        ("functions take three or more run parameters one by one", takes_run_parameters),
        ("places look for the fitted network", looks_for_network),
        ("places sniff int8", sniffs_int8),
    ]:
        print_counted(title, [place for place in places(root) if counts(place)], is_listed)


if __name__ == "__main__":
    main()
