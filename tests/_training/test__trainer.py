"""The trainer: what it builds, starts and trains; new kinds of learners come through the same door as the package's."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional

from sktl import FineTunedClassifier, FineTunedRegressor
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS
from sktl._estimators._target_coding import ClassCoding, NoTargets
from sktl._frozen._activations import GivenActivations
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._training._data import TrainingData
from sktl._training._dataset import RowDataset
from sktl._training._losses import ClassificationLoss, WeightedLoss
from sktl._training._objective import ClassificationObjective, Objective, RegressionObjective
from sktl._training._rest_network import make_head
from sktl._training._settings import TrainingSettings
from sktl._training._soft_targets import SoftTargets
from sktl._training._trainer import Trainer, trained_backbone
from sktl.backbones import load_backbone
from sktl.exceptions import DivergenceError, InputError, TrainingWarning
from sktl.finetuning._finetuned import FineTunedEstimator

QUICK = TrainingSettings(max_epochs=2, lr=0.01, batch_size=8, device="cpu")


def weights(net):
    return {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}


def moved(net, before):
    """The names of what is not what it was, to the bit."""
    return {name for name, tensor in net.module_.state_dict().items() if not torch.equal(tensor, before[name])}


# --- a new kind of learner: a network that reconstructs its input -----------------------------------------------------


class AbsoluteError(WeightedLoss):
    def per_row(self, outputs, y):
        return (outputs - y).abs().mean(1)


class Reconstruction(Objective):
    """Each number of the image that the network sees, from 0 to 1."""

    def __init__(self, backbone):
        self.pixels = FrozenPrefix(PrefixSpec(backbone, ()), Runtime())
        super().__init__(math.prod(self.pixels.spec.image_shape))

    def loss(self, backbone):
        return AbsoluteError()

    def targets(self, table):
        (pixels,) = self.pixels.run(table.images)
        return torch.from_numpy(pixels.reshape(len(pixels), -1)).float() / 255


class Reconstructor(FineTunedEstimator):
    __init__ = FineTunedRegressor.__init__
    _parameter_constraints = NETWORK_CONSTRAINTS

    def _make_coding(self, is_new, classes):
        return NoTargets(type(self).__name__)

    def _make_objective(self, coding, table, depth, seed):
        return Reconstruction(self.backbone_)

    predict = FineTunedEstimator._outputs


# --- and one with a second loss over unlabeled rows -------------------------------------------------------------------


class EntropyLoss(ClassificationLoss):
    """Cross-entropy of the rows with a label, and the entropy of all (Grandvalet and Bengio, NeurIPS 2004)."""

    def per_row(self, outputs, y):
        log = outputs.log_softmax(1)
        return functional.nll_loss(log, y, ignore_index=-1, reduction="none") - 0.3 * (log.exp() * log).sum(1)

    def score(self, outputs, y, weight):
        return super().score(outputs[y >= 0], y[y >= 0], weight[y >= 0])


class EntropyMinimization(ClassificationObjective):
    def loss(self, backbone):
        return EntropyLoss()

    def probe(self, features, data, positions):
        known = data.table.y[positions] >= 0
        return super().probe(features[known], data, positions[known])


class SomeLabels(ClassCoding):
    def encode(self, y, weight, *, learns):
        known, index, factor = y != -1, np.full(len(y), -1), np.ones(len(y))
        index[known], factor[known] = super().encode(y[known], weight[known], learns=learns)
        return index, factor


class EntropyMinimizer(FineTunedClassifier):
    def _make_coding(self, is_new, classes):
        return SomeLabels(type(self).__name__, self.class_weight, classes, None if is_new else self.classes_)

    def _make_objective(self, coding, table, depth, seed):
        return EntropyMinimization(coding.n_outputs, self.label_smoothing)


# --- what they do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 2, 3])
def test_a_network_that_reconstructs_its_input(tiny, digits, make_table, make_data, depth):
    """An objective has targets of its own and a loss of one method: the error falls, and is that of the outputs."""
    X, _ = digits
    objective, table = Reconstruction(tiny), make_table(X, np.zeros(30))
    data = make_data(objective, tiny, depth, table.take(np.arange(20)), table.take(np.arange(20, 30)))
    trainer = Trainer(objective, QUICK.but(head_init="random", max_epochs=5, lr=0.03))
    net = trainer.build(tiny, data)
    before = weights(net)
    trainer.train(net, data)
    assert net.history[-1, "train_loss"] < 0.8 * net.history[0, "train_loss"]
    assert {name.partition(".")[0] for name in moved(net, before)} == ({"stages", "head"} if depth < 3 else {"head"})
    outputs = net.outputs(data.valid.activations.batch(np.arange(10), 0).numpy())
    pixels = np.repeat(np.rint(255 * X[20:])[..., None] / 255, 3, axis=-1).reshape(10, -1)
    error = np.abs(outputs - pixels).mean()
    assert net.history[-1, "valid_loss"] == pytest.approx(error, rel=1e-3)
    assert net.history[-1, "valid_score"] == pytest.approx(-error, rel=1e-3)


def test_a_second_loss_over_unlabeled_rows(tiny, digits, make_table, make_data):
    """Rows without a label are learned from too: the network becomes surer of them than labels alone make it."""
    X, y = digits
    y = np.where(np.arange(30) < 9, y, -1)
    table = make_table(X, y)
    entropies = {}
    for kind, rows in ((EntropyMinimization, np.arange(30)), (ClassificationObjective, np.arange(9))):
        objective = kind(3, 0.0)
        data = make_data(objective, tiny, 2, table.take(rows))
        trainer = Trainer(objective, QUICK.but(max_epochs=20))
        net = trainer.build(tiny, data)
        trainer.train(net, data)
        activations = make_data(objective, tiny, 2, table).rows.activations.batch(np.arange(9, 30), 0)
        log = torch.from_numpy(net.outputs(activations.numpy())).log_softmax(1)
        entropies[kind] = float(-(log.exp() * log).sum(1).mean())
    assert entropies[EntropyMinimization] < 0.9 * entropies[ClassificationObjective]


def test_the_reconstructor_is_an_estimator(digits):
    """It is fitted without targets, alone and in a pipeline, predicts images, and can be cloned, pickled, stopped."""
    X, _ = digits
    X = X.reshape(30, -1)
    small = {"resize_size": 8, "crop_size": 8}
    model = Reconstructor("sktl_mini", preprocessing=small, head_init="random", random_state=0, lr=0.01)
    fitted = clone(model).set_params(early_stopping=True, validation_fraction=0.2, max_epochs=3).fit(X, None)
    images = fitted.predict(X)
    assert images.shape == (30, 8 * 8 * 3)
    assert images.dtype == np.float32
    assert fitted.n_iter_ == 3
    assert fitted.history_[-1, "valid_score"] == pytest.approx(-fitted.history_[-1, "valid_loss"], rel=1e-4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), images)
    np.testing.assert_array_equal(clone(fitted).fit(X, np.arange(30)).predict(X), images)  # targets are none of it
    assert not hasattr(clone(fitted), "net_")
    inside = make_pipeline(MinMaxScaler(), clone(fitted)).fit(X, None)
    assert inside.predict(X).shape == images.shape
    with pytest.raises(
        InputError, match=r"fits the head to targets, but this estimator has none\. Use head_init='random'"
    ):
        clone(fitted).set_params(head_init="probe").fit(X, None)
    with pytest.raises(ValueError, match="'dropout' parameter of Reconstructor"):
        clone(fitted).set_params(dropout=2).fit(X, None)


def test_the_entropy_minimizer_is_an_estimator(digits):
    """A classifier with two methods of its own: labels are labels, unlabeled rows are none of the classes."""
    X, y = digits
    names = np.array(["a", "b", "c"], dtype=object)[y]
    given = np.where(np.arange(30) < 12, names, -1)
    model = EntropyMinimizer(freeze_depth="all", max_epochs=2, random_state=0)
    fitted = clone(model).fit(X, given)
    assert fitted.classes_.tolist() == ["a", "b", "c"]
    assert fitted.score(X, names) > 0.9
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    on_labels = FineTunedClassifier(freeze_depth="all", max_epochs=2, random_state=0).fit(X[:12], names[:12])
    assert not np.allclose(on_labels.predict_proba(X), fitted.predict_proba(X), atol=1e-4)
    assert (cross_val_predict(model, X, y, cv=2) == y).mean() > 0.8
    held_out = clone(model).set_params(early_stopping=True, validation_fraction=0.4).fit(X, given)
    assert 0 <= held_out.history_[-1, "valid_score"] <= 1


class Denoising(Objective):
    """Numbers without a backbone: a head of two layers reconstructs them."""

    def __init__(self, width):
        super().__init__(width)
        self.started = 0

    def loss(self, backbone):
        assert backbone is None
        return AbsoluteError()

    def head(self, n_features, settings, seed, previous=None):
        assert n_features == 0
        width = self.n_outputs
        return make_head((5,) if previous is None else previous, width, width, dropout=0.0, generator_seed=seed)

    def start(self, net, data):
        self.started += 1


def test_a_learner_without_a_backbone():
    """A table of numbers is learned from by the head alone, which a second training goes on with."""
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    rows = RowDataset(GivenActivations(x), x, weight=torch.ones(40), sample_weight=torch.ones(40))
    objective, data = Denoising(6), TrainingData(None, rows, rows, 0, 0)
    trainer = Trainer(objective, QUICK.but(max_epochs=20, lr=0.03))
    net = trainer.build(None, data)
    assert (net.module_.n_stages, objective.started) == (0, 1)
    trainer.train(net, data)
    assert net.history[-1, "valid_loss"] < 0.8 * net.history.start["valid_loss"]
    assert np.isfinite(net.outputs(x.numpy())).all()
    again = trainer.build(None, data, net)
    assert (len(again.history), objective.started) == (20, 1)
    for name, tensor in weights(net).items():
        assert torch.equal(again.module_.state_dict()[name], tensor)
    loaded = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(loaded.outputs(x.numpy()), net.outputs(x.numpy()))


# --- the trainer ------------------------------------------------------------------------------------------------------


@pytest.fixture
def make(tiny, digits, make_table, make_data):
    """Makes a trainer of three classes and its data, at some depth."""

    def make_both(depth=2, settings=QUICK, *, is_judged=False, seed=0):
        X, y = digits
        table, objective = make_table(X, y), ClassificationObjective(3, 0.0)
        valid = table.take(np.arange(20, 30)) if is_judged else None
        data = make_data(objective, tiny, depth, table.take(np.arange(20)), valid, seed=seed)
        return Trainer(objective, settings), data

    return make_both


def test_what_is_replaced_is_replaced_in_a_copy(make):
    """Another training with some settings; this one, which is a value, has those it had."""
    trainer, _ = make()
    other = trainer.but(max_epochs=7, dropout=0.5)
    assert (other.settings.max_epochs, other.settings.dropout) == (7, 0.5)
    assert (other.objective, other.pooling, other.settings.lr) == (
        trainer.objective,
        trainer.pooling,
        trainer.settings.lr,
    )
    assert trainer.settings == QUICK
    with pytest.raises(AttributeError, match="cannot assign"):
        trainer.pooling = "max"


def test_a_head_begins_with_the_probe(make, tiny):
    """With head_init='probe' it is logistic regression of what reaches it; a random one is of the data's seed alone."""
    trainer, data = make()
    net = trainer.build(tiny, data)
    linear = net.module_.head[-1]
    features = net.linear_inputs(data.rows, range(20), linear).astype(np.float64)
    probe = trainer.objective.probe(features, data, np.arange(20))
    np.testing.assert_allclose(linear.weight.detach(), probe.weight, rtol=1e-6)
    np.testing.assert_allclose(linear.bias.detach(), probe.bias, rtol=1e-6)
    random = trainer.but(head_init="random")
    first, again, other = (random.build(tiny, data._replace(seed=seed)).module_.head[-1].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, linear.weight)


def test_a_head_that_no_probe_can_start(make, tiny):
    """The error says what kind of head it is, and the ways out; without a probe, that head is fine."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 3)

        def forward(self, x):
            return self.inner(x)

    trainer, data = make(settings=QUICK.but(head=Odd()))
    with pytest.raises(
        InputError, match=r"head_init='probe' needs a head .* Got Odd instead.*head_init='random', or an nn"
    ):
        trainer.build(tiny, data)
    random = trainer.but(head_init="random")
    random.train(random.build(tiny, data), data)


def test_a_net_goes_on_from_a_previous_one(make, tiny):
    """It has the head, as it is and not as settings would make a new one, and the history; it is no probe's start."""
    trainer, data = make()
    previous = trainer.build(tiny, data)
    trainer.train(previous, data)
    head, backbone = weights(previous), trained_backbone(tiny, previous, 2)
    net = trainer.but(head=(5,), head_init="probe", lr=0.5).build(backbone, data, previous)
    assert net is not previous
    assert net.module_.head is not previous.module_.head
    assert moved(net, head) == set()
    assert net.history is previous.history
    assert (net.lr, len(net.history)) == (0.5, 2)
    trainer.train(net, data)
    assert net.history[:, "epoch"] == [1, 2, 3, 4]
    assert moved(previous, head) == set()


def test_settings_reach_the_net(make, tiny):
    """And what net_params says goes before them; what skorch does not know is an error that quotes them."""
    settings = QUICK.but(lr=0.3, lr_decay=0.7, weight_decay=0.2, optimizer="sgd", dropout=0.4, freeze_bn=False)
    trainer, data = make(settings=settings)
    net = trainer.build(tiny, data)
    assert (net.lr, net.lr_decay, net.weight_decay, net.batch_size, net.device) == (0.3, 0.7, 0.2, 8, "cpu")
    assert isinstance(net.optimizer_, torch.optim.SGD)
    assert net.module_.head[0].p == 0.4
    assert not net.module_.freeze_bn
    over = trainer.but(net_params={"lr": 0.9, "batch_size": 5}).build(tiny, data)
    assert (over.lr, over.batch_size, over.lr_decay) == (0.9, 5, 0.7)
    with pytest.raises(InputError, match=r"net_params=\{'nothing': 1\} is not accepted by skorch.NeuralNet"):
        trainer.but(net_params={"nothing": 1}).build(tiny, data)


def test_callbacks_of_settings_and_net_params_both_hear(make, tiny):
    """Those of the settings first, then those of net_params, then those of one training."""
    heard = []

    class Hear(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_begin(self, net, **kwargs):
            heard.append(self.name)

    settings = QUICK.but(callbacks=[("a", Hear("settings"))], net_params={"callbacks": [("b", Hear("net_params"))]})
    trainer, data = make(settings=settings.but(max_epochs=1))
    trainer.train(trainer.build(tiny, data), data, callbacks=[("c", Hear("training"))])
    assert heard == ["settings", "net_params", "training"]


def test_norms_of_a_network_without_statistics_learn_them(make, tiny):
    """With is_pretrained=False they learn fast and whatever freeze_bn says; pretrained ones stay as they are."""
    module = copy.deepcopy(tiny.module)
    module.layer2[1].momentum = 0.001
    slow = load_backbone(module, preprocessing=tiny.preprocessing)
    for is_pretrained, momentum in ((True, 0.001), (False, 0.1)):
        trainer, data = make(settings=QUICK.but(is_pretrained=is_pretrained))
        net = trainer.build(slow, data)
        (norm,) = [x for x in net.module_.stages.modules() if isinstance(x, nn.BatchNorm2d)]
        assert norm.momentum == momentum
        assert net.module_.freeze_bn == is_pretrained


def test_unfreezing_that_comes_to_no_end_is_warned_of(make, tiny):
    """With the figures; and each stage learns when it is due."""
    settings = QUICK.but(unfreeze_every=1, freeze_depth=1)
    trainer, data = make(1, settings)
    said = (
        "^With unfreeze_every=1, it takes 2 epochs to unfreeze all 2 stages that freeze_depth=1 leaves trainable, but "
        "training ends after max_epochs=2"
    )
    net = trainer.build(tiny, data)
    with pytest.warns(TrainingWarning, match=said):
        trainer.train(net, data)
    assert net.history[:, "n_frozen_stages"] == [3, 2]
    trainer = trainer.but(max_epochs=3)
    again = trainer.build(trained_backbone(tiny, net, 1), data, net)
    trainer.train(again, data)
    assert again.history[-3:, "n_frozen_stages"] == [3, 2, 1]  # a new training begins with the head alone
    trainer.train(again, data, is_step=True)
    assert again.history[-1, "n_frozen_stages"] == 1  # and a step of many goes by all epochs so far


def test_answers_beside_the_rows_are_learned(make, tiny):
    """With alpha=1 a net comes nearer to another one's answers, and labels play no part; both data are values."""
    trainer, data = make(2, QUICK.but(head_init="random", max_epochs=10, lr=0.05))
    answers = 3 * np.eye(3, dtype=np.float32)[(data.table.y + 1) % 3]
    taught = data.with_answers(answers, SoftTargets(1.0, 1.0))
    net = trainer.build(tiny, taught)
    trainer.train(net, taught)
    assert net.history[-1, "train_loss"] < 0.95 * net.history[0, "train_loss"]
    taught.rows.y = 2 - taught.rows.y
    other = trainer.build(tiny, taught)
    trainer.train(other, taught)
    assert moved(other, weights(net)) == set()
    assert data.soft_targets is None
    trainer.train(other := trainer.build(tiny, data), data)
    assert "head.0.weight" in moved(other, weights(net))


@pytest.mark.parametrize("is_step", [False, True])
def test_what_only_training_needs_is_forgotten(make, tiny, is_step):
    """The optimizer's moments are gone after a training, and kept after a step, for the next one."""
    trainer, data = make()
    net = trainer.build(tiny, data)
    trainer.train(net, data, is_step=is_step)
    assert bool(net.optimizer_.state) == is_step
    assert len(net.history) == (1 if is_step else 2)


def test_what_a_divergence_leaves(make, tiny):
    """Good weights, and no moments that have led away from them: of a step as well."""
    trainer, data = make(settings=QUICK.but(lr=1e30, head_init="random"))
    for is_step in (False, True):
        net = trainer.build(tiny, data)
        before = weights(net)
        with pytest.raises(DivergenceError, match=r"lr=1e\+30"):
            trainer.train(net, data, is_step=is_step)
        assert moved(net, before) == set()
        assert not net.optimizer_.state


def test_the_best_weights_are_kept_where_rows_are_evaluated_on(make, tiny):
    """Early stopping looks at rows to evaluate on; without it they are evaluated, and the last weights stay."""
    settings = QUICK.but(max_epochs=6, lr=0.5, n_iter_no_change=1)
    for early_stopping in (True, False):
        trainer, data = make(2, settings.but(early_stopping=early_stopping), is_judged=True)
        net = trainer.build(tiny, data)
        trainer.train(net, data)
        losses = [net.history.start["valid_loss"], *net.history[:, "valid_loss"]]
        best = int(np.argmin(losses))
        assert len(net.history) == (min(best + 1, 6) if early_stopping else 6)
        assert net.kept_epoch_ == (best if early_stopping else 6)
    trainer, data = make(2, settings.but(early_stopping=True))  # with nothing to evaluate on there is nothing to stop
    net = trainer.build(tiny, data)
    trainer.train(net, data)
    assert len(net.history) == 6


@pytest.mark.parametrize("depth", [0, 2, 3])
def test_the_network_that_was_trained(make, tiny, depth):
    """It has what the net has learned, and its other weights; with all stages frozen it is what it was."""
    trainer, data = make(depth, QUICK.but(lr=0.1))
    net = trainer.build(tiny, data)
    trainer.train(net, data)
    trained = trained_backbone(tiny, net, depth)
    assert (trained is tiny) == (depth == 3)
    before, after = tiny.module.state_dict(), trained.module.state_dict()
    moved_parts = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved_parts == {"stem", "layer1", "layer2"} - set(["stem", "layer1", "layer2"][:depth])
    learned = net.module_.stages.state_dict()
    assert all(torch.equal(after[name], learned[name]) for name in learned)


def test_numbers_are_learned_through_the_same_door(tiny, digits, make_table, make_data):
    """An objective of two numbers, with a hidden layer and max pooling."""
    X, _ = digits
    y = np.c_[X[:, :4].mean((1, 2)), X[:, 4:].mean((1, 2))].astype(np.float32)
    y = (y - y.mean(0)) / y.std(0)
    objective = RegressionObjective(2)
    data = make_data(objective, tiny, 2, make_table(X, y))
    trainer = Trainer(objective, QUICK.but(head=(6,), head_init="random", max_epochs=20, lr=0.05), pooling="max")
    net = trainer.build(tiny, data)
    assert [layer.out_features for layer in net.module_.head if isinstance(layer, nn.Linear)] == [6, 2]
    trainer.train(net, data)
    assert net.history[-1, "train_loss"] < 0.8 * net.history[0, "train_loss"]
