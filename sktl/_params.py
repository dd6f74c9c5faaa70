"""Validation by scikit-learn with messages of limited length."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils import _param_validation
from sklearn.utils import validation as _validation
from sklearn.utils._param_validation import InvalidParameterError

from sktl._messages import shortened_errors
from sktl._part import to_pickle
from sktl._version import __version__
from sktl.exceptions import InputError, SktlError


def check_is_fitted(estimator: Any, attributes: str | None = None) -> None:
    """Check that an estimator is fitted, as scikit-learn's function does."""
    with shortened_errors():
        _validation.check_is_fitted(estimator, attributes)


def check_consistent_length(*arrays: Any) -> None:
    """Check that arrays have the same length, as scikit-learn's function does."""
    with shortened_errors():
        _validation.check_consistent_length(*arrays)


class Estimator(BaseEstimator):
    """Base class of all estimators in sktl."""

    _doc_link_module = "sktl"
    _doc_link_template = "https://sktl.github.io/sktl/generated/{module}.{name}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Return the module and name under which the reference documents the class."""
        name = type(self).__name__
        room = type(self).__module__.partition("._")[0]
        is_flagship = name in getattr(sys.modules["sktl"], "__all__", ())
        return {"module": "sktl" if is_flagship else room, "name": name}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state, with networks that load without tracing and the version."""
        state = {name: to_pickle(value) for name, value in super().__getstate__().items()}
        return {**state, "_sktl_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, or raise an error that names the version that pickled it."""
        state = dict(state)
        version = state.pop("_sktl_version", "before 0.1.0")  # the first version that is stored
        try:
            self._restore(state)
        except (SktlError, MemoryError):  # for example, this very error for a nested estimator
            raise
        except Exception as error:
            raise InputError(
                f"This {type(self).__name__} was pickled with sktl {version} and cannot be loaded with sktl "
                f"{__version__} ({type(error).__name__}: {error}). Load it with the version that pickled it, or fit "
                "it again."
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        """Restore a state; parameters that are missing in it get their defaults."""
        super().__setstate__(state)
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name not in vars(self) and parameter.default is not parameter.empty:
                setattr(self, name, parameter.default)

    def _validate_params(self) -> None:
        with shortened_errors():
            super()._validate_params()


def validate_params(constraints: dict[str, Any], *, prefer_skip_nested_validation: bool) -> Callable:
    """Validate the parameters of a function, as scikit-learn's decorator does."""
    validated = _param_validation.validate_params(
        constraints, prefer_skip_nested_validation=prefer_skip_nested_validation
    )

    def decorate(function: Callable) -> Callable:
        inner = validated(function)

        @functools.wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            with shortened_errors(InvalidParameterError):  # but no other errors of the function
                return inner(*args, **kwargs)

        return outer

    return decorate
