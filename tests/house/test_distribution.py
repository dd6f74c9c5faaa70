"""What is handed to users: the archive holds all of the repository, the wheel the package and nothing else."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

# What setuptools writes into an archive on its own account.
GENERATED = ("PKG-INFO", "setup.cfg", "sktl.egg-info/")


@pytest.fixture(scope="module")
def tracked(root) -> list[str]:
    """The files of the repository, as far as they are there."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("only a clone knows which files belong to the repository")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (root / name).is_file())


@pytest.fixture(scope="module")
def built(root, tracked, tmp_path_factory) -> Path:
    """A folder with the archive and the wheel, made without a network from a copy of the repository with leftovers."""
    folder = tmp_path_factory.mktemp("distribution")
    copy, out = folder / "copy", folder / "out"
    for name in [*tracked, "sktl/__pycache__/x.pyc", "tests/__pycache__/x.pyc", "docs/_build/index.html"]:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_file():
            shutil.copyfile(root / name, target)
        else:
            target.touch()
    command = "from setuptools import build_meta as b; b.build_sdist('../out'); b.build_wheel('../out')"
    subprocess.run([sys.executable, "-c", command], cwd=copy, capture_output=True, check=True)
    return out


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    """The wheel."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    """What package indices and ``pip show`` say about sktl."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_the_archive_is_the_repository(built, tracked):
    """Tests, documentation, examples, benchmarks and chores: every file, and nothing that lay around."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    assert sorted(name for name in members if not name.startswith(GENERATED)) == tracked


def test_the_wheel_is_the_package(wheel, tracked):
    """Every file of ``sktl``, with the mark for type checkers, the weights of sktl_mini and their card."""
    held = sorted(name for name in wheel.namelist() if ".dist-info/" not in name)
    assert held == [name for name in tracked if name.startswith("sktl/")]
    needed = {"sktl/py.typed", "sktl/backbones/sktl_mini.safetensors", "sktl/backbones/sktl_mini.md"}
    assert needed <= set(held)


def test_the_metadata_is_complete(metadata, root):
    """Author, links, every Python from the oldest allowed one, and the extras."""
    assert metadata["Author"] == "the sktl developers"
    links = {link.partition(",")[0] for link in metadata.get_all("Project-URL")}
    assert links == {"Documentation", "Source", "Issues", "Changelog"}
    assert metadata["Description-Content-Type"] == "text/markdown"
    prefix = "Programming Language :: Python :: 3."
    minors = [int(line.removeprefix(prefix)) for line in metadata.get_all("Classifier") if line.startswith(prefix)]
    assert metadata["Requires-Python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert sys.version_info[1] in minors
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(metadata.get_all("Provides-Extra")) == sorted(project["optional-dependencies"])


def test_the_terms_are_the_same_everywhere(metadata, wheel, root):
    """The licence of the code and the card of the weights go with the package, and the README and a page name both."""
    assert metadata["License-Expression"] == "BSD-3-Clause"
    files = ["LICENSE", "sktl/backbones/sktl_mini.md"]
    assert metadata.get_all("License-File") == files
    for file in files:
        (copy,) = (name for name in wheel.namelist() if name.endswith(f".dist-info/licenses/{file}"))
        assert wheel.read(copy) == (root / file).read_bytes()
    card = (root / "sktl" / "backbones" / "sktl_mini.md").read_text(encoding="utf-8")
    page = (root / "docs" / "license.rst").read_text(encoding="utf-8")
    for file in files:
        assert f":: ../{file}" in page  # included, so that it cannot say anything else
    assert "sktl_mini.md" in metadata.get_payload().rpartition("BSD-3-Clause")[2]
    for heading in ("## Terms", "## Training data", "## How it was trained"):  # what the page includes
        assert card.count(f"\n{heading}\n") == 1


def test_type_checkers_see_its_types(wheel, tmp_path):
    """A user's script is checked against the installed package: a wrong type is found, a right one passes."""
    pytest.importorskip("mypy")
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("[Ll]ib/**/site-packages")
    wheel.extractall(site)
    script = tmp_path / "script.py"
    script.write_text(
        "from sktl.backbones import describe_backbone, list_backbones\n"
        "names: list[str] = list_backbones('mobilenet*')\n"
        "count: int = list_backbones('mobilenet*')\n"
        "print(describe_backbone(names[0]), count)\n"
    )
    (python,) = (tmp_path / "venv").glob("*/python")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--python-executable", python, "--cache-dir", "cache", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, run.stdout + run.stderr
    assert "script.py:3: error: Incompatible types in assignment" in errors[0]
