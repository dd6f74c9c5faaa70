"""Optional packages are found without being imported, and their absence is explained."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from sktl._optional import import_optional, is_installed
from sktl.exceptions import MissingDependencyError


def test_is_installed_looks_without_importing(tmp_path, monkeypatch):
    """A package on the path is found, its code is not run, and an absent one is not found."""
    (tmp_path / "explosive.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("explosive")
    assert "explosive" not in sys.modules
    assert not is_installed("a_package_that_nobody_has")


def test_import_optional_gives_the_module():
    """What is installed is returned as the module that ``import`` would give."""
    assert import_optional("json", extra="onnx", purpose="nothing") is sys.modules["json"]


def test_missing_package_names_the_extra():
    """The error says what needs the package, and how to install it; it is an ImportError for who catches that."""
    with pytest.raises(MissingDependencyError) as caught:
        import_optional("a_package_that_nobody_has", extra="onnx", purpose="engine='onnxruntime'")
    assert isinstance(caught.value, ImportError)
    message = str(caught.value)
    assert message.startswith("engine='onnxruntime' needs the package 'a_package_that_nobody_has'")
    assert message.endswith("pip install 'sktl[onnx]'")


def test_extras_named_in_the_code_exist():
    """Each ``extra=`` that the package names is one that the project offers, or the advice would not work."""
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (root / "sktl").rglob("*.py")]
    keywords = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    named = {word.value.value for word in keywords if word.arg == "extra" and isinstance(word.value, ast.Constant)}
    assert named
    assert named <= set(extras)
