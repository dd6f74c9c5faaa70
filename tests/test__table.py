"""Tables that are read: as text, as HTML, as columns."""

import sys

import pandas as pd
import pytest

from sktl._table import ReadableTable, alike, counted
from sktl.exceptions import MissingDependencyError


@pytest.fixture
def table():
    columns = {"size": (5, 1234), "name": ("a<b", "layer1"), "share": (0.5, 0.25)}
    headings, formats = ["size", "the name", "share"], ["{:,}".format, str, "{:.0%}".format]
    return ReadableTable("Two <layers>", columns, headings, formats, names=["name"])


def test_columns_are_given_as_they_are(table):
    """Whoever computes gets values and no texts, in lists of their own."""
    columns = table.to_dict()
    assert columns == {"size": [5, 1234], "name": ["a<b", "layer1"], "share": [0.5, 0.25]}
    columns["size"].append(0)
    assert table.to_dict()["size"] == [5, 1234]
    pd.testing.assert_frame_equal(table.to_frame(), pd.DataFrame(table.to_dict()))


def test_text(table):
    """Names begin at the left, numbers end at the right, and no line has blanks at its end."""
    assert repr(table).splitlines() == [
        "Two <layers>",
        "",
        " size  the name  share",
        "    5  a<b         50%",
        "1,234  layer1      25%",
    ]
    last = ReadableTable("T", {"n": [1], "name": ["a"]}, ["n", "a long name"], [str, str], names=["name"])
    assert repr(last).splitlines()[2:] == ["n  a long name", "1  a"]


def test_html_is_escaped(table):
    """In a notebook names stand at the left, numbers at the right, and none is read as a tag."""
    html = table._repr_html_()
    left, right = 'style="text-align: left"', 'style="text-align: right"'
    assert f"<caption {left}>Two &lt;layers&gt;</caption>" in html
    assert f"<th {right}>size</th><th {left}>the name</th><th {right}>share</th>" in html
    rows = [("5", "a&lt;b", "50%"), ("1,234", "layer1", "25%")]
    for size, name, share in rows:
        assert f"<tr><td {right}>{size}</td><td {left}>{name}</td><td {right}>{share}</td></tr>" in html


def test_long_headings_take_several_lines():
    """A column is as wide as its numbers and a few words, not as its heading; HTML breaks lines by itself."""
    heading = "agreement with the original on the training images"
    table = ReadableTable("T", {"name": ["a"], "share": [0.5]}, ["", heading], [str, str], names=["name"])
    assert repr(table).splitlines()[2:] == [
        "   agreement with the",
        "      original on the",
        "      training images",
        "a                 0.5",
    ]
    assert f">{heading}</th>" in table._repr_html_()


def test_a_note_stands_below():
    """A table may end in a sentence, which is escaped too."""
    table = ReadableTable("T", {"n": [1]}, ["n"], [str], note="1 < 2 " * 40)
    assert "\n\n1 < 2 1 < 2" in repr(table)
    assert max(map(len, repr(table).splitlines())) <= 80
    assert "<tfoot><tr><td" in table._repr_html_()
    assert "1 &lt; 2" in table._repr_html_()


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([0.001, 0.0003, 0.0], 3, ["0.0010", "0.0003", "0.0000"]),
        ([12.0, 3.0], 3, ["12", "3"]),
        ([-3.895e-05, -0.02057], 4, ["-3.895e-05", "-2.057e-02"]),
        ([123.4, 0.5678, float("nan")], 4, ["123.4000", "0.5678", "nan"]),
        ([0.0], 3, ["0"]),
        ([], 3, []),
    ],
)
def test_numbers_of_a_column_are_written_alike(values, digits, expected):
    """All with the decimals that one of them needs, or all with a power of ten where these would be many."""
    assert [alike(values, digits)(value) for value in values] == expected


def test_counts():
    """Thousands stand apart, and a dash stands for nothing."""
    assert [counted(1234567), counted(None)] == ["1,234,567", "-"]


def test_no_rows():
    """A table without rows shows its headings."""
    empty = ReadableTable("None", {"name": []}, ["name"], [str], names=["name"])
    assert repr(empty) == "None\n\nname"
    assert empty._repr_html_().endswith("<tbody></tbody></table>")


def test_without_pandas(table, monkeypatch):
    """Where pandas is missing, the error names the extra, and everything else works."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"ReadableTable\.to_frame\(\).*sktl\[pandas\]"):
        table.to_frame()
    assert table.to_dict()
