"""Names beside points: clear of points, of each other and of the frame."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from sktl.inspection._text_layout import in_legend, label_points, short, text_width, wrapped

RADIUS = 4.0


def draw(x, y, names, *, log=False, layout="constrained", size=(5, 4)):
    """A picture with limits from 0 to 1 (from 1 to 100), and its labels."""
    figure, ax = plt.subplots(figsize=size, layout=layout)
    ax.scatter(x, y, s=(2 * RADIUS) ** 2)
    ax.set(xlim=(1, 100) if log else (0, 1), ylim=(0, 1), xscale="log" if log else "linear", ylabel="y\nin two lines")
    labels = label_points(ax, x, y, names, radius=RADIUS, colors=["black"] * len(names))
    figure.canvas.draw()
    return ax, labels


def overlaps(ax, labels, x, y):
    """What lies on something: pairs of names, names on markers, names that leave the frame."""
    # Of a tied label the text alone is meant, without the line.
    boxes = {label.get_text(): Text.get_window_extent(label) for label in labels}
    radius = RADIUS * ax.figure.dpi / 72
    found = [(a, b) for a in boxes for b in boxes if a < b and boxes[a].overlaps(boxes[b])]
    for name, box in boxes.items():
        for px, py in ax.transData.transform(np.column_stack([x, y])):
            beyond = np.maximum([box.x0 - px, box.y0 - py], [px - box.x1, py - box.y1])
            if np.hypot(*np.maximum(beyond, 0)) < radius:
                found.append((name, "marker"))
        frame = ax.bbox
        if box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1:
            found.append((name, "frame"))
    return found


def test_a_point_alone_has_its_name_on_the_right():
    """Where there is room the name is written where it is read best, at the height of the point, without a line."""
    ax, (label,) = draw([0.5], [0.5], ["alone"])
    box, (px, py) = label.get_window_extent(), ax.transData.transform((0.5, 0.5))
    assert box.x0 > px + RADIUS * ax.figure.dpi / 72
    assert (box.y0 + box.y1) / 2 == pytest.approx(py, abs=1)
    assert label.arrow_patch is None


@pytest.mark.parametrize("corner", [(0.01, 0.01), (0.01, 0.99), (0.99, 0.01), (0.99, 0.99), (0.99, 0.5), (0.5, 0.99)])
def test_near_the_frame(corner):
    """A name beside a point in a corner or at an edge stays inside."""
    x, y = [corner[0]], [corner[1]]
    assert overlaps(*draw(x, y, ["a rather long name"]), x, y) == []


def test_lines_that_are_there_are_not_crossed():
    """Where a line leaves a point to the right its name stands elsewhere."""
    ax = plt.figure(figsize=(5, 4)).subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    line = ((0.5, 0.5), (0.9, 0.5))
    (label,) = label_points(ax, [0.5], [0.5], ["a name"], radius=RADIUS, colors=["black"], lines=[line])
    assert label.get_window_extent().x1 < ax.transData.transform((0.5, 0.5))[0]


@pytest.mark.parametrize("log", [False, True])
def test_points_in_one_place(log):
    """Three models of the same size and score have their names around them."""
    x, y = [50.0 if log else 0.5] * 3, [0.5, 0.5, 0.505]
    assert overlaps(*draw(x, y, ["teacher", "student alone", "distilled"], log=log), x, y) == []


@pytest.mark.parametrize("seed", range(5))
def test_many_points(seed):
    """Twelve points in the middle of a picture, each with a name that is clear of the others."""
    x, y = np.random.RandomState(seed).uniform(0.4, 0.6, (2, 12))
    assert overlaps(*draw(x, y, [f"model {i:02d}" for i in range(12)], size=(7, 6)), x, y) == []


def test_a_name_far_off_is_tied_to_its_point():
    """Where others leave no room around a point, its name goes where a line to it crosses none of them."""
    around = np.array([(-20, 0), (20, 0), (-25, 12), (0, 12), (25, 12), (-14, -14), (14, -14)])
    ax = plt.figure(figsize=(5, 4)).subplots()
    x, y = np.array([[0.5, 0.5], *(0.5 + around / ax.bbox.size)]).T
    ax, labels = draw(x, y, ["the middle", *[""] * 7], layout=None)
    assert overlaps(ax, labels[:1], x, y) == []
    text, line = Text.get_window_extent(labels[0]), labels[0].arrow_patch.get_window_extent()
    px, py = ax.transData.transform((0.5, 0.5))
    assert text.y1 < py - 21  # below the two that stand on either side of the line
    assert (line.x0, line.x1) == pytest.approx((px, px), abs=2)
    assert line.y1 == pytest.approx(py - RADIUS * ax.figure.dpi / 72, abs=2)
    assert line.y0 == pytest.approx(text.y1, abs=8)


def test_the_layout_is_known():
    """Places are those of the axes as they are in the end, which a layout makes smaller than they begin."""
    x, y = [0.9] * 4, [0.96, 0.97, 0.98, 0.99]
    names = ["one name", "another name", "a third name", "a fourth name"]
    for layout in ("constrained", "tight", None):
        assert overlaps(*draw(x, y, names, layout=layout), x, y) == []


def test_in_a_figure_inside_a_figure():
    """Axes of a subfigure are drawn like others."""
    figure = plt.figure(figsize=(8, 3), layout="constrained")
    ax = figure.subfigures(1, 2)[1].subplots()
    ax.scatter([0.5, 0.5], [0.5, 0.5])
    labels = label_points(ax, [0.5, 0.5], [0.5, 0.5], ["one", "two"], radius=RADIUS, colors=["C0", "C1"])
    assert not labels[0].get_window_extent().overlaps(labels[1].get_window_extent())
    assert labels[0].get_color() != labels[1].get_color()


def test_no_room_at_all():
    """In a picture of the size of a stamp the names are written nevertheless."""
    _, labels = draw(
        [0.5] * 3, [0.5] * 3, ["a long name", "a longer name", "the longest name"], size=(1, 1), layout=None
    )
    assert len(labels) == 3


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (("white", "white"), (0.7, 0.35, 0)),
        (("white", "black"), (1, 0.65, 0.3)),
        (("black", "none"), (1, 0.65, 0.3)),
        (("none", "none"), (0.7, 0.35, 0)),
    ],
)
def test_text_is_further_from_the_background_than_its_marker(background, expected):
    """A name has the hue of its point, with less light on a light ground, and more on a dark one; none is white."""
    _, ax = plt.subplots(facecolor=background[0])
    ax.set_facecolor(background[1])
    (label,) = label_points(ax, [0.5], [0.5], ["name"], radius=3, colors=[(1.0, 0.5, 0.0)])
    assert label.get_color() == pytest.approx(expected)


def test_names_fit():
    """They are cut, white space becomes one blank, and a dollar sign begins no formula."""
    assert short("a very long\tname", 8) == "a very …"
    assert short("$x") == r"\$x"


def test_names_in_a_legend():
    """One that begins with an underscore is there too; long ones are cut."""
    _, ax = plt.subplots()
    for name in ("_background", "w" * 30):
        ax.plot([0, 1], label=in_legend(name))
    assert [text.get_text() for text in ax.legend().get_texts()] == [" _background", "w" * 23 + "…"]


def test_texts_in_lines():
    """Lines are as wide as there is room; a word that is too long is broken, and what is too much is cut."""
    text = "American Staffordshire terrier, pit bull"
    room = text_width("American Staffordshire", 9) - 1
    lines = wrapped(text, room, 9, 9).split("\n")
    assert " ".join(lines) == text
    assert lines == ["American", "Staffordshire terrier,", "pit bull"]
    assert max(text_width(line, 9) for line in lines) <= room
    assert wrapped(text, room, 9, 2) == f"{lines[0]}\n{lines[1]}…"
    assert wrapped(text, 1000, 9, 2) == text
    long = wrapped("w" * 60, 110, 9, 9).split("\n")
    assert "".join(long) == "w" * 60
    assert max(text_width(line, 9) for line in long) <= 110
    assert wrapped("$5", 100, 9, 1) == r"\$5"
