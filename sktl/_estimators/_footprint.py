"""Size, computation and prediction time of a model."""

import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import _num_samples
from torch import nn

from sktl._estimators._find_fitted import find_fitted
from sktl._frozen._cache import bypassed_caches
from sktl._images import refuse_single
from sktl._table import ReadableTable, alike, counted
from sktl._training._net import Counts, count_parts
from sktl.backbones import Backbone
from sktl.exceptions import InputError


class Footprint(NamedTuple):
    """Size, computation and prediction time of a fitted estimator.

    Parameters
    ----------
    parameters : int or None
        Number of parameters of the network, including the head. Layers that are not run
        do not count. None if the estimator has no network.
    nonzero : int or None
        Number of parameters that are not zero.
    nbytes : int or None
        Size of the pickled estimator in bytes. None if it cannot be pickled.
    macs : int or None
        Multiply-accumulate operations of the network per image.
    milliseconds : float
        Time per image in milliseconds.
    """

    parameters: int | None
    nonzero: int | None
    nbytes: int | None
    macs: int | None
    milliseconds: float

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> ReadableTable:
        columns = {name: [value] for name, value in self._asdict().items()}
        return ReadableTable("Footprint: cost per image and size", columns, _HEADINGS, _formats([self]))


class Footprints(ReadableTable):
    """Footprints of several models, one per row, as in the attribute ``footprint_``.

    Parameters
    ----------
    models : dict of str to Footprint
        Footprints by name. The title compares the last one with the first.
    agreement : sequence of float
        Agreement of the predictions of each model with those of the first: the share of
        equal labels, or R².
    note : str, default=""
        Note below the table.
    """

    def __init__(self, models: Mapping[str, Footprint], *, agreement: Sequence[float], note: str = "") -> None:
        columns = {
            "model": list(models),
            **{name: [getattr(footprint, name) for footprint in models.values()] for name in Footprint._fields},
            "agreement": agreement,
        }
        with_first = f"agreement with the {next(iter(models))} on the training images"
        known = "" if np.isnan(agreement[-1]) else f"; {with_first}: {agreement[-1]:.3f}"
        super().__init__(
            _comparison(models) + known,
            columns,
            ["model", *_HEADINGS, with_first],
            [str, *_formats(models.values()), "{:.3f}".format],
            names=["model"],
            note=note,
        )


def footprint(estimator: Any, X: Any, n_repeats: int = 5) -> Footprint:
    """Measure the size, computation and prediction time of a fitted estimator.

    The time is the median over the repeats of ``predict``, or of ``transform`` for an
    estimator without ``predict``, divided by the number of images. It includes reading
    files; caches are not used.

    Parameters
    ----------
    estimator : estimator
        Any fitted scikit-learn estimator. The network is that of a fitted sktl
        estimator: ``estimator`` itself, or one inside a pipeline, a search or a
        `sklearn.frozen.FrozenEstimator`. Other models in a pipeline count towards bytes
        and time, but not towards parameters and multiply-accumulates.
    X : array-like of images
        Images to predict in one call. The time per image is usually smaller for more
        images.
    n_repeats : int, default=5
        Number of times to measure the time, after a first call that is not measured.

    Returns
    -------
    Footprint
        The footprint. If no network is found, if it is in an ensemble, or if a union or
        a `sklearn.compose.ColumnTransformer` contains several, then
        ``parameters=None``, ``nonzero=None`` and ``macs=None``.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    InputError
        If ``X`` is empty or ``n_repeats`` is smaller than 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import footprint
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=0, random_state=0)
    >>> model = model.fit(X[:50] / 16, y[:50])
    >>> footprint(model, X[:16] / 16).parameters
    1661514
    """
    return footprints({"": estimator}, X, n_repeats)[""]


def footprints(models: Mapping[str, Any], X: Any, n_repeats: int = 5) -> dict[str, Footprint]:
    """Measure the footprints of several fitted estimators for comparison.

    Parameters
    ----------
    models : dict of str to estimator
        Fitted estimators by name.
    X : array-like of images
        Images to predict.
    n_repeats : int, default=5
        Number of times to measure each estimator. They alternate, so that other load on
        the machine affects all of them.

    Returns
    -------
    dict of str to Footprint
        The footprints by name.

    Raises
    ------
    NotFittedError
        If an estimator is not fitted.
    InputError
        If ``X`` is empty or ``n_repeats`` is smaller than 1.
    """
    if n_repeats < 1:
        raise InputError(f"The 'n_repeats' parameter must be at least 1. Got {n_repeats} instead.")
    times = _milliseconds(list(models.values()), X, n_repeats)  # first, since it checks models and X
    found = {}
    for (name, model), milliseconds in zip(models.items(), times, strict=True):
        parameters, nonzero, macs = network_counts(model)
        found[name] = Footprint(parameters, nonzero, _pickled_bytes(model), macs, milliseconds)
    return found


def _milliseconds(estimators: Sequence[Any], X: Any, n_repeats: int) -> list[float]:
    runs = [model.predict if hasattr(model, "predict") else model.transform for model in estimators]
    refuse_single(X)
    n_images = _num_samples(X)
    if not n_images:
        raise InputError("X is empty. Pass at least one image to measure the prediction time.")
    seconds: list[list[float]] = [[] for _ in runs]
    with bypassed_caches():
        for run in runs:
            run(X)  # starts engines and allocates memory
        for _ in range(n_repeats):
            for run, taken in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                run(X)
                taken.append(time.perf_counter() - start)
    return [1000 * float(np.median(taken)) / n_images for taken in seconds]


def network_counts(estimator: Any) -> Counts | tuple[None, None, None]:
    """Count parameters, nonzero parameters and multiply-accumulates of the network."""
    found = find_fitted(estimator, "backbone_")
    if found is None or not isinstance(found.estimator.backbone_, Backbone):
        return None, None, None
    backbone = found.estimator.backbone_
    if found.net is None:
        return count_parts(backbone.feature_graph(found.estimator.layers_), nn.Identity())
    return found.net.count(backbone)


class _Counter:
    """File that counts the bytes written to it and discards them."""

    n_bytes = 0

    def write(self, data: Any) -> None:
        """Count the bytes."""
        self.n_bytes += memoryview(data).nbytes


def _pickled_bytes(estimator: Any) -> "int | None":
    counter = _Counter()
    # This protocol does not copy NumPy arrays; tensors are copied while pickle runs.
    try:
        pickle.Pickler(counter, pickle.HIGHEST_PROTOCOL).dump(estimator)
    except (pickle.PicklingError, AttributeError, TypeError):  # for example, because of a lambda
        return None
    return counter.n_bytes


def _comparison(models: Mapping[str, Footprint]) -> str:
    """Compare time and bytes of the last model with those of the first."""
    (reference, before), *_, (name, after) = models.items()
    time = f"The {name} model takes {after.milliseconds / before.milliseconds:.3g} times the time"
    if after.nbytes is None or before.nbytes is None:
        return f"{time} of the {reference}"
    return f"{time} and {after.nbytes / before.nbytes:.3g} times the bytes of the {reference}"


_HEADINGS = ["parameters", "nonzero", "bytes", "multiply-accumulates", "ms per image"]


def _formats(footprints: Iterable[Footprint]) -> list[Callable[[Any], str]]:
    """Return the formatters of the columns of a footprint."""
    return [*[counted] * 4, alike([footprint.milliseconds for footprint in footprints], 3)]
