"""Images of a table as the network sees them, and their digests; those that cannot be read are noted."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from sktl._frozen._map_ahead import chunks
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images
from sktl._randomness import helping
from sktl.exceptions import ImageError


class Decoder:
    """Reads, decodes, resizes and crops; may be called by several threads.

    Parameters
    ----------
    images : Images
        The table.
    spec : PrefixSpec
        With the preprocessing.
    has_digests : bool
        Whether the digests of decoded images are wanted.
    failures : dict
        Where the error of each image that cannot be read is noted, by its position: the others of its block are read
        before anything is raised.
    """

    def __init__(self, images: Images, spec: PrefixSpec, *, has_digests: bool, failures: dict[int, ImageError]):
        self._images = images
        self._preprocessing = spec.backbone.preprocessing
        self._shape = spec.image_shape
        self._has_digests = has_digests
        self.failures = failures

    def digests(self, positions: Sequence[int], pool: Executor, n_threads: int) -> dict[int, bytes]:
        """The content digest of each image that can be read, by its position."""

        def digest(some: Sequence[int]) -> list[tuple[int, bytes]]:
            found = []
            for position in some:
                with self._noting_failure(position):
                    found.append((position, self._images.digest(position)))
            return found

        shares = chunks(positions, -(-len(positions) // n_threads))
        return dict(pair for pairs in pool.map(helping(digest), shares) for pair in pairs)

    def decode(self, positions: Sequence[int]) -> tuple[list[int], list[bytes], np.ndarray]:
        """The positions that could be read, the digests of what was decoded, and its pixels as one array.

        A file may have changed since its digest was asked for: these are the digests of the pixels.
        """
        pixels = np.empty((len(positions), *self._shape), np.uint8)
        kept: list[int] = []
        digests: list[bytes] = []
        for position in positions:
            with self._noting_failure(position):
                image = self._images[position]
                pixels[len(kept)] = self._preprocessing.apply(image.decode())
                kept.append(position)
                digests.append(image.digest if self._has_digests else b"")
        return kept, digests, pixels[: len(kept)]

    @contextlib.contextmanager
    def _noting_failure(self, position: int) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            self.failures[position] = error
