"""Which network a parameter means, and what stands for one that a pickle has left behind."""

import pickle

import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier
from sktl._estimators._backbone_parameter import MissingNetwork, resolve_backbone, without_networks
from sktl.exceptions import BackboneError


@pytest.fixture(scope="module")
def fitted(digits, quick):
    """A fitted classifier."""
    return FineTunedClassifier(**quick).fit(*digits)


def test_a_fitted_estimator_lends_its_network(fitted, tiny):
    """Itself, frozen, or in a search that is frozen; and a Backbone is itself."""
    assert resolve_backbone(FineTunedClassifier(fitted)) is fitted.backbone_
    assert resolve_backbone(FineTunedClassifier(FrozenEstimator(fitted))) is fitted.backbone_
    assert resolve_backbone(FineTunedClassifier(tiny)) is tiny
    assert resolve_backbone(DistilledClassifier(LogisticRegression(), tiny), "student") is tiny


def test_an_unfitted_one_has_none_to_lend(fitted):
    """The error says how a fitted one stays so."""
    for estimator in (clone(fitted), LogisticRegression()):
        with pytest.raises(ValueError, match="FrozenEstimator"):
            resolve_backbone(FineTunedClassifier(estimator))


def test_weights_of_its_own(fitted):
    """A network that is there already takes no other weights."""
    with pytest.raises(BackboneError, match="the given network"):
        resolve_backbone(FineTunedClassifier(fitted, weights="IMAGENET1K_V1"))


@pytest.mark.parametrize("parameter", ["backbone", "student"])
def test_what_was_left_behind(parameter):
    """The error names the network, why it is not there, and the parameter to set."""
    gone = MissingNetwork("ResNet")
    estimator = (
        FineTunedClassifier(gone) if parameter == "backbone" else DistilledClassifier(LogisticRegression(), gone)
    )
    with pytest.raises(ValueError, match=rf"<ResNet, not included in the pickle.*Set {parameter} to a network first"):
        resolve_backbone(estimator, parameter)
    assert repr(pickle.loads(pickle.dumps(gone))) == repr(gone)


def test_names_and_settings_stay(tiny):
    """A name is no network: it stays, as do all other parameters; the estimator that was given is not changed."""
    head = nn.Linear(8, 3)
    given = FineTunedClassifier(tiny, head=head, lr=0.5, callbacks=[], preprocessing={"crop_size": 8})
    bare = without_networks(given)
    assert (type(bare.backbone), type(bare.head), bare.lr, bare.preprocessing) == (
        MissingNetwork,
        MissingNetwork,
        0.5,
        {"crop_size": 8},
    )
    assert given.backbone is tiny
    assert given.head is head
    assert "Backbone" in repr(bare.backbone)
    assert "Linear" in repr(bare.head)
    assert without_networks(FineTunedClassifier("resnet18")).backbone == "resnet18"
    assert without_networks(bare).get_params()["backbone"] is not tiny
    assert repr(without_networks(bare).backbone) == repr(bare.backbone)


WRAPPED = {
    "frozen": FrozenEstimator,
    "search": lambda model: GridSearchCV(model, {"lr": [0.1]}),
    "frozen search": lambda model: FrozenEstimator(GridSearchCV(model, {"lr": [0.1]})),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_networks_of_what_it_is_made_of(tiny, fitted, kind):
    """Networks inside of estimators inside go too, fitted or not, and nothing that was learnt stays."""
    for backbone in (tiny, fitted, FrozenEstimator(fitted)):
        wrapped = WRAPPED[kind](FineTunedClassifier(backbone))
        bare = without_networks(wrapped)
        assert type(bare) is type(wrapped)
        while not isinstance(bare, FineTunedClassifier):
            bare = bare.estimator
        assert isinstance(bare.backbone, MissingNetwork)
    whole = len(pickle.dumps(WRAPPED[kind](FineTunedClassifier(FrozenEstimator(fitted)))))
    assert len(pickle.dumps(bare)) < 0.01 * whole


def test_teachers_that_are_networks(fitted, digits, quick):
    """A frozen teacher's network is not in what is left of a student; its name is."""
    student = DistilledClassifier(FrozenEstimator(fitted), **quick)
    bare = without_networks(student)
    assert not hasattr(bare.teacher, "net_")
    assert len(pickle.dumps(bare)) < 10_000
    assert hasattr(student.teacher, "net_")
