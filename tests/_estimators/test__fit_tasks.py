"""What scikit-learn hears of a fit, and the attributes that a fit leaves behind."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.callback import with_callbacks

from sktl import FineTunedClassifier
from sktl._estimators._checked_table import FitInput
from sktl._estimators._fit_tasks import fit_task, fitted_attributes, forget_fit


class Recorder:
    """A callback of scikit-learn's protocol that notes the tasks it hears of, and may ask to stop."""

    def __init__(self, n_last=99):
        self.heard, self.n_last = [], n_last

    def setup(self, estimator, context):
        self.heard.append("setup")

    def teardown(self, estimator, context):
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X, y, metadata):
        self.heard.append((f"{context.task_name} begins", X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata):
        self.heard.append((f"{context.task_name} ends", X, y, metadata))
        return sum(entry[0] == "epoch ends" for entry in self.heard) == self.n_last

    @property
    def names(self):
        return [entry if isinstance(entry, str) else entry[0] for entry in self.heard]


class Fails(FineTunedClassifier):
    """Its fit has a task and does nothing, or fails in it."""

    error = None

    @with_callbacks
    def fit(self, X, y, sample_weight=None):
        with fit_task(self, FitInput(X, y, sample_weight), 3) as (name, tasks):
            assert name == "epoch_tasks"
            self.tasks = tasks
            if self.error:
                raise self.error
        return self


@pytest.mark.parametrize(("weight", "metadata"), [(None, {}), ([1, 2], {"sample_weight": [1, 2]})])
def test_a_fit_is_a_task(weight, metadata):
    """It begins and ends with what it is fitted to, the weights among its metadata if there are some."""
    recorder = Recorder()
    Fails().set_callbacks(recorder).fit("X", "y", weight)
    assert recorder.heard == ["setup", ("fit begins", "X", "y", metadata), ("fit ends", "X", "y", metadata), "teardown"]


def test_a_fit_that_fails_does_not_end():
    """scikit-learn's teardown comes all the same, and threads are as they were."""
    recorder, model, before = Recorder(), Fails(), torch.get_num_threads()
    model.error = RuntimeError("no")
    with pytest.raises(RuntimeError, match="no"):
        model.set_callbacks(recorder).fit("X", "y")
    assert recorder.names == ["setup", "fit begins", "teardown"]
    assert torch.get_num_threads() == before


def test_epochs_are_tasks_of_the_fit(digits, quick):
    """In their order, and one that asks to stop ends the training."""
    recorder = Recorder(n_last=2)
    FineTunedClassifier(**{**quick, "max_epochs": 5}).set_callbacks(recorder).fit(*digits)
    epoch = ["epoch begins", "epoch ends"]
    assert recorder.names == ["setup", "fit begins", *epoch, *epoch, "fit ends", "teardown"]


def test_what_a_fit_leaves_behind():
    """Attributes that end with an underscore, and begin with none, are those of the fit; no others are forgotten."""
    estimator = SimpleNamespace(lr=1, net_=2, _coding=3, _private_=4, history_=5)
    assert fitted_attributes(estimator) == {"net_": 2, "history_": 5}
    forget_fit(estimator)
    assert vars(estimator) == {"lr": 1, "_coding": 3, "_private_": 4}
