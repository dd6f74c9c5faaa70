"""Tables that read well in a terminal and in a notebook, and give their columns to whoever wants to compute."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from textwrap import fill, wrap
from typing import Any

from sktl._optional import import_optional

_HEADING_WIDTH = 20  # longer headings take several lines
_MAX_DECIMALS = 6  # numbers that need more are written with a power of ten


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
        What makes a value of each column a text. Numbers of unlike size take `alike`.
    names : sequence of str, default=()
        The columns whose texts begin at the left; all others are numbers and end at the right.
    note : str, default=""
        Stands below the table.
    """

    # Those of a table that was pickled before there were any.
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

    def _rows(self) -> list[list[str]]:
        """The values as text."""
        rows = zip(*self._columns.values(), strict=True)
        return [[text(value) for text, value in zip(self._formats, row, strict=True)] for row in rows]

    def __repr__(self) -> str:
        headings = [wrap(heading, _HEADING_WIDTH) or [""] for heading in self._headings]
        n_lines = max(map(len, headings), default=0)
        # A heading stands right above its column: what is shorter begins further down.
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
        # A notebook aligns cells as it likes, a documentation page otherwise: both are told.
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
    """What writes all numbers of a column in one way: with as many decimals, or all with a power of ten.

    Parameters
    ----------
    values : sequence of float
        The numbers of the column.
    digits : int
        How many significant digits each has at least, but for zeros at its end.

    Returns
    -------
    callable
        Makes a number a text.

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
    """A number with its thousands apart; a dash where there is none.

    Parameters
    ----------
    value : int or None
        What was counted.

    Returns
    -------
    str
    """
    return "-" if value is None else f"{value:,}"
