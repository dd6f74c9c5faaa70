"""Tables that are read: as text, as HTML, as columns."""

import sys

import pandas as pd
import pytest

from sktl._table import ReadableTable
from sktl.exceptions import MissingDependencyError


@pytest.fixture
def table():
    columns = {"size": (5, 1234), "name": ("a<b", "layer1"), "share": (0.5, 0.25)}
    headings, formats = ["size", "the name", "share"], ["{:,}".format, str, "{:.0%}".format]
    return ReadableTable("Two <layers>", columns, headings, formats, names="name")


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
    last = ReadableTable("T", {"n": [1], "name": ["a"]}, ["n", "a long name"], [str, str], names="name")
    assert repr(last).splitlines()[2:] == ["n  a long name", "1  a"]


def test_html_is_escaped(table):
    """In a notebook the same texts stand in cells, and none is read as a tag."""
    html = table._repr_html_()
    assert "<caption>Two &lt;layers&gt;</caption>" in html
    assert "<th>size</th><th>the name</th><th>share</th>" in html
    assert "<tr><td>5</td><td>a&lt;b</td><td>50%</td></tr><tr><td>1,234</td><td>layer1</td><td>25%</td></tr>" in html


def test_no_rows():
    """A table without rows shows its headings."""
    empty = ReadableTable("None", {"name": []}, ["name"], [str], names="name")
    assert repr(empty) == "None\n\nname"
    assert empty._repr_html_().endswith("<tbody></tbody></table>")


def test_without_pandas(table, monkeypatch):
    """Where pandas is missing, the error names the extra, and everything else works."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"ReadableTable\.to_frame\(\).*sktl\[pandas\]"):
        table.to_frame()
    assert table.to_dict()
