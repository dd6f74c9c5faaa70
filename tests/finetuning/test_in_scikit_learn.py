"""Fine-tuned estimators in company: meta-estimators, callbacks of skorch and of scikit-learn, other processes."""

import copy
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.backbones import load_backbone


@pytest.fixture(scope="module")
def make(quick):
    """Makes a classifier that fits in no time."""
    return lambda **params: FineTunedClassifier(**{**quick, **params})


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """The digits as PNG files."""
    names, folder = [], tmp_path_factory.mktemp("digits")
    for number, picture in enumerate(digits[0]):
        names.append(str(folder / f"{number}.png"))
        Image.fromarray((255 * picture).astype(np.uint8)).save(names[-1])
    return names


@pytest.fixture
def two_threads():
    """Torch has two threads, wherever the test runs: one would be there whether it was put back or not."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- meta-estimators --------------------------------------------------------------------------------------------------


META = {
    "bagging": lambda model: BaggingClassifier(model, n_estimators=3, random_state=0),
    "voting": lambda model: VotingClassifier([("a", model), ("b", clone(model))], voting="soft"),
    "stacking": lambda model: StackingClassifier([("a", model)], cv=2),
    "calibrated": lambda model: CalibratedClassifierCV(model, cv=2),
    "boosted": lambda model: AdaBoostClassifier(model, n_estimators=2, random_state=0),
    "one against the rest": OneVsRestClassifier,
    "pipeline": lambda model: make_pipeline(FunctionTransformer(), model),
}


@pytest.mark.parametrize("name", META)
def test_meta_estimators(digits, make, name):
    """They clone, weigh, resample and combine it as any classifier, with labels that are strings."""
    X, y = digits
    rows, labels = X.reshape(30, -1), np.array(["zero", "one", "two"])[y]
    model = META[name](make()).fit(rows, labels)
    assert model.score(rows, labels) > 0.9
    assert model.classes_.tolist() == ["one", "two", "zero"]


def test_a_fitted_one_is_calibrated_as_it_is(digits, make):
    """FrozenEstimator keeps the network through the clones of a meta-estimator."""
    X, y = digits
    model = make().fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(X, y)
    assert calibrated.calibrated_classifiers_[0].estimator.estimator.net_ is model.net_


@pytest.fixture(scope="module")
def search(make):
    """A search over depths, rates and backbones."""
    grid = [
        {"freeze_depth": ["all", -1], "lr": [0.001, 0.01]},
        {"backbone": ["sktl_mini", "mobilenet_v3_small"], "weights": [None], "preprocessing": [{"crop_size": 32}]},
    ]
    return GridSearchCV(make(), grid, cv=2, error_score="raise")


@pytest.fixture(scope="module")
def scores_of_one_worker(search, files, digits):
    """The search's scores where one candidate comes after the other."""
    return clone(search).fit(files, digits[1]).cv_results_["mean_test_score"]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_parallel_search_is_the_serial_one(files, digits, search, scores_of_one_worker, backend, two_threads):
    """Depths, rates and backbones are searched over in two workers with the scores that one has.

    torch's threads are as many afterwards as before, in this thread and in one that begins later.
    """
    with joblib.parallel_backend(backend, n_jobs=2):
        got = clone(search).fit(files, digits[1]).cv_results_["mean_test_score"]
    np.testing.assert_allclose(got, scores_of_one_worker, atol=0.04)  # other numbers of threads round otherwise
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_cross_validated_predictions(digits, make):
    """They come in the table's order, with a column for each class also where a fold's rows are sorted by class."""
    X, y = digits
    order = np.argsort(y, kind="stable")
    probabilities = cross_val_predict(make(), X[order], y[order], cv=3, method="predict_proba")
    assert probabilities.shape == (30, 3)
    assert (probabilities.argmax(1) == y[order]).mean() > 0.7


def test_tables_of_paths(files, digits, make):
    """A one-column DataFrame, a Series and a list of paths are the same table, whatever the index."""
    _, y = digits
    expected = make().fit(files, y).predict_proba(files)
    index = [f"row {i}" for i in range(30)]
    for X in (pd.DataFrame({"photo": files}, index=index), pd.Series(files, index=index)):
        model = make().fit(X, pd.Series(y, index=index))
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        np.testing.assert_array_equal(model.predict_proba(X.iloc[::-1]), expected[::-1])


def test_clones_have_all_parameters_and_nothing_learnt(digits, make):
    """clone() copies every parameter, fit changes none, and what a user gave is not written to."""
    given = {"net_params": {"optimizer__betas": (0.8, 0.9)}, "callbacks": [], "class_weight": {0: 2}, "head": (4,)}
    model = make(**given, preprocessing={"crop_size": 24})
    before = copy.deepcopy(model.get_params())
    model.fit(*digits)
    assert model.get_params() == before
    assert clone(model).get_params() == before
    assert not hasattr(clone(model), "net_")


def test_set_params_changes_the_next_fit(digits, make):
    """Another backbone, head or depth is another network: a search over them is no silent no-op."""
    X, y = digits
    model = make().fit(X, y)
    assert model.net_.module_.head[-1].in_features == 512
    model.set_params(backbone="mobilenet_v3_small", weights=None, preprocessing={"crop_size": 32}).fit(X, y)
    assert model.net_.module_.head[-1].in_features == 576
    assert model.set_params(head=(5,)).fit(X, y).net_.module_.head[-1].in_features == 5


def test_nothing_happens_before_fit(monkeypatch, make):
    """Building, cloning and showing one loads no network and validates nothing."""
    monkeypatch.setattr(
        "sktl._estimators._network_estimator.resolve_backbone", lambda *args: pytest.fail("loaded a network")
    )
    model = clone(make(backbone="resnet18", lr=-1)).set_params(cache="nowhere")
    assert "resnet18" in repr(model)
    assert "FineTunedClassifier" in model._repr_html_()


def test_its_trained_network_is_a_backbone(digits, make):
    """Extractors and other fine-tuned estimators start from what it has learnt, and leave it as it is."""
    X, y = digits
    model = make(freeze_depth=-2, lr=0.01).fit(X, y)
    learnt = {key: value.clone() for key, value in model.backbone_.module.state_dict().items()}
    untouched = load_backbone("sktl_mini").module.state_dict()
    assert any(not torch.equal(value, untouched[key]) for key, value in learnt.items() if key.startswith("layer4"))
    frozen = FrozenEstimator(model)
    features = PretrainedFeatureExtractor(frozen).fit_transform(X)
    logits = features @ model.net_.module_.head[-1].weight.detach().numpy().T
    logits += model.net_.module_.head[-1].bias.detach().numpy()
    np.testing.assert_allclose(logits, model.decision_function(X), rtol=1e-3, atol=1e-3)
    for backbone in (model, frozen):
        second = FineTunedRegressor(backbone, freeze_depth="all", max_epochs=1, random_state=0).fit(X, y)
        for key, value in second.backbone_.module.state_dict().items():
            torch.testing.assert_close(value, learnt[key], rtol=0, atol=0, msg=lambda said, key=key: f"{key}: {said}")
    make(backbone=frozen, freeze_depth=0, lr=0.1).fit(X, y)
    assert all(torch.equal(value, learnt[key]) for key, value in model.backbone_.module.state_dict().items())
    with pytest.raises(ValueError, match="FrozenEstimator"):
        make(backbone=make()).fit(X, y)


# --- callbacks --------------------------------------------------------------------------------------------------------


def share_right(net, X, y):
    return float((net.predict(X) == np.asarray(y)).mean())


@pytest.mark.parametrize("scoring", ["accuracy", share_right], ids=["name", "callable"])
def test_skorch_scores_epochs(digits, make, scoring):
    """EpochScoring writes into the history, on the rows learnt from and on those judged on."""
    X, y = digits
    y_val = np.r_[y[:8], 1 - y[8:10] % 2]  # two are wrong, so that not every score is one
    scores = [EpochScoring(scoring, name="learnt", on_train=True), EpochScoring(scoring, name="judged")]
    model = make(callbacks=scores).fit(X, y, X_val=X[:10], y_val=y_val)
    assert model.history_[-1, "judged"] == model.history_[-1, "valid_score"] == model.score(X[:10], y_val) < 1
    assert model.history_[-1, "learnt"] > 0.9


def test_skorch_scores_a_regressor(digits, quick):
    """The name of a regression score does for a regressor, of which the net knows standardised targets."""
    X, y = digits
    scores = [EpochScoring("r2", name="judged", lower_is_better=False)]
    model = FineTunedRegressor(**quick, callbacks=scores).fit(X, y, X_val=X[:10], y_val=y[:10])
    assert model.history_[-1, "judged"] == pytest.approx(model.score(X[:10], y[:10]), abs=1e-5)


def test_the_net_predicts_activations(digits, make):
    """Given what comes out of the frozen stages as an array, the skorch net predicts class numbers as we do labels."""
    X, y = digits
    model = make().fit(X, np.array(["zero", "one", "two"])[y])
    features = PretrainedFeatureExtractor().fit_transform(X)
    numbers = model.net_.predict(features)
    assert numbers.shape == (30,)
    np.testing.assert_array_equal(model.classes_[numbers], model.predict(X))
    np.testing.assert_allclose(model.net_.predict_proba(features), model.decision_function(X), rtol=1e-4, atol=1e-4)


def test_skorch_moves_the_rates(digits, make):
    """With a constant schedule, the rates are the scheduler's."""
    scheduler = LRScheduler("StepLR", step_size=1, gamma=0.1)
    model = make(callbacks=[scheduler], lr_schedule="constant", max_epochs=3, lr=0.01).fit(*digits)
    assert model.history_[:, "lr"] == pytest.approx([0.01, 0.001, 0.0001])


def test_skorch_stops_early(digits, make):
    """Its EarlyStopping ends the training without a warning, and what was learnt is kept."""
    X, y = digits
    stopping = EarlyStopping("train_loss", patience=2, threshold=10.0, threshold_mode="abs")
    model = make(callbacks=[("stopping", stopping)], max_epochs=9).fit(X, y)
    assert model.n_iter_ == 3  # the first is better than nothing, two are not better than that
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedules_of_the_rate(digits, make, schedule):
    """The history says the rate that each epoch began with; partial_fit has the full one again."""
    model = make(lr_schedule=schedule, max_epochs=4, lr=0.08).fit(*digits)
    falling = {"cosine": [1, 0.853553, 0.5, 0.146447], "linear": [1, 0.75, 0.5, 0.25], "constant": [1] * 4}
    assert model.history_[:, "lr"] == pytest.approx(0.08 * np.array(falling[schedule]), rel=1e-4)
    assert model.partial_fit(*digits).history_[-1, "lr"] == pytest.approx(0.08)


def test_net_params_reach_skorch(digits, make):
    """Options of the optimizer, workers of the loader and more callbacks; the results are those without workers."""

    class Count(Callback):
        n_batches = 0

        def on_batch_end(self, net, training=False, **kwargs):
            self.n_batches += training

    counts = [Count(), Count()]
    settings = {"iterator_train__num_workers": 1, "optimizer__betas": (0.5, 0.6), "callbacks": counts[1:]}
    model = make(batch_size=10, callbacks=counts[:1], net_params=settings).fit(*digits)
    assert [count.n_batches for count in counts] == [6, 6]
    assert {group["betas"] for group in model.net_.optimizer_.param_groups} == {(0.5, 0.6)}
    alone = make(batch_size=10, net_params={"optimizer__betas": (0.5, 0.6)}).fit(*digits)
    np.testing.assert_array_equal(model.predict_proba(digits[0]), alone.predict_proba(digits[0]))


class Recorder:
    """A callback of scikit-learn's protocol that notes the tasks it hears of, and may ask to stop."""

    def __init__(self, last=99):
        self.tasks, self.last = [], last

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and self.tasks.count("epoch") == self.last


@pytest.mark.parametrize(
    ("settings", "n_epochs"),
    [({"max_epochs": 3}, 3), ({"max_epochs": 9, "early_stopping": True, "lr": 100.0, "n_iter_no_change": 2}, 2)],
    ids=["all", "early"],
)
def test_scikit_learns_callbacks_hear_of_each_epoch(digits, make, settings, n_epochs):
    """As many tasks as epochs, also where early stopping ends sooner; then a teardown."""
    recorder = Recorder()
    model = make(**settings).set_callbacks(recorder).fit(*digits)
    assert model.n_iter_ == n_epochs
    assert recorder.tasks == ["setup", "fit", *["epoch"] * n_epochs, "teardown"]
    recorder.tasks.clear()
    model.partial_fit(*digits)
    assert recorder.tasks == ["setup", "fit", "epoch", "teardown"]


def test_a_callback_of_scikit_learn_may_stop_a_fit(digits, make):
    """Where one asks to stop after an epoch, that was the last one."""
    assert make(max_epochs=9).set_callbacks(Recorder(last=4)).fit(*digits).n_iter_ == 4


@pytest.mark.parametrize(("kind", "scoring"), [(FineTunedClassifier, "accuracy"), (FineTunedRegressor, "r2")])
def test_scikit_learn_scores_each_epoch(digits, quick, kind, scoring):
    """ScoringMonitor sees an estimator that predicts with what is learnt so far; watching changes nothing."""
    X, y = digits
    monitor = ScoringMonitor(scoring=scoring)
    model = kind(**{**quick, "max_epochs": 3, "freeze_depth": -1, "dropout": 0.3}).set_callbacks(monitor).fit(X, y)
    scores = [row[scoring] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 3
    assert scores[-1] == pytest.approx(model.score(X, y))
    alone = clone(model).set_callbacks().fit(X, y)
    np.testing.assert_array_equal(alone.predict(X), model.predict(X))


def test_scikit_learns_callbacks_in_a_search(digits, make, capsys):
    """The progress bar shows the estimators in the search, and the monitor has a score for each of their epochs."""
    pytest.importorskip("rich")
    monitor = ScoringMonitor(scoring="accuracy")
    search = GridSearchCV(make().set_callbacks(monitor), {"lr": [0.001, 0.01]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*digits)
    assert sum(row["task_name"] == "epoch" for row in monitor.get_logs().data) == (2 * 2 + 1) * 2
    assert "FineTuned" in capsys.readouterr().out


def test_verbose_prints_each_epoch(digits, make, capsys):
    """verbose=1 says how far the frozen stages are and has a line for each epoch; by default nothing is printed."""
    make().fit(*digits)
    assert capsys.readouterr().out == ""
    make(verbose=1).fit(*digits)
    shown = capsys.readouterr().out
    assert "[FineTunedClassifier] 30 of 30 images" in shown
    assert "train_loss" in shown
    assert len(shown.splitlines()) == 5


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_it_predicts_in_a_new_process(files, digits, make, in_new_process):
    """Loaded where nothing else is, with a network of its own and strings for labels, it predicts the same."""
    labels = np.array(["zero", "one", "two"])[digits[1]]
    model = make(freeze_depth=-1, head=nn.Sequential(nn.Dropout(0.1), nn.Linear(512, 3))).fit(files, labels)
    got = in_new_process("result = model.predict(X), model.predict_proba(X)", model=model, X=files)
    assert got[0].tolist() == model.predict(files).tolist()
    np.testing.assert_allclose(got[1], model.predict_proba(files), rtol=1e-4, atol=1e-5)
