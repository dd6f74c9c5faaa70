"""The table of what learns, and how fast."""

import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from torch import nn

from sktl import FineTunedClassifier, FineTunedRegressor
from sktl.exceptions import TrainingWarning

STAGES = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]


def summary(digits, quick, kind=FineTunedClassifier, **params):
    return kind(**{**quick, "max_epochs": 1, **params}).fit(*digits).trainable_summary()


@pytest.mark.parametrize("kind", [FineTunedClassifier, FineTunedRegressor])
def test_rates_fall_from_the_head_to_the_first_stage(digits, quick, kind):
    """lr_decay is the factor from each stage to the one before; what is frozen has a rate of zero."""
    table = summary(digits, quick, kind, freeze_depth=2, lr=0.08, lr_decay=0.5).to_dict()
    assert table["layer"] == STAGES
    assert table["trainable"] == [False, False, True, True, True, True]
    assert table["learning_rate"] == pytest.approx([0, 0, 0.01, 0.02, 0.04, 0.08])


def test_one_rate_for_all(digits, quick):
    """lr_decay=1 is the same rate for each stage, which the schedule of the fit has not changed in the table."""
    table = summary(digits, quick, freeze_depth=0, lr=0.003, lr_decay=1.0, max_epochs=2).to_dict()
    assert table["learning_rate"] == pytest.approx([0.003] * 6)


def test_it_counts_the_parameters(digits, quick):
    """The numbers are those of the network's own tensors and of the head's."""
    model = FineTunedClassifier(**quick, head=(7,)).fit(*digits)
    table = model.trainable_summary().to_dict()
    module = model.backbone_.module
    expected = [sum(p.numel() for p in getattr(module, name).parameters()) for name in STAGES[:-1]]
    assert table["parameters"] == [*expected, 512 * 7 + 7 + 7 * 3 + 3]


def test_stages_that_wait_are_frozen_still(digits, quick):
    """With gradual unfreezing it shows what learnt in the last epoch."""
    with pytest.warns(TrainingWarning, match="training ends after max_epochs=2"):
        table = summary(digits, quick, freeze_depth=0, unfreeze_every=1, max_epochs=2).to_dict()
    assert table["trainable"] == [False] * 4 + [True] * 2


def test_it_reads_well(digits, quick):
    """As text, as HTML and as a DataFrame it has a title or a row for each layer, the head last."""
    table = summary(digits, quick, lr=0.001)
    lines = str(table).splitlines()
    assert lines[0] == "sktl_mini: 1,539 of 1,657,923 parameters are trainable"
    assert lines[2].split() == ["layer", "parameters", "trainable", "learning", "rate"]
    assert [line.split()[0] for line in lines[3:]] == STAGES
    assert lines[-1].split() == ["head", "1,539", "yes", "0.001"]
    assert lines[3].split() == ["stem", "928", "frozen", "0.000"]
    html = table._repr_html_()
    assert html.startswith("<table")
    assert '>1,539</td><td style="text-align: right">yes</td>' in html
    frame = table.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame["layer"].tolist() == STAGES
    assert frame["parameters"].sum() == 1_657_923


def test_a_head_of_the_users_with_norms(digits, quick):
    """Norms and biases are groups of their own in the optimizer, and one row in the table."""
    head = nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 3))
    table = summary(digits, quick, head=head).to_dict()
    assert table["parameters"][-1] == 1024 + 512 * 3 + 3
    assert table["learning_rate"][-1] == pytest.approx(quick["lr"])


def test_there_is_none_before_fit():
    """An unfitted estimator says that it is not fitted."""
    with pytest.raises(NotFittedError):
        FineTunedClassifier().trainable_summary()
