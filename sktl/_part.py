"""Graph modules that are pickled as a list of nodes.

`torch.fx.GraphModule` pickles the source code of its forward pass and traces it again
on loading. Tracing replaces methods of `torch.nn.Module` for all threads of the
process, so that two threads that load at the same time break each other.
"""

import copy
import importlib
import operator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx.node import _get_qualified_name

_MADE_OF_THE_GRAPH = ("_graph", "_code", "_lineno_map", "_prologue_start")


class Part(fx.GraphModule):
    """`torch.fx.GraphModule` that is loaded from a pickle without tracing.

    If the original has separate graphs for training and prediction, as those of
    torchvision, both are kept.
    """

    def train(self, mode: bool = True) -> "Part":
        graph = vars(self).get("train_graph" if mode else "eval_graph")
        if isinstance(graph, fx.Graph) and graph is not self.graph:  # some only set `training`
            _run(self, graph)
        return super().train(mode)

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE_OF_THE_GRAPH}

    def __reduce__(self) -> tuple:
        state = {name: _Graph(_described(x)) if isinstance(x, fx.Graph) else x for name, x in self._state().items()}
        return _loaded, (type(self).__name__, state, _described(self.graph))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Part":
        # torch's own method keeps only the current graph and what it uses.
        state, graph = copy.deepcopy((self._state(), self.graph), memo)
        return _made(type(self).__name__, state, graph)


def without_tracing(module: nn.Module) -> nn.Module:
    """Replace each graph module inside a module, or the module itself, by a `Part`."""
    if _is_traced_when_loaded(module):
        return _as_part(module)
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if _is_traced_when_loaded(child):
                owner._modules[name] = _as_part(child)
    return module


def to_pickle(value: Any) -> Any:
    """Replace networks that would be traced on loading; return other values unchanged.

    Lists, tuples and dicts are searched for networks, and copied only if they contain
    any.
    """
    if type(value) in (list, tuple, dict):
        items = list(value.values() if isinstance(value, dict) else value)
        pickled = [to_pickle(item) for item in items]
        if all(map(operator.is_, pickled, items)):
            return value
        return dict(zip(value, pickled, strict=True)) if isinstance(value, dict) else type(value)(pickled)
    if isinstance(value, nn.Module) and any(map(_is_traced_when_loaded, value.modules())):
        copied = without_tracing(copy.deepcopy(value))
        places = dict(copied.named_modules())
        for name, module in value.named_modules():  # copies of torchvision's graph modules are in training mode
            if name in places:
                places[name].train(module.training)
        return copied
    return value


def _is_traced_when_loaded(module: nn.Module) -> bool:
    # With a custom code generator, the nodes do not determine the code.
    return (
        isinstance(module, fx.GraphModule)
        and not isinstance(module, Part)
        and type(module.graph._codegen) is fx.graph.CodeGen
    )


def _as_part(module: Any) -> Part:
    state = {name: value for name, value in vars(module).items() if name not in _MADE_OF_THE_GRAPH}
    return _made(type(module).__name__, state, module.graph)


class _Function(NamedTuple):
    """Function or other object, as the module and name to import."""

    module: str
    name: str

    def found(self) -> Any:
        thing: Any = importlib.import_module(self.module)
        for name in self.name.split("."):
            thing = getattr(thing, name)
        return thing


class _Graph(NamedTuple):
    """Additional graph of a module, as a list of nodes."""

    described: list[tuple]


class _Place(NamedTuple):
    """Node, as its index in the graph."""

    number: int


def _described(graph: fx.Graph) -> list[tuple]:
    """Return a graph as a list of (name, op, target, args, kwargs) of its nodes."""
    places = {node: _Place(number) for number, node in enumerate(graph.nodes)}

    def described(value: Any) -> Any:
        # Not every protocol can pickle a memory format.
        return places[value] if isinstance(value, fx.Node) else _Function(*str(value).split("."))

    return [
        (
            node.name,
            node.op,
            _importable(node.target) if node.op == "call_function" else node.target,
            *(_replaced(given, (fx.Node, torch.memory_format), described) for given in (node.args, node.kwargs)),
        )
        for node in graph.nodes
    ]


def _importable(function: Any) -> Any:
    """Return the import location of a function, which torch may have elsewhere."""
    names: list[tuple[Any, Any]] = [(getattr(function, "__module__", None), getattr(function, "__qualname__", None))]
    module, _, name = _get_qualified_name(function).rpartition(".")
    names.append((module or "builtins", name))
    for module, name in names:
        if isinstance(module, str) and isinstance(name, str) and module != "__main__":
            try:
                if (place := _Function(module, name)).found() is function:
                    return place
            except (ImportError, AttributeError):
                continue
    return function  # a function of the main program, which pickle can name


def _replaced(value: Any, kind: Any, replace: Any) -> Any:
    """Replace objects of a type in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replaced(item, kind, replace) for item in value))
    if isinstance(value, tuple):
        return tuple(_replaced(item, kind, replace) for item in value)
    if isinstance(value, list):
        return [_replaced(item, kind, replace) for item in value]
    if isinstance(value, dict):
        return {name: _replaced(item, kind, replace) for name, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_replaced(item, kind, replace) for item in (value.start, value.stop, value.step)))
    return value


def _loaded(name: str, state: dict[str, Any], described: list[tuple]) -> Part:
    state = {name: _graph(x.described) if isinstance(x, _Graph) else x for name, x in state.items()}
    return _made(name, state, _graph(described))


def _graph(described: list[tuple]) -> fx.Graph:
    graph, nodes = fx.Graph(), list[fx.Node]()

    def found(value: Any) -> Any:
        return nodes[value.number] if isinstance(value, _Place) else value.found()

    for node_name, operation, target, args, kwargs in described:
        args, kwargs = (_replaced(value, (_Place, _Function), found) for value in (args, kwargs))
        target = target.found() if isinstance(target, _Function) else target
        nodes.append(graph.create_node(operation, target, args, kwargs, node_name))
    return graph


def _made(name: str, state: dict[str, Any], graph: fx.Graph) -> Part:
    part = Part.__new__(Part)  # each graph module has a separate class
    type(part).__name__ = name
    vars(part).update(state)
    _run(part, graph)
    return part


def _run(part: Part, graph: fx.Graph) -> None:
    part.graph = graph
    graph.owning_module = None  # see `Backbone._part`
