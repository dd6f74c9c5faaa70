"""Nothing in the house is too long to be read in one sitting."""

import ast
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 60
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
