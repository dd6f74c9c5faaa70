"""One pass over a table: look up known rows, compute and cache the others."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from sktl._frozen._cache import Claims
from sktl._frozen._decoder import Decoder
from sktl._frozen._keyed_cache import KeyedCache
from sktl._frozen._map_ahead import map_ahead
from sktl._frozen._output_tables import OutputTables
from sktl._frozen._readable import warn_of_nan
from sktl._frozen._runners import Runner, batch_size_of, get_runner, resolve_engine
from sktl._frozen._runtime import Runtime
from sktl._frozen._search_widening import widened
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images, raise_unreadable
from sktl.exceptions import EngineError, ImageError, MissingDependencyError

_LOOKED_UP_TOGETHER = 512  # images

Copies = list[int]  # positions of one and the same image
# Positions, digests, and an array for each output.
Batch = tuple[list[int], list[bytes], list[np.ndarray]]


class Pass:
    """Pass that fills the outputs of a prefix for a table of images.

    Parameters
    ----------
    spec : PrefixSpec
        The requested prefix.
    runtime : Runtime
        How to run it.
    images : Images
        The table.
    outputs : OutputTables
        The tables to fill.
    pool : Executor
        Threads that read and decode images, and run engines that support concurrency.
    failures : dict or None, default=None
        Filled with the error of each unreadable image, by position, regardless of
        ``on_error``.
    """

    def __init__(
        self,
        spec: PrefixSpec,
        runtime: Runtime,
        images: Images,
        outputs: OutputTables,
        pool: Executor,
        failures: "dict[int, ImageError] | None" = None,
    ):
        self._requested = spec
        self._computed = spec  # extended to more stages in a search over layers
        self._runtime = runtime
        self._images = images
        self._outputs = outputs
        self._pool = pool
        self._n_threads = runtime.n_threads
        self._on_error = runtime.on_error if failures is None else "note"
        self._failures = {} if failures is None else failures
        # `predict` passes blocks of a larger table.
        self._n_in_table = max(len(images), getattr(images, "n_in_table", 0))
        self._engine = resolve_engine(spec, runtime, self._n_in_table)
        self._cache = KeyedCache(spec, runtime, self._n_in_table)
        self._claims = Claims(runtime.cache)
        self._decoder = Decoder(images, spec, has_digests=runtime.cache is not None, failures=self._failures)

    def run(self) -> None:
        """Fill all rows, block by block to bound memory and to keep finished work.

        Raises
        ------
        ImageError
            If images cannot be read and ``on_error="raise"``. The error lists all
            unreadable images of a block.
        """
        n_images = len(self._images)
        for start in range(0, n_images, _LOOKED_UP_TOGETHER):
            self._run_block(range(start, min(start + _LOOKED_UP_TOGETHER, n_images)))
        self._outputs.fill_with(np.nan if self._on_error == "nan" else 0, self._failures)
        if self._failures and self._on_error == "nan":
            warn_of_nan(self._images, self._failures)

    def _run_block(self, block: range) -> None:
        """Fill the rows of a block from the cache, then through the network."""
        digests: dict[int, bytes] = {}
        missing = [[position] for position in block]
        if self._runtime.cache is not None:
            digests = self._decoder.digests(block, self._pool, self._n_threads)
            missing = self._look_up(digests)
            if missing:
                self._widen_in_a_search(digests[missing[0][0]])
        while missing:
            if not self._compute(missing, digests):
                self._claims.wait(self._keys([copies[0] for copies in missing], digests))
            # Left are images that other passes compute, and copies of a file that has
            # changed.
            rest = [x for x in block if not self._outputs.is_done(x) and x not in self._failures]
            missing = self._look_up({position: digests[position] for position in rest})
        if self._failures and self._on_error == "raise":
            raise_unreadable(self._images, self._failures)
        self._outputs.tell(block.stop)

    def _look_up(self, digests: dict[int, bytes]) -> list[Copies]:
        """Fill the cached rows; return the other positions, grouped by equal images."""
        copies: dict[bytes, Copies] = {}
        for position, digest in digests.items():
            copies.setdefault(digest, []).append(position)
        missing = []
        found = self._cache.get(list(copies), self._requested, self._engine)
        for positions, rows in zip(copies.values(), found, strict=True):
            known = [row for row in rows if row is not None]
            if len(known) == len(rows):
                self._outputs.fill(positions, known)
            else:
                missing.append(positions)
        return missing

    def _widen_in_a_search(self, digest: bytes) -> None:
        """Compute further stages once an image shows that a search needs them."""
        if self._computed == self._requested:
            self._computed = widened(self._requested, self._cache, self._engine, digest, len(self._images))
            # The extended graph may not be exported yet.
            if self._computed != self._requested:
                self._engine = resolve_engine(self._computed, self._runtime, self._n_in_table)

    def _compute(self, missing: list[Copies], digests: dict[int, bytes]) -> bool:
        """Run the network on one copy of each image, and cache and fill the results.

        Images claimed by other passes are skipped. Return False if all are.
        """
        copies = {positions[0]: positions for positions in missing}
        is_at_work = False
        try:
            for positions, seen, outputs in self._batches(list(copies), digests):
                is_at_work = True
                # Cached at once, so that an interruption loses no work.
                self._cache.put(seen, self._computed, self._engine, outputs)
                for row, position in enumerate(positions):
                    is_same = seen[row] == digests.get(position)
                    rows = [output[row] for output in outputs]
                    self._outputs.fill(copies[position] if is_same else [position], rows)
                self._claims.renew()
                self._outputs.tell()
        finally:
            self._claims.release()
        return is_at_work

    def _batches(self, positions: list[int], digests: dict[int, bytes]) -> Iterator[Batch]:
        """Run the network batch by batch while the next batches are decoded."""
        runner = self._runner()
        size = batch_size_of(self._computed, self._runtime, self._engine)
        if runner.concurrent:
            # Split a small job evenly over the threads.
            size = min(size, -(-len(positions) // self._n_threads))

        def work(some: Sequence[int]) -> tuple[list[int], list[bytes], Any]:
            kept, seen, pixels = self._decoder.decode(some)
            return kept, seen, runner(pixels) if kept and runner.concurrent else pixels

        batches = self._claimed(positions, digests, size)
        for kept, seen, result in map_ahead(self._pool, work, batches, self._n_threads):
            if kept:
                yield kept, seen, result if runner.concurrent else runner(result)

    def _claimed(self, positions: list[int], digests: dict[int, bytes], size: int) -> Iterator[list[int]]:
        """Yield batches of images that no other pass computes.

        Batches are claimed one by one, so that two passes share a table evenly.
        """
        batch: list[int] = []
        while positions:
            n_wanted = size - len(batch)
            wanted, positions = positions[:n_wanted], positions[n_wanted:]
            answers = self._claims.ask(self._keys(wanted, digests))
            batch += [position for position, is_ours in zip(wanted, answers, strict=True) if is_ours]
            if batch and (len(batch) == size or not positions):
                yield batch
                batch = []

    def _keys(self, positions: Sequence[int], digests: dict[int, bytes]) -> list[list[bytes]]:
        """Return the keys of everything that is computed for each image."""
        seen = [digests.get(position, b"") for position in positions]
        return self._cache.keys(seen, self._computed, self._engine)

    def _runner(self) -> Runner:
        """Return the runner of the engine; ``"auto"`` falls back to torch."""
        try:
            return get_runner(self._computed, self._runtime, self._engine)
        except (EngineError, MissingDependencyError):
            if self._runtime.engine != "auto" or self._engine == "torch":
                raise
            self._engine = "torch"  # runs every network
            return self._runner()
