"""Quantized classifiers: what each scheme stores, that it predicts the same after a reload, and what it refuses."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from sktl import FineTunedClassifier
from sktl._estimators._network_estimator import frozen_prefix
from sktl.compression import PrunedClassifier, QuantizedClassifier, _quantized
from sktl.compression._compressed import compressible
from sktl.exceptions import EngineError, MissingDependencyError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCHEMES = {
    "int8": {"scheme": "int8"},
    "int8 of all": {"scheme": "int8", "freeze_depth": 0},
    "int8 of the head": {"scheme": "int8", "freeze_depth": "all"},
    "float16": {"scheme": "float16"},
    "codebook": {"scheme": "codebook", "max_epochs": 1},
}


@pytest.fixture(scope="module")
def table(digits):
    """Thirty digits of three kinds, as rows of pixels, and their labels."""
    X, y = digits
    return X.reshape(len(X), -1), y


@pytest.fixture(scope="module")
def original(table):
    """What is quantised: one stage and the head were trained."""
    return FineTunedClassifier(max_epochs=1, random_state=0).fit(*table)


@pytest.fixture(scope="module")
def models(original, table):
    """The original, quantised in each way."""
    return {
        name: QuantizedClassifier(FrozenEstimator(original), random_state=0, **params).fit(*table)
        for name, params in SCHEMES.items()
    }


@pytest.mark.parametrize("name", SCHEMES)
def test_it_predicts_as_the_original_does(models, original, table, name):
    """Probabilities are near the original's, and labels are the same."""
    X, _ = table
    model = models[name]
    np.testing.assert_array_equal(model.predict(X), original.predict(X))
    if name != "codebook":  # which was trained on
        np.testing.assert_allclose(model.predict_proba(X), original.predict_proba(X), atol=0.05)
        assert not np.array_equal(model.predict_proba(X), original.predict_proba(X))
    np.testing.assert_array_equal(model.classes_, original.classes_)


@pytest.mark.parametrize("name", SCHEMES)
def test_pickles_and_copies_predict_the_same(models, table, name):
    """To the bit, alone and beside others."""
    X, _ = table
    expected = models[name].predict_proba(X)
    for other in (pickle.loads(pickle.dumps(models[name])), copy.deepcopy(models[name])):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert len(pickle.dumps(other)) < 1.01 * len(pickle.dumps(models[name]))
    np.testing.assert_array_equal(
        np.concatenate([models[name].predict_proba(X[i : i + 1]) for i in range(3)]), expected[:3]
    )


def test_a_new_process_predicts_the_same(models, table, in_new_process):
    """What was pickled by one process is the same classifier in another."""
    X, _ = table
    code = "result = {name: model.predict_proba(X) for name, model in models.items()}"
    for name, probabilities in in_new_process(code, models=models, X=X).items():
        np.testing.assert_array_equal(probabilities, models[name].predict_proba(X))


def test_each_scheme_takes_the_bytes_that_it_says(original, table):
    """Of the whole network: about a quarter in int8, a half in half precision, and 4 of 32 bits with a codebook."""
    floats = len(pickle.dumps(original))
    bounds = {"int8": 0.27, "float16": 0.52, "codebook": 0.15}
    for scheme, bound in bounds.items():
        model = QuantizedClassifier(FrozenEstimator(original), scheme=scheme, freeze_depth=0, max_epochs=0).fit(*table)
        assert len(pickle.dumps(model)) < bound * floats, scheme


@pytest.mark.parametrize("bits", [1, 3])
def test_a_codebook_has_as_many_values_as_its_bits_say(original, table, bits):
    """After training with the estimator's optimizer, and in the head, which was found anew."""
    model = QuantizedClassifier(FrozenEstimator(original), scheme="codebook", bits=bits, max_epochs=2).fit(*table)
    layers = compressible(model.estimator_.net_.module_)
    assert len(layers) == 4
    before = compressible(original.net_.module_)
    for path, layer in layers.items():
        assert len(torch.unique(layer.weight)) <= 2**bits
        assert not torch.equal(layer.weight, before[path].weight)


def test_training_moves_the_codes(original, table):
    """With epochs the shared values are others than without."""
    values = []
    for max_epochs in (0, 2):
        model = QuantizedClassifier(FrozenEstimator(original), scheme="codebook", max_epochs=max_epochs).fit(*table)
        values.append(torch.unique(compressible(model.estimator_.net_.module_)["stages.layer4.conv1"].weight))
        assert len(model.estimator_.history_) >= max_epochs
    assert not torch.equal(*values)


def test_half_precision_rounds_what_learns_and_nothing_else(models, original):
    """All parameters behind the cut are numbers in half precision; the frozen stages are the original's to the bit."""
    network = models["float16"].estimator_.net_.module_
    for parameter in network.parameters():
        assert torch.equal(parameter, parameter.half().float())
        assert parameter.dtype == torch.float32
    frozen = {name for name, _ in original.backbone_.module.named_parameters() if not name.startswith("layer4")}
    before, after = (
        dict(model.backbone_.module.named_parameters()) for model in (original, models["float16"].estimator_)
    )
    kept = frozen & after.keys()
    assert len(kept) > 10
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_numbers_too_large_for_half_precision_stay():
    """Rounding makes no infinities."""
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1e6, 0.1]]))
    _quantized._round_to_half(linear)
    assert linear.weight.tolist() == [[1e6, float(torch.tensor(0.1).half())]]


def test_the_original_stays_as_it_is(original, table):
    """A frozen estimator is used and not changed, whatever the scheme."""
    X, y = table
    before = original.predict_proba(X)
    state = copy.deepcopy(original.net_.module_.state_dict())
    for params in SCHEMES.values():
        QuantizedClassifier(FrozenEstimator(original), **params).fit(X, y)
    np.testing.assert_array_equal(original.predict_proba(X), before)
    assert all(torch.equal(state[name], value) for name, value in original.net_.module_.state_dict().items())


@pytest.mark.parametrize("name", ["int8", "int8 of all", "int8 of the head"])
def test_the_footprint_of_integers(models, original, name):
    """Multiply-accumulates are as before; parameters lose the folded norms; nonzero ones those that became 0."""
    footprint = models[name].footprint_.to_dict()
    assert footprint["macs"][0] == footprint["macs"][1]
    n_before, n_after = footprint["parameters"]
    # A norm has a shift and a scale for each channel; the convolution that it becomes part of gets a bias.
    n_norms = sum(m.weight.numel() for m in original.net_.module_.stages.modules() if isinstance(m, nn.BatchNorm2d))
    expected = {"int8": n_before - n_norms, "int8 of the head": n_before}
    if name in expected:
        assert n_after == expected[name]
    assert n_after - 0.03 * n_after < footprint["nonzero"][1] < n_after
    assert footprint["agreement"] == [1.0, 1.0]
    assert pickle.loads(pickle.dumps(models[name])).footprint_.to_dict() == footprint


def test_zeros_of_a_pruned_network_stay(original, table):
    """Pruned weights are zeros in integers, and one of the values of a codebook."""
    pruned = PrunedClassifier(FrozenEstimator(original), amount=0.7, max_epochs=0).fit(*table)
    zeros = {path: layer.weight == 0 for path, layer in compressible(pruned.estimator_.net_.module_).items()}
    assert sum(int(mask.sum()) for mask in zeros.values()) > 900_000
    shared = QuantizedClassifier(FrozenEstimator(pruned), scheme="codebook", max_epochs=1).fit(*table)
    for path, layer in compressible(shared.estimator_.net_.module_).items():
        assert not layer.weight[zeros[path]].any()
    integers = QuantizedClassifier(FrozenEstimator(pruned), scheme="int8").fit(*table)
    before, after = pruned.footprint_.to_dict()["nonzero"][1], integers.footprint_.to_dict()["nonzero"][1]
    assert after <= before


def test_calibration_is_drawn_from_random_state(original, table):
    """The same seed gives the same network; as many pictures are taken as there are, and no more."""
    X, y = table
    frozen = FrozenEstimator(original)

    def logits(**params):
        return QuantizedClassifier(frozen, **params).fit(X, y).decision_function(X)

    np.testing.assert_array_equal(logits(n_calibration=3, random_state=1), logits(n_calibration=3, random_state=1))
    assert not np.array_equal(logits(n_calibration=3, random_state=1), logits(n_calibration=3, random_state=2))
    np.testing.assert_array_equal(logits(n_calibration=1000, random_state=1), logits(n_calibration=30, random_state=2))


def test_calibration_sees_pictures_as_they_are(table, monkeypatch):
    """Augmented training is calibrated with what predicting will see."""
    X, y = table
    augmented = FineTunedClassifier(max_epochs=1, augment="crop_flip", random_state=0).fit(X, y)
    seen = []
    quantize = _quantized.quantize_int8
    monkeypatch.setattr(_quantized, "quantize_int8", lambda net, x: seen.extend(x) or quantize(net, x))
    QuantizedClassifier(FrozenEstimator(augmented), n_calibration=30).fit(X, y)
    plain = frozen_prefix(augmented.set_params(augment=None), augmented.freeze_depth_, None)
    from sktl._images import check_images

    (expected,) = plain.run(check_images(augmented, X, reset=False))
    (got,) = seen
    np.testing.assert_allclose(np.sort(got.sum((1, 2, 3))), np.sort(expected.sum((1, 2, 3))), rtol=1e-4)


def test_nothing_can_go_on_from_integers(models, table):
    """To train on, or to lend the network, is an error that says what to take instead."""
    X, y = table
    with pytest.raises(ValueError, match="is int8-quantized and can only predict"):
        FineTunedClassifier(FrozenEstimator(models["int8"]), max_epochs=1).fit(X, y)
    with pytest.raises(
        AttributeError,
        match=r"An int8 network can only predict and does not have 'module_'\. Use the estimator that was",
    ):
        models["int8"].estimator_.trainable_summary()


@pytest.mark.parametrize("scheme", ["int8", "float16", "codebook"])
def test_it_is_the_last_step(scheme, original, table):
    """No compressor goes on from rounded weights; the error says which one to make the outermost."""
    quantized = QuantizedClassifier(original, scheme=scheme)
    with pytest.raises(
        ValueError, match=r"(?s)^QuantizedClassifier must be the last .*Make QuantizedClassifier the outermost"
    ):
        PrunedClassifier(quantized).fit(*table)


@pytest.mark.parametrize(
    "params", [{"bits": 0}, {"bits": 9}, {"bits": 2.5}, {"n_calibration": 0}, {"scheme": "int4"}, {"max_epochs": -1}]
)
def test_impossible_parameters_are_refused(params, table):
    """Calibration on no pictures, and bits that a codebook cannot have, among them."""
    with pytest.raises(InvalidParameterError, match=next(iter(params))):
        QuantizedClassifier(FineTunedClassifier(), **params).fit(*table)


def test_a_missing_engine_is_said_before_anything_is_fitted(monkeypatch, table):
    """Without ONNX Runtime the error comes at once and names the extra; other schemes do without it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(FineTunedClassifier, "fit", lambda self, *args: pytest.fail("it was fitted"))
    with pytest.raises(MissingDependencyError, match=r"sktl\[onnx\]"):
        QuantizedClassifier(FineTunedClassifier()).fit(*table)


class Undecided(nn.Module):
    """A head that decides by values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(512, 3)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


def test_a_network_without_a_graph_can_be_stored(table):
    """What ONNX cannot express is a clear error, and the schemes that it names work."""
    network = FineTunedClassifier(head=Undecided(), max_epochs=0, head_init="random", random_state=0).fit(*table)
    with pytest.raises(EngineError, match="Use scheme='float16'"):
        QuantizedClassifier(FrozenEstimator(network)).fit(*table)
    QuantizedClassifier(FrozenEstimator(network), scheme="float16").fit(*table)


def test_clones_are_unfitted_and_equal(models):
    """Parameters go along, what was learnt does not."""
    copied = clone(models["codebook"])
    assert copied.get_params()["scheme"] == "codebook"
    assert not hasattr(copied, "estimator_")
