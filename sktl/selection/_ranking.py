"""What is known of the candidates, as they come in and as a table."""

from collections.abc import Sequence
from itertools import chain, count
from typing import Any, NamedTuple

from sktl._table import ReadableTable, alike, counted


class Candidate(NamedTuple):
    """A layer of a network, and what is known of it: numbers, that outlive the network."""

    backbone: str
    layer: str
    score: float
    seconds: float
    n_features: int
    parameters: int | None
    macs: int | None

    def order(self) -> tuple[float, int]:
        """What candidates are sorted by: of equal ones the cheaper comes first."""
        return -self.score, self.macs or 0


class CandidateScores:
    """The candidates that have come in, and of their extractors the best one only: a network is large.

    Attributes
    ----------
    candidates : list of Candidate
        In the order in which they came.
    extractor : PretrainedFeatureExtractor or None
        That of the best one.
    failures : tuple of (Images, dict of int to ImageError) or None
        The pictures as the first network has read them, and which of them cannot be read.
    """

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.extractor: Any = None
        self.failures: Any = None

    def add(self, candidate: Candidate, extractor: Any) -> None:
        """One more; of equal ones the first stays the best."""
        if all(candidate.order() < other.order() for other in self.candidates):
            self.extractor = extractor
        self.candidates.append(candidate)

    def free_name(self, name: str) -> str:
        """The name of a network, with a number where another network has it already."""
        taken = {candidate.backbone for candidate in self.candidates}
        return next(free for free in chain([name], (f"{name} ({n})" for n in count(2))) if free not in taken)


class BackboneRanking(ReadableTable):
    """The candidates of a `BackboneSelector`, the best one first: its ``ranking_``, which is not made by hand.

    It prints as a table, in a notebook too. ``to_dict()`` and ``to_frame()`` give its columns: ``backbone``, ``layer``,
    ``score``, ``seconds`` (to score it, with its share of the network's pass over the pictures), ``n_features``,
    ``parameters`` and ``macs`` (of the network up to that layer, for one picture).

    Parameters
    ----------
    candidates : sequence of Candidate
        In any order.
    score : str
        What the score is called.
    """

    def __init__(self, candidates: Sequence[Candidate], *, score: str) -> None:
        candidates = sorted(candidates, key=Candidate.order)
        best = candidates[0]
        super().__init__(
            f"{best.backbone}, layer {best.layer}, is the best of {len(candidates)} by {score}, which ranks and is no "
            "accuracy",
            {name: [getattr(candidate, name) for candidate in candidates] for name in Candidate._fields},
            ["backbone", "layer", score, "seconds", "features", "parameters", "multiply-accumulates"],
            [str, str, alike([candidate.score for candidate in candidates], 4), "{:.2f}".format, *[counted] * 3],
            names=["backbone", "layer"],
        )
