"""Digest of the weights of a network, independent of its name and origin."""

from collections.abc import Iterator
from itertools import chain

import torch
import xxhash
from torch import nn

from sktl.backbones import _graph
from sktl.backbones._backbone import Backbone


def weights_digest(backbone: Backbone) -> str:
    """Return a digest of the weights of all stages.

    Unlike `Backbone.fingerprint`, it does not depend on how this version of torch
    represents the layers, so it can be stored in a table of measurements. A network
    adapted to grayscale images has the same digest.

    Parameters
    ----------
    backbone : Backbone
        A network with or without its original head.

    Returns
    -------
    str
        32 hexadecimal digits, which differ if a value differs or a stage is missing.
    """
    digest = xxhash.xxh3_128(b"weights 1")
    for path in chain.from_iterable(backbone.stage_parts.values()):
        for tensor in _tensors(path, backbone):
            values = tensor.detach().cpu().contiguous()
            digest.update(str(tuple(values.shape)).encode())
            digest.update((values.float() if values.is_floating_point() else values).numpy().tobytes())
    return digest.hexdigest()


def _tensors(path: str, backbone: Backbone) -> Iterator[torch.Tensor]:
    """Yield the tensors at a path, without batch counts and the grayscale adapter."""
    part = _graph.attribute(path, backbone.module)
    named = part.state_dict(prefix=f"{path}.") if isinstance(part, nn.Module) else {path: part}
    kept = (name for name in named if not name.endswith("num_batches_tracked") and ".grey_to_rgb." not in name)
    yield from (named[name] for name in kept)
