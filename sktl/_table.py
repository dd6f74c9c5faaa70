"""Tables for terminals and notebooks."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from textwrap import fill, wrap
from typing import Any

from sktl._optional import import_optional

_HEADING_WIDTH = 20  # longer headings take several lines
_MAX_DECIMALS = 6  # numbers that need more decimals use scientific notation


class ReadableTable:
    """Base class of results that print as a table.

    Parameters
    ----------
    title : str
        Title above the table.
    columns : mapping of str to sequence
        Values of the columns.
    headings : sequence of str
        Displayed heading of each column.
    formats : sequence of callable
        Functions that format the values of each column as strings. For numbers of
        different magnitude, use `alike`.
    names : sequence of str, default=()
        Names of the columns that are aligned to the left. All other columns are aligned
        to the right.
    note : str, default=""
        Note below the table.
    """

    # Defaults for tables that were pickled before these attributes existed.
    _left: Sequence[int] = (0,)
    _note = ""

    def __init__(
        self,
        title: str,
        columns: Mapping[str, Sequence[Any]],
        headings: Sequence[str],
        formats: Sequence[Callable[[Any], str]],
        *,
        names: Sequence[str] = (),
        note: str = "",
    ) -> None:
        self._title = title
        self._columns = {name: list(values) for name, values in columns.items()}
        self._headings = list(headings)
        self._formats = list(formats)
        self._left = [list(columns).index(name) for name in names]
        self._note = note

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns as a dict.

        Returns
        -------
        columns : dict of str to list
            Values of each column.
        """
        return {name: list(values) for name, values in self._columns.items()}

    def to_frame(self) -> Any:
        """Return the columns as a DataFrame.

        Returns
        -------
        frame : pandas.DataFrame
            The table.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", extra="pandas", purpose=f"{type(self).__name__}.to_frame()")
        return pandas.DataFrame(self.to_dict())

    def _rows(self) -> list[list[str]]:
        """Return the values as strings."""
        rows = zip(*self._columns.values(), strict=True)
        return [[text(value) for text, value in zip(self._formats, row, strict=True)] for row in rows]

    def __repr__(self) -> str:
        headings = [wrap(heading, _HEADING_WIDTH) or [""] for heading in self._headings]
        n_lines = max(map(len, headings), default=0)
        # Short headings are aligned to the bottom, right above their column.
        lines = zip(*([""] * (n_lines - len(heading)) + heading for heading in headings), strict=True)
        cells = [*map(list, lines), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        written = [
            "  ".join(
                cell.ljust(width) if column in self._left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        note = ["", fill(self._note, max(80, sum(widths)))] if self._note else []
        return "\n".join([self._title, "", *written, *note])

    def _repr_html_(self) -> str:
        # Notebooks and documentation pages have different default alignments.
        sides = ["left" if column in self._left else "right" for column in range(len(self._headings))]

        def row(cells: Sequence[str], tag: str) -> str:
            written = (
                f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )
            return f"<tr>{''.join(written)}</tr>"

        body = "".join(row(cells, "td") for cells in self._rows())
        side = 'style="text-align: left"'
        note = f'<tfoot><tr><td colspan="{len(sides)}" {side}>{escape(self._note)}</td></tr></tfoot>'
        return (
            f'<table style="border-spacing: 0.8em 0.1em"><caption {side}>{escape(self._title)}</caption>'
            f"<thead>{row(self._headings, 'th')}</thead><tbody>{body}</tbody>{note if self._note else ''}</table>"
        )


def alike(values: Sequence[float], digits: int) -> Callable[[float], str]:
    """Return a common format for a column: fixed decimals or scientific notation.

    Parameters
    ----------
    values : sequence of float
        Numbers of the column.
    digits : int
        Minimum number of significant digits, not counting trailing zeros.

    Returns
    -------
    callable
        Function that formats a number.

    Examples
    --------
    >>> from sktl._table import alike
    >>> [alike([0.001, 0.0003], 3)(value) for value in (0.001, 0.0003)]
    ['0.0010', '0.0003']
    >>> [alike([-3.895e-05, -0.02057], 4)(value) for value in (-3.895e-05, -0.02057)]
    ['-3.895e-05', '-2.057e-02']
    """
    finite = [value for value in values if math.isfinite(value)]
    written = [f"{value:.{digits - 1}e}".partition("e") for value in finite if value]
    mantissas = [len(mantissa.partition(".")[2].rstrip("0")) for mantissa, _, _ in written]
    decimals = [n - int(exponent) for n, (_, _, exponent) in zip(mantissas, written, strict=True)]
    n_decimals = max([0, *decimals])
    pattern = f"{{:.{n_decimals}f}}" if n_decimals <= _MAX_DECIMALS else f"{{:.{max(mantissas)}e}}"
    return pattern.format


def counted(value: "int | None") -> str:
    """Format a number with thousands separators, and None as a dash."""
    return "-" if value is None else f"{value:,}"
