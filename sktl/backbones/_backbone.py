"""A network without its classifier: what can be asked of it, and where it can be cut."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import fx, nn

from sktl._locks import cached_once
from sktl._part import Part
from sktl.backbones import _changed_layers, _fingerprint, _graph, _layout, _stages
from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._stages import Stage, depth_error
from sktl.exceptions import BackboneError

_WITH_TENSORS = ("call_module", "get_attr")  # the operations of a graph that may have parameters


class Backbone:
    """A pretrained network that can be cut, made by `load_backbone` and never changed afterwards.

    Parameters
    ----------
    module : nn.Module
        The network with its source head, which becomes this object's own: it is put in eval mode and its parameters
        stop asking for gradients.
    name : str
        What it is called.
    preprocessing : Preprocessing
        What its pictures need.
    in_channels : int, default=3
        Channels of its pictures.
    stage_ends : mapping of str to str, default=None
        The stages' names, in order, and the layer that each ends with; the network then ends with the last of them.
        None finds them in the graph.
    has_classifier : bool, default=False
        Whether the source head gives one number for each class of what the network has learnt from.

    Attributes
    ----------
    stages : tuple of Stage
        The places where it can be cut, in order, without the source head.
    layers : tuple of str
        Every activation it can give, named as in
        `torchvision.models.feature_extraction.create_feature_extractor`: the path of the layer, with ``_1``, ``_2``, …
        appended where a layer is used again (``"layer1.0.relu"`` is the first use, ``"layer1.0.relu_1"`` the second).

    Notes
    -----
    Wherever a layer is asked for, the name of a stage means the stage's output, and the path of a module that
    consists of several layers (``"layer1.0"``) the last of them.

    Examples
    --------
    >>> import torch
    >>> from sktl.backbones import load_backbone
    >>> backbone = load_backbone("sktl_mini")
    >>> [stage.name for stage in backbone.stages]
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    >>> (features,) = backbone.feature_graph("layer2")(torch.zeros(2, 3, 64, 64))
    >>> tuple(features.shape)
    (2, 64, 16, 16)
    """

    has_classifier = False  # of one that an earlier version pickled, without saying

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        in_channels: int = 3,
        stage_ends: "Mapping[str, str] | None" = None,
        has_classifier: bool = False,
    ) -> None:
        self.name = name
        self.preprocessing = preprocessing
        self.in_channels = in_channels
        self.has_classifier = has_classifier
        self._given_ends = dict(stage_ends) if stage_ends is not None else None
        self.module = module.eval().requires_grad_(False)
        self._fingerprints: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Backbone {self.name}: {len(self.stages)} stages, {self.in_channels} channels>"

    def __sklearn_clone__(self) -> "Backbone":
        # It is never changed, so that the candidates of a grid search share it, its graph and its fingerprints.
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The graph is read from the module again where it is needed: it pickles badly, and reading takes milliseconds.
        kept = ("name", "preprocessing", "in_channels", "has_classifier", "module", "_given_ends", "_fingerprints")
        return {name: getattr(self, name) for name in kept}

    @cached_once
    def _root(self) -> nn.Module:
        """The network that graphs refer to: it shares the weights, and nothing in it works in place."""
        self._check_eval()
        return _graph.shadow(self.module, torch.Tensor.detach)

    def _check_eval(self) -> None:
        if any(module.training for module in self.module.modules()):
            raise BackboneError(
                f"The network of {self.name!r} is in training mode, in which its output depends on the batch. "
                "Call backbone.module.eval(); to train a part of it, take a copy with backbone.cut()."
            )

    @cached_once
    def _full_graph(self) -> fx.Graph:
        from sktl.backbones import _tracing  # loads torchvision

        graph = _tracing.trace(self._root)
        if self._given_ends is not None:  # what follows the last stage may not fit it any more
            nodes = {node.meta["layer"]: node for node in graph.nodes}
            graph = _graph.extract(graph, self._find_layer(list(self._given_ends.values())[-1], nodes))
        shape = (1, self.in_channels, *self.preprocessing.crop_shape)
        try:
            _tracing.measure(graph, self._root, shape)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BackboneError(
                f"The network {self.name!r} cannot take pictures of (channels, height, width) = {shape[1:]}: {reason}. "
                "Give it the size it wants with preprocessing={'resize_size': ..., 'crop_size': ...} and the channels "
                "with in_channels=."
            ) from error
        _graph.remove_mutation(graph, self._root)
        return graph

    @cached_once
    def _nodes(self) -> dict[str, fx.Node]:
        return {node.meta["layer"]: node for node in _graph.tensor_nodes(self._full_graph)}

    @cached_once
    def _stage_ends(self) -> dict[str, fx.Node]:
        if self._given_ends is not None:
            return {name: self._find_layer(layer, self._nodes) for name, layer in self._given_ends.items()}
        ends = dict(_stages.find_stages(self._full_graph, self._root))
        if not ends:
            raise BackboneError(
                f"The network {self.name!r} cannot be cut: there is no point in front of its last layer through which "
                "all data flows as one tensor."
            )
        return ends

    @cached_once
    def _channel_axes(self) -> dict[fx.Node, int]:
        return _layout.channel_axes(self._full_graph, self._root)

    @cached_once
    def stages(self) -> tuple[Stage, ...]:
        """The places where the network can be cut."""
        stages = []
        earlier: set[fx.Node] = set()
        counted: set[int] = set()
        for name, end in self._stage_ends.items():
            inside = _graph.ancestors([end]) - earlier
            earlier |= inside
            parameters = {id(p): p.numel() for p in _graph.parameters(inside, self._root) if id(p) not in counted}
            counted |= set(parameters)
            stages.append(
                Stage(
                    name=name,
                    node=end.meta["layer"],
                    layers=tuple(layer for layer, node in self._nodes.items() if node in inside),
                    output_shape=end.meta["shape"][1:],
                    channel_axis=self._channel_axes[end],
                    n_parameters=sum(parameters.values()),
                    macs=sum(node.meta.get("macs", 0) for node in inside),
                )
            )
        return tuple(stages)

    @cached_once
    def stage_parts(self) -> dict[str, tuple[str, ...]]:
        """The paths of the modules, and of the tensors outside of modules, that each stage is the first to use."""
        parts: dict[str, tuple[str, ...]] = {}
        earlier: set[fx.Node] = set()
        seen: set[str] = set()
        for name, end in self._stage_ends.items():
            inside = _graph.ancestors([end]) - earlier
            earlier |= inside
            used = [str(node.target) for node in self._full_graph.nodes if node in inside and node.op in _WITH_TENSORS]
            parts[name] = tuple(path for path in dict.fromkeys(used) if path not in seen)
            seen |= set(used)
        return parts

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all activations, in the order in which they are computed."""
        return tuple(self._nodes)

    def _find(self, layer: str) -> fx.Node:
        """The node that a layer's name means."""
        if layer in self._stage_ends:
            return self._stage_ends[layer]
        return self._find_layer(layer, self._nodes)

    def _find_layer(self, layer: str, nodes: Mapping[str, fx.Node]) -> fx.Node:
        """The node of that name, or the last one inside the module of that name."""
        if layer in nodes:
            return nodes[layer]
        inside = [node for name, node in nodes.items() if name.startswith(f"{layer}.")] if layer else []
        if inside:
            return inside[-1]
        nearest = get_close_matches(str(layer), [*self._stage_ends, *self._nodes], n=3)
        raise BackboneError(
            f"{layer!r} is no layer of {self.name!r}."
            + (f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else "")
            + f" Its stages are {list(self._stage_ends)}; Backbone.layers lists all layers."
        )

    def stage_index(self, freeze_depth: "int | str") -> int:
        """How many stages ``freeze_depth`` freezes.

        Parameters
        ----------
        freeze_depth : int or str
            A number of stages counted from the input, a negative number counted from the end (-1: all but the last),
            ``"all"``, or the name of the last frozen stage.

        Returns
        -------
        int
            From 0 to the number of stages.

        Raises
        ------
        BackboneError
            Where there is no such stage.
        """
        names = list(self._stage_ends)
        if freeze_depth == "all":
            return len(names)
        if isinstance(freeze_depth, str) and freeze_depth in names:
            return names.index(freeze_depth) + 1
        # numpy's integers come from parameter grids; a bool is an integer to Python, and nobody means one here.
        if hasattr(freeze_depth, "__index__") and not isinstance(freeze_depth, bool):
            depth = int(freeze_depth)
            if -len(names) <= depth <= len(names):
                return depth if depth >= 0 else len(names) + depth
        raise depth_error(freeze_depth, self.name, names)

    def feature_graph(self, layers: "str | Sequence[str]") -> fx.GraphModule:
        """The part of the network that computes some layers, and nothing behind the deepest of them.

        Parameters
        ----------
        layers : str or sequence of str
            Stages or layers.

        Returns
        -------
        torch.fx.GraphModule
            Maps normalised pictures, a float tensor of shape (n, channels, height, width), to a tuple with one tensor
            per layer. It shares the memory of the weights with this backbone, but may be moved or cast freely.

        Raises
        ------
        BackboneError
            Where a layer is unknown; the message names the nearest.
        """
        nodes = tuple(self._find(layer) for layer in ((layers,) if isinstance(layers, str) else layers))
        if not nodes:
            raise BackboneError("layers is empty. Name at least one stage or layer.")
        return self._part(_graph.extract(self._full_graph, nodes), torch.Tensor.detach)

    def cut(
        self, freeze_depth: "int | str", *, head: bool = True, taps: Sequence[str] = ()
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Cut the network behind its first stages: ``rest(prefix(x))`` is ``module(x)``.

        Parameters
        ----------
        freeze_depth : int or str
            The number of stages in the prefix, in any form that `stage_index` understands.
        head : bool, default=True
            Whether the rest ends with the source's head; without it, it ends with the last stage.
        taps : sequence of str, default=()
            Stages or layers of the rest whose output it gives as well.

        Returns
        -------
        prefix : torch.fx.GraphModule
            Maps normalised pictures (n, channels, height, width) to the output of the last frozen stage. It shares the
            memory of its weights with this backbone.
        rest : torch.fx.GraphModule
            Maps that to the network's output; with taps to a tuple of their outputs and, at its end, the network's.
            Its weights are a copy of its own, ready to be trained.

        Raises
        ------
        BackboneError
            Where there is no such stage, or a tap does not lie behind the cut.
        """
        depth = self.stage_index(freeze_depth)
        stage_ends = list(self._stage_ends.values())
        image = next(node for node in self._full_graph.nodes if node.op == "placeholder")
        start = stage_ends[depth - 1] if depth else image
        end = _graph.output_node(self._full_graph) if head else stage_ends[-1]
        prefix = self._part(_graph.extract(self._full_graph, start), torch.Tensor.detach)
        ends = tuple(self._find(tap) for tap in taps)
        inside = _graph.ancestors([end])
        behind = [tap for tap, node in zip(taps, ends, strict=True) if node not in inside]
        if behind:
            raise BackboneError(
                f"{behind} of {self.name!r} are no part of the rest, which ends with {self.stages[-1].name!r}. Name "
                "layers of its stages."
            )
        frozen = _graph.ancestors([start])
        before = [tap for tap, node in zip(taps, ends, strict=True) if node in frozen]
        if before:
            raise BackboneError(
                f"{before} of {self.name!r} lie in the first {depth} stages, in front of the cut at "
                f"freeze_depth={freeze_depth!r}. Freeze less, or name layers behind it."
            )
        rest = self._part(
            _graph.extract(self._full_graph, (*ends, end) if taps else end, start=start), torch.Tensor.clone
        )
        for parameter in rest.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return prefix, rest

    def with_weights(self, state: Mapping[str, torch.Tensor]) -> "Backbone":
        """The same network with other values in some of its tensors, after training for example.

        Parameters
        ----------
        state : mapping of str to Tensor
            New values by name, as in ``module.state_dict()``; they are copied. The ``state_dict()`` of a rest that
            `cut` gave is one.

        Returns
        -------
        Backbone
            It shares the memory of all other tensors with this one, and its graph, which is not read again. A layer
            that no replaced tensor takes part in keeps its fingerprint, and with it what a cache holds of it.

        Raises
        ------
        BackboneError
            Where a name is unknown or a shape is another.

        Notes
        -----
        A tensor that has several names is replaced only under those given. A layer that runs in several places (in a
        frozen stage and behind it) is one layer, and so changes in all of them.
        """
        _ = self.stages, self._channel_axes  # read here, once for all networks that come from this one
        # The graph knows tensors that the network has no name for: constants of its forward pass, which nothing trains.
        named = dict(self.module.named_parameters(remove_duplicate=False))
        named |= dict(self.module.named_buffers(remove_duplicate=False))  # type: ignore[arg-type]
        constants = {str(node.target) for node in self._full_graph.nodes if node.op == "get_attr"} - named.keys()
        tensors = {
            name: _changed_layers.new_value(self, name, value) for name, value in state.items() if name not in constants
        }
        changed = _graph.readers(self._full_graph, self._root, tensors)
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        vars(other).pop("body", None)  # it has the values of before
        other.module = _graph.with_tensors(self.module, tensors)
        other._root = _graph.with_tensors(self._root, {name: tensor.detach() for name, tensor in tensors.items()})
        other._fingerprints = {
            layer: fingerprint
            for layer, fingerprint in self._fingerprints.items()
            if changed.isdisjoint(_graph.ancestors([self._nodes[layer]]))
        }
        return other

    @cached_once
    def body(self) -> "Backbone":
        """The network without its source head, of which nothing is left that takes room."""
        return self if self._given_ends is not None else up_to(self, len(self._stage_ends))

    def with_modules(self, rest: fx.GraphModule) -> "Backbone":
        """The network with other layers behind a cut, and without its source head.

        Parameters
        ----------
        rest : torch.fx.GraphModule
            What `cut` gave, with ``head=False``; since then its layers may have become smaller, or sequences of others.
            What they are is copied.

        Returns
        -------
        Backbone
            Its stages have the names and ends of this one's; it shares the memory of all other layers with this one.
        """
        own: nn.Module = _graph.shadow(rest, lambda tensor: tensor.detach().cpu().clone())
        paths = [str(node.target) for node in rest.graph.nodes if node.op in _WITH_TENSORS]
        parts = {path: _graph.attribute(path, own) for path in dict.fromkeys(paths)}
        return _changed_layers.rebuilt(self.body, parts, self._stage_ends)

    def _part(self, graph: fx.Graph, tensor: Callable[[torch.Tensor], torch.Tensor]) -> fx.GraphModule:
        self._check_eval()
        part = Part(self._root, graph).eval()
        own = _graph.shadow(part, tensor)
        # A graph that knows its module, which knows its graph, is a circle that would keep gigabytes of weights
        # until Python's next large collection.
        for module in (part, own):
            module.graph.owning_module = None
        return own

    def fingerprint(self, layer: str) -> str:
        """Digest of the network up to ``layer``: equal for equal networks, different if one weight differs.

        Parameters
        ----------
        layer : str
            A stage or a layer.

        Returns
        -------
        str
            32 hexadecimal digits, the same in every process. Where a layer of your own cannot be read as a graph, they
            are those of this object and its copies alone.
        """
        node = self._find(layer)
        key = node.meta["layer"]
        if key not in self._fingerprints:
            self._fingerprints[key] = _fingerprint.fingerprint(_graph.extract(self._full_graph, node), self._root)
        return self._fingerprints[key]

    def channel_axis(self, layer: str) -> int:
        """The axis of ``layer``'s output that holds the channels.

        Parameters
        ----------
        layer : str
            A stage or a layer.

        Returns
        -------
        int
            1 for (n, channels, height, width), -1 where the channels come last, as in (n, tokens, channels).
        """
        return self._channel_axes[self._find(layer)]

    def has_cls_token(self, layer: str) -> bool:
        """Whether the first token of ``layer``'s output is a learnt class token, not a place in the image.

        Parameters
        ----------
        layer : str
            A stage or a layer.

        Returns
        -------
        bool
            False for all but outputs of shape (n, tokens, channels).
        """
        return _layout.has_class_token(self._find(layer), self._root)

    def output_shape(self, layer: str) -> tuple[int, ...]:
        """Shape of ``layer``'s output for one picture, without the batch axis.

        Parameters
        ----------
        layer : str
            A stage or a layer.

        Returns
        -------
        tuple of int
        """
        return self._find(layer).meta["shape"][1:]

    def macs(self, layer: str) -> int:
        """Multiply-accumulates per picture up to and including ``layer``.

        Parameters
        ----------
        layer : str
            A stage or a layer.

        Returns
        -------
        int
            Of convolutions, linear layers and attention; what is done element by element is not counted.
        """
        return sum(node.meta.get("macs", 0) for node in _graph.ancestors([self._find(layer)]))


def whole_graph(backbone: Backbone) -> fx.GraphModule:
    """The whole network with the head of its source as its graph computes it; it shares the memory of its weights."""
    graph = backbone._full_graph
    return backbone._part(_graph.extract(graph, _graph.output_node(graph)), torch.Tensor.detach)


def up_to(backbone: Backbone, n_stages: int) -> Backbone:
    """The network that ends with one of its stages, the last of this number; what is behind it takes no room."""
    ends = dict(list(backbone._stage_ends.items())[:n_stages])
    return _changed_layers.ending(backbone, backbone._full_graph, ends)
