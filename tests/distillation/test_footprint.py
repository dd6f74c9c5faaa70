"""What a distillation says of its teacher and its student: what each costs, and how much they agree."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score

from sktl import FineTunedClassifier
from sktl._frozen._cache import open_cache


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
