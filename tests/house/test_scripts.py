"""Benchmarks, examples and tools, which no test runs: what they import of sktl is there."""

import ast
import importlib

import pytest


def imported(root):
    """(script, module, name) of each name of sktl that a script imports."""
    for script in sorted(
        path for folder in ("benchmarks", "examples", "tools") for path in (root / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sktl":
                yield from ((script.name, node.module, alias.name) for alias in node.names)


def test_what_scripts_import_is_there(root):
    """A name that has moved is found here, and not by whoever runs the script next."""
    missing = []
    names = list(imported(root))
    for script, module, name in names:
        if not hasattr(importlib.import_module(module), name):
            try:
                importlib.import_module(f"{module}.{name}")
            except ImportError:
                missing.append(f"{script}: from {module} import {name}")
    assert missing == []
    assert len(names) > 50


@pytest.mark.parametrize("line", ["from sktl import FineTunedClassifier", "from sktl._frozen import _pass"])
def test_the_reader_sees_names_and_modules(tmp_path, line):
    """What the test above rests on."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "script.py").write_text(line)
    assert [found[0] for found in imported(tmp_path)] == ["script.py"]
