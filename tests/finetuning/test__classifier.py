"""Fine-tuning a classifier: labels, weights, partial fits, errors; all of scikit-learn's checks."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedClassifier
from sktl.exceptions import BackboneError, ImageError


@parametrize_with_checks([FineTunedClassifier()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the classifier passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def make(quick):
    """Makes a classifier that fits in no time."""
    return lambda **params: FineTunedClassifier(**{**quick, **params})


# --- labels -----------------------------------------------------------------------------------------------------------


def test_the_kind_of_input_does_not_matter(image_source, make):
    """The same pictures, however they are given, train the same network and get the same predictions."""
    y = ["left", "right"] * 3
    expected = make(freeze_depth=-1).fit(image_source.pixels, y).predict_proba(image_source.pixels)
    model = make(freeze_depth=-1).fit(image_source.X, y)
    np.testing.assert_allclose(model.predict_proba(image_source.X), expected, rtol=1e-3)
    np.testing.assert_allclose(model.predict_proba(image_source.take([4, 2])), expected[[4, 2]], rtol=1e-3)


# --- weights ----------------------------------------------------------------------------------------------------------


SETTINGS = [{}, {"freeze_depth": -1, "batch_size": 8, "freeze_bn": False}, {"early_stopping": True, "dropout": 0.2}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_weight_of_zero_is_no_row(digits, make, settings):
    """Rows of weight zero and rows that are not there give the same network, to the bit."""
    X, y = digits
    weight = np.where(np.arange(30) % 3 == 1, 0.0, 1.0)
    kept = weight > 0
    weighted = make(**settings).fit(X, y, sample_weight=weight)
    dropped = make(**settings).fit(X[kept], y[kept])
    np.testing.assert_array_equal(weighted.predict_proba(X), dropped.predict_proba(X))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_weight_is_a_number_of_copies(digits, make, settings):
    """Weights of 2 and 3 and rows that are there twice and three times give the same network, to the bit."""
    X, y = digits
    n_copies = np.random.default_rng(0).integers(1, 4, 30)
    weighted = make(**settings).fit(X, y, sample_weight=n_copies)
    repeated = make(**settings).fit(np.repeat(X, n_copies, axis=0), np.repeat(y, n_copies))
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    assert not np.array_equal(weighted.predict_proba(X), make(**settings).fit(X, y).predict_proba(X))


@pytest.mark.parametrize("freeze_depth", ["all", -1])
def test_class_weights_are_weights_of_rows(digits, make, freeze_depth):
    """A dict by label multiplies sample weights, with their sum left as it is."""
    X, y = digits
    names = np.array(["one", "two", "three"])[y]
    own = np.random.default_rng(0).uniform(1, 2, 30)
    product = own * np.where(names == "two", 3, 1) * np.where(names == "three", 0.5, 1)
    by_class = make(class_weight={"two": 3, "three": 0.5}, freeze_depth=freeze_depth)
    by_class.fit(X, names, sample_weight=own)
    by_row = make(freeze_depth=freeze_depth).fit(X, names, sample_weight=product * own.sum() / product.sum())
    np.testing.assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=1e-4)
    plain = make(freeze_depth=freeze_depth).fit(X, names, sample_weight=own)
    assert not np.allclose(by_class.predict_proba(X), plain.predict_proba(X), rtol=1e-2)


def test_a_class_that_weighs_nothing(digits, make):
    """Its rows are left out, it has its column, and it is never predicted."""
    X, y = digits
    model = make(class_weight={1: 0}, freeze_depth=-1).fit(X, y)
    assert model.predict_proba(X).shape == (30, 3)
    assert set(model.predict(X)) == {0, 2}


def test_balanced_classes_weigh_the_same(digits, make):
    """Eleven rows of one class and two of another have the same sum of weights; a copy of a row is a weight of 2."""
    X, y = digits
    few = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:2]]
    X, y = X[few], y[few]
    weight = np.where(y == 0, 1 / (y == 0).sum(), 1 / (y == 1).sum())
    balanced = make(class_weight="balanced").fit(X, y)
    by_hand = make().fit(X, y, sample_weight=weight * len(y) / weight.sum())
    np.testing.assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), rtol=1e-5)
    doubled = make(class_weight="balanced").fit(np.r_[X, X[y == 0]], np.r_[y, y[y == 0]])
    weighted = make(class_weight="balanced").fit(X, y, sample_weight=np.where(y == 0, 2, 1))
    np.testing.assert_array_equal(doubled.predict_proba(X), weighted.predict_proba(X))


def test_sample_weights_are_routed(digits, make):
    """Through a pipeline and a search, weights arrive: rows of weight zero with wrong labels do no harm."""
    X, y = digits
    wrong = np.arange(30) % 2 == 1
    noisy = np.where(wrong, (y + 1) % 3, y)
    weight = np.where(wrong, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(make_pipeline(model), {"finetunedclassifier__lr": [0.001]}, cv=2)
        search.fit(X, noisy, sample_weight=weight)
    expected = make().fit(X[~wrong], y[~wrong])
    np.testing.assert_array_equal(search.predict_proba(X), expected.predict_proba(X))


# --- partial fits -----------------------------------------------------------------------------------------------------


def test_partial_fit_learns_from_part_to_part(digits, make):
    """All classes are named in the first call, of which the first part has one; each call is one epoch more."""
    X, y = digits
    order = np.argsort(y, kind="stable")
    model = make(lr=0.05, head_init="random")
    for epoch in range(6):
        for part in np.array_split(order, 3):
            model.partial_fit(X[part], y[part], classes=[2, 0, 1] if epoch == 0 else None)
    assert model.classes_.tolist() == [0, 1, 2]
    assert len(model.history_) == model.n_iter_ == 18
    assert model.history_[:, "lr"] == [0.05] * 18
    whole = model.partial_fit(X, y).partial_fit(X, y)
    assert whole.score(X, y) > 0.8


def test_partial_fit_goes_on_after_fit(digits, make):
    """The net is the one of fit. Its optimizer begins anew after a fit, and then goes on from call to call."""
    X, y = digits
    model = make().fit(X, y)
    net = model.net_
    assert not net.optimizer_.state
    weight = net.module_.head[-1].weight
    for n_calls in (1, 2, 3):
        assert model.partial_fit(X, y).net_ is net
        assert model.n_iter_ == 2 + n_calls
        assert net.optimizer_.state[weight]["step"] == n_calls  # one batch in each
    assert not model.fit(X, y).net_.optimizer_.state


def test_partial_fit_of_one_picture(digits, make):
    """A table of one row trains, with batch norms in eval mode."""
    X, y = digits
    model = make(freeze_depth=-1).partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    assert np.isfinite(model.partial_fit(X[1:2], y[1:2]).predict_proba(X)).all()


def test_labels_that_partial_fit_cannot_know(digits, make):
    """No classes at first, other classes later, a label that is none of them: each error says so."""
    X, y = digits
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        make().partial_fit(X, y)
    model = make().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"'classes' parameter of partial_fit must be the same in each call"):
        model.partial_fit(X, y, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"labels \[7\] that are not among the classes \[0, 1, 2\]"):
        model.partial_fit(X, np.where(y == 1, 7, y))
    with pytest.raises(ValueError, match="balanced"):
        make(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not among the classes"):
        make(warm_start=True).fit(X, y).fit(X, y + 1)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"freeze_depth": "layer9"}, BackboneError, r"freeze_depth='layer9'.*\['stem', 'layer1', 'layer2'"),
        ({"freeze_depth": 6}, BackboneError, r"freeze_depth=6.*from -5 to 5, 'all'"),
        ({"freeze_depth": -6}, BackboneError, r"freeze_depth=-6.*from -5 to 5"),
        ({"freeze_depth": True}, BackboneError, "freeze_depth=True"),
        ({"freeze_depth": 1.5}, ValueError, r"'freeze_depth' parameter.*Got 1\.5"),
        ({"backbone": "resnet1"}, BackboneError, "resnet18"),
        ({"head": torch.nn.Linear(512, 3).requires_grad_(False)}, ValueError, "head must be trainable"),
        ({"head": torch.nn.Linear(512, 4)}, ValueError, r"\(2, 3\), one per class or target\. Got \(2, 4\) instead"),
        ({"head": torch.nn.Linear(7, 3)}, ValueError, r"fails on features of shape \(n, 512\)"),
        ({"head": "cubic"}, ValueError, "head must be 'linear'.* Got 'cubic' instead"),
        ({"head": torch.nn.Sequential(torch.nn.Linear(512, 3), torch.nn.Tanh())}, ValueError, "head_init='random'"),
        ({"augment": "sepia"}, ValueError, r"augment must be one of .*crop_flip.* Got 'sepia' instead"),
        ({"net_params": {"optimiser__betas": (0.9, 0.99)}}, ValueError, r"net_params=.*optimiser__betas"),
        ({"net_params": {"optimizer__beta": 1}}, ValueError, r"net_params=.*unexpected keyword argument 'beta'"),
        (
            {"net_params": {"callbacks": "disable"}},
            ValueError,
            r"net_params\['callbacks'\] must be a list.*Got 'disable'",
        ),
        ({"callbacks": "disable"}, ValueError, "'callbacks' parameter"),
        ({"pooling": "cls"}, BackboneError, r"pooling='cls' needs a class token.*'layer4' of 'sktl_mini'"),
        ({"pooling": "cls", "freeze_depth": 0}, BackboneError, "Use pooling='avg'"),
        (
            {"freeze_bn": False, "freeze_depth": -1, "batch_size": 1},
            ValueError,
            r"at least two images per batch\. Got batch_size=1 .*freeze_bn=True",
        ),
        ({"net_params": {"max_epochs": 3}}, ValueError, r"net_params may not set \['max_epochs'\]"),
        ({"class_weight": {0: -1}}, ValueError, "'class_weight'.* finite weights of at least 0. Got {0: -1} instead"),
        ({"class_weight": {0: float("nan")}}, ValueError, "'class_weight'.* Got {0: nan} instead"),
        ({"class_weight": {1: float("inf")}}, ValueError, r"'class_weight'.* Got \{1: inf\} instead"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "positive for at least one class in y"),
        ({"class_weight": {"cat": 2}}, ValueError, "class_weight"),
        ({"lr": 0}, ValueError, "'lr' parameter"),
        ({"max_epochs": -1}, ValueError, "'max_epochs' parameter"),
        ({"optimizer": "sdg"}, ValueError, "'sgd'"),
        ({"device": "gpu"}, ValueError, "cuda"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_parameter_gets_an_error_that_says_the_way_out(digits, make, parameters, error, says):
    """The error names what was given and what would do."""
    with pytest.raises(error, match=says):
        make(**parameters).fit(*digits)


@pytest.mark.parametrize(
    "missing",
    [
        lambda names: [*names[:4], None, *names[5:]],
        lambda names: np.array([*names[:4], np.nan, *names[5:]], dtype=object),
        lambda names: pd.Series([*names[:4], None, *names[5:]], dtype="string"),
        lambda names: pd.Categorical([*names[:4], None, *names[5:]]),
    ],
    ids=["none", "nan", "string", "categorical"],
)
def test_missing_labels_are_named(digits, make, missing):
    """A label that is not there is an error that says so, and no class of its own."""
    X, y = digits
    with pytest.raises(ValueError, match="y has missing labels, the first one at position 4"):
        make().fit(X, missing(np.array(["ant", "bee", "cow"])[y].tolist()))


def test_bad_rows_are_named(digits, make):
    """What is wrong with labels, weights or a validation set is said before anything is computed."""
    X, y = digits
    with pytest.raises(ValueError, match="one class: 'cat'"):
        make().fit(X, ["cat"] * 30)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[30, 20\]"):
        make().fit(X, y[:20])
    with pytest.raises(ValueError, match="continuous"):
        make().fit(X, np.linspace(0, 1, 30))
    with pytest.raises(ValueError, match="y has missing labels, the first one at position"):
        make().fit(X, np.where(y == 1, np.nan, y))
    with pytest.raises(ValueError, match="the target y is None"):
        make().fit(X, None)
    with pytest.raises(ValueError, match=r"X_val and y_val must be passed together\. Got only X_val\."):
        make().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="at least one non-zero"):
        make().fit(X, y, sample_weight=np.zeros(30))
    with pytest.raises(ValueError, match="Negative values"):
        make().fit(X, y, sample_weight=np.full(30, -1.0))
    with pytest.raises(ValueError, match="sample_weight"):
        make().fit(X, y, sample_weight=np.ones(20))
    with pytest.raises(ValueError, match="not among the classes"):
        make().fit(X, y, X_val=X, y_val=y + 1)


def test_a_picture_that_cannot_be_read_is_named(make):
    """Its position in the table and its path are in the message, also behind rows of weight zero."""
    with pytest.raises(ImageError, match=r"Image 1 .*missing\.jpg"):
        make().fit([np.zeros((8, 8, 3), np.uint8), "missing.jpg", "other.jpg"], [0, 1, 1], sample_weight=[1, 1, 0])


def test_label_smoothing_makes_less_sure(digits, make):
    """With a share of each target on all classes, probabilities stay away from one."""
    X, y = digits
    sure = make(max_epochs=20, lr=0.01).fit(X, y).predict_proba(X).max(1).mean()
    unsure = make(max_epochs=20, lr=0.01, label_smoothing=0.5).fit(X, y).predict_proba(X).max(1).mean()
    assert unsure < 0.85 < sure


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_networks_of_torchvision(backbone, digits, make):
    """Networks of random weights learn with their own stages, and give one row of probabilities per picture."""
    X, y = digits
    size = {"resize_size": 32, "crop_size": 32}
    model = make(backbone=backbone, weights=None, preprocessing=size, freeze_depth=-1, max_epochs=1).fit(X, y)
    assert model.predict_proba(X).shape == (30, 3)


def test_ants_and_bees_on_real_weights(shared_data):
    """Forty photos of each and the last stages of MobileNetV2: nine of ten are told apart."""
    parts = {}
    for part, n_photos in (("train", 40), ("val", 30)):
        folders = [shared_data / "hymenoptera" / part / kind for kind in ("ants", "bees")]
        files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:n_photos]]
        parts[part] = [str(file) for file in files], [file.parent.name for file in files]
    model = FineTunedClassifier(
        "mobilenet_v2",
        weights=shared_data / "mobilenet_v2_imagenet" / "model.safetensors",
        preprocessing={"resize_size": 256},
        engine="torch",
        max_epochs=3,
        random_state=0,
    )
    assert model.fit(*parts["train"]).score(*parts["val"]) >= 0.9
