"""Footprints of teacher and student: one table, with what each costs and how much they agree."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score

from sktl import FineTunedClassifier
from sktl._engine._cache import open_cache
from sktl._engine._footprint import Footprint
from sktl.distillation._footprints import Footprints


@pytest.fixture
def footprints():
    """Of a teacher whose network is large, and a student of an eighth of its bytes and a quarter of its time."""
    teacher = Footprint(11_000_000, 10_000_000, 48_000_000, 1_800_000_000, 12.0)
    return Footprints(teacher, Footprint(1_100_000, 1_000_000, 6_000_000, 90_000_000, 3.0), agreement=0.9375)


def test_a_row_for_each(footprints):
    """Columns by name, as a dict and as a frame; the teacher agrees with itself."""
    columns = footprints.to_dict()
    assert list(columns) == ["model", *Footprint._fields, "agreement"]
    assert columns["model"] == ["teacher", "student"]
    assert columns["parameters"] == [11_000_000, 1_100_000]
    assert columns["milliseconds"] == [12.0, 3.0]
    assert columns["agreement"] == [1.0, 0.9375]
    pd.testing.assert_frame_equal(footprints.to_frame(), pd.DataFrame(columns))


def test_it_reads_well(footprints):
    """The title says what was won, numbers have their thousands apart, and HTML says the same."""
    title, _, headings, teacher, student = str(footprints).splitlines()
    assert "0.25 times the teacher's time and 0.125 times its bytes" in title
    assert headings.split()[0] == "model"
    assert teacher.split() == ["teacher", "11,000,000", "10,000,000", "48,000,000", "1,800,000,000", "12", "1.000"]
    assert student.split() == ["student", "1,100,000", "1,000,000", "6,000,000", "90,000,000", "3", "0.938"]
    for cell in (*teacher.split(), *student.split()):
        assert f">{cell}<" in footprints._repr_html_()


def test_what_has_no_network():
    """A dash stands for what cannot be counted, and agreement that nobody knows is no number."""
    nothing = Footprint(None, None, 1000, None, 0.5)
    table = Footprints(nothing, Footprint(10, 10, 100, 20, 0.25), agreement=float("nan"))
    assert str(table).splitlines()[3].split() == ["teacher", "-", "-", "1,000", "-", "0.5", "1.000"]
    assert str(table).splitlines()[4].split()[-1] == "nan"
    assert table.to_dict()["macs"] == [None, 20]


def test_of_a_classifier(rows, make):
    """What a distillation measured: sizes of the student without its teacher, and the share of equal labels."""
    X, y = rows
    network = FineTunedClassifier("resnet18", weights=None, preprocessing={"resize_size": 32, "crop_size": 32})
    teacher = FrozenEstimator(network.set_params(freeze_depth="all", max_epochs=0, random_state=0).fit(X, y))
    student = make(teacher, max_epochs=0).fit(X, y)
    columns = student.footprint_.to_dict()
    stages = sum(stage.n_parameters for stage in network.backbone_.stages)
    assert columns["parameters"][0] == stages + 512 * 3 + 3  # with the new head
    assert columns["parameters"][1] < columns["parameters"][0] / 4
    assert columns["nbytes"][1] < columns["nbytes"][0] / 4
    assert columns["macs"][0] > 0
    assert min(columns["milliseconds"]) > 0
    assert columns["agreement"][1] == pytest.approx((student.predict(X) == teacher.predict(X)).mean())
    classic = make(LogisticRegression(C=0.1)).fit(X, y).footprint_.to_dict()
    assert classic["parameters"][0] is classic["macs"][0] is None
    assert classic["parameters"][1] == columns["parameters"][1]


def test_of_a_regressor(rows, make_regressor, watched_regressor):
    """Agreement is R² of the student's predictions, the teacher's being the truth."""
    X, _ = rows
    teacher = FrozenEstimator(watched_regressor.fit(X, X.mean(1)))
    student = make_regressor(teacher, alpha=1.0).fit(X)
    expected = r2_score(teacher.predict(X), student.predict(X))
    assert student.footprint_.to_dict()["agreement"][1] == pytest.approx(expected, abs=1e-4)
    assert 0.5 < expected < 1


def test_measuring_leaves_things_as_they_are(rows, make, watched, calls):
    """It is measured once, when it is asked for, past the caches, which hold what they held; so does the student."""
    X, y = rows
    student = make(watched).fit(X, y)
    expected, held = student.predict_proba(X), open_cache("auto").stats()
    calls.forget()
    first = student.footprint_
    assert calls.n_asked == (1 + 5) * 16
    assert calls.n_fits == 0
    assert student.footprint_ is first
    assert calls.n_asked == (1 + 5) * 16
    assert open_cache("auto").stats() == held
    np.testing.assert_array_equal(student.predict_proba(X), expected)
    assert student.fit(X, y).footprint_ is not first
