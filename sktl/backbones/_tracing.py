"""From a network to its graph, with every layer's name, shape and cost.

This module imports torchvision and is imported when a network is first read, not with sktl.
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

# torchvision's feature extraction does not look into its own building blocks; neither do we, so that names agree.
_LEAF_MODULES = [ops for ops in vars(torchvision.ops).values() if inspect.isclass(ops) and issubclass(ops, nn.Module)]

# The functions that a graph keeps as one node are wrapped where they stand, for the process: never two at a time.
_TRACING = Lock()


class _Tracer(NodePathTracer):
    """Torchvision's tracer, told which modules to leave closed and able to say which one it failed in."""

    def __init__(self, opaque: set[str]) -> None:
        # timm keeps a list of what cannot be traced in its networks, which may come by name or as a user's own.
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
        """The graph of ``root``, of which the other threads of the process notice nothing.

        torch.fx's own method, but that it replaces ``__call__`` and ``__getattr__`` of `torch.nn.Module`, through
        which all networks of the process then run, and here the modules of ``root`` alone have other ones.
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
        # Wrapped, a function does what it did for all that are not traced.
        with _fx._Patcher() as patcher, _watched(root, self, patcher), _said_to_dynamo():
            _fx._patch_wrapped_functions(patcher)
            for scope in (forward.__globals__, *(vars(module) for module in self._autowrap_search)):
                _fx._autowrap_check(patcher, scope, self._autowrap_function_ids)
            # The image is the only input: a further argument of `forward` keeps its default and is no placeholder.
            image = self.create_proxy("placeholder", "x", (), {})
            self.create_node("output", "output", (self.create_arg(forward(root, image)),), {})
        return self.graph


@contextlib.contextmanager
def _watched(root: nn.Module, tracer: _Tracer, patcher: Any) -> Iterator[None]:
    """Let a tracer know of the calls and parameters of a network: its modules have other classes meanwhile."""
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
        # It becomes a subclass only when it is there: some classes keep a list of theirs, or demand something of each.
        subclass = type.__new__(type(kind), kind.__name__, (nn.Module,), own)
        try:
            subclass.__bases__ = (kind,)
        except TypeError:  # it has slots
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
    """Have what torch.compile has made refuse to be traced, and so be one node; where torch knows that by thread."""
    context = getattr(_fx, "_is_fx_tracing_context", None)
    return context(True) if context is not None else contextlib.nullcontext()


def trace(module: nn.Module) -> fx.Graph:
    """The graph of ``module``'s forward pass, as it is in its present mode.

    A submodule whose own ``forward`` cannot be traced (it branches on values, say) becomes one node, and so keeps
    working; only where the outermost ``forward`` is such a one is there no graph.

    Raises
    ------
    BackboneError
        Where ``module.forward`` itself cannot be traced.
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
                    f"The network {type(module).__name__} cannot be read as a graph, because its own forward() "
                    f"does what torch.fx cannot follow ({type(error).__name__}: {str(error).splitlines()[0]}). "
                    "Move the part that depends on values into a submodule, which is then taken as one layer, or "
                    "write the network as an nn.Sequential of its blocks."
                ) from error
            opaque.add(tracer.culprit)
    for node in graph.nodes:
        node.meta["layer"] = tracer.node_to_qualname.get(node, node.name)
    return graph


class _Measurer(fx.Interpreter):
    """Runs a graph and writes each node's shape and multiply-accumulates into its ``meta``."""

    def _set_current_node(self, node: fx.Node) -> contextlib.AbstractContextManager:  # type: ignore[override]
        # torch's own says for the process which node runs, which an export in another thread writes into its graph.
        return contextlib.nullcontext()

    def run_node(self, n: fx.Node) -> Any:
        counter = FlopCounterMode(display=False)
        with _FlopCounterMode(counter):  # without its hooks, which all modules of the process would run
            result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        n.meta["macs"] = counter.get_total_flops() // 2
        return result


def measure(graph: fx.Graph, root: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Fill in every node's ``shape`` and ``macs``, without computing a value where the network allows it.

    Parameters
    ----------
    graph : torch.fx.Graph
        A graph of ``root``.
    root : nn.Module
        The network the graph refers to.
    input_shape : tuple of int
        (1, channels, height, width).
    """

    def meta(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="meta")

    with torch.no_grad():
        try:
            _Measurer(shadow(root, meta), graph=graph).run(torch.empty(input_shape, device="meta"))
        except Exception:
            # A layer that looks at values cannot run on shapes alone; one small real image will do.
            _Measurer(root, graph=graph).run(torch.zeros(input_shape))
