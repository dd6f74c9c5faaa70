"""Validation by scikit-learn, with its own errors in fewer words."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, _fit_context, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils._param_validation import InvalidParameterError, StrOptions

from sktl._messages import LIMIT
from sktl._params import Estimator, check_consistent_length, check_is_fitted, validate_params
from sktl._version import __version__
from sktl.exceptions import InputError

LONG = "x" * 100_000


class Colored(Estimator):
    """An estimator with one parameter."""

    _parameter_constraints = {"color": [StrOptions({"blue"})]}

    def __init__(self, color="blue"):
        self.color = color

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        return self


class Grown(Estimator):
    """An estimator with a parameter that an earlier version did not have."""

    def __init__(self, size, color="blue"):
        self.size = size
        self.color = color


@validate_params({"color": [StrOptions({"blue"})]}, prefer_skip_nested_validation=True)
def paint(color, error=None):
    """A function with one parameter."""
    if error is not None:
        raise error
    return color


@pytest.mark.parametrize("use", [lambda color: Colored(color).fit([[1]]), paint])
def test_invalid_parameters(use):
    """The error is scikit-learn's, word for word where the value is short."""
    with pytest.raises(InvalidParameterError, match=r"^The 'color' parameter of \w+ must be .*'red' instead\.$"):
        use("red")
    with pytest.raises(InvalidParameterError, match=r"^The 'color' parameter of \w+ must be .* instead\.$") as info:
        use(LONG)
    assert len(str(info.value)) <= LIMIT
    use("blue")


def test_the_decorator_keeps_the_function():
    """Its name, text and signature, what scikit-learn puts on it, and what it says itself."""
    assert (paint.__name__, paint.__doc__) == ("paint", "A function with one parameter.")
    assert list(inspect.signature(paint).parameters) == ["color", "error"]
    assert "color" in paint._skl_parameter_constraints
    with pytest.raises(ValueError, match="xxx") as info:
        paint("blue", ValueError(LONG))
    assert str(info.value) == LONG


def test_checks():
    """Right things pass, and wrong ones give scikit-learn's errors."""
    check_is_fitted(LogisticRegression().fit([[0], [1]], [0, 1]))
    check_consistent_length([1, 2], None, [3, 4])
    with pytest.raises(TypeError, match="is not an estimator instance") as info:
        check_is_fitted(LONG)
    assert len(str(info.value)) <= LIMIT
    with pytest.raises(TypeError, match="at least 1 dimension") as info:
        check_consistent_length(np.array(LONG))
    assert len(str(info.value)) <= LIMIT
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        check_consistent_length([1], [2, 3])


def test_parameters_that_came_after_the_pickle():
    """They are at their defaults, and those that are in the pickle stay."""
    grown = pickle.loads(pickle.dumps(Grown(1, color="red")))
    assert grown.get_params() == {"size": 1, "color": "red"}
    state = {name: value for name, value in grown.__getstate__().items() if name != "color"}
    old = Grown.__new__(Grown)
    old.__setstate__(state)
    assert clone(old).get_params() == {"size": 1, "color": "blue"}


class Broken(Colored):
    """An estimator that does not understand a state without size."""

    def _restore(self, state):
        super()._restore({**state, "size": state["size"]})


def test_pickles_note_the_version():
    """It is in the pickle and nowhere else: a copy, a pickle of a copy and the original have the same attributes."""
    colored = Colored("red")
    assert colored.__getstate__() == {"color": "red", "_sktl_version": __version__}
    for copied in (pickle.loads(pickle.dumps(colored)), copy.deepcopy(colored), copy.copy(colored)):
        assert vars(copied) == vars(colored) == {"color": "red"}


@pytest.mark.parametrize(("noted", "named"), [({}, "sktl before 0.1.0"), ({"_sktl_version": "0.0.7"}, "sktl 0.0.7")])
def test_a_state_that_is_not_understood(noted, named):
    """The error names the version that pickled it and this one, and what was missing."""
    with pytest.raises(
        InputError, match=rf"^This Broken was pickled with {named} and cannot be loaded with sktl {__version__} "
    ) as info:
        Broken.__new__(Broken).__setstate__({"color": "red", **noted})
    assert isinstance(info.value.__cause__, KeyError)
    assert "fit it again" in str(info.value)
    known = Broken.__new__(Broken)
    known.__setstate__({"color": "red", "size": 3, **noted})
    assert vars(known) == {"color": "red", "size": 3}


def test_an_estimator_is_scikit_learns():
    """Nothing but the messages differs."""
    assert issubclass(Estimator, BaseEstimator)
    assert Colored("red").get_params() == {"color": "red"}
