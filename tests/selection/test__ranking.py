"""Candidates as they come in, and the table of them."""

import pytest

from sktl.selection._ranking import BackboneRanking, Candidate, CandidateScores


def candidate(backbone, score, macs=100, layer="layer1"):
    """A candidate of which most does not matter."""
    return Candidate(backbone, layer, score, 0.25, 32, 1000, macs)


def test_a_race():
    """The extractor of the best is kept: of equal ones the cheaper, of equally cheap ones the first."""
    scored = CandidateScores()
    best = []
    for score, macs in [(1.0, 9), (0.5, 1), (1.0, 9), (1.0, 5), (1.0, None), (2.0, 9)]:
        scored.add(candidate("network", score, macs), extractor=len(best))
        best.append(scored.extractor)
    assert best == [0, 0, 0, 3, 4, 5]
    assert len(scored.candidates) == 6


def test_names_of_networks():
    """A name that is taken gets the next free number; several layers of one network have one name."""
    scored = CandidateScores()
    for expected in ("a", "a (2)", "a (3)"):
        assert scored.free_name("a") == scored.free_name("a") == expected
        scored.add(candidate(expected, 1.0), None)
        scored.add(candidate(expected, 1.0, layer="layer2"), None)
    assert scored.free_name("b") == "b"


def test_the_table():
    """The best is first, and named in the title with the score; numbers are easy to read."""
    ranking = BackboneRanking([candidate("worse", 0.5), candidate("better", 1.23456, 1234567)], score="logme")
    assert ranking.to_dict() == {
        "backbone": ["better", "worse"],
        "layer": ["layer1", "layer1"],
        "score": [1.23456, 0.5],
        "seconds": [0.25, 0.25],
        "n_features": [32, 32],
        "parameters": [1000, 1000],
        "macs": [1234567, 100],
    }
    shown = repr(ranking)
    assert shown.startswith(
        "better, layer layer1, is the best of 2 candidates by logme (a score for ranking, not an accuracy)\n"
    )
    for text in ("1.235 ", "1,234,567", "multiply-accumulates", " logme "):
        assert text in shown
    assert "1,234,567" in ranking._repr_html_()
    few = repr(BackboneRanking([candidate("a", -3.895e-05), candidate("b", -0.02057)], score="logme"))
    assert [line.split()[2] for line in few.splitlines()[-2:]] == ["-3.895e-05", "-2.057e-02"]
    pytest.importorskip("pandas")
    assert ranking.to_frame()["score"].tolist() == [1.23456, 0.5]
