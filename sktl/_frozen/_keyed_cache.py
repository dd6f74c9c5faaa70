"""Cache of a pass over a table, keyed by image content and by computed output."""

from collections.abc import Sequence

import numpy as np
import PIL
import xxhash

from sktl._frozen._cache import ENTRY_BYTES
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec

_KEY_VERSION = "1"  # increase it when the meaning of a cache entry changes


class KeyedCache:
    """Cache of output rows, keyed by a digest of everything that determines them.

    These are the content of the image, its preprocessing, the network up to the layer
    with its weights, the pooling and the numerics. Engines round differently, so each
    has its own rows.

    Parameters
    ----------
    spec : PrefixSpec
        The prefix of the pass.
    runtime : Runtime
        The runtime with the cache. Without a cache, nothing is found and nothing is
        kept.
    n_images : int
        Number of images in the whole table.
    """

    def __init__(self, spec: PrefixSpec, runtime: Runtime, n_images: int):
        self.cache = runtime.cache
        self._numerics = f"{runtime.precision}|{runtime.device.type}"
        self._endings: dict[tuple[PrefixSpec, str], list[bytes]] = {}
        row_bytes = sum(np.prod(shape) * spec.dtype.itemsize + ENTRY_BYTES for shape in spec.shapes)
        room = 0.9 * self.cache.max_bytes if self.cache is not None else 0
        self._kept_share = min(1.0, room / (n_images * row_bytes))

    def keys(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str) -> list[list[bytes]]:
        """Return the keys of each image, one per output of ``spec``, for an engine."""
        if (spec, engine) not in self._endings:
            self._endings[spec, engine] = [self._ending(output, engine) for output in spec.outputs]
        endings = self._endings[spec, engine]
        return [[xxhash.xxh3_128_digest(digest + ending) for ending in endings] for digest in digests]

    def _ending(self, output: PrefixSpec, engine: str) -> bytes:
        """Return what determines a row in addition to the content of the image."""
        # Images do not depend on the numerics.
        numerics = f"{engine}|{self._numerics}" if output.layers else ""
        # Pillow resizes, so its version is part of the preprocessing.
        return f"|{_KEY_VERSION}|{output.key}|{numerics}|{PIL.__version__}".encode()

    def get(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str) -> "list[list[np.ndarray | None]]":
        """Look up the row of each output, or None, for each image."""
        keys = [key for keys_of_one in self.keys(digests, spec, engine) for key in keys_of_one]
        found: list[np.ndarray | None] = [None] * len(keys)
        if self.cache is not None:
            found = self.cache.get_many(keys)
        n_outputs = len(spec.outputs)
        return [found[start : start + n_outputs] for start in range(0, len(found), n_outputs)]

    def put(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str, outputs: Sequence[np.ndarray]) -> None:
        """Store a batch, or as much of it as the cache can hold.

        If the table is larger than the cache, a share of the images is stored, chosen
        by content. The same images are chosen in each fold and epoch, whereas a cache
        that drops the oldest entries would drop each one before its next use.

        Parameters
        ----------
        digests : sequence of bytes
            Digests of the images.
        spec : PrefixSpec
            The computed prefix.
        engine : str
            The engine that computed the outputs.
        outputs : sequence of ndarray of shape (n_images, ...)
            One array for each output of ``spec``.
        """
        if self.cache is None:
            return
        kept = [row for row, digest in enumerate(digests) if digest[0] < 256 * self._kept_share]
        keys = self.keys([digests[row] for row in kept], spec, engine)
        self.cache.put_many(
            [
                (keys_of_one[index], output[row])
                for index, output in enumerate(outputs)
                for row, keys_of_one in zip(kept, keys, strict=True)
            ]
        )
