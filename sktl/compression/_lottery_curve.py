"""Table of the networks trained in a search for lottery tickets."""

from collections.abc import Sequence
from typing import NamedTuple

from sktl._table import ReadableTable


class Point(NamedTuple):
    """Result of one trained network.

    Attributes
    ----------
    ticket : str
        Kind of ticket.
    round : int
        Number of times that weights were pruned; 0 for the dense network.
    weights_left : float
        Share of nonzero weights among those that can be pruned.
    score : float
        Score on the validation rows.
    early_stopping_epoch : int or None
        Epoch with the lowest validation loss.
    """

    ticket: str
    round: int
    weights_left: float
    score: float
    early_stopping_epoch: int | None


class LotteryCurve(ReadableTable):
    """Table with one row per trained network, starting with the dense one.

    Parameters
    ----------
    points : sequence of Point
        Results of the networks.
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
        has = f"{min(good):.1%} of the weights" if good else "none"
        super().__init__(
            f"Smallest winning ticket that scores at least as well as the dense network ({dense.score:.3f}): {has}",
            columns,
            ["ticket", "round", "weights left", "sparsity", "score", "epoch of lowest loss"],
            [str, str, "{:.1%}".format, "{:.1%}".format, "{:.3f}".format, _epoch],
            names=["ticket"],
        )


def _epoch(value: "int | None") -> str:
    return "-" if value is None else str(value)
