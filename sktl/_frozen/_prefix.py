"""The frozen prefix as one object: look up, decode, preprocess, run, pool, keep.

Its output is a pure function of one image, so it is computed once per image and kept in a cache under what determines
it: the image's content, the preprocessing, the network up to the layer with its weights, the pooling, the numerics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sktl._frozen._output_tables import OutputTables
from sktl._frozen._pass import Pass
from sktl._frozen._progress import Progress
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images
from sktl._threads import bounded_threads
from sktl._warnings import worker_threads
from sktl.exceptions import ImageError, InputError


@dataclass(frozen=True)
class FrozenPrefix:
    """Outputs of a prefix, computed once per image.

    Parameters
    ----------
    spec : PrefixSpec
        What is computed.
    runtime : Runtime
        How it is run.

    Raises
    ------
    InputError
        If images themselves, which are integers, have to become NaN.
    """

    spec: PrefixSpec
    runtime: Runtime

    def __post_init__(self) -> None:
        if self.runtime.on_error == "nan" and self.dtype.kind != "f":
            raise InputError("on_error='nan' needs layers: there is no NaN in a picture. Use on_error='raise'.")

    @property
    def dtype(self) -> np.dtype:
        """The type of what `run` gives."""
        return self.spec.dtype

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one image's row in each output."""
        return self.spec.shapes

    @property
    def n_threads(self) -> int:
        """Threads that read, decode and (in ONNX Runtime) run images."""
        return self.runtime.n_threads

    def run(
        self,
        images: Images,
        listeners: Sequence[Progress] = (),
        out: "list | None" = None,
        failures: "dict[int, ImageError] | None" = None,
    ) -> list:
        """One float32 array of shape (n_images, ...) for each layer; without layers the images, uint8.

        It is for any thread: in a worker, torch has one thread meanwhile.

        Parameters
        ----------
        images : Images
            The images.
        listeners : sequence of callable, default=()
            Each is called as ``listener(n_done, n_images)`` while images get done.
        out : list of array-like or None, default=None
            What to write to, one for each layer, instead of new arrays: an ndarray, or anything with a ``shape`` that
            takes ``out[i][position] = row``.
        failures : dict or None, default=None
            Where to note the error of each image that cannot be read, by its position; its rows are zeros then,
            whatever ``on_error`` says.

        Returns
        -------
        list of ndarray
            Or ``out``, if it was given.

        Raises
        ------
        InputError
            If ``out`` is of other shapes.
        ImageError
            If images cannot be read and ``on_error="raise"``: one error for all of them among the 512 that are
            looked up together. What was computed is in the cache.
        """
        with bounded_threads(), worker_threads(self.n_threads) as pool:
            outputs = OutputTables(self.spec, len(images), out, listeners)
            try:
                Pass(self.spec, self.runtime, images, outputs, pool, failures).run()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # do not decode what nobody waits for any more
                raise
        return outputs.tables
