"""What a model costs: counts against those by hand, and a time that is one of really computing."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._estimators import _footprint
from sktl._estimators._footprint import Footprint, Footprints, footprint, footprints
from sktl._frozen._cache import open_cache
from sktl._frozen._prefix import FrozenPrefix
from sktl.backbones import load_backbone


@pytest.fixture
def calls(monkeypatch):
    """The seconds that calls take, from a clock that is set by hand."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(_footprint, "time", clock)
    return clock


class Slow(BaseEstimator):
    """Takes the seconds given, one after the other, and says how often it was called."""

    def __init__(self, clock, seconds):
        self.clock = clock
        self.seconds = seconds

    def __getstate__(self):
        return {}

    def predict(self, X):
        self.clock.now += self.seconds.pop(0)


def test_time_is_the_median_after_a_warm_up(calls):
    """The first call does not count, one slow call of five does not either, and it is per picture."""
    model = Slow(calls, [100.0, 1.0, 9.0, 3.0, 2.0, 4.0])
    assert footprint(model, [0] * 10).milliseconds == pytest.approx(300)
    assert model.seconds == []
    model = Slow(calls, [100.0, 7.0])
    assert footprint(model, np.zeros((2, 5)), n_repeats=1).milliseconds == pytest.approx(3500)


def test_several_take_turns(calls):
    """A machine that becomes slower and slower is slow to all: the ratio of two times is that of the models."""

    class Slower(Slow):
        def predict(self, X):
            self.clock.now += self.seconds * (1 + self.clock.now)

    models = {"one": Slower(calls, 1e-3), "twice": Slower(calls, 2e-3)}
    found = footprints(models, [0], n_repeats=9)
    assert list(found) == ["one", "twice"]
    assert found["twice"].milliseconds / found["one"].milliseconds == pytest.approx(2, rel=0.01)
    assert found["one"].milliseconds > 1.01  # it had become slower when its median was taken


@pytest.mark.parametrize("kind", ["extractor", "classifier"])
def test_nothing_comes_from_a_cache(digits, quick, monkeypatch, tmp_path, kind):
    """Each call runs the network for every picture, though a directory holds all of them, and leaves that as it is."""
    X, y = digits
    if kind == "extractor":
        model = make_pipeline(PretrainedFeatureExtractor(cache=tmp_path), LogisticRegression(max_iter=1000)).fit(X, y)
    else:
        model = FineTunedClassifier(cache=tmp_path, **quick).fit(X, y)
    model.predict(X)
    before = open_cache(tmp_path).stats()
    caches = []
    run = FrozenPrefix.run
    monkeypatch.setattr(
        FrozenPrefix,
        "run",
        lambda self, *args, **kwargs: caches.append(self.runtime.cache) or run(self, *args, **kwargs),
    )
    assert footprint(model, X, n_repeats=2).milliseconds > 0
    assert caches == [None] * 3
    assert open_cache(tmp_path).stats() == before


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000)),
        FineTunedClassifier(max_epochs=1, freeze_depth="all"),
    ],
)
def test_bytes_are_those_that_pickle_writes(digits, model):
    """Of a classic model, a pipeline with a network, and a net alike."""
    X, y = digits
    X = X.reshape(len(X), -1)
    model.fit(X, y)
    assert footprint(model, X, n_repeats=1).nbytes == len(pickle.dumps(model, pickle.HIGHEST_PROTOCOL))


@pytest.mark.parametrize("depth", ["all", -2, 0])
def test_a_trained_network(digits, depth):
    """All stages and the head count once, frozen or not, with the values that they have now."""
    X, y = digits
    model = FineTunedClassifier(freeze_depth=depth, head=(7,), max_epochs=1, lr=1e-4).fit(X, y)
    with torch.no_grad():
        model.net_.module_.head[0].weight[:] = 0
        model.net_.module_.head[0].bias[:] = torch.arange(7) + 1.0
        model.net_.module_.head[2].weight[:] = 1
        model.net_.module_.head[2].bias[:] = 1
    found = footprint(model, X, n_repeats=1)
    stages = load_backbone("sktl_mini").stages
    in_head = [512 * 7, 7, 7 * 3, 3]
    assert found.parameters == sum(stage.n_parameters for stage in stages) + sum(in_head)
    frozen = footprint(PretrainedFeatureExtractor(FrozenEstimator(model)).fit(X), X, n_repeats=1)
    assert found.nonzero == frozen.nonzero + sum(in_head[1:])
    assert found.macs == sum(stage.macs for stage in stages) + 512 * 7 + 7 * 3


def test_zeros_of_the_trained_stages_are_seen(digits):
    """What training made of a stage counts, not the weights that it started from."""
    X, y = digits
    model = FineTunedClassifier(freeze_depth=-1, max_epochs=0).fit(X, y)
    before = footprint(model, X, n_repeats=1)
    name, weight = next(iter(model.backbone_.module.layer4.named_parameters(prefix="layer4")))
    model.backbone_ = model.backbone_.with_weights({name: torch.zeros_like(weight)})
    after = footprint(model, X, n_repeats=1)
    assert after.parameters == before.parameters
    assert after.nonzero == before.nonzero - weight.numel()


class Branches(nn.Module):
    """Two branches of 5 and 6 channels behind a layer of 4, and a layer behind both."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.left = nn.Conv2d(4, 5, 1, bias=False)
        self.right = nn.Conv2d(4, 6, 1, bias=False)
        self.last = nn.Conv2d(11, 7, 1, bias=False)

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3))


@pytest.mark.parametrize(
    ("layers", "weights"),
    [
        (["first"], [3 * 4 * 9]),
        (["right"], [3 * 4 * 9, 4 * 6]),
        (["first", "left"], [3 * 4 * 9, 4 * 5]),
        (["left", "right"], [3 * 4 * 9, 4 * 5, 4 * 6]),
    ],
)
def test_an_extractor_runs_to_its_deepest_layer(digits, layers, weights):
    """What no layer asked for needs does not count, and what several branches need counts once."""
    backbone = load_backbone(Branches(), preprocessing={"resize_size": 8, "crop_size": 8}, random_state=0)
    found = footprint(PretrainedFeatureExtractor(backbone, layers=layers).fit(digits[0]), digits[0], 1)
    assert (found.parameters, found.nonzero) == (sum(weights), sum(weights))
    assert found.macs == 64 * sum(weights)  # each weight at each of 8 x 8 places


def test_it_is_found_where_find_fitted_looks(digits):
    """In a search over a pipeline, calibrated and frozen around it, and in some columns of a table, it is the same."""
    X, y = digits
    pipe = make_pipeline(PretrainedFeatureExtractor(layers="layer2"), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1]}, cv=2).fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(search)).fit(X, y)
    alone = footprint(search.best_estimator_[0], X, n_repeats=1)
    assert alone.parameters > 0
    mixed = make_column_transformer((PretrainedFeatureExtractor(layers="layer2"), slice(0, 64)))
    table = make_pipeline(mixed, LogisticRegression(max_iter=1000))
    rows = X.reshape(len(X), -1)
    for model, given in ((search, X), (calibrated, X), (table.fit(rows, y), rows)):
        found = footprint(model, given, n_repeats=1)
        assert (found.parameters, found.nonzero, found.macs) == (alone.parameters, alone.nonzero, alone.macs)
        assert found.nbytes > alone.nbytes


def test_without_a_network_there_is_nothing_to_count(digits):
    """A classic model has bytes and a time; so has a table with two networks."""
    X, y = digits
    X = X.reshape(len(X), -1)
    mixed = make_column_transformer(*[(PretrainedFeatureExtractor(layers=0), slice(0, 64))] * 2)
    for model in (LogisticRegression(), make_pipeline(mixed, LogisticRegression(max_iter=1000))):
        found = footprint(model.fit(X, y), X, n_repeats=1)
        assert isinstance(found, Footprint)
        assert (found.parameters, found.nonzero, found.macs) == (None, None, None)
        assert found.nbytes > 0
        assert found.milliseconds > 0


def test_others_may_call_something_a_backbone(digits):
    """An estimator that is not ours and has attributes of the same names is not taken for ours."""

    class Theirs(LogisticRegression):
        backbone_ = "resnet"
        layers_ = 3

    Theirs.__reduce__ = lambda self: (object, ())
    X, y = digits[0].reshape(30, -1), digits[1]
    assert footprint(Theirs().fit(X, y), X, n_repeats=1).parameters is None


def test_a_regressor_and_a_real_network(shared_data):
    """MobileNetV2 has the published 2,223,872 parameters in front of its classifier, and about 300 million MACs."""
    X = [np.full((40, 50, 3), shade, np.uint8) for shade in (10, 200)]
    weights = shared_data / "mobilenet_v2_imagenet" / "model.safetensors"
    settings = {"weights": weights, "freeze_depth": "all", "max_epochs": 0, "head_init": "random"}
    model = FineTunedRegressor("mobilenet_v2", preprocessing={"resize_size": 256}, **settings).fit(X, [0.0, 1.0])
    found = footprint(model, X, n_repeats=1)
    assert found.parameters == 2_223_872 + 1280 + 1
    assert 295e6 < found.macs < 305e6
    assert found.nbytes > 4 * found.parameters


@pytest.mark.parametrize(
    ("model", "change", "error", "message"),
    [
        (FineTunedClassifier(), {}, NotFittedError, "not fitted"),
        (PretrainedFeatureExtractor(), {}, NotFittedError, "not fitted"),
        (
            LogisticRegression().fit([[0], [1]], [0, 1]),
            {"n_repeats": 0},
            ValueError,
            "'n_repeats' parameter must be at least 1. Got 0",
        ),
        (LogisticRegression().fit([[0], [1]], [0, 1]), {"X": []}, ValueError, "X is empty. Pass at least one image"),
    ],
)
def test_bad_input(digits, model, change, error, message):
    """Each is an error that says what is wrong."""
    with pytest.raises(error, match=message):
        footprint(model, **{"X": digits[0], **change})


# --- the table of several ---------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    """Of a teacher whose network is large, and a student of an eighth of its bytes and a quarter of its time."""
    teacher = Footprint(11_000_000, 10_000_000, 48_000_000, 1_800_000_000, 12.0)
    student = Footprint(1_100_000, 1_000_000, 6_000_000, 90_000_000, 3.0)
    return Footprints({"teacher": teacher, "student": student}, agreement=[1.0, 0.9375])


def test_a_row_for_each(table):
    """Columns by name, as a dict and as a frame; the teacher agrees with itself."""
    pd = pytest.importorskip("pandas")
    columns = table.to_dict()
    assert list(columns) == ["model", *Footprint._fields, "agreement"]
    assert columns["model"] == ["teacher", "student"]
    assert columns["parameters"] == [11_000_000, 1_100_000]
    assert columns["milliseconds"] == [12.0, 3.0]
    assert columns["agreement"] == [1.0, 0.9375]
    pd.testing.assert_frame_equal(table.to_frame(), pd.DataFrame(columns))


def test_it_reads_well(table):
    """The title says what was won, numbers have their thousands apart, and HTML says the same."""
    title, _, *headings, teacher, student = str(table).splitlines()
    agreement = "agreement with the teacher on the training images"  # not an accuracy
    assert title == (
        f"The student model takes 0.25 times the time and 0.125 times the bytes of the teacher; {agreement}: 0.938"
    )
    assert headings[-1].split()[0] == "model"
    assert f">{agreement}</th>" in table._repr_html_()
    assert teacher.split() == ["teacher", "11,000,000", "10,000,000", "48,000,000", "1,800,000,000", "12", "1.000"]
    assert student.split() == ["student", "1,100,000", "1,000,000", "6,000,000", "90,000,000", "3", "0.938"]
    for cell in (*teacher.split(), *student.split()):
        assert f">{cell}<" in table._repr_html_()


def test_what_has_no_network():
    """A dash stands for what cannot be counted, and agreement that nobody knows is no number."""
    nothing = Footprint(None, None, 1000, None, 0.5)
    models = {"teacher": nothing, "student": Footprint(10, 10, 100, 20, 0.25)}
    table = Footprints(models, agreement=[1.0, float("nan")])
    assert str(table).splitlines()[-2].split() == ["teacher", "-", "-", "1,000", "-", "0.50", "1.000"]
    assert str(table).splitlines()[-1].split()[-1] == "nan"
    title = "The student model takes 0.5 times the time and 0.1 times the bytes of the teacher"
    assert str(table).splitlines()[0] == title
    assert table.to_dict()["macs"] == [None, 20]


def test_a_row_for_each_of_several():
    """The first is the reference of the table's title, and the last is what came of it in the end."""
    costs = [Footprint(100, 100, nbytes, 10, time) for nbytes, time in [(800, 4.0), (400, 5.0), (100, 2.0)]]
    table = Footprints(dict(zip(["original", "pruned", "int8"], costs, strict=True)), agreement=[1.0, 0.99, 0.9])
    title, *_, first, second, third = str(table).splitlines()
    assert title == (
        "The int8 model takes 0.5 times the time and 0.125 times the bytes of the original; agreement with the "
        "original on the training images: 0.900"
    )
    assert [row.split()[0] for row in (first, second, third)] == ["original", "pruned", "int8"]
    assert table.to_dict()["agreement"] == [1.0, 0.99, 0.9]


def test_without_bytes_the_title_is_about_time():
    """What cannot be pickled has no bytes to be compared with."""
    models = {"teacher": Footprint(None, None, None, None, 2.0), "student": Footprint(10, 10, 100, 20, 1.0)}
    title = str(Footprints(models, agreement=[1.0, 0.5])).splitlines()[0]
    expected = "The student model takes 0.5 times the time of the teacher; agreement with the teacher on the training"
    assert title == f"{expected} images: 0.500"


def test_one_footprint_reads_as_well():
    """What `footprint` gives shows itself as a table, as several do, and stays a tuple of numbers."""
    cost = Footprint(11_000_000, 10_000_000, 48_000_000, None, 12.345)
    title, _, *_, headings, row = repr(cost).splitlines()
    assert title == "Footprint: cost per image and size"
    assert headings.split() == ["parameters", "nonzero", "bytes", "multiply-accumulates", "ms", "per", "image"]
    assert row.split() == ["11,000,000", "10,000,000", "48,000,000", "-", "12.3"]
    assert '<td style="text-align: right">48,000,000</td>' in cost._repr_html_()
    assert cost == (11_000_000, 10_000_000, 48_000_000, None, 12.345)
    assert pickle.loads(pickle.dumps(cost)) == cost
