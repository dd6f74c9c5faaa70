"""Tests mirror the package: each file of it has its own file of tests, and every other one is named after a subject."""

from pathlib import Path

import pytest

# Files of the package without tests of their own, and where they are tested.
ELSEWHERE: dict[str, str] = {}
# Files of tests about a subject that several files of the package share.
SUBJECTS = [
    "_estimators/test_interrupted_and_diverged_fits.py",
    "_frozen/_cache/test_broken_directories.py",
    "_images/test_estimator_checks.py",
    "compression/test_pickles.py",
    "compression/test_stacked_compressors.py",
    "distillation/test_footprint.py",
    "distillation/test_image_columns.py",
    "distillation/test_in_scikit_learn.py",
    "distillation/test_teacher_queries.py",
    "finetuning/test_in_scikit_learn.py",
    "finetuning/test_repeated_fits.py",
    "inspection/test_all_displays.py",
    "selection/test_groups.py",
    "test_image_reader.py",
]


def mirror(package: Path, tests: Path) -> tuple[set[str], set[str]]:
    """The files of a package that no file of tests is named after, and the files of tests named after none of it.

    ``room/_module.py`` is tested in ``room/test__module.py``; an ``__init__.py``, which names what is elsewhere, need
    not be tested.
    """
    sources = {path.relative_to(package) for path in package.rglob("*.py")}
    expected = {source.with_name(f"test_{source.name}"): source for source in sources}
    found = {path.relative_to(tests) for path in tests.rglob("test_*.py")}
    untested = {source for test, source in expected.items() if test not in found and source.name != "__init__.py"}
    return {path.as_posix() for path in untested}, {path.as_posix() for path in found - set(expected)}


def test_each_file_has_its_tests(root):
    """And what is tested elsewhere is listed above, as long as it is."""
    untested, _ = mirror(root / "sktl", root / "tests")
    assert untested == set(ELSEWHERE)


def test_other_tests_are_about_a_subject(root):
    """A file of tests that mirrors nothing is listed above; the house's own rules are about all files at once."""
    _, subjects = mirror(root / "sktl", root / "tests")
    assert {path for path in subjects if not path.startswith("house/")} == set(SUBJECTS)


@pytest.mark.parametrize(
    ("sources", "tests", "expected"),
    [
        (["_a.py"], ["test__a.py"], (set(), set())),
        (["_a.py"], ["test_a.py"], ({"_a.py"}, {"test_a.py"})),
        (["a.py"], ["test_a.py"], (set(), set())),
        (["room/_a.py"], ["test__a.py"], ({"room/_a.py"}, {"test__a.py"})),
        (["room/_a.py", "room/__init__.py"], ["room/test__a.py", "room/conftest.py"], (set(), set())),
        (["room/__init__.py"], ["room/test___init__.py"], (set(), set())),
    ],
)
def test_the_mirror_finds_what_is_missing(tmp_path, sources, tests, expected):
    """What the tests above rest on: the name says the whole path, and the underscores too."""
    for folder, names in {"package": sources, "tests": tests}.items():
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert mirror(tmp_path / "package", tmp_path / "tests") == expected
