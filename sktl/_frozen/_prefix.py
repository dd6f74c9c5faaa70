"""The frozen prefix as one object: look up, decode, preprocess, run, pool, keep.

Its output is a pure function of one image, so it is computed once per image and kept in a cache under what
determines it: the image's content, the preprocessing, the network up to the layer with its weights, the pooling,
the numerics.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL
import xxhash

from sktl._frozen._ahead import chunks, map_ahead
from sktl._frozen._cache import ENTRY_BYTES, Claims
from sktl._frozen._progress import Progress
from sktl._frozen._readable import warn_of_nan
from sktl._frozen._runners import Runner, batch_size_of, get_runner, resolve_engine
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images, raise_unreadable
from sktl._randomness import helping
from sktl._stores import register_store
from sktl._threads import bounded_threads
from sktl._warnings import worker_threads
from sktl.exceptions import EngineError, ImageError, InputError, MissingDependencyError

_KEY_VERSION = "1"  # raise it when the meaning of a cache entry changes
_LOOKED_UP_TOGETHER = 512  # images

_SEARCHABLE = ("avg", "max", "gem", "cls")  # poolings that are small enough to keep every stage
# The functions of images that were one candidate of a search: its test images come without their other layers.
_SEARCHED: set[str] = set()
register_store("what was searched over", _SEARCHED.clear)

Group = list[int]  # positions of one and the same image


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
            wanted = [(len(images), *shape) for shape in self.shapes]
            if out is None:
                out = [np.empty(shape, self.dtype) for shape in wanted]
            elif [tuple(store.shape) for store in out] != wanted:
                raise InputError(f"out has the shapes {[tuple(store.shape) for store in out]}, but needs {wanted}.")
            job = _Job(self, images, pool, listeners, out, failures)
            try:
                for start in range(0, len(images), _LOOKED_UP_TOGETHER):
                    job.run_block(range(start, min(start + _LOOKED_UP_TOGETHER, len(images))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # do not decode what nobody waits for any more
                raise
        job.fill_failures()
        return out


class _Job:
    """One pass over a table of images."""

    def __init__(
        self,
        prefix: FrozenPrefix,
        images: Images,
        pool: Executor,
        listeners: Sequence[Progress],
        outputs: list,
        failures: "dict[int, ImageError] | None" = None,
    ):
        self.prefix = prefix
        self.images = images
        self.runtime = prefix.runtime
        self.spec = prefix.spec  # what is computed; grows to every stage in a search over layers
        self.cache = self.runtime.cache
        self.claims = Claims(self.cache)
        self.pool = pool
        self.listeners = listeners
        self.outputs = outputs
        self.is_done = np.zeros(len(images), bool)
        self.becomes_nan = self.runtime.on_error == "nan" and failures is None
        self.is_strict = self.runtime.on_error == "raise" and failures is None
        self.failures = {} if failures is None else failures
        self.n_told = 0
        self.n_in_table = max(len(images), getattr(images, "n_in_table", 0))  # predictions come block by block
        self.engine = resolve_engine(self.spec, self.runtime, self.n_in_table)
        row_bytes = sum(np.prod(shape) * prefix.dtype.itemsize + ENTRY_BYTES for shape in prefix.shapes)
        room = 0.9 * self.cache.max_bytes if self.cache is not None else 0
        self.kept_share = min(1.0, room / (self.n_in_table * row_bytes))
        self._key_endings: dict[tuple[PrefixSpec, str], list[bytes]] = {}

    def run_block(self, block: range) -> None:
        """Fill the block's rows: from the cache where they are there, through the network where not."""
        digests: dict[int, bytes] = {}
        groups = [[position] for position in block]
        if self.cache is not None:
            digests = self._digest(block)
            groups = self._look_up(digests)
            if groups:
                self._widen_in_a_search(digests[groups[0][0]])
        while groups:
            if not self._compute(groups, digests):
                self.claims.wait(self._keys_of([group[0] for group in groups], digests))
            # Left over are images that other jobs compute, and copies of one that changed or vanished meanwhile.
            left = [x for x in block if not self.is_done[x] and x not in self.failures]
            groups = self._look_up({position: digests[position] for position in left})
        if self.failures and self.is_strict:
            raise_unreadable(self.images, self.failures)
        self._tell(block.stop)

    def fill_failures(self) -> None:
        """Fill the rows of unreadable images; say which they are, if they become NaN."""
        value = np.nan if self.becomes_nan else 0
        for output, shape in zip(self.outputs, self.prefix.shapes, strict=True):
            for position in self.failures:
                output[position] = np.full(shape, value, self.prefix.dtype)
        if self.failures and self.becomes_nan:
            warn_of_nan(self.images, self.failures)

    def _digest(self, block: range) -> dict[int, bytes]:
        """The content digest of each readable image of the block."""

        def digest(positions: Sequence[int]) -> list[tuple[int, bytes]]:
            found = []
            for position in positions:
                with self._noting_failure(position):
                    found.append((position, self.images.digest(position)))
            return found

        runs = chunks(block, -(-len(block) // self.runtime.n_threads))
        return dict(pair for pairs in self.pool.map(helping(digest), runs) for pair in pairs)

    def _look_up(self, digests: dict[int, bytes]) -> list[Group]:
        """Fill the rows that the cache holds; return the positions of the others, equal images together."""
        groups: dict[bytes, Group] = {}
        for position, digest in digests.items():
            groups.setdefault(digest, []).append(position)
        n_layers = len(self.prefix.spec.outputs)
        found = self._cached(list(groups), self.prefix.spec)
        missing = []
        for index, group in enumerate(groups.values()):
            rows = [row for row in found[index * n_layers : (index + 1) * n_layers] if row is not None]
            if len(rows) == n_layers:
                self._fill(group, rows)
            else:
                missing.append(group)
        return missing

    def _cached(self, digests: Sequence[bytes], spec: PrefixSpec) -> list[np.ndarray | None]:
        """What the cache has of each image, by its digest, one output of ``spec`` after the other."""
        if self.cache is None:
            return [None] * (len(digests) * len(spec.outputs))
        # Those of the other engine, of a job of another size, are rounded otherwise: they are none of this one's.
        return self.cache.get_many([key for digest in digests for key in self._keys(digest, spec)])

    def _widen_in_a_search(self, digest: bytes) -> None:
        """Compute stages that are not known yet where another one is: somebody is searching over layers.

        From then on each candidate of the search finds its layer in the cache, so that a grid over all layers costs
        one pass to the first candidate's layer and one through the whole network.
        """
        spec = self.prefix.spec
        if self.spec != spec or not spec.layers or spec.pooling == "flatten":
            return
        stages = [stage.name for stage in spec.backbone.stages]
        if spec.key in _SEARCHED or self._is_known(digest, set(stages).difference(spec.layers)):
            if spec.pooling == "none":  # what is brought then is computed on the way: it costs no time
                _SEARCHED.add(spec.key)
            brought = self._brought_stages(stages)
            known = self._cached([digest], replace(spec, layers=brought)) if brought else []
            absent = [stage for stage, row in zip(brought, known, strict=True) if row is None]
            # Those asked for come first and as they are, even twice: `_fill` goes by their order.
            self.spec = replace(spec, layers=(*spec.layers, *absent))
            self.engine = resolve_engine(self.spec, self.runtime, self.n_in_table)  # its graph may not be exported yet

    def _is_known(self, digest: bytes, stages: Collection[str]) -> bool:
        """Whether the cache has one of these stages for an image."""
        spec = self.prefix.spec
        last = spec.backbone.stages[-1].name
        # A search over freeze depths begins as a rule with all stages frozen, which asks for the last one, pooled.
        pooled = _SEARCHABLE if spec.pooling == "none" else ()
        asked = [replace(spec, layers=tuple(stages))] if stages else []
        asked += [replace(spec, layers=[last], pooling=pooling) for pooling in pooled]
        return any(row is not None for each in asked for row in self._cached([digest], each))

    def _brought_stages(self, stages: Sequence[str]) -> list[str]:
        """What is computed beside the layers asked for, where somebody searches.

        Pooled, every stage is small. Activations as they are are large: of those it is the stages right before the one
        asked for that are no larger, as far as half the cache has room for the whole table.
        """
        spec = self.prefix.spec
        if spec.pooling != "none":
            return [stage for stage in stages if stage not in spec.layers]
        if self.cache is None or spec.layers[0] not in stages:
            return []
        asked = 4 * int(np.prod(spec.shapes[0]))
        room = self.cache.max_bytes // 2 // len(self.images) - asked
        brought = []
        for stage in reversed(stages[: stages.index(spec.layers[0])]):
            size = 4 * int(np.prod(spec.backbone.output_shape(stage)))
            if size > min(asked, room):
                break
            room -= size
            brought.append(stage)
        return brought

    def _compute(self, groups: list[Group], digests: dict[int, bytes]) -> bool:
        """Run the network on the first image of each group, and keep and fill in what it gives.

        Images that other jobs are computing are left to them; False where all are.
        """
        first = {group[0]: group for group in groups}
        is_at_work = False
        try:
            for positions, seen, outputs in self._batches(list(first), digests):
                is_at_work = True
                self._keep(seen, outputs)
                for row, position in enumerate(positions):
                    is_same = seen[row] == digests.get(position)
                    self._fill(first[position] if is_same else [position], [output[row] for output in outputs])
                self.claims.renew()
        finally:
            self.claims.release()
        return is_at_work

    def _batches(
        self, positions: list[int], digests: dict[int, bytes]
    ) -> Iterator[tuple[list[int], list[bytes], list[np.ndarray]]]:
        """Positions, digests and outputs, batch by batch, with the next batches being decoded meanwhile."""
        runner = self._runner()
        size = batch_size_of(self.spec, self.runtime, self.engine)
        if runner.concurrent:
            # A small job is shared out evenly, else one thread would have it all.
            size = min(size, -(-len(positions) // self.runtime.n_threads))

        def work(chunk: Sequence[int]) -> tuple[list[int], list[bytes], Any]:
            kept, seen, pixels = self._prepare(chunk)
            return kept, seen, runner(pixels) if kept and runner.concurrent else pixels

        batches = self._claimed(positions, digests, size)
        for kept, seen, result in map_ahead(self.pool, work, batches, self.runtime.n_threads):
            if kept:
                yield kept, seen, result if runner.concurrent else runner(result)
                self._tell(int(self.is_done.sum()))

    def _claimed(self, positions: list[int], digests: dict[int, bytes], size: int) -> Iterator[list[int]]:
        """Batches of what no other job is computing, claimed one by one, so that two jobs share a table evenly."""
        batch: list[int] = []
        while positions:
            n_wanted = size - len(batch)
            wanted, positions = positions[:n_wanted], positions[n_wanted:]
            answers = self.claims.ask(self._keys_of(wanted, digests))
            batch += [position for position, is_ours in zip(wanted, answers, strict=True) if is_ours]
            if batch and (len(batch) == size or not positions):
                yield batch
                batch = []

    def _keys_of(self, positions: Sequence[int], digests: dict[int, bytes]) -> list[list[bytes]]:
        """The keys of all that is computed of each image."""
        return [self._keys(digests.get(position, b""), self.spec) for position in positions]

    def _runner(self) -> Runner:
        """What runs the network; it is not built where the cache has everything."""
        try:
            return get_runner(self.spec, self.runtime, self.engine)
        except (EngineError, MissingDependencyError):
            if self.runtime.engine != "auto" or self.engine == "torch":
                raise
            self.engine = "torch"  # it runs every network
            return self._runner()

    def _prepare(self, positions: Sequence[int]) -> tuple[list[int], list[bytes], np.ndarray]:
        """Read, decode, resize and crop: positions that could be read, their digests, their pixels as one array."""
        preprocessing = self.spec.backbone.preprocessing
        pixels = np.empty((len(positions), *self.spec.image_shape), np.uint8)
        kept: list[int] = []
        digests: list[bytes] = []
        for position in positions:
            with self._noting_failure(position):
                image = self.images[position]
                pixels[len(kept)] = preprocessing.apply(image.decode())
                kept.append(position)
                digests.append(image.digest if self.cache is not None else b"")
        return kept, digests, pixels[: len(kept)]

    @contextlib.contextmanager
    def _noting_failure(self, position: int) -> Iterator[None]:
        """Note an unreadable image: the others of its block are read before anything is raised."""
        try:
            yield
        except ImageError as error:
            self.failures[position] = error

    def _keep(self, digests: list[bytes], outputs: list[np.ndarray]) -> None:
        """Put a batch into the cache, at once, so that an interruption loses no work.

        Of a table that is larger than the cache it is a share of the images, chosen by their content, so that it is
        the same ones in each fold and epoch: a cache that forgets the oldest would have forgotten each by the time it
        is asked for again.
        """
        if self.cache is not None:
            kept = [row for row, digest in enumerate(digests) if digest[0] < 256 * self.kept_share]
            keys = [self._keys(digests[row], self.spec) for row in kept]
            self.cache.put_many(
                [
                    (keys_of_one[index], output[row])
                    for index, output in enumerate(outputs)
                    for row, keys_of_one in zip(kept, keys, strict=True)
                ]
            )

    def _fill(self, group: Group, rows: Sequence[np.ndarray]) -> None:
        """Write one image's outputs to all its positions."""
        for position in group:
            for output, row in zip(self.outputs, rows, strict=False):  # a search computes more than is asked for
                output[position] = row
            self.is_done[position] = True

    def _tell(self, n_done: int) -> None:
        """Say how far the job is, each number once."""
        if n_done > self.n_told:
            self.n_told = n_done
            for listener in self.listeners:
                listener(n_done, len(self.images))

    def _keys(self, digest: bytes, spec: PrefixSpec) -> list[bytes]:
        """The cache key of each output of one image, as this job's engine computes it."""
        if (spec, self.engine) not in self._key_endings:
            self._key_endings[spec, self.engine] = [self._key_ending(output) for output in spec.outputs]
        return [xxhash.xxh3_128_digest(digest + ending) for ending in self._key_endings[spec, self.engine]]

    def _key_ending(self, output: PrefixSpec) -> bytes:
        """What determines an output beside the image."""
        numerics = f"{self.engine}|{self.runtime.precision}|{self.runtime.device.type}" if output.layers else ""
        # Pillow resizes: its version is a part of the preprocessing.
        return f"|{_KEY_VERSION}|{output.key}|{numerics}|{PIL.__version__}".encode()
