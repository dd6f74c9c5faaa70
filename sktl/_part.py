"""A part of a network as a module that runs its graph, and that a pickle holds as what it is.

`torch.fx.GraphModule` pickles the source of its forward pass, and traces that when it is loaded: meanwhile it replaces
methods of `torch.nn.Module` for all threads of the process, and two that load at once break each other. A graph is a
list of nodes, and can be pickled as one.
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
    """A `torch.fx.GraphModule` that is loaded from a pickle without being traced.

    Where it was made of torchvision's kind, which has one graph for training and one for predictions, it has both.
    """

    def train(self, mode: bool = True) -> "Part":
        graph = vars(self).get("train_graph" if mode else "eval_graph")
        if isinstance(graph, fx.Graph) and graph is not self.graph:  # some set `training` alone
            _run(self, graph)
        return super().train(mode)

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE_OF_THE_GRAPH}

    def __reduce__(self) -> tuple:
        state = {name: _Graph(_described(x)) if isinstance(x, fx.Graph) else x for name, x in self._state().items()}
        return _loaded, (type(self).__name__, state, _described(self.graph))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Part":
        # torch's own method keeps what the graph uses that runs, and no other graph.
        state, graph = copy.deepcopy((self._state(), self.graph), memo)
        return _made(type(self).__name__, state, graph)


def without_tracing(module: nn.Module) -> nn.Module:
    """The module with a `Part` in place of each graph module in it, or for it if it is one; changed in place."""
    if _is_traced_when_loaded(module):
        return _as_part(module)
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if _is_traced_when_loaded(child):
                owner._modules[name] = _as_part(child)
    return module


def to_pickle(value: Any) -> Any:
    """What to pickle in place of a user's network that would be traced when it is loaded; any other value as it is.

    Lists, tuples and dicts of them too, which are other ones only where something in them is.
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
        for name, module in value.named_modules():  # torchvision's graph modules are in training mode in a copy
            if name in places:
                places[name].train(module.training)
        return copied
    return value


def _is_traced_when_loaded(module: nn.Module) -> bool:
    # Of one whose code is made in another way than from its nodes alone, these are not the whole.
    return (
        isinstance(module, fx.GraphModule)
        and not isinstance(module, Part)
        and type(module.graph._codegen) is fx.graph.CodeGen
    )


def _as_part(module: Any) -> Part:
    state = {name: value for name, value in vars(module).items() if name not in _MADE_OF_THE_GRAPH}
    return _made(type(module).__name__, state, module.graph)


class _Function(NamedTuple):
    """A function, or another object of a module, by the place where it can be imported from."""

    module: str
    name: str

    def found(self) -> Any:
        thing: Any = importlib.import_module(self.module)
        for name in self.name.split("."):
            thing = getattr(thing, name)
        return thing


class _Graph(NamedTuple):
    """A graph beside the one that runs."""

    described: list[tuple]


class _Place(NamedTuple):
    """A node by its place in the graph."""

    number: int


def _described(graph: fx.Graph) -> list[tuple]:
    """A graph as a list of what can be pickled: (name, operation, target, arguments, named arguments) of each node."""
    places = {node: _Place(number) for number, node in enumerate(graph.nodes)}

    def described(value: Any) -> Any:
        # A memory format is pickled as a method of torch itself, which not every protocol can.
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
    """A function by its name, under which torch may have it elsewhere than where it was defined."""
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
    return function  # of the program itself, which pickle knows how to name


def _replaced(value: Any, kind: Any, replace: Any) -> Any:
    """A nest of tuples, lists and dicts with each object of a kind replaced."""
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
    part = Part.__new__(Part)  # of a class of its own, as each graph module is
    type(part).__name__ = name
    vars(part).update(state)
    _run(part, graph)
    return part


def _run(part: Part, graph: fx.Graph) -> None:
    part.graph = graph
    graph.owning_module = None  # see `Backbone._part`
