"""Docstrings, messages and pages use the words of the field: `tools/check_words.py` has the list of what they avoid."""

import importlib.util
import sys
from types import ModuleType

import pytest

# The parts of the project whose prose users and contributors read.
PROSE = ["sktl", "docs", "examples", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.fixture(scope="module")
def checker(root) -> ModuleType:
    """`tools/check_words.py`, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("check_words", root / "tools" / "check_words.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(checker, tmp_path):
    """Return the words that are found in a file with this text."""

    def run(text: str, suffix: str = ".rst") -> list[str]:
        file = tmp_path / f"file{suffix}"
        file.write_text(text, encoding="utf-8")
        return [hit.word for prose in checker.passages(file) for hit in checker.hits(prose)]

    return run


@pytest.mark.parametrize("part", PROSE)
def test_words(checker, root, part):
    """No word that our style does not use."""
    prose = [prose for file in checker.files([root / part]) for prose in checker.passages(file)]
    assert prose
    assert [str(hit) for passage in prose for hit in checker.hits(passage)] == []


def test_exceptions_are_few(checker):
    """Phrases in which a banned word is right are at most 15."""
    assert len(checker.ALLOWED) <= 15


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A picture is worth a thousand words.", ["picture"]),
        ("It fails where X is empty.", ["where"]),
        ("The folder where it is written, and where to look.", []),
        ("It is None if y is None.", []),
        ("A grey image of normalised colours.", ["grey", "normalised", "colours"]),
        ("It is no image, and there are none.", ["is no", "are none"]),
        ("It is not an image, and it is nonempty.", []),
        ("See ``picture`` and `where`, :func:`lend <sktl.lend>`.", []),
        ("Lines\nbroken at\nno place: he is\nno one.", ["place", "is\nno", "no one"]),
        ("It takes place in place.", []),
        (".. code-block:: python\n\n   picture = 1\n\nA picture.", ["picture"]),
        (">>> picture\npicture\n\nA picture.", ["picture"]),
        ("Literally::\n\n   a picture\n\nmend it", ["mend"]),
        ("| table | picture |", ["picture"]),
        ("* a list\n  of pictures", ["pictures"]),
        (":doc:`cache` tells where it is.\n\n:orphan:", ["where"]),
        ("There is no ``predict``.", ["is no"]),
    ],
)
def test_pages(check, text, words):
    """Words are found in prose, with their inflections and over the ends of lines, and not in code."""
    assert sorted(check(text)) == sorted(words)


def test_markdown(check):
    """Fenced blocks and literals are code."""
    assert check("A `picture`.\n\n```python\npicture\n```\n\nNo `x`, a picture, `y`.", ".md") == ["picture"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('"""Pictures."""', ["Pictures"]),
        ('def f():\n    """What it is."""', ["What"]),
        ('def f():\n    """Return what it is."""', []),
        ('def f():\n    """Do.\n\n    Parameters\n    ----------\n    a : int\n        Of it.\n    """', ["Of"]),
        ('def f():\n    """Do.\n\n    Parameters\n    ----------\n    picture : int\n        It.\n    """', []),
        ('def f():\n    """Do.\n\n    Examples\n    --------\n    >>> picture\n    picture\n    """', []),
        ("x = 1  # where it is empty", ["where"]),
        ('raise ValueError("is no image")', ["is no"]),
        ('raise ValueError(f"is {x} no image, {y!r} shall be")', ["shall"]),
        ('x = ["picture", {"where": 1}]', []),
        ('"""A photo."""', ["photo"]),
        ("photo = picture", []),
    ],
)
def test_code(check, code, words):
    """Docstrings, comments and texts of several words are prose; names and keys are not."""
    assert sorted(check(code + "\n", ".py")) == sorted(words)
