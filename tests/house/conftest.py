"""The rules of the house as tests. They look at all modules at once, so this folder mirrors no part of the package."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import sktl

ROOT = Path(__file__).parents[2]
PUBLIC_MODULES = [
    "sktl",
    *(room.name for room in pkgutil.iter_modules(sktl.__path__, "sktl.") if "._" not in room.name),
]


def pytest_generate_tests(metafunc):
    """A test of ``public_module`` runs for each of them, one of ``PublicEstimator`` for each estimator in them."""
    if "public_module" in metafunc.fixturenames:
        metafunc.parametrize("public_module", PUBLIC_MODULES)
    if "PublicEstimator" in metafunc.fixturenames:
        rooms = map(importlib.import_module, PUBLIC_MODULES)
        things = dict.fromkeys(getattr(room, name) for room in rooms for name in room.__all__)
        metafunc.parametrize(
            "PublicEstimator", [x for x in things if inspect.isclass(x) and issubclass(x, BaseEstimator)]
        )


@pytest.fixture(scope="session")
def public_modules() -> list[str]:
    """The dotted names of all modules that users may import, ``sktl`` itself first."""
    return PUBLIC_MODULES


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module of the package, by its dotted name."""
    files = sorted((ROOT / "sktl").rglob("*.py"))
    return {_dotted(file): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
