"""Candidates of a `BackboneSelector`, and their ranking."""

from collections.abc import Sequence
from itertools import chain, count
from typing import Any, NamedTuple

from sktl._table import ReadableTable, alike, counted


class Candidate(NamedTuple):
    """A layer of a network with its score and cost."""

    backbone: str
    layer: str
    score: float
    seconds: float
    n_features: int
    parameters: int | None
    macs: int | None

    def order(self) -> tuple[float, int]:
        """Return the sort key: best score first, then the cheaper layer."""
        return -self.score, self.macs or 0


class CandidateScores:
    """Scored candidates and the extractor of the best one.

    Other extractors are not kept, because networks are large.

    Attributes
    ----------
    candidates : list of Candidate
        The candidates in the order in which they were added.
    extractor : PretrainedFeatureExtractor or None
        The extractor of the best candidate.
    failures : tuple of (Images, dict of int to ImageError) or None
        Images as read for the first network, and the errors of unreadable ones.
    """

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.extractor: Any = None
        self.failures: Any = None

    def add(self, candidate: Candidate, extractor: Any) -> None:
        """Add a candidate. Of equal candidates, the first one stays the best."""
        if all(candidate.order() < other.order() for other in self.candidates):
            self.extractor = extractor
        self.candidates.append(candidate)

    def free_name(self, name: str) -> str:
        """Return the name of a network, with a number if it is already used."""
        taken = {candidate.backbone for candidate in self.candidates}
        return next(free for free in chain([name], (f"{name} ({n})" for n in count(2))) if free not in taken)


class BackboneRanking(ReadableTable):
    """Table of the candidates of a `BackboneSelector`, best first.

    Available as the attribute ``ranking_`` of a fitted
    `sktl.selection.BackboneSelector`. It prints as a table, also in notebooks.
    ``to_dict()`` and ``to_frame()`` return its columns: ``backbone``, ``layer``,
    ``score``, ``seconds`` (time for scoring, including a share of the pass over the
    images), ``n_features``, and ``parameters`` and ``macs`` (parameters, and
    multiply-accumulates per image, of the network up to the layer).

    Parameters
    ----------
    candidates : sequence of Candidate
        The candidates in any order.
    score : str
        Name of the score.
    """

    def __init__(self, candidates: Sequence[Candidate], *, score: str) -> None:
        candidates = sorted(candidates, key=Candidate.order)
        best = candidates[0]
        super().__init__(
            f"{best.backbone}, layer {best.layer}, is the best of {len(candidates)} candidates by {score} (a score for "
            "ranking, not an accuracy)",
            {name: [getattr(candidate, name) for candidate in candidates] for name in Candidate._fields},
            ["backbone", "layer", score, "seconds", "features", "parameters", "multiply-accumulates"],
            [str, str, alike([candidate.score for candidate in candidates], 4), "{:.2f}".format, *[counted] * 3],
            names=["backbone", "layer"],
        )
