"""The chores, one small command each: ``nox -s tests``, ``nox -s docs``, and so on; ``nox -l`` lists them.

They run in the environment that nox is called from, for a second copy of torch in each would take gigabytes:
``pip install -e ".[dev]"`` makes it.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "docs"]

BENCHMARKS = sorted(path.stem for path in Path("benchmarks").glob("*.py") if path.stem != "common")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, or those given: nox -s tests -- tests/_images -x."""
    # Two workers with two threads each would get into each other's way.
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2"]), env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in docs/_build/html, or in the folder given; a warning is an error."""
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", *(session.posargs or ["docs/_build/html"]))


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the README's example."""
    session.run("python", "examples/quickstart.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run all benchmarks, or those named: nox -s bench -- throughput."""
    for name in session.posargs or BENCHMARKS:
        session.run("python", f"benchmarks/{name}.py")


@nox.session
def backbones(session: nox.Session) -> None:
    """Read the stages of every network of torchvision: long, and for whoever changes how graphs are read."""
    session.run("python", "tests/backbones/check_all_models.py", *session.posargs)
