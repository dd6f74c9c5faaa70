"""Where a network can be cut, read from its graph.

A *stage* ends at a point through which all data flows as one tensor. There are many such points; they are grouped by
the network's own top-level blocks, found by walking into whatever module holds nearly all of its layers
(``features``, ``trunk_output``, ``encoder.layers``). Bare layers in front of the first block are the ``stem``, bare
layers behind a block belong to it, and a network of bare layers only (VGG) is grouped by its pooling. What follows
the last stage is the source's head: global pooling, flattening, classifier.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod

from torch import fx, nn

from sktl.backbones import _graph
from sktl.exceptions import BackboneError

# A module that holds this share of the layers *is* the network, and its children are the blocks.
_NEARLY_ALL = 0.85

_ADAPTIVE_POOLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING = (nn.AvgPool2d, nn.MaxPool2d, *_ADAPTIVE_POOLING)


@dataclass(frozen=True)
class Stage:
    """One of the ordered places where a backbone can be cut.

    Parameters
    ----------
    name : str
        The network's own name of the block, for example ``"layer1"`` or ``"features.3"``.
    node : str
        The layer whose output is the stage's output.
    layers : tuple of str
        All layers of the stage, in the order in which they are computed.
    output_shape : tuple of int
        Shape of the output for one image, without the batch axis.
    channel_axis : int
        The axis of a batch of outputs that holds the channels: 1 for (n, channels, height, width), -1 where they
        come last.
    n_parameters : int
        Number of parameters in it; one that an earlier stage uses too is counted there.
    macs : int
        Multiply-accumulates per picture.
    """

    name: str
    node: str
    layers: tuple[str, ...]
    output_shape: tuple[int, ...]
    channel_axis: int
    n_parameters: int
    macs: int


def find_stages(graph: fx.Graph, root: nn.Module) -> list[tuple[str, fx.Node]]:
    """The stages' names and last nodes, in order.

    Parameters
    ----------
    graph : torch.fx.Graph
        A measured graph without mutation.
    root : nn.Module
        The network it was read from.
    """
    nodes = list(graph.nodes)
    weights = _weighted_layers(graph, root)
    cuts = _graph.cut_points(graph)
    body = _body(nodes, cuts, weights, root)
    in_body = set(body)
    return _group(body, in_body.intersection(cuts), weights, root)


def _weighted_layers(graph: fx.Graph, root: nn.Module) -> Counter[fx.Node]:
    """How many layers with a weight matrix or kernel each node stands for."""
    weights = Counter(
        {node: sum(weight.ndim > 1 for weight in _graph.parameters([node], root)) for node in graph.nodes}
    )
    return +weights


def _child(node: fx.Node, container: str) -> str | None:
    """Path of the direct child of ``container`` in which ``node`` runs, if it runs in one."""
    path = _graph.module_path(node)
    if container:
        if not path.startswith(container + "."):
            return None
        path = path[len(container) + 1 :]
    first = path.partition(".")[0]
    return (f"{container}.{first}" if container else first) or None


def _container(weights: Counter[fx.Node], root: nn.Module, share: float) -> str:
    """The innermost module that holds at least ``share`` of the weighted layers and is made of modules itself."""
    container = ""
    while True:
        children: Counter[str | None] = Counter()
        for node, count in weights.items():
            children[_child(node, container)] += count
        child, count = max(children.items(), key=lambda item: item[1], default=(None, 0))
        if child is None or count < share * weights.total() or _is_bare(child, root):
            return container
        container = child


def _is_bare(path: str, root: nn.Module) -> bool:
    return next(root.get_submodule(path).children(), None) is None


def _body(nodes: list[fx.Node], cuts: list[fx.Node], weights: Counter[fx.Node], root: nn.Module) -> list[fx.Node]:
    """The nodes up to the last cut in front of the source's head."""
    order = {node: position for position, node in enumerate(nodes)}
    last_weighted = max(weights, key=order.__getitem__, default=nodes[-1])
    pooled = _global_pooling(cuts, root)
    end = order[pooled] if pooled is not None else len(nodes)
    container = _container(weights, root, share=1.0)
    head = _child(last_weighted, container)
    if pooled is not None and head is not None and _child(pooled, container) == head:
        # The classifier does its own pooling (SqueezeNet, MaxViT): it starts where its module does.
        in_head = [node for node in nodes if _child(node, container) == head]
        if sum(weights[node] for node in in_head) < (1 - _NEARLY_ALL) * weights.total():
            end = min(end, order[in_head[0]])
    if not any(order[cut] < end and _has_weights(nodes[: order[cut] + 1], weights) for cut in cuts):
        # No layer in front of the pooling (a perceptron): all but the last weighted layer is the body.
        end = order[last_weighted]
    last = max((order[cut] for cut in cuts if order[cut] < end), default=-1)
    return nodes[: last + 1]


def _global_pooling(cuts: list[fx.Node], root: nn.Module) -> fx.Node | None:
    """The first cut at which an image has lost its positions for good."""
    for position, cut in enumerate(cuts):
        module = root.get_submodule(str(cut.target)) if cut.op == "call_module" else None
        adaptive = isinstance(module, _ADAPTIVE_POOLING) or "adaptive" in getattr(cut.target, "__name__", "")
        if adaptive or len(cut.meta["shape"]) <= 2:
            return cut
        if isinstance(module, _POOLING) and all(_n_positions(later) == 1 for later in cuts[position:]):
            return cut
    return None


def _n_positions(node: fx.Node) -> int:
    return prod(node.meta["shape"][2:])


def _has_weights(nodes: list[fx.Node], weights: Counter[fx.Node]) -> bool:
    return any(weights[node] for node in nodes)


def _group(
    body: list[fx.Node], cuts: set[fx.Node], weights: Counter[fx.Node], root: nn.Module
) -> list[tuple[str, fx.Node]]:
    """Give every node of the body to a block; a stage ends at the last cut in its block."""
    in_body = Counter({node: weights[node] for node in body if weights[node]})
    container = _container(in_body, root, share=_NEARLY_ALL)
    blocks = _blocks(body, container, root) or _blocks_of_bare_layers(body, in_body, root)
    ends: dict[int, tuple[str, fx.Node]] = {}
    block_of = {node: number for number, (_, members) in enumerate(blocks) for node in members}
    first_weighted = next((node for node in body if node in in_body), None)
    weighted = False
    for node in body:
        weighted = weighted or node is first_weighted
        if weighted and node in cuts:  # a cut in front of all weights freezes nothing
            number = block_of[node]
            ends[number] = (blocks[number][0], node)
    seen: Counter[str] = Counter()
    stages = []
    for name, cut in ends.values():
        stages.append((f"{name}_{seen[name]}" if seen[name] else name, cut))
        seen[name] += 1
    return stages


def _blocks(body: list[fx.Node], container: str, root: nn.Module) -> list[tuple[str, list[fx.Node]]]:
    """The blocks by the container's children that are made of modules; empty where there is none."""
    blocks: list[tuple[str, list[fx.Node]]] = [("stem", [])]
    inside = None
    for node in body:
        child = _child(node, container)
        if child is not None and not _is_bare(child, root):
            if child != inside:
                blocks.append((child, []))
            inside = child
        blocks[-1][1].append(node)
    return blocks if len(blocks) > 1 else []


def _blocks_of_bare_layers(
    body: list[fx.Node], weights: Counter[fx.Node], root: nn.Module
) -> list[tuple[str, list[fx.Node]]]:
    """The blocks of a network without any: each ends with a pooling, or holds one weighted layer if none pools."""
    pools = {
        node
        for node in body
        if "pool" in getattr(node.target, "__name__", "")
        or (node.op == "call_module" and isinstance(root.get_submodule(str(node.target)), _POOLING))
    }
    blocks: list[list[fx.Node]] = [[]]
    for position, node in enumerate(body):
        first_of_block = body[position - 1] in pools if pools else bool(weights[node])
        if first_of_block and _has_weights(blocks[-1], weights):
            blocks.append([])
        blocks[-1].append(node)
    return [(f"block{number}", members) for number, members in enumerate(blocks, start=1)]


def depth_error(
    freeze_depth: object, network: str, names: Sequence[str], words: Sequence[str] = ("all",)
) -> BackboneError:
    """The error for a depth that there is not, with all that it may be.

    Parameters
    ----------
    freeze_depth : object
        What was given.
    network : str
        The name of the network.
    names : sequence of str
        Its stages.
    words : sequence of str, default=("all",)
        What it may be beside a number and a stage.
    """
    close = get_close_matches(str(freeze_depth), [*words, *names], 1)
    return BackboneError(
        f"freeze_depth={freeze_depth!r} is no depth of {network!r}."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + f" Use an integer from {-len(names)} to {len(names)}, {', '.join(map(repr, words))}, or the name of a stage: "
        f"{list(names)}."
    )
