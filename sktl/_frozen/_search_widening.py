"""A search over layers, noticed by what is known already: its next layers are computed before they are asked for.

From then on each candidate of the search finds its layer in the cache, so that a grid over all layers costs one pass to
the first candidate's layer and one through the whole network.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sktl._frozen._keyed_cache import KeyedCache
from sktl._frozen._spec import PrefixSpec
from sktl._stores import register_store

_SMALL_POOLINGS = ("avg", "max", "gem", "cls")  # small enough to keep every stage
# The functions of images that were one candidate of a search: its test images come without their other layers.
_SEARCHED: set[str] = set()
register_store("what was searched over", _SEARCHED.clear)


def widened(spec: PrefixSpec, cache: KeyedCache, engine: str, digest: bytes, n_images: int) -> PrefixSpec:
    """The prefix with the stages that are not known yet, if another one is: somebody is searching over layers.

    Parameters
    ----------
    spec : PrefixSpec
        What is asked for. Its layers come first and as they are, even twice: the tables are filled in that order.
    cache : KeyedCache
        What is known.
    engine : str
        By what it is computed.
    digest : bytes
        Of one image that is about to be computed, which speaks for all.
    n_images : int
        How many there are.
    """
    if not spec.layers or spec.pooling == "flatten":
        return spec
    stages = [stage.name for stage in spec.backbone.stages]
    others = [stage for stage in stages if stage not in spec.layers]
    if spec.key not in _SEARCHED and not _is_searched(spec, others, cache, engine, digest):
        return spec
    if spec.pooling == "none":  # what is brought then is computed on the way: it costs no time
        _SEARCHED.add(spec.key)
        brought = _earlier_stages(spec, stages, cache, n_images)
    else:
        brought = others
    known = _known(spec, brought, cache, engine, digest)
    return replace(spec, layers=(*spec.layers, *(stage for stage in brought if stage not in known)))


def _is_searched(spec: PrefixSpec, others: Sequence[str], cache: KeyedCache, engine: str, digest: bytes) -> bool:
    """Whether another stage of an image is known."""
    if _known(spec, others, cache, engine, digest):
        return True
    # A search over freeze depths begins as a rule with all stages frozen, which asks for the last one, pooled.
    last = spec.backbone.stages[-1].name
    poolings = _SMALL_POOLINGS if spec.pooling == "none" else ()
    return any(_known(replace(spec, pooling=pooling), [last], cache, engine, digest) for pooling in poolings)


def _known(spec: PrefixSpec, stages: Sequence[str], cache: KeyedCache, engine: str, digest: bytes) -> set[str]:
    """Those of the stages that the cache has of an image."""
    if not stages:
        return set()
    (rows,) = cache.get([digest], replace(spec, layers=stages), engine)
    return {stage for stage, row in zip(stages, rows, strict=True) if row is not None}


def _earlier_stages(spec: PrefixSpec, stages: Sequence[str], cache: KeyedCache, n_images: int) -> list[str]:
    """The stages right before the one asked for whose activations, as they are, may be kept beside its own.

    Pooled, every stage is small. Activations as they are are large: these are no larger than those asked for, as far as
    half the cache has room for the whole table.
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
