"""What a model costs: its size, its work for one picture, and its time."""

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
    """What a fitted estimator costs.

    Parameters
    ----------
    parameters : int or None
        Numbers that were learnt in the part of its network that it runs, head included; None where there is no network.
    nonzero : int or None
        Those of them that are not 0.
    nbytes : int or None
        Bytes on disk of the pickled estimator; None where it cannot be pickled.
    macs : int or None
        Multiply-accumulates of the network for one picture.
    milliseconds : float
        Time for one picture.
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
        return ReadableTable("What one image costs, and what is kept", columns, _HEADINGS, _formats([self]))


class Footprints(ReadableTable):
    """What several models cost, one per row; made by ``footprint_``.

    Parameters
    ----------
    models : dict of str to Footprint
        What was measured, by name. All others are compared with the first; the title compares the last with it.
    agreement : sequence of float
        How much the answers of each model agree with the first one's: a share of equal labels, or R².
    note : str, default=""
        Stands below the table.
    """

    def __init__(self, models: Mapping[str, Footprint], *, agreement: Sequence[float], note: str = "") -> None:
        columns = {
            "model": list(models),
            **{name: [getattr(footprint, name) for footprint in models.values()] for name in Footprint._fields},
            "agreement": agreement,
        }
        with_first = f"agreement with the {next(iter(models))} on the fitted images"
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
    """Measure what a fitted estimator costs.

    Parameters
    ----------
    estimator : estimator
        Any of scikit-learn's kind. Its network is that of a fitted estimator of sktl: itself, or found in pipelines,
        searches, a `FrozenEstimator` and the like, see `find_fitted`. What a classic model in the pipeline learnt and
        computes is part of the bytes and of the time, but not counted in parameters and multiply-accumulates.
    X : array-like
        What it predicts for, all of it in one call: pictures that come together cost less than one alone.
    n_repeats : int, default=5
        How often the time is taken, after one call that is not counted.

    Returns
    -------
    Footprint
        The time is the median of the repeats of ``predict``, or of ``transform`` where there is no such method, divided
        by the number of pictures; from what is in ``X`` to the answer, so that reading files is part of it. No cache is
        used. Where no network is found, or where it sits in an ensemble or is one of several in a union or a
        `ColumnTransformer`, ``parameters``, ``nonzero`` and ``macs`` are None.

    Raises
    ------
    NotFittedError
        Where the estimator is not fitted.
    InputError
        Where ``X`` is empty, or there is nothing to repeat.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import footprint
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=0, random_state=0).fit(X[:50] / 16, y[:50])
    >>> footprint(model, X[:16] / 16).parameters
    1661514
    """
    return footprints({"": estimator}, X, n_repeats)[""]


def footprints(models: Mapping[str, Any], X: Any, n_repeats: int = 5) -> dict[str, Footprint]:
    """Measure what several fitted estimators cost, so that they can be compared.

    Parameters
    ----------
    models : dict of str to estimator
        Fitted, by name.
    X : array-like
        What they predict for.
    n_repeats : int, default=5
        How often the time of each is taken. They take turns: whatever else the machine does, it does to all of them.

    Returns
    -------
    dict of str to Footprint
        As `footprint` gives them.

    Raises
    ------
    NotFittedError
        Where an estimator is not fitted.
    InputError
        Where ``X`` is empty, or there is nothing to repeat.
    """
    if n_repeats < 1:
        raise InputError(f"n_repeats={n_repeats} takes no time at all. Give at least 1.")
    times = _milliseconds(list(models.values()), X, n_repeats)  # first: what is not fitted or does not fit X says so
    found = {}
    for (name, model), milliseconds in zip(models.items(), times, strict=True):
        parameters, nonzero, macs = network_counts(model)
        found[name] = Footprint(parameters, nonzero, _pickled_bytes(model), macs, milliseconds)
    return found


def _milliseconds(estimators: Sequence[Any], X: Any, n_repeats: int) -> list[float]:
    runs = [model.predict if hasattr(model, "predict") else model.transform for model in estimators]
    refuse_single(X)
    n_pictures = _num_samples(X)
    if not n_pictures:
        raise InputError("X is empty. Give at least one picture to take the time of.")
    seconds: list[list[float]] = [[] for _ in runs]
    with bypassed_caches():
        for run in runs:
            run(X)  # engines start, memory is fetched
        for _ in range(n_repeats):
            for run, taken in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                run(X)
                taken.append(time.perf_counter() - start)
    return [1000 * float(np.median(taken)) / n_pictures for taken in seconds]


def network_counts(estimator: Any) -> Counts | tuple[None, None, None]:
    """Parameters, those that are not zero, and multiply-accumulates, of the part of a network that is run."""
    found = find_fitted(estimator, "backbone_")
    if found is None or not isinstance(found.estimator.backbone_, Backbone):
        return None, None, None
    backbone = found.estimator.backbone_
    if found.net is None:
        return count_parts(backbone.feature_graph(found.estimator.layers_), nn.Identity())
    return found.net.count(backbone)


class _Counter:
    """A file that counts what is written to it, and keeps nothing."""

    n_bytes = 0

    def write(self, data: Any) -> None:
        """Count the bytes."""
        self.n_bytes += memoryview(data).nbytes


def _pickled_bytes(estimator: Any) -> "int | None":
    counter = _Counter()
    # With this protocol NumPy's arrays are not copied on the way; torch's tensors are, as long as pickle runs.
    try:
        pickle.Pickler(counter, pickle.HIGHEST_PROTOCOL).dump(estimator)
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda in it, say: it cannot be put on a disk
        return None
    return counter.n_bytes


def _comparison(models: Mapping[str, Footprint]) -> str:
    """What the last model takes of the first one's time and bytes."""
    (reference, before), *_, (name, after) = models.items()
    time = f"{after.milliseconds / before.milliseconds:.3g} times the {reference}'s time"
    if after.nbytes is None or before.nbytes is None:
        return f"The {name} model takes {time}"
    return f"The {name} model takes {time} and {after.nbytes / before.nbytes:.3g} times its bytes"


_HEADINGS = ["parameters", "not zero", "bytes", "multiply-accumulates", "ms per image"]


def _formats(footprints: Iterable[Footprint]) -> list[Callable[[Any], str]]:
    """What makes a text of each number of a footprint."""
    return [*[counted] * 4, alike([footprint.milliseconds for footprint in footprints], 3)]
