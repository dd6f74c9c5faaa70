"""The examples in the docstrings and in the documentation run, offline, and print what they say."""

import ast
import doctest
import importlib
import inspect
import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from sktl.datasets import make_image_folder

FLAGS = doctest.NORMALIZE_WHITESPACE
DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page.name for page in sorted(DOCS.glob("*.rst")) if ">>> " in page.read_text(encoding="utf-8")]


def examples_of(name: str) -> dict:
    """All examples of what a public module offers, wherever in the package it is defined, each once."""
    module, finder = importlib.import_module(name), doctest.DocTestFinder()
    things = {name: module} | {f"{name}.{public}": getattr(module, public) for public in module.__all__}
    examples = [example for key, thing in things.items() for example in finder.find(thing, key, globs={})]
    return {(example.filename, example.lineno): example for example in examples}


def test_examples(public_module, public_modules):
    """What the front door offers again is run with its room."""
    examples, runner = examples_of(public_module), doctest.DocTestRunner(optionflags=FLAGS)
    shown = {place for room in public_modules[1:] for place in examples_of(room)} if public_module == "sktl" else set()
    for place, example in examples.items():
        if place not in shown:
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_documentation_examples(page, tmp_path, monkeypatch):
    """What the written pages show in a Python session runs in a folder with ``photos/`` and ``new/`` in it."""
    make_image_folder(tmp_path / "photos")
    make_image_folder(tmp_path / "new", n_samples=12, labeled=False, random_state=1)
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=FLAGS)
    assert result.attempted > 0
    assert result.failed == 0


def test_documentation_has_examples():
    """The pages with a Python session are found."""
    assert len(PAGES) > 5


def test_quickstart_on_a_wrong_folder(root, tmp_path, monkeypatch):
    """It ends with one line that says which folder is wrong, and which may be meant."""
    for part in ("train", "test"):
        (tmp_path / "clothing" / part / "hat").mkdir(parents=True)
        (tmp_path / "clothing" / part / "hat" / "1.png").touch()
    for folder, message in (
        ("clothing", r"parts of a dataset.*Did you mean '.*clothing/train'\?$"),
        ("clothing/tran", r"a folder that exists\. Got '.*tran' instead\. Did you mean '.*clothing/train'\?$"),
        ("clothing/test/hat", "have no labels"),
    ):
        monkeypatch.setattr(sys, "argv", ["quickstart.py", str(tmp_path / folder)])
        with pytest.raises(SystemExit, match=message):
            runpy.run_path(str(root / "examples" / "quickstart.py"), run_name="__main__")


def test_documentation_code_blocks(root, public_modules):
    """Code that the written pages show without running it compiles; what it takes from sktl exists and takes that."""
    modules = [importlib.import_module(name) for name in public_modules]
    offered = {name: getattr(module, name) for module in modules for name in module.__all__}
    calls = 0
    for page in sorted((root / "docs").glob("*.rst")):
        for line, code in _code_blocks(page.read_text(encoding="utf-8")):
            for node in ast.walk(ast.parse(code, f"{page.name}:{line}")):
                if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "sktl":
                    assert {alias.name for alias in node.names} <= set(importlib.import_module(node.module).__all__)
                elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in offered:
                    names = [keyword.arg for keyword in node.keywords if keyword.arg]
                    inspect.signature(offered[node.func.id]).bind_partial(*node.args, **dict.fromkeys(names))
                    calls += 1
    assert calls > 10


def _code_blocks(text):
    """Line and text of each ``.. code-block:: python``."""
    for match in re.finditer(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, flags=re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 1, textwrap.dedent(match[1])
