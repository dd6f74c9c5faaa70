"""What all displays have in common: how they are made, that they have titles, and the table that says so."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import sktl.inspection
from sktl.inspection import (
    AnomalyMapDisplay,
    CompressionDisplay,
    DistillationDisplay,
    EmbeddingDisplay,
    FreezeDepthDisplay,
    GradCAMDisplay,
    LayerProbeDisplay,
    LotteryTicketDisplay,
    LRRangeDisplay,
    MisclassifiedDisplay,
    ReconstructionDisplay,
    TrainingCurveDisplay,
    TransferabilityDisplay,
)
from sktl.inspection._cost_display import CostDisplay

GUIDE = Path(__file__).parents[2] / "docs" / "displays.rst"
DISPLAYS = {name: getattr(sktl.inspection, name) for name in sktl.inspection.__all__ if name.endswith("Display")}
LONG = "American Staffordshire terrier, Staffordshire terrier, American pit bull terrier, pit bull terrier"


def constructors(display):
    return {name for name, _ in inspect.getmembers(display, inspect.ismethod) if name.startswith("from_")}


def make(kind, n):
    """A display of so many things, with long names."""
    rng = np.random.RandomState(0)
    labels = np.array([f"{number:02d} {LONG}" for number in range(n)])
    names = [f"model {number} {LONG}" for number in range(n)]
    share, size = rng.uniform(0.8, 0.9, n), rng.uniform(1e6, 1e8, n)
    photos, photo = np.zeros((n, 8, 8, 3), np.uint8), [np.zeros((8, 8, 3), np.uint8)] * n
    cost = (names, share, size, size / 1e6)
    return {
        AnomalyMapDisplay: lambda: AnomalyMapDisplay(photos, rng.uniform(size=(n, 8, 8)), np.arange(n), -share, -0.85),
        CompressionDisplay: lambda: CompressionDisplay(*cost, origins={names[1]: names[0]}),
        DistillationDisplay: lambda: DistillationDisplay(*cost, score_errors=np.full(n, 0.02)),
        EmbeddingDisplay: lambda: EmbeddingDisplay(rng.normal(size=(n, 2)), labels, images=photo),
        FreezeDepthDisplay: lambda: FreezeDepthDisplay(list(range(n)), share, share / 50, size / 1e6),
        GradCAMDisplay: lambda: GradCAMDisplay(
            photos, rng.uniform(size=(n, 8, 8)), labels, share, labels[::-1], share, true_labels=labels[::-1]
        ),
        LRRangeDisplay: lambda: LRRangeDisplay(np.geomspace(1e-6, 1, n), share, share, suggestion=1e-3),
        LayerProbeDisplay: lambda: LayerProbeDisplay(names, rng.uniform(size=(n, 3)), chance=0.1, name="network"),
        LotteryTicketDisplay: lambda: LotteryTicketDisplay(
            ["winning"], np.geomspace(1, 0.01, n), share[None, None], epochs=size[None, None]
        ),
        MisclassifiedDisplay: lambda: MisclassifiedDisplay(
            np.eye(n, dtype=int), labels, np.arange(n), labels, labels[::-1], probabilities=share, images=photo
        ),
        ReconstructionDisplay: lambda: ReconstructionDisplay(photos, photos + 1.0, noisy=photos),
        TrainingCurveDisplay: lambda: TrainingCurveDisplay(share, valid_loss=share, valid_score=share, best_epoch=1),
        TransferabilityDisplay: lambda: TransferabilityDisplay(share, size, names=names, groups=names),
    }[kind]()


def test_the_table_of_the_guide_is_whole():
    """Each display has a row there, with every method that makes one, and no other."""
    if not GUIDE.exists():
        pytest.skip("docs/ is not here")
    rows = re.split(r"\n   \* - ", GUIDE.read_text(encoding="utf-8"))[2:]
    written = {re.search(r"sktl\.inspection\.(\w+)", row)[1]: set(re.findall(r"``(from_\w+)\(", row)) for row in rows}
    assert written == {name: constructors(display) for name, display in DISPLAYS.items()}


@pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)
def test_every_display_is_made_of_an_estimator(display):
    """The first parameter is called so everywhere, ``X`` and ``y`` come next, and where to draw is a keyword."""
    parameters = inspect.signature(display.from_estimator).parameters
    places = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert places in (["estimator"], ["estimator", "X"], ["estimator", "X", "y"], ["estimator", "accuracies"])
    assert parameters["ax"].default is None


def check_titles(figure):
    assert any(ax.get_title() for ax in figure.axes)
    assert not any("picture" in ax.get_title() + ax.get_xlabel() + ax.get_ylabel() for ax in figure.axes)


@pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)
def test_many_things_with_long_names(display):
    """A figure of its own has a title, and room for everything in it: the layout is no warning."""
    many = 5 if issubclass(display, CostDisplay) else 12  # names that lie clear of so many others take a second
    check_titles(make(display, many).plot().figure_)


@pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)
def test_few_things_in_a_narrow_figure(display):
    """In axes of the user's, too, which may be small."""
    figure, axes = plt.subplots(2, 1, figsize=(4, 7), layout="constrained")
    assert make(display, 2).plot(ax=axes[0]).figure_ is figure
    check_titles(figure)


def test_an_axis_of_scores_makes_no_trend_of_noise():
    """Where depths differ by less than their folds do, the curve rises by a small part of the axis."""
    means = np.array([0.951, 0.957, 0.962])
    display = FreezeDepthDisplay(["all", -1, -2], means, np.full(3, 0.02), np.ones(3)).plot()
    low, high = display.ax_.get_ylim()
    assert np.ptp(means) < 0.1 * (high - low)
    assert 0.15 * (high - low) < 0.04  # an error bar, end to end, is seen
    assert low < 0.93 < 0.982 < high
    box = display.band_.get_bbox()
    assert (box.y0, box.y1) == pytest.approx((0.942, 0.982))


def test_depths_of_an_estimator():
    """It is cross-validated with each of them, as a search would be."""
    X, y = load_digits(return_X_y=True)
    model = sktl.FineTunedClassifier(max_epochs=0, random_state=0)
    display = FreezeDepthDisplay.from_estimator(model, X[:60] / 16, y[:60] % 2, depths=[-1, "all"], cv=2)
    assert (display.depths, display.n_frozen) == (["all", -1], [5, 4])
    with pytest.raises(
        ValueError, match=r"PretrainedFeatureExtractor must have exactly one freeze_depth parameter\. Got \[\] instead"
    ):
        FreezeDepthDisplay.from_estimator(sktl.PretrainedFeatureExtractor(), X, y)
