"""The chores, one small command each: ``nox -s tests``, ``nox -s docs``, and so on; ``nox -l`` lists them.

They run in the environment that nox is called from, for a second copy of torch in each would take gigabytes:
``pip install -e ".[dev]"`` makes it. Only ``floors`` makes one of its own.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "docs"]

BENCHMARKS = sorted(path.stem for path in Path("benchmarks").glob("*.py") if path.stem != "common")

# Public names, every example of the docstrings and of the guide, images in all their forms, files with all engines,
# and scikit-learn's checks of the estimators that the others are made of.
SMOKE = [
    "tests/house/test_public_names.py",
    "tests/house/test_examples.py",
    "tests/_images/test__check_images.py",
    "tests/_images/test__sources.py",
    "tests/datasets",
    "tests/backbones/test__timm.py",
    "tests/compression/test__int8.py",
    "tests/test_feature_extraction.py",
    "tests/finetuning/test__classifier.py::test_all_of_check_estimator",
]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests but the slow ones, or those given: nox -s tests -- tests/_images -x."""
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2", "-m", "not slow"]))


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that are marked as slow."""
    session.run("python", "-m", "pytest", "-n", "2", "-m", "slow", *session.posargs)


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


@nox.session(venv_backend="uv")
def floors(session: nox.Session) -> None:
    """Install the oldest versions that pyproject.toml allows and test with them: nox -s floors -- tests runs all."""
    session.install("--resolution", "lowest-direct", ".[test]")
    # Old releases stand beside new ones of what they need, whose deprecations are theirs to heed.
    options = ["-n", "2", "-W", "default::DeprecationWarning"]
    session.run("pytest", *options, *(session.posargs or SMOKE))
