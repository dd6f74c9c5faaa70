"""Score against size and time: the same numbers as by hand, and a picture that can be read."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.inspection._cost_display import CostDisplay


@pytest.fixture(scope="module")
def models(digits):
    """Three fitted classifiers: features, a network, pixels."""
    X, y = digits[0][:100], digits[1][:100]
    models = {
        "features": make_pipeline(PretrainedFeatureExtractor(layers="layer2"), LogisticRegression(max_iter=1000)),
        "network": FineTunedClassifier(max_epochs=0, freeze_depth="all"),
        "pixels": LogisticRegression(max_iter=1000),
    }
    return {name: model.fit(X, y) for name, model in models.items()}


def make_display(scores, nbytes, milliseconds, names=("teacher", "student alone", "distilled"), **settings):
    return CostDisplay(list(names), np.array(scores), np.array(nbytes), np.array(milliseconds), **settings)


def overlaps(ax, labels, points):
    """Which names lie on one another, on a point, or on the frame."""
    boxes = [Text.get_window_extent(label) for label in labels]
    names = [label.get_text() for label in labels]
    found = [(a, b) for i, a in enumerate(names) for j, b in enumerate(names) if i < j and boxes[i].overlaps(boxes[j])]
    for centre in ax.transData.transform(points.get_offsets()):
        found += [(name, "point") for name, box in zip(names, boxes, strict=True) if box.padded(3).contains(*centre)]
    frame = ax.bbox
    inside = [frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1 for box in boxes]
    return found + [(name, "frame") for name, is_inside in zip(names, inside, strict=True) if not is_inside]


def test_from_estimators(models, digits, measured):
    """Scores are those of the estimators on all pictures, sizes and times are their footprints on the first ones."""
    X, y = digits[0][100:], digits[1][100:]
    display = CostDisplay.from_estimators(models, X, y, n_timed=10, n_repeats=2)
    assert display.names == ["features", "network", "pixels"]
    np.testing.assert_array_equal(display.scores, [model.score(X, y) for model in models.values()])
    assert [(model, len(some), n) for model, some, n in measured] == [(model, 10, 2) for model in models.values()]
    np.testing.assert_array_equal(measured[0][1], X[:10])
    assert display.nbytes[1] > display.nbytes[2] > 1000
    assert (display.milliseconds > 0).all()
    assert display.parameters[2] is None
    assert display.parameters[1] > display.parameters[0] > 0
    assert display.score_name == "accuracy"


def test_what_is_drawn(models, digits):
    """One labelled point per model in each panel: megabytes and milliseconds on logarithmic axes, scores upwards."""
    display = CostDisplay.from_estimators(models, digits[0][100:150], digits[1][100:150], n_repeats=1)
    np.testing.assert_allclose(display.points_.get_offsets(), np.stack([display.nbytes / 1e6, display.scores], 1))
    np.testing.assert_allclose(display.time_points_.get_offsets(), np.stack([display.milliseconds, display.scores], 1))
    assert display.ax_.get_xscale() == display.time_ax_.get_xscale() == "log"
    assert display.ax_.get_ylim() == display.time_ax_.get_ylim()
    assert (display.ax_.get_ylabel(), display.ax_.get_xlabel()) == ("accuracy", "size on disk (MB)")
    for labels in (display.labels_, display.time_labels_):
        assert [label.get_text() for label in labels] == display.names
    display.figure_.canvas.draw()
    for ax, labels, points in (
        (display.ax_, display.labels_, display.points_),
        (display.time_ax_, display.time_labels_, display.time_points_),
    ):
        assert [label.xy[0] for label in labels] == list(points.get_offsets()[:, 0])
        assert overlaps(ax, labels, points) == []


@pytest.mark.parametrize("scores", [[0.96, 0.91, 0.912], [0.9, 0.9, 0.9], [0.96, 0.93, 0.9601]])
@pytest.mark.parametrize("sizes", [[14.2e6, 7.2e6, 7.21e6], [7e6, 7e6, 7e6], [9e9, 5e3, 5.1e3]])
def test_names_can_be_read(scores, sizes):
    """A student alone and the distilled one are about the same size: their names are apart nevertheless."""
    display = make_display(scores, sizes, np.array(sizes) / 1e6).plot()
    display.figure_.canvas.draw()
    assert overlaps(display.ax_, display.labels_, display.points_) == []
    assert overlaps(display.time_ax_, display.time_labels_, display.time_points_) == []


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([7e6, 7.1e6, 7.2e6], ["5", "10", "20"]),
        ([2e6, 4e6, 14e6], ["2", "5", "10"]),
        ([5e3, 7e6, 9e7], ["0.01", "0.1", "1", "10", "100"]),
    ],
)
def test_ticks_are_plain_numbers(sizes, expected):
    """Models of one size look like that, and axes have a few numbers that can be read, however much they span."""
    display = make_display([0.1, 0.2, 0.3], sizes, [1.0, 2.0, 3.0]).plot()
    display.figure_.canvas.draw()
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == expected
    assert len(display.ax_.xaxis.get_minor_ticks()) == 0


def test_scores_of_other_kinds(models, digits):
    """Any of scikit-learn's scores, named on the axis; weights reach them; all pictures may be timed."""
    X, y = digits[0][100:], digits[1][100:]
    weight = np.random.RandomState(0).uniform(size=len(y))
    settings = {"sample_weight": weight, "scoring": "balanced_accuracy", "n_timed": None, "n_repeats": 1}
    display = CostDisplay.from_estimators(models, X, y, **settings)
    expected = [balanced_accuracy_score(y, model.predict(X), sample_weight=weight) for model in models.values()]
    np.testing.assert_allclose(display.scores, expected)
    assert display.ax_.get_ylabel() == "balanced_accuracy"
    only = {"pixels": models["pixels"]}
    weighted = CostDisplay.from_estimators(only, X, y, sample_weight=weight, n_repeats=1)
    assert weighted.scores[0] == models["pixels"].score(X, y, sample_weight=weight) != models["pixels"].score(X, y)


def test_tables_and_lists_are_timed_too(digits, measured):
    """The first pictures are taken from a data frame by row, and from a list."""
    pd = pytest.importorskip("pandas")
    X, y = pd.DataFrame(digits[0]), digits[1].astype(float)
    X.index = X.index[::-1]
    model = {"line": LinearRegression().fit(X, y)}
    assert CostDisplay.from_estimators(model, X, y, n_timed=5, n_repeats=1).score_name == "R²"
    pd.testing.assert_frame_equal(measured[0][1], X.iloc[:5])
    pictures = list(digits[0].reshape(-1, 8, 8))
    network = {"network": FineTunedClassifier(max_epochs=0, freeze_depth="all").fit(pictures, digits[1])}
    CostDisplay.from_estimators(network, pictures[:20], digits[1][:20], n_timed=5, n_repeats=1)
    assert len(measured[1][1]) == 5


def test_axes_of_the_users():
    """One is divided, two are taken; on two the score stands beside each; keywords reach matplotlib."""
    display = make_display([0.9, 0.8, 0.85], [3e6, 1e6, 1e6], [3.0, 0.0, 1.0])
    figure, axes = plt.subplots(2)
    display.plot(axes, scatter_kw={"s": 30, "marker": "s"})
    assert (display.ax_, display.time_ax_) == tuple(axes)
    assert display.time_ax_.get_ylabel() == "score"
    assert set(display.points_.get_sizes()) == {30}
    display.plot(plt.figure().subplots())
    assert display.figure_ is not figure
    assert display.time_ax_.get_ylabel() == ""


NAMES = ["original", "pruned", "int8"]
CHAIN = {"pruned": "original", "int8": "pruned"}


def test_steps_are_arrows(models, digits):
    """An arrow leads from each model to what came of it, and a dashed line marks where the first ones stand."""
    origins = {"network": "features", "pixels": "network"}
    display = CostDisplay.from_estimators(models, digits[0][:50], digits[1][:50], origins=origins, n_repeats=1)
    assert display.origins == origins
    for ax, arrows, points in (
        (display.ax_, display.arrows_, display.points_),
        (display.time_ax_, display.time_arrows_, display.time_points_),
    ):
        places = points.get_offsets()
        np.testing.assert_array_equal([arrow.xyann for arrow in arrows], places[[0, 1]])
        np.testing.assert_array_equal([arrow.xy for arrow in arrows], places[[1, 2]])
        (line,) = ax.get_lines()
        assert list(line.get_xdata()) == [places[0][0]] * 2


@pytest.mark.parametrize("scores", [[0.96, 0.95, 0.94], [0.96, 0.96, 0.96], [0.9, 0.96, 0.95]])
@pytest.mark.parametrize("sizes", [[9e6, 2e6, 5e5], [9e6, 9e6, 2e6], [9e6, 8.9e6, 9.1e6]])
def test_names_beside_arrows_can_be_read(scores, sizes):
    """No name is crossed by an arrow or by the dashed line."""
    display = make_display(scores, sizes, [6.0, 6.1, 2.0], NAMES, origins=CHAIN).plot()
    display.figure_.canvas.draw()
    for ax, labels, points in (
        (display.ax_, display.labels_, display.points_),
        (display.time_ax_, display.time_labels_, display.time_points_),
    ):
        assert overlaps(ax, labels, points) == []
        places = ax.transData.transform(points.get_offsets())
        top = [places[0][0], ax.bbox.y1]
        boxes = {label.get_text(): Text.get_window_extent(label) for label in labels}
        crossed = [
            (name, share)
            for start, end in [places[:2], places[1:], [[top[0], ax.bbox.y0], top]]
            for share in np.linspace(0, 1, 400)
            for name, box in boxes.items()
            if box.contains(*(np.array(start) + share * (np.array(end) - start)))
        ]
        assert crossed == []


def test_where_nothing_changed_there_is_no_arrow():
    """Between models in one place there is no room for one; the others have theirs."""
    display = make_display([0.9, 0.9, 0.9], [9e6, 9e6, 1e6], [6.0, 6.0, 6.0], NAMES, origins=CHAIN)
    display.plot()
    assert [tuple(arrow.xy) for arrow in display.arrows_] == [(1.0, 0.9)]
    assert display.time_arrows_ == []


@pytest.mark.parametrize(
    ("models", "settings", "error", "message"),
    [
        ([LogisticRegression()], {}, ValueError, r"^The 'estimators' parameter must be a non-empty dict.*Got \[Logis"),
        ({}, {}, ValueError, r"^The 'estimators' parameter must be a non-empty dict.*Got \{\} instead\.$"),
        ({"a": FineTunedClassifier()}, {}, NotFittedError, "not fitted"),
        (
            {"a": LogisticRegression()},
            {"origins": {"b": "a"}},
            ValueError,
            r"unknown names: \['b'\]. The models are named \['a'\]",
        ),
        ({"a": LogisticRegression()}, {"origins": {"a": "c"}}, ValueError, r"\['c'\]"),
    ],
)
def test_bad_input(digits, models, settings, error, message):
    """Each is an error that says what is wrong and what to give."""
    with pytest.raises(error, match=message):
        CostDisplay.from_estimators(models, digits[0][:50], digits[1][:50], **settings)
