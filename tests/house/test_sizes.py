"""Nothing in the house is too long to be read in one sitting."""

import ast
import re
from pathlib import Path

import pytest

FILE_LINES = 500
FUNCTION_LINES = 60
DOCSTRING_COLUMNS = 88
FOLDERS = ["sktl", "tests", "examples", "benchmarks", "docs"]


def sources(root: Path) -> list[Path]:
    generated = {"_build", "auto_examples", "generated"}
    files = [file for folder in FOLDERS for file in sorted((root / folder).rglob("*.py"))]
    return [file for file in files if not generated & set(file.parts)]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first decorator to the end, without the docstring."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    lines = (function.end_lineno or first) - first + 1
    if ast.get_docstring(function):
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines


def is_list_of_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is the ``__init__`` of an estimator, which by scikit-learn's rules says every parameter twice.

    It assigns each one under its own name and does nothing else: a list, as long as there are parameters.
    """
    names = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]} - {"self"}
    assigned = {ast.unparse(statement) for statement in function.body}
    return function.name == "__init__" and assigned == {f"self.{name} = {name}" for name in names}


def test_files_are_short(root):
    """No file is longer than 500 lines."""
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sources(root)}
    assert [f"{file}: {lines}" for file, lines in lengths.items() if lines > FILE_LINES] == []


def test_functions_are_short(root):
    """No function is longer than 60 lines, but for lists of parameters."""
    functions = [
        (code_lines(node), f"{file}:{node.lineno} {node.name}")
        for file in sources(root)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_list_of_parameters(node)
    ]
    assert [entry for entry in functions if entry[0] > FUNCTION_LINES] == []


def wide_lines(source: str) -> list[int]:
    """The lines of docstrings that are too wide. Type lines and code of examples may be longer."""
    lines = source.splitlines()
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and ast.get_docstring(node)
        for number in range(node.body[0].lineno, node.body[0].end_lineno + 1)
        if len(lines[number - 1]) > DOCSTRING_COLUMNS
        and not re.match(r"\s*(\S.* : \S|>>> |\.\.\. |\.\. .*https?:)", lines[number - 1])
    ]


def test_docstrings_are_narrow(root):
    """Docstrings fit into 88 columns: `help()` shows them beside other windows."""
    wide = [
        f"{file}:{line}"
        for file in sorted((root / "sktl").rglob("*.py"))
        for line in wide_lines(file.read_text(encoding="utf-8"))
    ]
    assert wide == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("x" * 82, []),
        ("x" * 83, [1]),
        (f"Do.\n\n{'x' * 89}\n", [3]),
        (f"Do.\n\n{'x' * 88}\n", []),
        (f"Do.\n\na : {'x' * 89}\n>>> {'x' * 89}\n", []),
    ],
)
def test_wide_lines_are_found(docstring, expected):
    """What the test above rests on."""
    assert wide_lines(f'"""{docstring}"""\ny = "{"x" * 100}"') == expected
