"""How a network is trained, as one value: what it takes from an estimator, and copies of it."""

from dataclasses import FrozenInstanceError, fields
from types import SimpleNamespace

import pytest

from sktl import DistilledClassifier, DistilledRegressor, FineTunedClassifier, FineTunedRegressor
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS
from sktl._training._settings import TrainingSettings

NAMES = [field.name for field in fields(TrainingSettings) if field.name != "is_pretrained"]
# What else estimators are asked: about images and targets, the network that is trained, how it is run, which rows are
# set aside, and, of a student, what a teacher is to it.
OTHERS = {
    *{"backbone", "weights", "in_channels", "image_shape", "channels", "preprocessing", "pooling", "random_state"},
    *{"augment", "n_views", "validation_fraction", "warm_start", "class_weight", "label_smoothing"},
    *{"teacher", "student", "knowledge", "alpha", "temperature", "beta", "layers", "unlabeled"},
    *RUNTIME_CONSTRAINTS,
}


@pytest.mark.parametrize(
    "make",
    [
        FineTunedClassifier,
        FineTunedRegressor,
        lambda: DistilledClassifier(FineTunedClassifier()),
        lambda: DistilledRegressor(FineTunedRegressor()),
    ],
    ids=["classifier", "regressor", "distilled classifier", "distilled regressor"],
)
def test_all_that_trains_is_taken_from_an_estimator(make):
    """Each parameter is a setting or is known to be none: a new one of the estimators belongs to one of them."""
    model = make()
    params = model.get_params(deep=False)
    assert set(params) <= {*NAMES, *OTHERS}
    assert set(NAMES) <= set(params)
    for number, name in enumerate(NAMES):
        setattr(model, name, number)  # taken as they are: `fit` has validated them
    settings = TrainingSettings.of(model, is_pretrained=False)
    assert [getattr(settings, name) for name in NAMES] == list(range(len(NAMES)))
    assert not settings.is_pretrained


def test_what_an_estimator_does_not_have_is_the_default():
    """Learners without a head, or that stop after a number of epochs, need no such parameters."""
    settings = TrainingSettings.of(SimpleNamespace(lr=0.1, alpha=3), is_pretrained=True)
    assert settings == TrainingSettings(lr=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_classifiers(name):
    """Settings that nobody gives are what an estimator without parameters has."""
    assert getattr(TrainingSettings(), name) == FineTunedClassifier().get_params()[name]


def test_a_copy_with_some_replaced():
    """The others stay, and so does the original, which nobody can change."""
    settings = TrainingSettings(lr=0.3, head=(5,))
    other = settings.but(lr=0.1, max_epochs=2)
    assert (other.lr, other.max_epochs, other.head) == (0.1, 2, (5,))
    assert settings == TrainingSettings(lr=0.3, head=(5,))
    with pytest.raises(TypeError, match="no_setting"):
        settings.but(no_setting=1)
    with pytest.raises(FrozenInstanceError):
        settings.lr = 0.1


@pytest.mark.parametrize("freeze_bn", [True, False])
@pytest.mark.parametrize("is_pretrained", [True, False])
def test_only_statistics_that_there_are_can_be_kept(freeze_bn, is_pretrained):
    """Random weights have none, whatever freeze_bn says."""
    settings = TrainingSettings(freeze_bn=freeze_bn, is_pretrained=is_pretrained)
    assert settings.keeps_statistics == (freeze_bn and is_pretrained)
