"""Tables that read well in a terminal and in a notebook, and give their columns to whoever wants to compute."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sktl._optional import import_optional


class ReadableTable:
    """Columns with a title; a base class.

    Parameters
    ----------
    title : str
        Stands above the table.
    columns : mapping of str to sequence
        The columns, as they are.
    headings : sequence of str
        What stands above each column where it is shown.
    formats : sequence of callable
        What makes a value of each column a text.
    names : str
        The column whose texts begin at the left; all others are numbers and end at the right.
    """

    def __init__(self, title: str, columns: Mapping[str, Sequence[Any]], headings, formats, *, names: str) -> None:
        self._title = title
        self._columns = {name: list(values) for name, values in columns.items()}
        self._headings = list(headings)
        self._formats = list(formats)
        self._names = list(columns).index(names)

    def to_dict(self) -> dict[str, list[Any]]:
        """The columns.

        Returns
        -------
        dict of str to list
        """
        return {name: list(values) for name, values in self._columns.items()}

    def to_frame(self) -> Any:
        """The columns as a DataFrame.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        pandas = import_optional("pandas", extra="pandas", purpose=f"{type(self).__name__}.to_frame()")
        return pandas.DataFrame(self.to_dict())

    def _cells(self) -> list[list[str]]:
        """The table as text, headings first."""
        rows = zip(*self._columns.values(), strict=True)
        return [
            self._headings,
            *([text(value) for text, value in zip(self._formats, row, strict=True)] for row in rows),
        ]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column == self._names else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self._title, "", *lines])

    def _repr_html_(self) -> str:
        heading, *rows = self._cells()
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return (
            f"<table><caption>{escape(self._title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
