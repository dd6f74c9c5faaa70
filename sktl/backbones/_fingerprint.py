"""Fingerprint of what a network computes, the same in every process."""

import enum
import functools
import sys
import uuid
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
import xxhash
from torch import fx, nn

from sktl.backbones import _graph

# Part of every digest. Increase it to invalidate old digests.
_VERSION = b"2"

# Packages whose layers and functions are identified by name and public settings. The
# output of any other untraced code may depend on its source, closures and attributes.
_KNOWN = {"torch", "torchvision", "timm", "math", "operator", "_operator", "builtins"}

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), torch.dtype, torch.device, torch.Size)


def fingerprint(graph: fx.Graph, root: nn.Module) -> str:
    """Return a digest of the operations of a graph, their settings and their weights.

    Names are ignored: two networks that compute the same in the same way have the same
    fingerprint. If a custom layer cannot be traced, its computation is unknown and each
    call returns a different fingerprint.

    Parameters
    ----------
    graph : torch.fx.Graph
        The part of the network to digest, without unused nodes.
    root : nn.Module
        The network that was traced.

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
    """Yield the operation of a node and its target."""
    yield node.op
    if node.op == "call_module":
        yield from _module(root.get_submodule(str(node.target)))
    elif node.op == "get_attr":
        yield from _tensor(_graph.attribute(str(node.target), root))
    elif node.op == "call_function":
        yield _name(node.target)
    elif node.op == "call_method":
        yield str(node.target)


def _module(module: nn.Module) -> Iterator[str | torch.Tensor]:
    """Yield a module's class, settings (stride, epsilon, …), tensors and children."""
    yield _name(type(module))
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name != "training":
            yield name
            yield from _plain(value, {})
    for name, tensor in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        if name != "num_batches_tracked":  # only read during training
            yield name
            yield from _tensor(tensor)
    for name, child in module.named_children():
        yield name
        yield from _module(child)


def _plain(value: Any, number: dict[fx.Node, str]) -> Iterator[str | torch.Tensor]:
    """Yield a value as text, the same in every process (no memory addresses)."""
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
    elif isinstance(value, functools.partial):
        yield "partial"
        yield from _plain((value.func, value.args, value.keywords), number)
    elif isinstance(value, enum.Enum):
        yield f"{_name(type(value))} {value.name}"
    else:
        yield _name(value)


def _name(thing: Any) -> str:
    """Return the name of a class or function of a known package, or else a unique text.

    With a unique text, a cache never confuses two networks.
    """
    module, name, path = (str(getattr(thing, key, "")) for key in ("__module__", "__name__", "__qualname__"))
    # Some torch functions, such as max_pool2d, are defined inside another function. They
    # are known if they can be imported.
    is_importable = "<" not in path or getattr(sys.modules.get(module), name, None) is thing
    if path and is_importable and module.partition(".")[0] in _KNOWN:
        return f"{module}.{path} {name}"
    return f"unknown {uuid.uuid4().hex}"


def _tensor(tensor: torch.Tensor) -> Iterator[str | torch.Tensor]:
    yield f"{tensor.dtype} {tuple(tensor.shape)}"
    yield tensor


def _bytes(tensor: torch.Tensor) -> Any:
    """Return the memory of a tensor of any dtype, without a copy if it is contiguous.

    NumPy has no bfloat16.
    """
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
