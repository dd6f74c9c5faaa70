"""Frozen prefix: cache look-up, decoding, preprocessing, network and pooling.

The output is a pure function of one image. It is computed once per image and cached by
everything that determines it: the content of the image, the preprocessing, the network
up to the layer with its weights, the pooling and the numerics.
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
        If ``on_error="nan"`` and the output is the images, which are integers.
    """

    spec: PrefixSpec
    runtime: Runtime

    def __post_init__(self) -> None:
        if self.runtime.on_error == "nan" and self.dtype.kind != "f":
            raise InputError(
                "on_error='nan' needs layers, because images (uint8) cannot hold NaN. Use on_error='raise'."
            )

    @property
    def dtype(self) -> np.dtype:
        """Data type of the output of `run`."""
        return self.spec.dtype

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of a row of each output."""
        return self.spec.shapes

    @property
    def n_threads(self) -> int:
        """Number of threads that read, decode and (in ONNX Runtime) run images."""
        return self.runtime.n_threads

    def run(
        self,
        images: Images,
        listeners: Sequence[Progress] = (),
        out: "list | None" = None,
        failures: "dict[int, ImageError] | None" = None,
    ) -> list:
        """Return one float32 array of shape (n_images, ...) for each layer.

        Without layers, the output is the images as uint8. The method may be called from
        any thread; in a worker thread, torch uses a single thread.

        Parameters
        ----------
        images : Images
            The images.
        listeners : sequence of callable, default=()
            Functions called as ``listener(n_done, n_images)`` during the pass.
        out : list of array-like or None, default=None
            Tables to fill instead of new arrays, one for each layer: ndarrays, or any
            objects with a ``shape`` that support ``out[i][position] = row``.
        failures : dict or None, default=None
            Filled with the error of each unreadable image, by position. The rows of
            these images are zeros, regardless of ``on_error``.

        Returns
        -------
        list of ndarray
            The outputs, or ``out`` if given.

        Raises
        ------
        InputError
            If the shapes of ``out`` do not match.
        ImageError
            If images cannot be read and ``on_error="raise"``. The error lists all
            unreadable images of a block of 512. Finished rows are in the cache.
        """
        with bounded_threads(), worker_threads(self.n_threads) as pool:
            outputs = OutputTables(self.spec, len(images), out, listeners)
            try:
                Pass(self.spec, self.runtime, images, outputs, pool, failures).run()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # drop pending decodes
                raise
        return outputs.tables
