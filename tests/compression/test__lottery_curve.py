"""The table of a lottery: a column for each thing that was measured, and what it says of the best ticket."""

from sktl.compression._lottery_curve import LotteryCurve, Point

POINTS = [
    Point("winning", 0, 1.0, 0.9, 3),
    Point("random_init", 1, 0.25, 0.99, 2),
    Point("winning", 1, 0.25, 0.95, 1),
    Point("winning", 2, 0.0625, 0.95, None),
]


def test_columns():
    """A row for each network, in the order in which they were trained; sparsity is what is not left."""
    curve = LotteryCurve(POINTS)
    assert {name: list(values) for name, values in curve.to_dict().items()} == {
        "ticket": ["winning", "random_init", "winning", "winning"],
        "round": [0, 1, 1, 2],
        "weights_left": [1.0, 0.25, 0.25, 0.0625],
        "sparsity": [0.0, 0.75, 0.75, 0.9375],
        "score": [0.9, 0.99, 0.95, 0.95],
        "early_stopping_epoch": [3, 2, 1, None],
    }
    assert list(curve.to_frame()["round"]) == [0, 1, 1, 2]


def test_what_it_says():
    """The smallest of the winning tickets that are as good as the dense network is named; no control is."""
    text = str(LotteryCurve(POINTS))
    title = "Smallest winning ticket that scores at least as well as the dense network"
    assert text.splitlines()[0] == f"{title} (0.900): 6.2% of the weights"
    assert text.splitlines()[-1].split() == ["winning", "2", "6.2%", "93.8%", "0.950", "-"]
    worse = [POINTS[0], *(point._replace(score=0.8) for point in POINTS[2:])]
    assert str(LotteryCurve(worse)).splitlines()[0] == f"{title} (0.900): none"
