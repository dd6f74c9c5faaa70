"""Tracing of networks: graphs with the name, shape and cost of each layer.

This module imports torchvision and is only imported when a network is traced.
"""

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torch.fx import _symbolic_trace as _fx
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer

from sktl._locks import Lock
from sktl.backbones._graph import shadow
from sktl.exceptions import BackboneError

# torchvision's feature extraction does not trace its own building blocks. We do not
# either, so that names agree.
_LEAF_MODULES = [ops for ops in vars(torchvision.ops).values() if inspect.isclass(ops) and issubclass(ops, nn.Module)]

# Functions that stay a single node are patched for the whole process: one at a time.
_TRACING = Lock()


class _Tracer(NodePathTracer):
    """Tracer of torchvision with opaque modules, which records the failing module."""

    def __init__(self, opaque: set[str]) -> None:
        # timm lists its modules and functions that cannot be traced.
        timm = sys.modules.get("timm.models")
        super().__init__(
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=tuple(timm.get_notrace_functions()) if timm else (),
            leaf_modules=_LEAF_MODULES + (timm.get_notrace_modules() if timm else []),
        )
        self.opaque = opaque
        self.culprit: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        return module_qualname in self.opaque or super().is_leaf_module(m, module_qualname)

    def call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.culprit is None:
                self.culprit = self.path_of_module(m)
            raise

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Return the graph of ``root`` without affecting other threads.

        Like the method of torch.fx, except that the latter patches ``__call__`` and
        ``__getattr__`` of `torch.nn.Module` for all networks of the process, while this
        one only replaces the classes of the modules of ``root``.
        """
        self.root = root
        self.root_module_name = root._get_name()
        self.submodule_paths = {module: name for name, module in root.named_modules()}
        self.graph = fx.Graph()
        constants = _fx._constant_attribute_types
        self.tensor_attrs = {
            value: f"{path}.{name}" if path else name
            for path, module in root.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, constants)
        }
        forward = type(root).forward
        # A patched function still works for networks that are not traced.
        with _fx._Patcher() as patcher, _watched(root, self, patcher), _said_to_dynamo():
            _fx._patch_wrapped_functions(patcher)
            for scope in (forward.__globals__, *(vars(module) for module in self._autowrap_search)):
                _fx._autowrap_check(patcher, scope, self._autowrap_function_ids)
            # The image is the only input. Other arguments of `forward` keep their defaults.
            image = self.create_proxy("placeholder", "x", (), {})
            self.create_node("output", "output", (self.create_arg(forward(root, image)),), {})
        return self.graph


@contextlib.contextmanager
def _watched(root: nn.Module, tracer: _Tracer, patcher: Any) -> Iterator[None]:
    """Replace the classes of modules to report calls and parameters to ``tracer``."""
    proxies: dict = {}

    def call(kind: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        scope = getattr(getattr(module, "forward", module), "__globals__", {})
        _fx._autowrap_check(patcher, scope, tracer._autowrap_function_ids)
        return tracer.call_module(module, partial(kind.__call__, module), args, kwargs)

    def get(kind: Any, module: nn.Module, name: str) -> Any:
        return tracer.getattr(name, kind.__getattr__(module, name), proxies)

    def watched(kind: Any) -> Any:
        own: dict[str, Any] = {
            "__call__": lambda module, *args, **kwargs: call(kind, module, *args, **kwargs),
            "__getattr__": lambda module, name: get(kind, module, name),
        }
        own |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        # The base is set afterwards, since some classes register or check subclasses.
        subclass = type.__new__(type(kind), kind.__name__, (nn.Module,), own)
        try:
            subclass.__bases__ = (kind,)
        except TypeError:  # the class has slots
            return type(kind.__name__, (kind,), own)
        return subclass

    kinds = {module: type(module) for module in root.modules()}
    known = {kind: watched(kind) for kind in set(kinds.values())}
    try:
        for module, kind in kinds.items():
            module.__class__ = known[kind]
        yield
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind


def _said_to_dynamo() -> contextlib.AbstractContextManager:
    """Make compiled code a single node, if torch supports it per thread."""
    context = getattr(_fx, "_is_fx_tracing_context", None)
    return context(True) if context is not None else contextlib.nullcontext()


def trace(module: nn.Module) -> fx.Graph:
    """Return the graph of ``module``'s forward pass in its current mode.

    A submodule whose ``forward`` cannot be traced, such as one that branches on values,
    becomes a single node.

    Raises
    ------
    BackboneError
        If ``module.forward`` itself cannot be traced.
    """
    opaque: set[str] = set()
    while True:
        tracer = _Tracer(opaque)
        try:
            with _TRACING:
                graph = tracer.trace(module)
            break
        except Exception as error:
            if tracer.culprit is None:
                raise BackboneError(
                    f"The network {type(module).__name__} cannot be traced by torch.fx, because its forward() raised "
                    f"{type(error).__name__}: {str(error).splitlines()[0]}. Move code that depends on values into a "
                    "submodule, which then counts as one layer, or write the network as an nn.Sequential of its blocks."
                ) from error
            opaque.add(tracer.culprit)
    for node in graph.nodes:
        node.meta["layer"] = tracer.node_to_qualname.get(node, node.name)
    return graph


class _Measurer(fx.Interpreter):
    """Interpreter that stores the shape and multiply-accumulates of each node."""

    def _set_current_node(self, node: fx.Node) -> contextlib.AbstractContextManager:  # type: ignore[override]
        # torch records the current node globally, and an export in another thread would
        # write it into its graph.
        return contextlib.nullcontext()

    def run_node(self, n: fx.Node) -> Any:
        counter = FlopCounterMode(display=False)
        with _FlopCounterMode(counter):  # without its global module hooks
            result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        n.meta["macs"] = counter.get_total_flops() // 2
        return result


def measure(graph: fx.Graph, root: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Store the ``shape`` and ``macs`` of every node, if possible without computing.

    Parameters
    ----------
    graph : torch.fx.Graph
        A graph of ``root``.
    root : nn.Module
        The network that was traced.
    input_shape : tuple of int
        (1, channels, height, width).
    """

    def meta(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="meta")

    with torch.no_grad():
        try:
            _Measurer(shadow(root, meta), graph=graph).run(torch.empty(input_shape, device="meta"))
        except Exception:
            # A layer that depends on values cannot run on meta tensors.
            _Measurer(root, graph=graph).run(torch.zeros(input_shape))
