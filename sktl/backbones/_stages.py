"""Stages of a network, found in its graph.

A *stage* ends at a point through which all data flows as one tensor. Most networks have
many such points. They are grouped by the network's own top-level blocks, which are
found by descending into the module that contains nearly all layers (``features``,
``trunk_output``, ``encoder.layers``). Single layers before the first block form the
``stem``, and single layers after a block belong to that block. A network without blocks
(VGG) is grouped by its pooling layers. Everything after the last stage is the original
head: global pooling, flattening, classifier.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod

from torch import fx, nn

from sktl.backbones import _graph
from sktl.exceptions import BackboneError

# A module with this share of the layers *is* the network: its children are the blocks.
_NEARLY_ALL = 0.85

_ADAPTIVE_POOLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING = (nn.AvgPool2d, nn.MaxPool2d, *_ADAPTIVE_POOLING)


@dataclass(frozen=True)
class Stage:
    """A stage of a backbone, after which the backbone can be cut.

    Parameters
    ----------
    name : str
        Name of the stage: the network's own name of the block, such as ``"layer1"`` or
        ``"features.3"``.
    node : str
        Name of the layer whose output is the output of the stage.
    layers : tuple of str
        Names of all layers of the stage, in the order in which they are computed.
    output_shape : tuple of int
        Shape of the output for one image, without the batch axis.
    channel_axis : int
        Channel axis of a batch of outputs: 1 for (n_samples, channels, height, width),
        -1 if the channels come last.
    n_parameters : int
        Number of parameters. A parameter shared with an earlier stage is only counted
        there.
    macs : int
        Multiply-accumulates per image.
    """

    name: str
    node: str
    layers: tuple[str, ...]
    output_shape: tuple[int, ...]
    channel_axis: int
    n_parameters: int
    macs: int


def find_stages(graph: fx.Graph, root: nn.Module) -> list[tuple[str, fx.Node]]:
    """Return the names and last nodes of the stages, in order.

    Parameters
    ----------
    graph : torch.fx.Graph
        A measured graph without in-place operations.
    root : nn.Module
        The network that was traced.
    """
    nodes = list(graph.nodes)
    weights = _weighted_layers(graph, root)
    cuts = _graph.cut_points(graph)
    body = _body(nodes, cuts, weights, root)
    in_body = set(body)
    return _group(body, in_body.intersection(cuts), weights, root)


def _weighted_layers(graph: fx.Graph, root: nn.Module) -> Counter[fx.Node]:
    """Count the layers with a weight matrix or kernel that each node runs."""
    weights = Counter(
        {node: sum(weight.ndim > 1 for weight in _graph.parameters([node], root)) for node in graph.nodes}
    )
    return +weights


def _child(node: fx.Node, container: str) -> str | None:
    """Return the path of the direct child of ``container`` in which ``node`` runs."""
    path = _graph.module_path(node)
    if container:
        if not path.startswith(container + "."):
            return None
        path = path[len(container) + 1 :]
    first = path.partition(".")[0]
    return (f"{container}.{first}" if container else first) or None


def _container(weights: Counter[fx.Node], root: nn.Module, share: float) -> str:
    """Return the innermost composite module with at least ``share`` of the layers."""
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
    """Return the nodes up to the last cut point before the original head."""
    order = {node: position for position, node in enumerate(nodes)}
    last_weighted = max(weights, key=order.__getitem__, default=nodes[-1])
    pooled = _global_pooling(cuts, root)
    end = order[pooled] if pooled is not None else len(nodes)
    container = _container(weights, root, share=1.0)
    head = _child(last_weighted, container)
    if pooled is not None and head is not None and _child(pooled, container) == head:
        # The head includes the pooling (SqueezeNet, MaxViT): it starts with its module.
        in_head = [node for node in nodes if _child(node, container) == head]
        if sum(weights[node] for node in in_head) < (1 - _NEARLY_ALL) * weights.total():
            end = min(end, order[in_head[0]])
    if not any(order[cut] < end and _has_weights(nodes[: order[cut] + 1], weights) for cut in cuts):
        # No layer before the pooling (MLP): the body is all but the last weighted layer.
        end = order[last_weighted]
    last = max((order[cut] for cut in cuts if order[cut] < end), default=-1)
    return nodes[: last + 1]


def _global_pooling(cuts: list[fx.Node], root: nn.Module) -> fx.Node | None:
    """Return the first cut point after which no spatial positions are left."""
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
    """Assign nodes to blocks; a stage ends at the last cut point of its block."""
    in_body = Counter({node: weights[node] for node in body if weights[node]})
    container = _container(in_body, root, share=_NEARLY_ALL)
    blocks = _blocks(body, container, root) or _blocks_of_bare_layers(body, in_body, root)
    ends: dict[int, tuple[str, fx.Node]] = {}
    block_of = {node: number for number, (_, members) in enumerate(blocks) for node in members}
    first_weighted = next((node for node in body if node in in_body), None)
    weighted = False
    for node in body:
        weighted = weighted or node is first_weighted
        if weighted and node in cuts:  # a cut before all weights freezes nothing
            number = block_of[node]
            ends[number] = (blocks[number][0], node)
    seen: Counter[str] = Counter()
    stages = []
    for name, cut in ends.values():
        stages.append((f"{name}_{seen[name]}" if seen[name] else name, cut))
        seen[name] += 1
    return stages


def _blocks(body: list[fx.Node], container: str, root: nn.Module) -> list[tuple[str, list[fx.Node]]]:
    """Return the blocks: the composite children of the container. Empty without any."""
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
    """Return the blocks of a network of single layers.

    Each block ends with a pooling layer, or has one weighted layer if the network has
    no pooling.
    """
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
    """Return the error for an invalid ``freeze_depth``, with all valid values.

    Parameters
    ----------
    freeze_depth : object
        The value that was passed.
    network : str
        Name of the network.
    names : sequence of str
        Names of its stages.
    words : sequence of str, default=("all",)
        Strings that are valid besides the names of the stages.
    """
    close = get_close_matches(str(freeze_depth), [*words, *names], 1)
    return BackboneError(
        f"freeze_depth={freeze_depth!r} is invalid for {network!r}."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + f" Use an integer from {-len(names)} to {len(names)}, {', '.join(map(repr, words))}, or the name of a stage: "
        f"{list(names)}."
    )
