"""Whose weights a network has: by their values, whatever it is called and wherever it came from."""

from collections.abc import Iterator
from itertools import chain

import torch
import xxhash
from torch import nn

from sktl.backbones import _graph
from sktl.backbones._backbone import Backbone


def weights_digest(backbone: Backbone) -> str:
    """Digest the weights of all stages, by which they are known again.

    Unlike `Backbone.fingerprint` it does not depend on how this version of torch writes the layers down, so that it may
    stand in a table of what was measured. It is the same for gray images, seen as RGB ones are.

    Parameters
    ----------
    backbone : Backbone
        With or without its source head.

    Returns
    -------
    str
        32 hexadecimal digits, other ones if a number is another or a stage is missing.
    """
    digest = xxhash.xxh3_128(b"weights 1")
    for path in chain.from_iterable(backbone.stage_parts.values()):
        for tensor in _tensors(path, backbone):
            values = tensor.detach().cpu().contiguous()
            digest.update(str(tuple(values.shape)).encode())
            digest.update((values.float() if values.is_floating_point() else values).numpy().tobytes())
    return digest.hexdigest()


def _tensors(path: str, backbone: Backbone) -> Iterator[torch.Tensor]:
    """The tensors at a path, without the counts that norms keep in training, and what makes RGB of gray."""
    part = _graph.attribute(path, backbone.module)
    named = part.state_dict(prefix=f"{path}.") if isinstance(part, nn.Module) else {path: part}
    kept = (name for name in named if not name.endswith("num_batches_tracked") and ".grey_to_rgb." not in name)
    yield from (named[name] for name in kept)
