"""What each round of a search for lottery tickets found, as a table."""

from collections.abc import Sequence
from typing import NamedTuple

from sktl._table import ReadableTable


class Point(NamedTuple):
    """One trained network.

    Attributes
    ----------
    ticket : str
        What it was trained from.
    round : int
        How often weights had been taken from it; 0 for the dense network.
    weights_left : float
        Share of the weights that are not zero, of those that can be pruned.
    score : float
        On the rows that were judged on.
    early_stopping_epoch : int or None
        The epoch after which their loss was the lowest.
    """

    ticket: str
    round: int
    weights_left: float
    score: float
    early_stopping_epoch: int | None


class LotteryCurve(ReadableTable):
    """One row per trained network, the dense one first; made by ``curve_``.

    Parameters
    ----------
    points : sequence of Point
        The networks.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        columns: dict[str, list] = {
            "ticket": [point.ticket for point in points],
            "round": [point.round for point in points],
            "weights_left": [point.weights_left for point in points],
            "sparsity": [1 - point.weights_left for point in points],
            "score": [point.score for point in points],
            "early_stopping_epoch": [point.early_stopping_epoch for point in points],
        }
        dense, *others = points
        good = [point.weights_left for point in others if point.ticket == "winning" and point.score >= dense.score]
        has = f"the smallest has {min(good):.1%} of the weights" if good else "there is none"
        super().__init__(
            f"Winning tickets that score no less than the dense network ({dense.score:.3f}): {has}",
            columns,
            ["ticket", "round", "weights left", "sparsity", "score", "lowest loss in epoch"],
            [str, str, "{:.1%}".format, "{:.1%}".format, "{:.3f}".format, _epoch],
            names=["ticket"],
        )


def _epoch(value: "int | None") -> str:
    return "-" if value is None else str(value)
