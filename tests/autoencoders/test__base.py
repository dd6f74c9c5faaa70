"""What is trained: the size of the code, weights, held-out rows, thresholds, interruptions; tables and images."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback
from torch import nn

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.anomaly import AnomalyDetector
from sktl.autoencoders import Autoencoder
from sktl.exceptions import BackboneError, DivergenceError, InputError, TrainingWarning


class Tiny(nn.Module):
    """Three stages with batch norms, of which two have maps of one shape."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


@pytest.fixture
def tiny():
    """A small network, and how it takes images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {"backbone": Tiny(), "preprocessing": {"resize_size": 8, "crop_size": 8}}


# --- size of the code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "expected"), [((50, 1), 1), ((50, 7), 3), ((50, 200), 32), ((10, 200), 9)])
def test_components_by_default(make, shape, expected):
    """Half of the columns, at most 32 and at most the training rows, without a warning."""
    X = np.random.default_rng(0).normal(size=shape)
    model = make(None, max_epochs=1).fit(X)
    assert model.transform(X).shape == (shape[0], expected)
    assert model.get_feature_names_out().tolist() == [f"autoencoder{number}" for number in range(expected)]


def test_too_many_components(make, rows):
    """PCA has no more than rows and columns; a random start has, and is warned of unless something prevents a copy."""
    for X, k in ((rows[:20], 19), (rows[:, :5], 6)):
        with pytest.raises(InputError, match=f"n_components of at most {k - 1}.*init='random'"):
            make(k).fit(X)
    with pytest.warns(TrainingWarning, match="can copy its input"):
        make(64, init="random").fit(rows)
    with pytest.warns(TrainingWarning, match="can copy its input"):
        make(64).fit(rows)
    for params in ({"noise": "masking"}, {"sparsity": 0.1}):
        assert make(70, init="random", **params).fit(rows).transform(rows).shape == (120, 70)


@pytest.mark.parametrize("widths", [(0,), (2.5,), ("a",)])
def test_widths_of_hidden_layers(make, rows, widths):
    """They are positive integers."""
    with pytest.raises(InputError, match="'hidden_layer_sizes' parameter of Autoencoder must be a tuple of positive"):
        make(hidden_layer_sizes=widths).fit(rows)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_weight_is_a_number_of_copies(make, ratings):
    """Weights of 0, 1 and 2 and rows that are there so often give the same network and threshold, to the bit."""
    weight = np.arange(120) % 3
    for contamination in ("auto", 0.1):
        weighted = make(contamination=contamination).fit(ratings, sample_weight=weight)
        repeated = make(contamination=contamination).fit(np.repeat(ratings, weight, axis=0)[::-1])
        np.testing.assert_array_equal(weighted.transform(ratings), repeated.transform(ratings))
        assert weighted.offset_ == repeated.offset_


def test_it_is_never_worse_than_pca_on_held_out_rows(make, rows):
    """A rate that is too large leaves the start, which counts as epoch 0."""
    model = make(lr=0.5, n_iter_no_change=3, max_epochs=8).fit(rows)
    start = make(max_epochs=0).fit(rows)
    assert model.best_epoch_ == 0
    np.testing.assert_array_equal(model.transform(rows), start.transform(rows))


def test_short_batches(make, rows):
    """A batch larger than the table, one row in the last batch, and batches of one row."""
    for size, n_rows in ((1000, 120), (107, 120), (1, 12)):
        assert np.isfinite(make(batch_size=size, max_epochs=1).fit(rows[:n_rows]).score(rows))


def test_rows_that_cannot_be_held_out(make, rows):
    """There are no X_val and y_val to pass instead, and without early stopping rows are held out for the threshold."""
    for stops in (True, False):
        model = make(1, validation_fraction=0.99, early_stopping=stops)
        with pytest.raises(InputError, match=r"20 different rows.*or early_stopping=False with a contamination such"):
            model.fit(rows[:20])
    make(1, validation_fraction=0.99, early_stopping=False, contamination=0.05).fit(rows[:20])


def test_warm_start_goes_on(make, rows):
    """The second fit continues with the weights and the history of the first."""
    model = make(warm_start=True).fit(rows)
    model.fit(rows)
    assert len(model.history_) == 6
    assert model.history_[-1, "valid_loss"] < model.history_[0, "valid_loss"]


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_the_threshold_is_of_rows_that_were_not_learned(make, rows, new_rows):
    """With few rows and a network that learns them by heart, few new rows of the same kind are flagged; the quantile
    of the training rows' scores would flag most. Rows are held out also without early stopping."""
    how = {"early_stopping": False, "max_epochs": 60, "lr": 0.003, "hidden_layer_sizes": (64,)}
    model = make(20, **how).fit(rows)
    naive = make(20, **how, contamination=0.05).fit(rows)
    assert (naive.predict(rows) == -1).sum() == 6
    assert (naive.predict(new_rows) == -1).mean() > 0.5
    assert (model.predict(new_rows) == -1).mean() < 0.2


def test_offset_after_partial_fit(make, rows, new_rows):
    """It is chosen from scores that rows had before they were learned; rows like them pass, others do not."""
    model = make().partial_fit(rows[:40])
    known = []
    for start in (40, 80):
        known.extend(model.score_samples(rows[start : start + 40]))
        model.partial_fit(rows[start : start + 40])
    assert (model.predict(new_rows) == -1).mean() < 0.2
    assert (model.predict(16 - new_rows) == -1).all()
    before = model.score_samples(new_rows)
    model.partial_fit(new_rows)
    expected = np.quantile(np.append(known, before), 0.05, method="weibull")
    assert model.offset_ == pytest.approx(expected)
    assert model.sample(3).shape == (3, 64)


def test_partial_fit_learns(make, rows):
    """Each call is one epoch; after `fit` it goes on."""
    model = make(max_epochs=0).fit(rows)
    errors = [-model.score(rows)]
    errors += [-model.partial_fit(rows).score(rows) for _ in range(5)]
    assert errors[-1] < errors[0]
    with pytest.raises(ValueError, match="64 features"):
        model.partial_fit(rows[:, 1:])


class Interrupt(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def test_after_an_interruption_it_predicts(make, rows):
    """Ctrl-C and a divergence leave an estimator with a threshold."""
    model = make(callbacks=[Interrupt()], max_epochs=9)
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows)
    assert len(model.history_) == 2
    assert set(model.predict(rows)) == {-1, 1}
    model = make(lr=1e30, early_stopping=False)
    with pytest.raises(DivergenceError):
        model.fit(rows)
    assert set(model.predict(rows)) == {-1, 1}


# --- images -----------------------------------------------------------------------------------------------------------


SHAPES = {0: (8, 8, 3), 1: (4, 8, 8), "layer1": (6, 4, 4), "all": (6,)}


@pytest.mark.parametrize("depth", SHAPES)
def test_what_is_reconstructed(digits, tiny, make, depth):
    """Pixels, the output of the last frozen stage, or pooled features; before training, by PCA."""
    X = digits[0]
    model = make(3, freeze_depth=depth, **tiny, max_epochs=0).fit(X)
    reconstruction = model.reconstruct(X)
    assert reconstruction.shape == (30, *SHAPES[depth])
    assert reconstruction.dtype == np.float32
    codes = model.transform(X)
    np.testing.assert_array_equal(model.inverse_transform(codes), reconstruction)
    np.testing.assert_array_equal(model.transform(X[7:8]), codes[7:8])
    trained = make(3, freeze_depth=depth, **tiny, lr=0.01, max_epochs=30).fit(X)
    assert trained.score(X) > model.score(X)
    scores = trained.score_samples(X)
    if depth == 0:
        difference = trained.reconstruct(X) - X[..., np.newaxis]
        errors = np.square(difference).mean((1, 2, 3))
        assert np.isclose(scores, -errors, atol=1e-4).mean() > 0.6
        assert (scores < -errors + 1e-4).all()
    assert trained.sample(2).shape == (2, *SHAPES[depth])
    assert set(trained.predict(X)) <= {-1, 1}


def test_frozen_stages_do_not_move(digits, tiny, make):
    """Weights and statistics of the frozen stages stay to the bit, those of later stages are trained; the network that
    was passed is left unchanged."""
    before = {name: value.clone() for name, value in tiny["backbone"].state_dict().items()}
    model = make(3, freeze_depth=2, **tiny, lr=0.01, freeze_bn=False, early_stopping=False).fit(digits[0])
    after = model.backbone_.module.state_dict()
    for name, value in before.items():
        if name in after:
            assert torch.equal(value, after[name]) == (not name.startswith("layer2")), name
    assert all(torch.equal(value, before[name]) for name, value in tiny["backbone"].state_dict().items())


def test_it_goes_where_a_fitted_estimator_goes(digits, tiny, make):
    """Its encoder is the backbone of an extractor, a classifier and a detector; one of a table has none."""
    X, y = digits
    model = make(3, freeze_depth=-1, **tiny).fit(X)
    frozen = FrozenEstimator(model)
    assert PretrainedFeatureExtractor(frozen).fit_transform(X).shape == (30, 6)
    classifier = FineTunedClassifier(frozen, freeze_depth="all", max_epochs=1, random_state=0).fit(X, y)
    assert classifier.backbone_.fingerprint("layer2") == model.backbone_.fingerprint("layer2")
    assert np.isfinite(AnomalyDetector(frozen).fit(X).offset_)
    assert model.trainable_summary().to_dict()["trainable"] == [False, False, True, True]
    table = make(3).fit(X.reshape(30, -1))
    assert not hasattr(table, "backbone_")
    assert not hasattr(table, "trainable_summary")


def test_stages_without_maps(make, digits):
    """A stage whose output is a vector or tokens cannot be mirrored; with all stages frozen, nothing is."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 4, stride=4)
            self.block = nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.block(self.stem(x).flatten(2).transpose(1, 2)).mean(1))

    how = {"backbone": Tokens(), "preprocessing": {"resize_size": 8, "crop_size": 8}}
    with pytest.raises(InputError, match=r"with an output of shape .* instead. Use freeze_depth='all'"):
        make(2, **how).fit(digits[0])
    assert make(2, **how, freeze_depth="all").fit(digits[0]).transform(digits[0]).shape == (30, 2)


def test_errors_of_backbones(make, digits):
    """An unknown network or stage is named."""
    with pytest.raises(BackboneError, match="resnet7"):
        make(backbone="resnet7").fit(digits[0])
    with pytest.raises(BackboneError, match="layer9"):
        make(backbone="sktl_mini", freeze_depth="layer9").fit(digits[0])


def test_the_default_is_a_table():
    """Without parameters, a table of numbers is taken as it is: 785 columns are no image and stay 785."""
    X = np.random.default_rng(0).normal(size=(12, 785))
    model = Autoencoder(max_epochs=1).fit(X)
    assert model.reconstruct(X).shape == (12, 785)
    assert model.n_features_in_ == 785
