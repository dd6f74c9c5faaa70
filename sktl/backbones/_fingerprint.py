"""A digest of what a network computes: equal for equal networks, in any process; different if one weight differs."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
import xxhash
from torch import fx, nn

from sktl.backbones import _graph

# Part of every digest, so that a change of what is digested makes old digests invalid.
_VERSION = b"1"

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


def fingerprint(graph: fx.Graph, root: nn.Module) -> str:
    """Digest the operations of ``graph``, their settings and every weight they use.

    Names play no part: two networks that compute the same in the same way have the same fingerprint.

    Parameters
    ----------
    graph : torch.fx.Graph
        The part of the network to digest, with nothing unused in it.
    root : nn.Module
        The network it refers to.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128(_VERSION)
    number = {node: str(position) for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        for part in chain(_target(node, root), _plain((node.args, node.kwargs), number)):
            if isinstance(part, torch.Tensor):
                digest.update(_bytes(part))
            else:
                digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _target(node: fx.Node, root: nn.Module) -> Iterator[str | torch.Tensor]:
    """What a node does: its operation, and what is behind its target."""
    yield node.op
    if node.op == "call_module":
        yield from _module(root.get_submodule(str(node.target)))
    elif node.op == "get_attr":
        yield from _tensor(_graph.attribute(node, root))
    elif node.op == "call_function":
        yield _qualified_name(node.target)
    elif node.op == "call_method":
        yield str(node.target)


def _module(module: nn.Module) -> Iterator[str | torch.Tensor]:
    """A module's class, its settings (stride, epsilon, …), its tensors and its children."""
    yield _qualified_name(type(module))
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name != "training":
            yield name
            yield from _plain(value, {})
    for name, tensor in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        if name != "num_batches_tracked":  # read in training only
            yield name
            yield from _tensor(tensor)
    for name, child in module.named_children():
        yield name
        yield from _module(child)


def _plain(value: Any, number: dict[fx.Node, str]) -> Iterator[str | torch.Tensor]:
    """A value as text that is the same in every process: never an address in memory."""
    if isinstance(value, fx.Node):
        yield "node " + number[value]
    elif isinstance(value, torch.Tensor):
        yield from _tensor(value)
    elif isinstance(value, (tuple, list)):
        yield "("
        for item in value:
            yield from _plain(item, number)
        yield ")"
    elif isinstance(value, dict):
        yield "{"
        for key, item in value.items():
            yield str(key)
            yield from _plain(item, number)
        yield "}"
    elif isinstance(value, slice):
        yield from _plain((value.start, value.stop, value.step), number)
    elif isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    else:
        yield _qualified_name(value if callable(value) else type(value))


def _qualified_name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _tensor(tensor: torch.Tensor) -> Iterator[str | torch.Tensor]:
    yield f"{tensor.dtype} {tuple(tensor.shape)}"
    yield tensor


def _bytes(tensor: torch.Tensor) -> Any:
    """The memory of a tensor of any dtype (NumPy has no bfloat16), without a copy where it lies in one piece."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
