"""What all compressors share: what they fit, what they leave alone, what is cached, weighed, told and pickled."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback

from sktl import DistilledClassifier, FineTunedClassifier, FineTunedRegressor
from sktl._training._trainer import Trainer
from sktl.compression import LotteryTicketClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.distillation import _teacher
from sktl.exceptions import DivergenceError


def everything(fitted):
    """All numbers of a fitted classifier: its network's, the lent one's, and its history."""
    tensors = {**fitted.net_.module_.state_dict(), **fitted.backbone_.module.state_dict(prefix="backbone.")}
    return {name: tensor.clone() for name, tensor in tensors.items()}, copy.deepcopy(list(fitted.history_))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the original -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [{}, {"freeze_depth": 0}, {"freeze_depth": "all"}, {"granularity": "filter"}], ids=str
)
def test_a_frozen_original_stays_what_it_is(make, prune, table, params):
    """Not one of its bits, parameters, marks or predictions changes, and it is not fitted again."""
    if "granularity" in params:
        pytest.importorskip("torch_pruning")
    fitted = make(head=(7,)).fit(*table)
    before, history = everything(fitted)
    settings, logits, net = fitted.get_params(), fitted.decision_function(table[0]), fitted.net_
    model = prune(FrozenEstimator(fitted), n_rounds=2, **params).fit(*table)
    assert model.estimator_ is not fitted
    assert fitted.net_ is net
    after, history_after = everything(fitted)
    assert same(before, after)
    assert history_after == history
    assert fitted.get_params() == settings
    assert not any(hasattr(module, "_keeps_zeros") for module in fitted.net_.module_.modules())
    np.testing.assert_array_equal(fitted.decision_function(table[0]), logits)
    own = {tensor.data_ptr() for tensor in fitted.net_.module_.state_dict().values() if tensor.numel() > 1}
    assert own.isdisjoint(tensor.data_ptr() for tensor in model.estimator_.net_.module_.state_dict().values())
    model.estimator_.partial_fit(*table)
    assert same(before, everything(fitted)[0])


def test_a_clone_is_fitted(make, compress, table):
    """An estimator that is not frozen is fitted as a clone: itself it stays unfitted, or fitted as it was."""
    estimator = make()
    compress(estimator).fit(*table)
    assert not hasattr(estimator, "net_")
    estimator.fit(table[0][:20], table[1][:20])
    before, _ = everything(estimator)
    model = compress(estimator).fit(*table)
    assert same(before, everything(estimator)[0])
    fresh = make().fit(*table)
    if isinstance(model, PrunedClassifier):
        np.testing.assert_array_equal(model._original.decision_function(table[0]), fresh.decision_function(table[0]))


def test_a_training_with_other_settings_leaves_parameters_alone(prune, fitted, table):
    """The smaller one is trained for other epochs and rates than its parameters say, which they say all the same."""
    seen = []

    class Look(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.append((model.estimator_.get_params(), net.lr, net.max_epochs))

    original = copy.deepcopy(fitted).set_params(callbacks=[("look", Look())])
    model = prune(FrozenEstimator(original), max_epochs=3, lr=0.002, n_rounds=1)
    model.fit(*table)
    assert [(lr, epochs) for _, lr, epochs in seen] == [(0.002, 3)] * 3
    kept = {"max_epochs": 2, "lr": 0.01, "lr_decay": 0.5, "freeze_bn": True, "unfreeze_every": None}
    for params in (model.estimator_.get_params(), *(params for params, *_ in seen)):
        assert {name: params[name] for name in kept} == kept


@pytest.mark.parametrize("depth", [None, 1, 2, "stem", "all", -1])
def test_frozen_stages_are_bit_identical_and_cached(make, prune, table, n_run, depth):
    """Up to freeze_depth nothing changes, and where the estimator froze as much no picture goes through again."""
    fitted = make(head=(7,)).fit(*table)
    model = prune(FrozenEstimator(fitted), freeze_depth=depth, n_rounds=2)
    n_run[0] = 0
    model.fit(*table)
    own, before = model.estimator_.backbone_, fitted.backbone_
    n_frozen = model.estimator_.freeze_depth_
    assert n_frozen == {None: 1, "stem": 1, "all": 3, -1: 2}.get(depth, depth)
    assert n_run == ([0] if n_frozen == 1 else [40])
    for stage in before.stages[:n_frozen]:
        assert own.fingerprint(stage.name) == before.fingerprint(stage.name)
    for stage in before.stages[n_frozen:]:
        assert own.fingerprint(stage.name) != before.fingerprint(stage.name)
    model.predict(table[0])
    assert n_run == ([0] if n_frozen == 1 else [40])


def test_freezing_less_than_the_estimator(make, prune, table, zeros):
    """freeze_depth=0 takes weights from stages that the estimator had frozen, and goes on training them."""
    model = prune(make(freeze_depth="all"), freeze_depth=0, amount=0.5, max_epochs=3).fit(*table)
    assert model.estimator_.freeze_depth_ == model.estimator_.freeze_depth == 0
    found = zeros(model)
    assert len(found) == 4
    assert found["stages.stem.0"].any()
    assert model.score(*table) > 0.5


def test_no_epochs(make, prune, table):
    """max_epochs=0 compresses and does not train; an estimator without epochs is compressed as it begins."""
    for estimator in (make(), make(max_epochs=0)):
        model = prune(estimator, max_epochs=0, amount=0.2).fit(*table)
        assert len(model.estimator_.history_) == estimator.max_epochs
        assert model.score(*table) > 0.5


def test_rates(make, prune, table):
    """Training goes at the estimator's rate or the compressor's, all stages alike unless lr_decay says otherwise."""
    rates = {}

    class Rates(Callback):
        def on_train_begin(self, net, **kwargs):
            groups = net.optimizer_.param_groups
            rates[len(net.history)] = {group["stage"]: group["base_lr"] for group in groups}

    estimator = make(lr_decay=0.5, callbacks=[Rates()])
    for params, expected in (
        ({}, {"head": 0.01, "layer2": 0.01, "layer1": 0.01}),
        ({"lr": 0.002, "lr_decay": 0.1}, {"head": 0.002, "layer2": 0.0002, "layer1": 0.00002}),
    ):
        model = prune(estimator, **params).fit(*table)
        assert rates[0] == pytest.approx({"head": 0.01, "layer2": 0.005, "layer1": 0.0025})
        assert rates[2] == pytest.approx(expected)
        assert (model.estimator_.lr, model.estimator_.lr_decay, model.estimator_.max_epochs) == (0.01, 0.5, 2)


# --- rows -------------------------------------------------------------------------------------------------------------


SETTINGS = [{}, {"early_stopping": True, "dropout": 0.2}, {"class_weight": "balanced"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_weight_is_a_number_of_copies(make, compress, table, settings):
    """Weights of 0, 2 and 3 and rows that are there so many times give the same network, to the bit."""
    X, y = table
    n_copies = np.random.default_rng(0).integers(0, 4, 40)
    weighted = compress(make(**settings)).fit(X, y, sample_weight=n_copies)
    repeated = compress(make(**settings)).fit(np.repeat(X, n_copies, axis=0), np.repeat(y, n_copies))
    logits = weighted.decision_function(X)
    np.testing.assert_array_equal(logits, repeated.decision_function(X))
    assert not np.array_equal(logits, compress(make(**settings)).fit(X, y).decision_function(X))


@pytest.mark.parametrize("inner_seed", [None, 3])
def test_one_seed_is_one_network(make, prune, table, inner_seed):
    """random_state reproduces all, also as the seed of an estimator without one; labels may be texts."""
    X, y = table[0], np.array(["zero", "one", "two"])[table[1]]
    model = prune(make(random_state=inner_seed, dropout=0.3), criterion="random")
    first, again = (clone(model).fit(X, y) for _ in range(2))
    other = clone(model).set_params(random_state=1).fit(X, y)
    assert first.classes_.tolist() == ["one", "two", "zero"]
    np.testing.assert_array_equal(first.decision_function(X), again.decision_function(X))
    assert not np.array_equal(first.decision_function(X), other.decision_function(X))
    shifted = (first._original.decision_function(X) == other._original.decision_function(X)).all()
    assert shifted == (inner_seed is not None)


def test_rows_to_judge_on(make, compress, table):
    """X_val reaches the estimator and what is trained here, with its weights; one without y_val is an error."""
    X, y = table
    given = {"X_val": X[30:], "y_val": y[30:], "sample_weight_val": np.arange(1, 11)}
    model = compress(make(early_stopping=True)).fit(X[:30], y[:30], **given)
    scores = model.estimator_.history_[:, "valid_score"]
    weighted = make(early_stopping=True).fit(X[:30], y[:30], **given)
    assert model._original.history_[:2, "valid_score"] == weighted.history_[:2, "valid_score"]
    assert scores[-1] * 55 == pytest.approx(round(scores[-1] * 55))
    with pytest.raises(ValueError, match="X_val and y_val must be passed together"):
        compress().fit(X, y, X_val=X)


def test_early_stopping_inside(make, prune, table):
    """What is trained here stops early too, on the rows that the original was judged on, and keeps the best weights."""
    model = prune(make(early_stopping=True, n_iter_no_change=1, lr=3.0), lr=3.0, max_epochs=20, amount=0.1).fit(*table)
    assert len(model.estimator_.history_) < 10
    assert model.score(*table) > 0.5


def test_metadata_is_routed(make, prune, table):
    """With routing, weights go to the estimator where it asks for them, and not without a word where it does not."""
    X, y = table
    weight = np.linspace(0.1, 2, 40)
    expected = prune().fit(X, y, sample_weight=weight).decision_function(X)
    with config_context(enable_metadata_routing=True):
        asks = prune(make().set_fit_request(sample_weight=True)).set_fit_request(sample_weight=True)
        asks.set_score_request(sample_weight=False)
        np.testing.assert_array_equal(asks.fit(X, y, sample_weight=weight).decision_function(X), expected)
        refuses = prune(make().set_fit_request(sample_weight=False)).fit(X, y, sample_weight=weight)
        unweighted = make().fit(X, y).decision_function(X)
        np.testing.assert_array_equal(refuses._original.decision_function(X), unweighted)
        with pytest.raises(UnsetMetadataPassedError):
            prune().fit(X, y, sample_weight=weight)
        search = GridSearchCV(asks, {"amount": [0.3, 0.6]}, cv=2).fit(X, y, sample_weight=weight)
        assert search.score(X, y) > 0.5


# --- company ----------------------------------------------------------------------------------------------------------


def test_a_search_over_amounts(prune, table):
    """A grid search in two processes gives what it gives in one."""
    grid = {"amount": [0.3, 0.9]}
    one = GridSearchCV(prune(), grid, cv=2, error_score="raise").fit(*table)
    two = GridSearchCV(prune(), grid, cv=2, error_score="raise", n_jobs=2).fit(*table)
    np.testing.assert_allclose(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], atol=0.03)
    assert two.predict(table[0]).shape == (40,)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_search_inside(make, prune, table, is_frozen):
    """The best network of a search is what becomes smaller, be the search fitted already or not."""
    search = GridSearchCV(make(), {"lr": [0.01, 1e-6]}, cv=2)
    model = prune(FrozenEstimator(search.fit(*table)) if is_frozen else search).fit(*table)
    best = model._original.best_estimator_
    assert model.estimator_.lr == best.lr == search.fit(*table).best_params_["lr"]
    assert model.score(*table) > 0.5
    assert model.footprint_.to_dict()["nonzero"][1] < model.footprint_.to_dict()["nonzero"][0]


def test_in_company(prune, table):
    """Pipelines, calibration and cross-validated predictions take a compressor as any classifier."""
    X, y = table
    probabilities = cross_val_predict(prune(), X, y, cv=2, method="predict_proba")
    assert probabilities.shape == (40, 3)
    assert make_pipeline(FunctionTransformer(), prune()).fit(X, y).score(X, y) > 0.5
    model = prune().fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(X, y)
    assert calibrated.calibrated_classifiers_[0].estimator.estimator is model


@pytest.mark.parametrize("knowledge", ["response", {"response": 1.0, "feature": 1.0}], ids=["response", "feature"])
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_a_student_inside(backbone, fitted, prune, table, knowledge, granularity, monkeypatch):
    """The teacher goes on teaching, without being fitted again; layers whose filters were cut are compared too."""
    if granularity == "filter":
        pytest.importorskip("torch_pruning")
    _teacher._FITTED.clear()
    n_fits = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda *args, **kwargs: n_fits.append(1) or fit(*args, **kwargs))
    teacher = LogisticRegression() if knowledge == "response" else FrozenEstimator(fitted)
    settings = {"freeze_depth": 1, "max_epochs": 1, "lr": 0.01, "random_state": 0, "head_init": "random"}
    student = DistilledClassifier(teacher, backbone, knowledge=knowledge, **settings)
    model = prune(student, granularity=granularity, amount=0.4, n_rounds=2).fit(*table)
    assert len(n_fits) == (knowledge == "response")
    assert model.estimator_.teacher_ is not None
    assert len(model.estimator_.history_) == 3
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(table[0]), model.decision_function(table[0]))
    assert 0 <= model.estimator_.footprint_.to_dict()["agreement"][1] <= 1


# --- callbacks --------------------------------------------------------------------------------------------------------


class Recorder:
    """A callback of scikit-learn's protocol that notes the tasks it hears of."""

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        self.most = context.max_subtasks

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)
        if context.task_name == "fit":
            self.most = context.max_subtasks

    def on_fit_task_end(self, estimator, context):
        return False


COUNTED = {
    "pruned": lambda make: PrunedClassifier(make(), n_rounds=2, max_epochs=3),
    "lottery": lambda make: LotteryTicketClassifier(make(), n_rounds=2, rewind_epoch=1),
    "one control": lambda make: LotteryTicketClassifier(make(), n_rounds=2, controls=False, ticket="random_mask"),
    "no control": lambda make: LotteryTicketClassifier(make(), n_rounds=2, controls=False),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_callbacks_hear_of_each_epoch(make, table, kind):
    """As many epochs as were announced, of all rounds and controls."""
    recorder = Recorder()
    model = COUNTED[kind](make).set_callbacks(recorder).fit(*table)
    assert recorder.tasks == ["fit", *["epoch"] * model._count_epochs()]
    assert recorder.most == model._count_epochs()


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_scikit_learn_scores_each_epoch(prune, draw, table, granularity):
    """ScoringMonitor sees a compressor that predicts with what is there so far; watching changes nothing."""
    if granularity == "filter":
        pytest.importorskip("torch_pruning")
    for model, n_epochs in ((prune(granularity=granularity, max_epochs=2), 2), (draw(), 4)):
        monitor = ScoringMonitor(scoring="accuracy")
        watched = clone(model).set_callbacks(monitor).fit(*table)
        scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        assert len(scores) == n_epochs
        assert scores[-1] == pytest.approx(watched.score(*table))
        alone = clone(model).fit(*table)
        np.testing.assert_array_equal(alone.decision_function(table[0]), watched.decision_function(table[0]))


# --- failures ---------------------------------------------------------------------------------------------------------


REFUSED = {
    "regressor": lambda make: FineTunedRegressor(max_epochs=1),
    "no network": lambda make: LogisticRegression(),
    "pipeline": lambda make: make_pipeline(FunctionTransformer(), make()),
    "search over a regressor": lambda make: GridSearchCV(LogisticRegression(), {"C": [1]}),
    "calibrated": lambda make: CalibratedClassifierCV(make()),
    "frozen": lambda make: FrozenEstimator(LogisticRegression().fit([[0], [1]], [0, 1])),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_network(make, compress, table, kind, monkeypatch):
    """It is refused before anything is fitted, and the error says what would do."""
    estimator = REFUSED[kind](make)
    for part in (FineTunedClassifier, FineTunedRegressor, LogisticRegression):
        monkeypatch.setattr(part, "fit", None)
    with pytest.raises((TypeError, ValueError), match=r"FineTunedClassifier|'estimator' parameter"):
        compress(estimator).fit(*table)


@pytest.mark.parametrize("wrap", [lambda x: x, PrunedClassifier, lambda x: GridSearchCV(x, {"lr": [0.1]})])
def test_frozen_and_not_fitted(make, prune, table, wrap):
    """A frozen estimator has to be fitted, and the error says both ways out."""
    with pytest.raises(
        NotFittedError,
        match=r"(?s)^estimator=Frozen.* is frozen and not fitted\. Fit it first, or pass it without FrozenEst",
    ):
        prune(FrozenEstimator(wrap(make()))).fit(*table)


def test_before_fit(compress, table):
    """Without a fit there are no predictions and no footprint."""
    for ask in (lambda model: model.predict(table[0]), lambda model: model.footprint_):
        with pytest.raises(NotFittedError):
            ask(compress())


@pytest.mark.parametrize("kind", ["weights", "filters", "low_rank", "codebook"])
def test_the_whole_network_teaches(make, table, kind):
    """With alpha=1 labels say nothing, whoever compresses; with less they do."""
    X, y = table
    frozen = FrozenEstimator(make(head_init="random", augment="flip").fit(X, y))
    compressor = {
        "weights": PrunedClassifier(frozen, n_rounds=2),
        "filters": PrunedClassifier(frozen, granularity="filter"),
        "low_rank": LowRankClassifier(frozen),
        "codebook": QuantizedClassifier(frozen, scheme="codebook"),
    }[kind].set_params(max_epochs=1)
    wrong = (y + 1) % 3
    for alpha, is_heard in ((1.0, False), (0.5, True)):
        right_and_wrong = (clone(compressor).set_params(alpha=alpha).fit(X, labels) for labels in (y, wrong))
        first, second = (model.decision_function(X) for model in right_and_wrong)
        assert np.array_equal(first, second) != is_heard


def test_what_it_teaches(make, prune, table, monkeypatch):
    """The rows have the whole network's answers for the pictures as they are, in all rounds, and their own weights."""
    X, y = table
    weight = np.r_[np.zeros(5), np.linspace(1, 3, 35)]
    original = make(class_weight={0: 5, 1: 1, 2: 1}, augment="flip").fit(X, y)
    trained_on = []
    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda *a, **kw: trained_on.append(a[2]) or train(*a, **kw))
    settings = {"alpha": 0.25, "temperature": 3.0, "freeze_depth": 0, "n_rounds": 2}
    prune(FrozenEstimator(original), **settings).fit(X, y, sample_weight=weight)
    assert len(trained_on) == 2
    for data in trained_on:
        assert data.soft_targets == (0.25, 3.0)
        rows = data.table.images.positions
        np.testing.assert_allclose(data.rows.columns["soft_target"], original._outputs(X[rows]), atol=1e-5)
        np.testing.assert_allclose(data.rows.columns["soft_target_weight"], weight[rows] / 2, rtol=1e-6)
    prune(FrozenEstimator(original), alpha=0).fit(X, y)
    assert trained_on[-1].soft_targets is None
    assert "soft_target" not in trained_on[-1].rows.columns


class FailAt(Callback):
    """Raises an error in the first batch of a later training."""

    def __init__(self, error, n_before):
        self.error, self.n_before = error, n_before

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) > self.n_before:
            raise self.error


def test_a_fit_that_fails(make, prune, table):
    """Nothing of an earlier fit speaks for a failed one; the next fit is as if nothing had been."""
    model = prune().fit(*table)
    assert model.footprint_ is not None
    expected = model.decision_function(table[0])
    model.set_params(estimator=make(callbacks=[FailAt(ZeroDivisionError(), 2)]))
    with pytest.raises(ZeroDivisionError):
        model.fit(*table)
    for ask in (lambda: model.predict(table[0]), lambda: model.footprint_):
        with pytest.raises(NotFittedError):
            ask()
    model.set_params(estimator=make())
    np.testing.assert_array_equal(model.fit(*table).decision_function(table[0]), expected)


def test_a_rate_that_is_too_large(make, prune, table):
    """A divergence is said, and the estimator inside has weights that are numbers."""
    model = prune(lr=1e30)
    with pytest.raises(DivergenceError):
        model.fit(*table)
    assert all(parameter.isfinite().all() for parameter in model.estimator_.net_.module_.parameters())
    assert np.isfinite(model.predict_proba(table[0])).all()


def test_interrupted_while_the_classifier_trains(make, prune, table):
    """Ctrl-C before anything was made smaller is raised again, and nothing looks like a compressed network."""
    model = prune(make(callbacks=[FailAt(KeyboardInterrupt(), 1)]))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    with pytest.raises(NotFittedError):
        model.predict(table[0])


def test_interrupted(make, prune, table, zeros):
    """Ctrl-C in the retraining is raised again; the network has its zeros, predicts, and has its footprint."""
    model = prune(make(callbacks=[FailAt(KeyboardInterrupt(), 2)]), amount=0.5, max_epochs=5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert len(model.estimator_.history_) == 2
    assert len(model.footprint_.to_dict()["model"]) == 2
    assert any(mask.any() for mask in zeros(model).values())
    assert model.predict(table[0]).shape == (40,)


def test_interrupted_between_rounds(make, prune, table, zeros):
    """Ctrl-C in a round ends that one with its zeros, and no other round begins."""
    classifier = make(callbacks=[FailAt(KeyboardInterrupt(), 3)])
    model = prune(classifier, amount=0.875, n_rounds=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert len(model.estimator_.history_) == 3  # two of the classifier, one of the first round
    masks = [mask for path, mask in zeros(model).items() if path != "head.0"]
    assert sum(mask.sum() for mask in masks) == round(0.75 * sum(mask.size for mask in masks))
    assert model.predict(table[0]).shape == (40,)


def test_a_student_shares_its_teacher_with_what_was_made_of_it():
    """A teacher may be larger than its student by far: there is one of it, and it is in no pickle of the copy."""
    X, y = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8), np.arange(8) % 2
    student = DistilledClassifier(LogisticRegression(), max_epochs=0, freeze_depth=-1, random_state=0).fit(
        X.reshape(8, -1), y
    )
    pruned = PrunedClassifier(FrozenEstimator(student), max_epochs=0).fit(X.reshape(8, -1), y)
    assert pruned.estimator_.teacher_ is student.teacher_
    assert pruned.estimator_.net_ is not student.net_
