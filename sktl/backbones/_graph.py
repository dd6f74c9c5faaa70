"""Operations on the graph of a network: cut points, parts, tensors.

All functions are pure functions of a `torch.fx.Graph`. `sktl.backbones._tracing`
creates the graph and stores in the ``meta`` of each node:

``layer``
    Its name, as in `torchvision.models.feature_extraction.create_feature_extractor`.
``shape``
    The shape of its output for one image, or None if the output is not a tensor.
``macs``
    Its multiply-accumulates for that image.
"""

import copy
import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import fx, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_CONTAINERS = {dict, OrderedDict, list, set}

_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.ipow: operator.pow,
    operator.imatmul: operator.matmul,
}


def shadow(module: ModuleT, tensor: Callable[[torch.Tensor], torch.Tensor]) -> ModuleT:
    """Return a structural copy of ``module`` with each parameter or buffer mapped.

    With ``torch.Tensor.detach``, the copy shares memory with the original, while moving
    or casting the copy does not change the original.
    """
    memo: dict[int, Any] = {}
    for old in chain(module.parameters(), module.buffers()):
        new = tensor(old)
        memo[id(old)] = nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new
    # Modules have a dozen empty dicts of hooks. Copying them here saves a third of the time.
    for part in module.modules():
        for value in vars(part).values():
            if type(value) in _CONTAINERS and not value:
                memo[id(value)] = type(value)()
    return copy.deepcopy(module, memo)


def slot(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that owns a parameter or buffer, and its name there.

    Raises
    ------
    KeyError
        If ``root`` has no such tensor.
    """
    path, _, leaf = name.rpartition(".")
    try:
        owner = root.get_submodule(path)
    except AttributeError:
        raise KeyError(name) from None
    if owner._parameters.get(leaf) is None and owner._buffers.get(leaf) is None:
        raise KeyError(name)
    return owner, leaf


def with_tensors(module: ModuleT, tensors: Mapping[str, torch.Tensor]) -> ModuleT:
    """Return a copy of ``module`` with new ``tensors`` that shares all others."""
    new = shadow(module, torch.Tensor.detach)
    for name, tensor in tensors.items():
        owner, leaf = slot(new, name)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[leaf] = tensor
    return new


def remove_mutation(graph: fx.Graph, root: nn.Module) -> None:
    """Replace in-place operations, so that no node changes the output of another one.

    The results stay the same, except that changes of a tensor through a view are lost;
    `load_backbone` checks for these. ``measure`` must have run before: ``n += 1`` only
    is a mutation if ``n`` is a tensor. ``inplace`` is set to False in the modules of
    ``root``, which must be a copy.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.kwargs.get("out") or next(iter(node.args), None)
        if not isinstance(changed, fx.Node) or changed.meta.get("shape") is None or not _make_out_of_place(node, root):
            continue
        # Later readers of the changed tensor must still see the new values.
        for user in list(changed.users):
            if order[user] > order[node]:
                user.replace_input_with(changed, node)
    for module in root.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]
    graph.lint()


def _make_out_of_place(node: fx.Node, root: nn.Module) -> bool:
    """Make an in-place ``node`` out-of-place, and return whether that succeeded."""
    target = node.target
    if isinstance(node.kwargs.get("out"), fx.Node):
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "out"}
        return True
    if node.op == "call_module":
        return getattr(root.get_submodule(str(target)), "inplace", None) is True
    if node.op == "call_method":
        name = str(target)
        if name.endswith("_") and not name.endswith("__") and hasattr(torch.Tensor, name[:-1]):
            node.target = name[:-1]
            return True
        return False
    if node.op != "call_function":
        return False
    if target in _OUT_OF_PLACE:
        node.target = _OUT_OF_PLACE[target]
        return True
    name = getattr(target, "__name__", "")
    if name.endswith("_") and not name.endswith("__") and hasattr(torch, name[:-1]):
        node.target = getattr(torch, name[:-1])
        return True
    return _switch_inplace_argument_off(node)


def _switch_inplace_argument_off(node: fx.Node) -> bool:
    """Replace ``inplace=True`` by False in a call, and return whether it was there."""
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    if bound.arguments.get("inplace") is not True:
        return False
    bound.arguments["inplace"] = False
    node.args, node.kwargs = bound.args, bound.kwargs
    return True


def cut_points(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes, in order, whose output alone determines all later nodes.

    Values that do not depend on the image (class token, position embeddings) may be
    read again after the cut. A size read from the image's tensor may not.
    """
    nodes = list(graph.nodes)
    last_use = {source: position for position, node in enumerate(nodes) for source in node.all_input_nodes}
    from_image: set[fx.Node] = set()
    live: set[fx.Node] = set()
    cuts = []
    for position, node in enumerate(nodes):
        if node.op == "placeholder" or not from_image.isdisjoint(node.all_input_nodes):
            from_image.add(node)
        live = {source for source in live if last_use[source] > position}
        if node in from_image and node in last_use:
            live.add(node)
        if live == {node} and node.op != "placeholder" and node.meta["shape"] is not None:
            cuts.append(node)
    return cuts


def ancestors(nodes: Iterable[fx.Node], stop: fx.Node | None = None) -> set[fx.Node]:
    """Return ``nodes`` and everything they are computed from, back to ``stop``."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node is not stop:
                waiting.extend(node.all_input_nodes)
    return found


def extract(graph: fx.Graph, outputs: fx.Node | tuple[fx.Node, ...], start: fx.Node | None = None) -> fx.Graph:
    """Return the part of ``graph`` from ``start`` (or the image) to ``outputs``."""
    wanted = outputs if isinstance(outputs, tuple) else (outputs,)
    needed = ancestors(wanted, stop=start)
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node is start or (start is None and node.op == "placeholder"):
            copies[node] = part.placeholder("x")
        elif node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    results = tuple(copies[node] for node in wanted)
    part.output(results if isinstance(outputs, tuple) else results[0])
    return part


def output_node(graph: fx.Graph) -> fx.Node:
    """Return the node whose value the graph returns, or the first one of several."""
    return next(iter(next(iter(reversed(graph.nodes))).all_input_nodes))


def attribute(path: str, root: nn.Module) -> Any:
    """Return the module or tensor of ``root`` at a path."""
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def parameters(nodes: Iterable[fx.Node], root: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that ``nodes`` use, once for each use."""
    for node in nodes:
        if node.op == "call_module":
            yield from root.get_submodule(str(node.target)).parameters()
        elif node.op == "get_attr" and isinstance(value := attribute(str(node.target), root), nn.Parameter):
            yield value


def readers(graph: fx.Graph, root: nn.Module, names: Iterable[str]) -> set[fx.Node]:
    """Return the nodes that read any of the parameters and buffers ``names``."""
    slots = {slot(root, name) for name in names}
    owners = {owner for owner, _ in slots}
    found = set()
    for node in graph.nodes:
        if node.op == "call_module":
            reads = not owners.isdisjoint(root.get_submodule(str(node.target)).modules())
        else:
            path, _, leaf = str(node.target).rpartition(".")
            reads = node.op == "get_attr" and (root.get_submodule(path), leaf) in slots
        if reads:
            found.add(node)
    return found


def module_path(node: fx.Node) -> str:
    """Return the path of the module in which ``node`` runs, ``""`` for the root."""
    if node.op == "call_module":
        return str(node.target)
    return str(node.target if node.op == "get_attr" else node.meta["layer"]).rpartition(".")[0]


def tensor_nodes(graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield the nodes whose value is a single tensor computed from the image."""
    from_image: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not from_image.isdisjoint(node.all_input_nodes):
            from_image.add(node)
            if node.op not in ("placeholder", "output") and node.meta["shape"] is not None:
                yield node
