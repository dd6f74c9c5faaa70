"""The frozen prefix as one object: look up, decode, preprocess, run, pool, keep.

Its output is a pure function of one picture, so it is computed once per picture and kept in a cache under what
determines it: the picture's content, the preprocessing, the network up to the layer with its weights, the pooling,
the numerics.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from numbers import Integral
from typing import Any

import numpy as np
import PIL
import torch
import xxhash
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._device import resolve_device
from sktl._frozen._ahead import chunks, map_ahead
from sktl._frozen._cache import ENTRY_BYTES, Claims, open_cache
from sktl._frozen._prefix_network import PICTURES, output_shapes
from sktl._frozen._progress import Progress
from sktl._frozen._readable import count_threads, warn_of_nan
from sktl._frozen._runners import (
    ENGINES,
    PRECISIONS,
    Runner,
    check_numerics,
    get_runner,
    pictures_at_once,
    prefix_key,
    resolve_batch_size,
    resolve_engine,
)
from sktl._images import Images, raise_unreadable
from sktl._randomness import helping
from sktl._stores import register_store
from sktl._threads import bounded_threads
from sktl._warnings import worker_threads
from sktl.backbones import Backbone
from sktl.exceptions import EngineError, ImageError, InputError, MissingDependencyError

_KEY_VERSION = "1"  # raise it when the meaning of a cache entry changes
_BLOCK = 512  # pictures that are looked up together

_SEARCHABLE = ("avg", "max", "gem", "cls")  # poolings that are small enough to keep every stage
# The functions of pictures that were one candidate of a search: its test pictures come without their other layers.
_SEARCHED: set[str] = set()
register_store("what was searched over", _SEARCHED.clear)

PREFIX_CONSTRAINTS: dict = {
    "engine": [StrOptions(set(ENGINES))],
    "precision": [StrOptions(set(PRECISIONS))],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "cache": [str, os.PathLike, None],
    "device": [str, torch.device],
    "n_jobs": [Integral, None],
    "on_error": [StrOptions({"raise", "nan"})],
}

Group = list[int]  # positions of one and the same picture


class FrozenPrefix:
    """Pooled activations of named layers, computed once per picture.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : sequence of str
        Layers to read; nothing behind the deepest one is computed. With none the pictures themselves are kept: decoded,
        resized and cropped, by no network and whatever ``pooling``, ``engine`` and ``precision`` say.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}, default="avg"
        What is kept of each layer.
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        What runs the network.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numerics of the network.
    batch_size : int or "auto", default="auto"
        Pictures that go through the network at once.
    cache : "auto", path-like or None, default="auto"
        Where outputs are kept: in this process, in a directory, or nowhere.
    device : str or torch.device, default="auto"
        Where the network runs.
    n_jobs : int or None, default=None
        Threads that read, decode and (in ONNX Runtime) run pictures; None takes as many as torch has.
    on_error : {"raise", "nan"}, default="raise"
        What a picture that cannot be read becomes: an error, or a row of NaN and a warning.

    Raises
    ------
    InputError
        Where the device is not there, or where engine, precision and device exclude each other. Where pictures
        themselves, which are integers, shall become NaN.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        *,
        pooling: str = "avg",
        engine: str = "auto",
        precision: str = "float32",
        batch_size: "int | str" = "auto",
        cache: "str | os.PathLike | None" = "auto",
        device: "str | torch.device" = "auto",
        n_jobs: "int | None" = None,
        on_error: str = "raise",
    ):
        self.backbone = backbone
        self.layers = tuple(layers) or (PICTURES,)
        self.pooling = pooling if layers else "none"
        self.engine = engine if layers else "torch"
        self.precision = precision
        self.batch_size = batch_size
        self.cache = open_cache(cache)
        self.device = resolve_device(device)
        check_numerics(engine, precision, self.device)
        self.n_jobs = n_jobs
        self.on_error = on_error
        if not layers and on_error == "nan":
            raise InputError("on_error='nan' needs layers: there is no NaN in a picture. Use on_error='raise'.")

    @property
    def n_threads(self) -> int:
        """Threads that read, decode and (in ONNX Runtime) run pictures."""
        return count_threads(self.n_jobs)

    @property
    def dtype(self) -> np.dtype:
        """The type of what `run` gives."""
        return np.dtype(np.uint8 if self.layers == (PICTURES,) else np.float32)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one picture's output for each layer."""
        return output_shapes(self.backbone, self.layers, self.pooling)

    def run(
        self,
        images: Images,
        listeners: Sequence[Progress] = (),
        out: "list | None" = None,
        failures: "dict[int, ImageError] | None" = None,
    ) -> list:
        """One float32 array of shape (n_pictures, ...) for each layer; without layers the pictures, uint8.

        Parameters
        ----------
        images : Images
            The pictures.
        listeners : sequence of callable, default=()
            Each is called as ``listener(n_done, n_pictures)`` while pictures get done.
        out : list of array-like or None, default=None
            What to write to, one for each layer, instead of new arrays: an ndarray, or anything with a ``shape`` that
            takes ``out[i][position] = row``.
        failures : dict or None, default=None
            Where to note the error of each picture that cannot be read, by its position; its rows are zeros then,
            whatever ``on_error`` says.

        Returns
        -------
        list of ndarray
            Or ``out``, where it was given.

        Raises
        ------
        InputError
            Where ``out`` is of other shapes.
        ImageError
            Where pictures cannot be read and ``on_error="raise"``: one error for all of them among the 512 that are
            looked up together. What was computed is in the cache.
        """
        wanted = [(len(images), *shape) for shape in self.shapes]
        if out is None:
            out = [np.empty(shape, self.dtype) for shape in wanted]
        elif [tuple(store.shape) for store in out] != wanted:
            raise InputError(f"out has the shapes {[tuple(store.shape) for store in out]}, but needs {wanted}.")
        with bounded_threads(), worker_threads(self.n_threads) as pool:
            job = _Job(self, images, pool, listeners, out, failures)
            try:
                for start in range(0, len(images), _BLOCK):
                    job.run_block(range(start, min(start + _BLOCK, len(images))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # do not decode what nobody waits for any more
                raise
        job.fill_failures()
        return out


class _Job:
    """One pass over a table of pictures."""

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
        self.cache = prefix.cache
        self.claims = Claims(prefix.cache)
        self.pool = pool
        self.listeners = listeners
        self.outputs = outputs
        self.is_done = np.zeros(len(images), bool)
        self.becomes_nan = prefix.on_error == "nan" and failures is None
        self.is_strict = prefix.on_error == "raise" and failures is None
        self.failures = {} if failures is None else failures
        self.n_told = 0
        self.layers = prefix.layers  # what is computed; grows to every stage in a search over layers
        self.n_in_table = max(len(images), getattr(images, "n_in_table", 0))  # predictions come block by block
        self.engine = self._resolve_engine()
        row_bytes = sum(np.prod(shape) * prefix.dtype.itemsize + ENTRY_BYTES for shape in prefix.shapes)
        room = 0.9 * self.cache.max_bytes if self.cache is not None else 0
        self.kept_share = min(1.0, room / (self.n_in_table * row_bytes))
        self._layer_keys: dict[tuple[str, str, str], bytes] = {}

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
            # Left over are pictures that other jobs compute, and copies of one that changed or vanished meanwhile.
            left = [x for x in block if not self.is_done[x] and x not in self.failures]
            groups = self._look_up({position: digests[position] for position in left})
        if self.failures and self.is_strict:
            raise_unreadable(self.images, self.failures)
        self._tell(block.stop)

    def fill_failures(self) -> None:
        """Fill the rows of unreadable pictures; say which they are, if they become NaN."""
        value = np.nan if self.becomes_nan else 0
        for output, shape in zip(self.outputs, self.prefix.shapes, strict=True):
            for position in self.failures:
                output[position] = np.full(shape, value, self.prefix.dtype)
        if self.failures and self.becomes_nan:
            warn_of_nan(self.images, self.failures)

    def _digest(self, block: range) -> dict[int, bytes]:
        """The content digest of each readable picture of the block."""

        def digest(positions: Sequence[int]) -> list[tuple[int, bytes]]:
            found = []
            for position in positions:
                with self._noting_failure(position):
                    found.append((position, self.images.digest(position)))
            return found

        runs = chunks(block, -(-len(block) // self.prefix.n_threads))
        return dict(pair for pairs in self.pool.map(helping(digest), runs) for pair in pairs)

    def _look_up(self, digests: dict[int, bytes]) -> list[Group]:
        """Fill the rows that the cache holds; return the positions of the others, equal pictures together."""
        groups: dict[bytes, Group] = {}
        for position, digest in digests.items():
            groups.setdefault(digest, []).append(position)
        n_layers = len(self.prefix.layers)
        found = self._cached([(digest, layer) for digest in groups for layer in self.prefix.layers])
        missing = []
        for index, group in enumerate(groups.values()):
            rows = [row for row in found[index * n_layers : (index + 1) * n_layers] if row is not None]
            if len(rows) == n_layers:
                self._fill(group, rows)
            else:
                missing.append(group)
        return missing

    def _cached(self, wanted: list[tuple[bytes, str]], pooling: "str | None" = None) -> list[np.ndarray | None]:
        """What the cache has of each picture, by its digest, at each layer; with the prefix's pooling or another."""
        if self.cache is None:
            return [None] * len(wanted)
        # Those of the other engine, of a job of another size, are rounded otherwise: they are none of this one's.
        return self.cache.get_many([self._key(digest, layer, self.engine, pooling) for digest, layer in wanted])

    def _widen_in_a_search(self, digest: bytes) -> None:
        """Compute stages that are not known yet where another one is: somebody is searching over layers.

        From then on each candidate of the search finds its layer in the cache, so that a grid over all layers costs
        one pass to the first candidate's layer and one through the whole network.
        """
        if self.layers != self.prefix.layers or self.layers == (PICTURES,) or self.prefix.pooling == "flatten":
            return
        function = prefix_key(self.prefix.backbone, self.layers, self.prefix.pooling)
        stages = [stage.name for stage in self.prefix.backbone.stages]
        if function in _SEARCHED or self._is_known(digest, set(stages).difference(self.layers)):
            if self.prefix.pooling == "none":  # what is brought then is computed on the way: it costs no time
                _SEARCHED.add(function)
            brought = self._brought_stages(stages)
            known = self._cached([(digest, stage) for stage in brought])
            absent = [stage for stage, row in zip(brought, known, strict=True) if row is None]
            # Those asked for come first and as they are, even twice: `_fill` goes by their order.
            self.layers = (*self.prefix.layers, *absent)
            self.engine = self._resolve_engine()  # another graph, which may not be exported yet

    def _is_known(self, digest: bytes, stages: Iterable[str]) -> bool:
        """Whether the cache has one of these stages for a picture."""
        last = self.prefix.backbone.stages[-1].name
        # A search over freeze depths begins as a rule with all stages frozen, which asks for the last one, pooled.
        pooled = _SEARCHABLE if self.prefix.pooling == "none" else ()
        rows = [self._cached([(digest, stage) for stage in stages])]
        rows += [self._cached([(digest, last)], pooling) for pooling in pooled]
        return any(row is not None for found in rows for row in found)

    def _brought_stages(self, stages: Sequence[str]) -> list[str]:
        """What is computed beside the layers asked for, where somebody searches.

        Pooled, every stage is small. Activations as they are are large: of those it is the stages right before the one
        asked for that are no larger, as far as half the cache has room for the whole table.
        """
        if self.prefix.pooling != "none":
            return [stage for stage in stages if stage not in self.prefix.layers]
        if self.cache is None or self.prefix.layers[0] not in stages:
            return []
        asked = 4 * int(np.prod(self.prefix.shapes[0]))
        room = self.cache.max_bytes // 2 // len(self.images) - asked
        brought = []
        for stage in reversed(stages[: stages.index(self.prefix.layers[0])]):
            size = 4 * int(np.prod(self.prefix.backbone.output_shape(stage)))
            if size > min(asked, room):
                break
            room -= size
            brought.append(stage)
        return brought

    def _compute(self, groups: list[Group], digests: dict[int, bytes]) -> bool:
        """Run the network on the first picture of each group, and keep and fill in what it gives.

        Pictures that other jobs are computing are left to them; False where all are.
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
        runner, size = self._runner(), self._batch_size()
        if runner.concurrent:
            # A small job is shared out evenly, else one thread would have it all.
            size = min(size, -(-len(positions) // self.prefix.n_threads))

        def work(chunk: Sequence[int]) -> tuple[list[int], list[bytes], Any]:
            kept, seen, pictures = self._prepare(chunk)
            return kept, seen, runner(pictures) if kept and runner.concurrent else pictures

        batches = self._claimed(positions, digests, size)
        for kept, seen, result in map_ahead(self.pool, work, batches, self.prefix.n_threads):
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
        """The keys of all that is computed of each picture."""
        return [[self._key(digests.get(x, b""), layer, self.engine) for layer in self.layers] for x in positions]

    def _resolve_engine(self) -> str:
        """The engine of this job."""
        return resolve_engine(
            self.prefix.engine,
            self.prefix.backbone,
            self.layers,
            self.prefix.pooling,
            precision=self.prefix.precision,
            device=self.prefix.device,
            n_pictures=self.n_in_table,
        )

    def _runner(self) -> Runner:
        """What runs the network; it is not built where the cache has everything."""
        try:
            return get_runner(
                self.prefix.backbone,
                self.layers,
                self.prefix.pooling,
                engine=self.engine,
                precision=self.prefix.precision,
                device=self.prefix.device,
            )
        except (EngineError, MissingDependencyError):
            if self.prefix.engine != "auto" or self.engine == "torch":
                raise
            self.engine = "torch"  # it runs every network
            return self._runner()

    def _batch_size(self) -> int:
        """Pictures that go through the network at once; on a CPU as many as torch runs in any case."""
        backbone, batch_size, device = self.prefix.backbone, self.prefix.batch_size, self.prefix.device
        if self.layers == (PICTURES,):
            return resolve_batch_size(batch_size, 0, device)
        at_once = pictures_at_once(backbone, device) if self.engine == "torch" else None
        if batch_size == "auto" and at_once is not None:
            return at_once
        return resolve_batch_size(batch_size, max(map(backbone.macs, self.layers)), device)

    def _prepare(self, positions: Sequence[int]) -> tuple[list[int], list[bytes], np.ndarray]:
        """Read, decode, resize and crop: positions that could be read, their digests, their pictures as one array."""
        preprocessing = self.prefix.backbone.preprocessing
        shape = (*preprocessing.crop_shape, self.prefix.backbone.in_channels)
        pictures = np.empty((len(positions), *shape), np.uint8)
        kept: list[int] = []
        digests: list[bytes] = []
        for position in positions:
            with self._noting_failure(position):
                picture = self.images[position]
                pictures[len(kept)] = preprocessing.apply(picture.decode())
                kept.append(position)
                digests.append(picture.digest if self.cache is not None else b"")
        return kept, digests, pictures[: len(kept)]

    @contextlib.contextmanager
    def _noting_failure(self, position: int) -> Iterator[None]:
        """Note an unreadable picture: the others of its block are read before anything is raised."""
        try:
            yield
        except ImageError as error:
            self.failures[position] = error

    def _keep(self, digests: list[bytes], outputs: list[np.ndarray]) -> None:
        """Put a batch into the cache, at once, so that an interruption loses no work.

        Of a table that is larger than the cache it is a share of the pictures, chosen by their content, so that it is
        the same ones in each fold and epoch: a cache that forgets the oldest would have forgotten each by the time it
        is asked for again.
        """
        if self.cache is not None:
            kept = [row for row, digest in enumerate(digests) if digest[0] < 256 * self.kept_share]
            self.cache.put_many(
                [
                    (self._key(digests[row], layer, self.engine), output[row])
                    for layer, output in zip(self.layers, outputs, strict=True)
                    for row in kept
                ]
            )

    def _fill(self, group: Group, rows: Sequence[np.ndarray]) -> None:
        """Write one picture's outputs to all its positions."""
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

    def _key(self, digest: bytes, layer: str, engine: str, pooling: "str | None" = None) -> bytes:
        """The cache key of one picture at one layer, as an engine computes it."""
        pooling = pooling or self.prefix.pooling
        if (layer, engine, pooling) not in self._layer_keys:
            function = prefix_key(self.prefix.backbone, [layer], pooling)
            numerics = "" if layer == PICTURES else f"{engine}|{self.prefix.precision}|{self.prefix.device.type}"
            # Pillow resizes: its version is a part of the preprocessing.
            key = f"|{_KEY_VERSION}|{function}|{numerics}|{PIL.__version__}"
            self._layer_keys[layer, engine, pooling] = key.encode()
        return xxhash.xxh3_128_digest(digest + self._layer_keys[layer, engine, pooling])
