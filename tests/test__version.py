"""The version: one for the package, its metadata and its pickles."""

import re
import tomllib
from pathlib import Path

import sktl
from sktl import _version


def test_one_version():
    """It is that of the front door, a version that PyPI takes, and where the build reads it."""
    assert sktl.__version__ == _version.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", _version.__version__)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "sktl._version.__version__"
