"""Whatever takes a network takes the same settings with it, with the same names and defaults."""

import importlib
import inspect

import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.backbones import describe_backbone, load_backbone
from sktl.exceptions import InputError
from sktl.selection import domain_distance, recommend_strategy
from sktl.selection._extractors import SETTINGS

# What concerns the network alone, for functions that run nothing.
OF_NETWORKS = ("weights", "in_channels", "preprocessing")
# Training has a batch size of its own.
OTHER_DEFAULTS = {"batch_size"}


def public_callables(modules):
    """Every function and every class that a public module lists, by its name."""
    found = {}
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            thing = getattr(module, name)
            found[name] = thing
            if inspect.isclass(thing):
                made = [key for key in vars(thing) if key.startswith("from_")]
                found |= {f"{name}.{key}": getattr(thing, key) for key in made}
    return found


def takes_a_network(thing):
    """Whether it is a function or an estimator with such a parameter; what holds results is made by functions."""
    if inspect.isclass(thing):
        return issubclass(thing, BaseEstimator) and bool(
            {"backbone", "student"} & set(inspect.signature(thing).parameters)
        )
    return callable(thing) and "backbone" in inspect.signature(thing).parameters


@pytest.fixture(scope="module")
def taking(public_modules):
    """All that takes a network, by its name."""
    return {name: thing for name, thing in public_callables(public_modules).items() if takes_a_network(thing)}


def test_those_that_take_a_network_are_found(taking):
    """The walk sees functions and estimators."""
    expected = {"domain_distance", "recommend_strategy", "load_backbone", "describe_backbone", "FineTunedRegressor"}
    assert expected | {"DistilledClassifier", "PretrainedFeatureExtractor"} <= set(taking)


def test_one_signature(taking):
    """The settings of an extractor, with its defaults."""
    expected = inspect.signature(PretrainedFeatureExtractor).parameters
    faults = []
    for name, thing in taking.items():
        given = inspect.signature(thing).parameters
        settings = OF_NETWORKS if thing in (load_backbone, describe_backbone) else SETTINGS
        faults += [f"{name} has no {setting}" for setting in settings if setting not in given]
        without = OTHER_DEFAULTS | ({"weights"} if thing is describe_backbone else set())  # it downloads nothing
        common = [key for key in settings if key in given and key not in without]
        faults += [f"{name}: {key}" for key in common if given[key].default != expected[key].default]
    assert faults == []


FUNCTIONS = {
    "domain_distance": lambda X, y, *args, **settings: domain_distance(X, *args, **settings).distance,
    "recommend_strategy": lambda X, y, *args, **settings: recommend_strategy(X, y, *args, **settings).distance,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_settings_or_an_estimator(name, digits, tmp_path):
    """A file of weights and a preprocessing beside a name do what an extractor with them does, fitted or not, and what
    a learner does that begins with them; beside an estimator they are an error, which has its own."""
    X, y = digits
    function = FUNCTIONS[name]
    weights = tmp_path / "file.pt"
    mini = load_backbone("sktl_mini")
    torch.save({key: value * 1.01 for key, value in mini.module.state_dict().items()}, weights)
    settings = {"weights": weights, "preprocessing": {"crop_size": 32, "resize_size": 32}, "engine": "torch"}
    found = function(X, y, "sktl_mini", cache=None, batch_size=7, device="cpu", n_jobs=1, **settings)
    assert found != function(X, y)
    extractor = PretrainedFeatureExtractor(**settings)
    learner = FineTunedClassifier(max_epochs=0, **settings)
    for estimator in (extractor, clone(extractor).fit(X), learner, clone(learner).fit(X, y)):
        assert function(X, y, estimator) == pytest.approx(found, rel=1e-5)
    pipe = make_pipeline(FunctionTransformer(), clone(learner)).fit(X, y)
    assert function(X, y, FrozenEstimator(pipe)) == pytest.approx(found, rel=1e-5)
    with pytest.raises(
        InputError, match=r"^weights=.* cannot be passed with a PretrainedFeatureExtractor, which has its own settings"
    ):
        function(X, y, extractor, weights=weights)
    with pytest.raises(
        InputError, match=r"cannot be passed with a Pipeline, .*\. Set device of the sktl estimator in it, or"
    ):
        function(X, y, pipe, device="cpu")
    with pytest.raises(ValueError, match="'engine' parameter"):
        function(X, y, engine="fast")


def test_the_network_of_a_fitted_estimator(digits):
    """It is what the functions that look at a network alone take too."""
    X, y = digits
    model = FineTunedClassifier(max_epochs=0).fit(X, y)
    assert load_backbone(model) is model.backbone_
    assert describe_backbone(model).to_dict() == describe_backbone("sktl_mini").to_dict()
