"""Detection of a search over layers, whose further layers are computed in advance.

Once one is detected, later candidates find their layer in the cache. A grid over all
layers then costs one pass to the layer of the first candidate and one through the whole
network.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sktl._frozen._keyed_cache import KeyedCache
from sktl._frozen._spec import PrefixSpec
from sktl._stores import register_store

_SMALL_POOLINGS = ("avg", "max", "gem", "cls")  # small enough to keep every stage
# Keys of prefixes found to be candidates of a search. The test images of a fold have no
# other layers in the cache yet.
_SEARCHED: set[str] = set()
register_store("what was searched over", _SEARCHED.clear)


def widened(spec: PrefixSpec, cache: KeyedCache, engine: str, digest: bytes, n_images: int) -> PrefixSpec:
    """Return the prefix with the stages not cached yet, if a search is detected.

    Parameters
    ----------
    spec : PrefixSpec
        The requested prefix. Its layers come first and unchanged, because tables are
        filled in that order.
    cache : KeyedCache
        The cache.
    engine : str
        The engine.
    digest : bytes
        Digest of one image that is about to be computed and stands for all.
    n_images : int
        Number of images.
    """
    if not spec.layers or spec.pooling == "flatten":
        return spec
    stages = [stage.name for stage in spec.backbone.stages]
    others = [stage for stage in stages if stage not in spec.layers]
    if spec.key not in _SEARCHED and not _is_searched(spec, others, cache, engine, digest):
        return spec
    if spec.pooling == "none":  # earlier stages are computed anyway
        _SEARCHED.add(spec.key)
        brought = _earlier_stages(spec, stages, cache, n_images)
    else:
        brought = others
    known = _known(spec, brought, cache, engine, digest)
    return replace(spec, layers=(*spec.layers, *(stage for stage in brought if stage not in known)))


def _is_searched(spec: PrefixSpec, others: Sequence[str], cache: KeyedCache, engine: str, digest: bytes) -> bool:
    """Check whether another stage of an image is cached."""
    if _known(spec, others, cache, engine, digest):
        return True
    # A search over freeze depths usually starts with all stages frozen: the last one,
    # pooled.
    last = spec.backbone.stages[-1].name
    poolings = _SMALL_POOLINGS if spec.pooling == "none" else ()
    return any(_known(replace(spec, pooling=pooling), [last], cache, engine, digest) for pooling in poolings)


def _known(spec: PrefixSpec, stages: Sequence[str], cache: KeyedCache, engine: str, digest: bytes) -> set[str]:
    """Return the stages that are cached for an image."""
    if not stages:
        return set()
    (rows,) = cache.get([digest], replace(spec, layers=stages), engine)
    return {stage for stage, row in zip(stages, rows, strict=True) if row is not None}


def _earlier_stages(spec: PrefixSpec, stages: Sequence[str], cache: KeyedCache, n_images: int) -> list[str]:
    """Return the preceding stages whose activations fit into the cache as well.

    Without pooling, activations are large. Stages are added as long as they are not
    larger than the requested one and the whole table fits into half the cache.
    """
    if cache.cache is None or spec.layers[0] not in stages:
        return []
    asked = 4 * int(np.prod(spec.shapes[0]))
    room = cache.cache.max_bytes // 2 // n_images - asked
    brought = []
    for stage in reversed(stages[: stages.index(spec.layers[0])]):
        size = 4 * int(np.prod(spec.backbone.output_shape(stage)))
        if size > min(asked, room):
            break
        room -= size
        brought.append(stage)
    return brought
