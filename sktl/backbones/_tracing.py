"""From a network to its graph, with every layer's name, shape and cost.

This module imports torchvision and is imported when a network is first read, not with sktl.
"""

import inspect
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer

from sktl.backbones._graph import shadow
from sktl.exceptions import BackboneError

# torchvision's feature extraction does not look into its own building blocks; neither do we, so that names agree.
_LEAF_MODULES = [ops for ops in vars(torchvision.ops).values() if inspect.isclass(ops) and issubclass(ops, nn.Module)]

# While it traces, torch.fx replaces nn.Module's own methods, for the whole process: never two tracers at a time.
_TRACING = threading.Lock()


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
        self.thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        return module_qualname in self.opaque or super().is_leaf_module(m, module_qualname)

    def call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:  # another thread's network, which only runs
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.culprit is None:
                self.culprit = self.path_of_module(m)
            raise

    def create_args_for_root(self, root_fn: Callable, is_module: bool, concrete_args: Any = None) -> tuple[Any, list]:
        # The image is the only input: a further argument of `forward` keeps its default and is no placeholder.
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]


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

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
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
