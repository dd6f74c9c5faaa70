"""What a teacher's layers hold for each image: of which images, in which units, of which shapes."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from sktl import PretrainedFeatureExtractor
from sktl.distillation._layers import pair_layers
from sktl.distillation._teacher_layers import TeacherLayers


def test_hints_are_in_units_of_the_teachers(rows, make, stranger):
    """A teacher whose last norms give a thousand times as much teaches the same: a weight means the same everywhere."""
    settings = {"knowledge": "feature", "alpha": 1.0, "freeze_depth": -1, "layers": [("layer3", "layer4")]}
    quiet = make(stranger, **settings).fit(*rows).history_[:, "train_loss"]
    loud = copy.deepcopy(stranger)
    state = loud.estimator.backbone_.module.state_dict()
    # A map is a relu of the sum of two norms: theirs are the scales and shifts.
    scales = {
        name: 1000 * x for name, x in state.items() if name.startswith("layer3") and x.ndim == 1 and "run" not in name
    }
    loud.estimator.backbone_ = loud.estimator.backbone_.with_weights(scales)
    got = make(loud, **settings).fit(*rows).history_[:, "train_loss"]
    assert got == pytest.approx(quiet, rel=0.5)


def test_layers_of_a_pipelines_network(rows, make, monkeypatch):
    """Hints come from pictures as the steps in front of the network make them, and not from those given."""
    X, y = rows
    settings = {"knowledge": {"feature": 1.0, "relation": 1.0}, "alpha": 1.0, "freeze_depth": -1}
    invert = FunctionTransformer(np.negative), MinMaxScaler((0, 1), clip=True)
    plain = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    turned = make_pipeline(*invert, PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    outside = make_pipeline(*invert).fit_transform(X)
    on_turned = make(turned, **settings).fit(X, y)
    seen = {}
    usual = TeacherLayers.columns
    monkeypatch.setattr(TeacherLayers, "columns", lambda self, table: seen | (seen.update(usual(self, table)) or seen))
    spy = make(turned, **settings).fit(X, y)
    np.testing.assert_array_equal(spy.predict_proba(X), on_turned.predict_proba(X))
    through = seen["embedding"].clone()
    make(plain, **settings).fit(X, y)
    assert not torch.allclose(through, seen["embedding"], rtol=0.1)
    (direct,) = (PretrainedFeatureExtractor().fit(outside).transform(outside),)
    order = [np.abs(direct - row.numpy()).max(1).argmin() for row in through]
    assert sorted(order) == list(range(30))
    np.testing.assert_allclose(through.numpy(), direct[order], rtol=1e-3, atol=1e-4)


@pytest.fixture
def make_layers(network):
    """Makes what is read of a fitted classifier, whose student is of the same kind."""

    def make_some(kinds, *, has_embedding=False, layers=(("layer3", "layer2"), ("layer3", "layer4"))):
        backbone = network.estimator.backbone_
        pairs = pair_layers(list(layers), backbone, backbone, 0)
        return pairs, TeacherLayers(network, pairs, kinds, has_embedding=has_embedding, cache=None)

    return make_some


def test_a_column_for_each_kind_and_pair(rows, make_table, make_layers):
    """Maps at the student's resolution with the teacher's channels, attention as vectors; and what reaches the head."""
    table = make_table(*rows)
    pairs, layers = make_layers(["feature", "attention"], has_embedding=True)
    columns = layers.columns(table.take(np.arange(6)))
    assert sorted(columns) == ["attention0", "attention1", "embedding", "feature0", "feature1"]
    for number, pair in enumerate(pairs):
        assert columns[f"feature{number}"][torch.arange(6)].shape == (6, pair.n_teacher, *pair.size)
        assert columns[f"attention{number}"][torch.tensor([4, 1])].shape == (2, pair.size[0] * pair.size[1])
    assert columns["embedding"].shape[0] == 6
    assert list(make_layers([], has_embedding=True)[1].columns(table.take(np.arange(2)))) == ["embedding"]


def test_the_first_table_says_the_unit(rows, make_table, make_layers):
    """Its hints have a standard deviation of one; those of another table are in the same units, and not in its own."""
    table = make_table(*rows)
    _, layers = make_layers(["feature"])
    first = layers.columns(table)["feature0"][torch.arange(30)]
    assert float(first.std()) == pytest.approx(1, rel=1e-4)
    later = layers.columns(table.take(np.array([7])))["feature0"][torch.arange(1)]
    torch.testing.assert_close(later, first[7:8], rtol=1e-4, atol=1e-4)
