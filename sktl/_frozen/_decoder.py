"""Decoding of images for the network, with content digests and errors per image."""

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
    """Reads, decodes, resizes and crops images. It is thread-safe.

    Parameters
    ----------
    images : Images
        The table.
    spec : PrefixSpec
        The prefix, which defines the preprocessing.
    has_digests : bool
        Whether to compute the digests of decoded images.
    failures : dict
        Filled with the error of each unreadable image, by position, so that the rest of
        a block is read before an error is raised.
    """

    def __init__(self, images: Images, spec: PrefixSpec, *, has_digests: bool, failures: dict[int, ImageError]):
        self._images = images
        self._preprocessing = spec.backbone.preprocessing
        self._shape = spec.image_shape
        self._has_digests = has_digests
        self.failures = failures

    def digests(self, positions: Sequence[int], pool: Executor, n_threads: int) -> dict[int, bytes]:
        """Return the content digest of each readable image, by position."""

        def digest(some: Sequence[int]) -> list[tuple[int, bytes]]:
            found = []
            for position in some:
                with self._noting_failure(position):
                    found.append((position, self._images.digest(position)))
            return found

        shares = chunks(positions, -(-len(positions) // n_threads))
        return dict(pair for pairs in pool.map(helping(digest), shares) for pair in pairs)

    def decode(self, positions: Sequence[int]) -> tuple[list[int], list[bytes], np.ndarray]:
        """Return the positions that were readable, their digests and their pixels.

        The digests are computed from the decoded content, because a file may have
        changed since `digests` read it.
        """
        pixels = np.empty((len(positions), *self._shape), np.uint8)
        kept: list[int] = []
        digests: list[bytes] = []
        for position in positions:
            with self._noting_failure(position):
                image = self._images[position]
                pixels[len(kept)] = image.prepared(self._preprocessing.apply)
                kept.append(position)
                digests.append(image.digest if self._has_digests else b"")
        return kept, digests, pixels[: len(kept)]

    @contextlib.contextmanager
    def _noting_failure(self, position: int) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            self.failures[position] = error
