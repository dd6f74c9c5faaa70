"""What is said about progress."""

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._frozen._progress import PrintedProgress, in_words


class Estimator:
    pass


def test_the_last_line_is_always_printed_and_the_others_once_a_second(capsys):
    """A quick job prints one line, with the count, not one per batch."""
    progress = PrintedProgress(Estimator())
    for done in range(1, 101):
        progress(done, 100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("[Estimator] 100 of 100 images, ")


def test_a_slow_job_says_how_long_it_will_take(capsys):
    """Between the first and the last picture, the line estimates the rest."""
    progress = PrintedProgress(Estimator())
    progress._start -= 10
    progress._last -= 10
    progress(50, 100)
    assert capsys.readouterr().out == "[Estimator] 50 of 100 images, 5 images/s, 10 s left\n"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_times_to_wait_are_written_in_units_that_matter(seconds, expected):
    """Nobody divides 7,500 seconds by 3,600."""
    assert in_words(seconds) == expected


def test_a_long_run_prints_ever_fewer_lines(capsys):
    """After 100 seconds the next line comes after ten more."""
    progress = PrintedProgress(Estimator())
    progress._start -= 100
    progress._last -= 5
    progress(50, 100)
    assert capsys.readouterr().out == ""
    progress._last -= 6
    progress(51, 100)
    assert "51 of 100 images" in capsys.readouterr().out


def test_a_brief_pass_may_be_silent(capsys):
    """What ends at once says nothing where that is wanted; what took a while says how long."""
    PrintedProgress(Estimator(), is_brief=True)(100, 100)
    assert capsys.readouterr().out == ""
    progress = PrintedProgress(Estimator(), is_brief=True)
    progress._start = progress._last = progress._start - 4
    progress(100, 100)
    assert capsys.readouterr().out == "[Estimator] 100 of 100 images, 25 images/s\n"


@pytest.mark.parametrize("kind", ["search", "pipeline"])
def test_a_bar_has_room_beside_its_label(monkeypatch, capsys, kind):
    """In a terminal of 80 columns, and inside a meta-estimator too, which would write its own name in front."""
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "80")
    X, y = np.linspace(0, 1, 12 * 64).reshape(12, 64), [0, 1] * 6
    if kind == "search":
        model = GridSearchCV(FineTunedClassifier(max_epochs=1, random_state=0), {"freeze_depth": ["all"]}, cv=2)
    else:
        model = make_pipeline(PretrainedFeatureExtractor(), "passthrough")
    model.set_callbacks(ProgressBar()).fit(X, y)
    own = [line for line in capsys.readouterr().out.splitlines() if "FineTuned" in line or "PretrainedF" in line]
    assert own
    for line in own:
        assert line.count("━") >= 15, line
        assert "100%" in line
