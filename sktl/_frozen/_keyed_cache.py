"""The cache as a pass over a table uses it: by the content of an image and by what is computed of it."""

from collections.abc import Sequence

import numpy as np
import PIL
import xxhash

from sktl._frozen._cache import ENTRY_BYTES
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec

_KEY_VERSION = "1"  # raise it when the meaning of a cache entry changes


class KeyedCache:
    """Rows of outputs, under the digest of all that determines them.

    That is the content of the image, its preprocessing, the network up to the layer with its weights, the pooling and
    the numerics. Those of the other engine, of a pass of another size, are rounded otherwise: they are other rows.

    Parameters
    ----------
    spec : PrefixSpec
        What the pass is asked for.
    runtime : Runtime
        With the cache. Without one nothing is found and nothing is kept.
    n_images : int
        How many images the whole table has.
    """

    def __init__(self, spec: PrefixSpec, runtime: Runtime, n_images: int):
        self.cache = runtime.cache
        self._numerics = f"{runtime.precision}|{runtime.device.type}"
        self._endings: dict[tuple[PrefixSpec, str], list[bytes]] = {}
        row_bytes = sum(np.prod(shape) * spec.dtype.itemsize + ENTRY_BYTES for shape in spec.shapes)
        room = 0.9 * self.cache.max_bytes if self.cache is not None else 0
        self._kept_share = min(1.0, room / (n_images * row_bytes))

    def keys(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str) -> list[list[bytes]]:
        """The keys of each image, by its digest: one for each output of ``spec``, as an engine computes it."""
        if (spec, engine) not in self._endings:
            self._endings[spec, engine] = [self._ending(output, engine) for output in spec.outputs]
        endings = self._endings[spec, engine]
        return [[xxhash.xxh3_128_digest(digest + ending) for ending in endings] for digest in digests]

    def _ending(self, output: PrefixSpec, engine: str) -> bytes:
        """What determines a row beside the image's content."""
        numerics = f"{engine}|{self._numerics}" if output.layers else ""  # the images themselves are never rounded
        # Pillow resizes: its version is a part of the preprocessing.
        return f"|{_KEY_VERSION}|{output.key}|{numerics}|{PIL.__version__}".encode()

    def get(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str) -> "list[list[np.ndarray | None]]":
        """What is known of each image: a row for each output, or None."""
        keys = [key for keys_of_one in self.keys(digests, spec, engine) for key in keys_of_one]
        found: list[np.ndarray | None] = [None] * len(keys)
        if self.cache is not None:
            found = self.cache.get_many(keys)
        n_outputs = len(spec.outputs)
        return [found[start : start + n_outputs] for start in range(0, len(found), n_outputs)]

    def put(self, digests: Sequence[bytes], spec: PrefixSpec, engine: str, outputs: Sequence[np.ndarray]) -> None:
        """Keep a batch, or what there is room for.

        Of a table that is larger than the cache it is a share of the images, chosen by their content, so that it is
        the same ones in each fold and epoch: a cache that forgets the oldest would have forgotten each by the time it
        is asked for again.

        Parameters
        ----------
        digests : sequence of bytes
            Of the images.
        spec : PrefixSpec
            What was computed of them.
        engine : str
            By what.
        outputs : sequence of ndarray of shape (n_images, ...)
            One for each output of ``spec``.
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
