"""Pretrained networks that can be cut into stages."""

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

_WITH_TENSORS = ("call_module", "get_attr")  # graph operations that may have parameters


class Backbone:
    """A pretrained network that can be cut into a frozen prefix and a trainable rest.

    Created by `sktl.backbones.load_backbone`. It is immutable.

    Parameters
    ----------
    module : nn.Module
        The network with its original head. It is not copied, but put in evaluation mode
        without gradients.
    name : str
        Name of the network.
    preprocessing : Preprocessing
        Preprocessing of the images.
    in_channels : int, default=3
        Number of channels of the network's input.
    stage_ends : mapping of str to str, default=None
        Names of the stages, in order, mapped to the last layer of each. The network
        then ends with the last stage. If None, the stages are found in its graph.
    has_classifier : bool, default=False
        Whether the original head predicts the classes of the pretraining dataset.

    Attributes
    ----------
    stages : tuple of Stage
        The stages, in order. The original head does not belong to any stage.
    layers : tuple of str
        Names of all activations, as in
        `torchvision.models.feature_extraction.create_feature_extractor`: the path of
        the layer, followed by ``_1``, ``_2``, … if a layer is used several times
        (``"layer1.0.relu"`` is the first use, ``"layer1.0.relu_1"`` the second).

    Notes
    -----
    Methods that take a layer also accept the name of a stage, which means the output of
    the stage, and the path of a module with several layers (``"layer1.0"``), which
    means the output of its last layer.

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

    has_classifier = False  # default for pickles of earlier versions

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
        # It is immutable, so the candidates of a grid search share its graph.
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The graph is traced again when needed, which takes milliseconds.
        kept = ("name", "preprocessing", "in_channels", "has_classifier", "module", "_given_ends", "_fingerprints")
        return {name: getattr(self, name) for name in kept}

    @cached_once
    def _root(self) -> nn.Module:
        """The network of the graphs: it shares the weights, without in-place layers."""
        self._check_eval()
        return _graph.shadow(self.module, torch.Tensor.detach)

    def _check_eval(self) -> None:
        if any(module.training for module in self.module.modules()):
            raise BackboneError(
                f"The network of {self.name!r} is in training mode, in which its output depends on the batch. Call "
                "backbone.module.eval(). To train a part of the network, use the copy returned by backbone.cut()."
            )

    @cached_once
    def _full_graph(self) -> fx.Graph:
        from sktl.backbones import _tracing  # loads torchvision

        graph = _tracing.trace(self._root)
        if self._given_ends is not None:  # later layers may not fit the last stage
            nodes = {node.meta["layer"]: node for node in graph.nodes}
            graph = _graph.extract(graph, self._find_layer(list(self._given_ends.values())[-1], nodes))
        shape = (1, self.in_channels, *self.preprocessing.crop_shape)
        try:
            _tracing.measure(graph, self._root, shape)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BackboneError(
                f"The network {self.name!r} cannot process images of shape (channels, height, width) = {shape[1:]}: "
                f"{reason}. Set the size with preprocessing={{'resize_size': ..., 'crop_size': ...}} and the number of "
                "channels with in_channels=..."
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
                f"The network {self.name!r} cannot be split into stages, because its data never flows through a single "
                "tensor before the last layer."
            )
        return ends

    @cached_once
    def _channel_axes(self) -> dict[fx.Node, int]:
        return _layout.channel_axes(self._full_graph, self._root)

    @cached_once
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order."""
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
        """Paths of the modules and free tensors that each stage is the first to use."""
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
        """Names of all activations, in the order in which they are computed."""
        return tuple(self._nodes)

    def _find(self, layer: str) -> fx.Node:
        """Return the node of a stage or layer."""
        if layer in self._stage_ends:
            return self._stage_ends[layer]
        return self._find_layer(layer, self._nodes)

    def _find_layer(self, layer: str, nodes: Mapping[str, fx.Node]) -> fx.Node:
        """Return the node of this name, or the last one inside this module."""
        if layer in nodes:
            return nodes[layer]
        inside = [node for name, node in nodes.items() if name.startswith(f"{layer}.")] if layer else []
        if inside:
            return inside[-1]
        nearest = get_close_matches(str(layer), [*self._stage_ends, *self._nodes], n=3)
        raise BackboneError(
            f"{layer!r} is not a layer of {self.name!r}."
            + (f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else "")
            + f" Its stages are {list(self._stage_ends)}; Backbone.layers lists all layers."
        )

    def stage_index(self, freeze_depth: "int | str") -> int:
        """Return the number of stages that ``freeze_depth`` freezes.

        Parameters
        ----------
        freeze_depth : int or str
            Number of stages, counted from the input or, if negative, from the end;
            ``"all"``; or the name of the last frozen stage.

        Returns
        -------
        int
            Number of frozen stages, from 0 to the number of stages.

        Raises
        ------
        BackboneError
            If the stage does not exist.
        """
        names = list(self._stage_ends)
        if freeze_depth == "all":
            return len(names)
        if isinstance(freeze_depth, str) and freeze_depth in names:
            return names.index(freeze_depth) + 1
        # NumPy integers come from parameter grids. A bool is an int in Python, too.
        if hasattr(freeze_depth, "__index__") and not isinstance(freeze_depth, bool):
            depth = int(freeze_depth)
            if -len(names) <= depth <= len(names):
                return depth if depth >= 0 else len(names) + depth
        raise depth_error(freeze_depth, self.name, names)

    def feature_graph(self, layers: "str | Sequence[str]") -> fx.GraphModule:
        """Return the part of the network that computes the given layers.

        Parameters
        ----------
        layers : str or sequence of str
            Names of stages or layers. Nothing after the deepest one is computed.

        Returns
        -------
        torch.fx.GraphModule
            Maps normalized images, a float tensor of shape (n_samples, channels,
            height, width), to a tuple with one tensor per layer. It shares its weights
            with this backbone, but can be moved or cast independently.

        Raises
        ------
        BackboneError
            If ``layers`` is empty or a layer does not exist.
        """
        nodes = tuple(self._find(layer) for layer in ((layers,) if isinstance(layers, str) else layers))
        if not nodes:
            raise BackboneError("layers is empty. Pass at least one stage or layer.")
        return self._part(_graph.extract(self._full_graph, nodes), torch.Tensor.detach)

    def cut(
        self, freeze_depth: "int | str", *, head: bool = True, taps: Sequence[str] = ()
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Split the network in two, such that ``rest(prefix(x))`` equals ``module(x)``.

        Parameters
        ----------
        freeze_depth : int or str
            Number of stages in the prefix, as in `stage_index`.
        head : bool, default=True
            Whether the rest includes the original head or ends with the last stage.
        taps : sequence of str, default=()
            Names of stages or layers of the rest to return as well.

        Returns
        -------
        prefix : torch.fx.GraphModule
            Maps normalized images of shape (n_samples, channels, height, width) to the
            output of its last stage. It shares its weights with this backbone.
        rest : torch.fx.GraphModule
            Maps the output of the prefix to that of the network. With ``taps``, it
            returns a tuple of their outputs followed by that of the network. Its
            weights are a trainable copy.

        Raises
        ------
        BackboneError
            If the stage does not exist, or a tap does not belong to the rest.
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
                f"The layers {behind} of {self.name!r} come after its last stage, {self.stages[-1].name!r}. Use layers "
                "of its stages instead."
            )
        frozen = _graph.ancestors([start])
        before = [tap for tap, node in zip(taps, ends, strict=True) if node in frozen]
        if before:
            raise BackboneError(
                f"The layers {before} of {self.name!r} belong to the first {depth} stages, which are frozen with "
                f"freeze_depth={freeze_depth!r}. Freeze fewer stages, or use layers of later stages."
            )
        rest = self._part(
            _graph.extract(self._full_graph, (*ends, end) if taps else end, start=start), torch.Tensor.clone
        )
        for parameter in rest.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return prefix, rest

    def with_weights(self, state: Mapping[str, torch.Tensor]) -> "Backbone":
        """Return the network with new values for some of its tensors.

        Parameters
        ----------
        state : mapping of str to Tensor
            New values by name, as in ``module.state_dict()``, such as the
            ``state_dict()`` of a trained rest returned by `cut`. The values are copied.
            A tensor with several names is only replaced under the given names.

        Returns
        -------
        Backbone
            A network that shares the graph and all other tensors with this one. Layers
            that do not depend on a new value keep their fingerprints, so that their
            cached outputs stay valid.

        Raises
        ------
        BackboneError
            If a name is unknown or a shape differs.
        """
        _ = self.stages, self._channel_axes  # computed once for all networks derived from this one
        # The graph also has unnamed tensors: constants of the forward pass.
        named = dict(self.module.named_parameters(remove_duplicate=False))
        named |= dict(self.module.named_buffers(remove_duplicate=False))  # type: ignore[arg-type]
        constants = {str(node.target) for node in self._full_graph.nodes if node.op == "get_attr"} - named.keys()
        tensors = {
            name: _changed_layers.new_value(self, name, value) for name, value in state.items() if name not in constants
        }
        changed = _graph.readers(self._full_graph, self._root, tensors)
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        vars(other).pop("body", None)  # it has the old values
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
        """The network without its original head, whose modules are removed."""
        return self if self._given_ends is not None else up_to(self, len(self._stage_ends))

    def with_modules(self, rest: fx.GraphModule) -> "Backbone":
        """Return the network with new layers after a cut and without its original head.

        Parameters
        ----------
        rest : torch.fx.GraphModule
            A rest returned by `cut` with ``head=False``, whose layers may have been
            replaced since then, such as by smaller ones. They are copied.

        Returns
        -------
        Backbone
            A network with the same stage names and ends that shares all other layers.
        """
        own: nn.Module = _graph.shadow(rest, lambda tensor: tensor.detach().cpu().clone())
        paths = [str(node.target) for node in rest.graph.nodes if node.op in _WITH_TENSORS]
        parts = {path: _graph.attribute(path, own) for path in dict.fromkeys(paths)}
        return _changed_layers.rebuilt(self.body, parts, self._stage_ends)

    def _part(self, graph: fx.Graph, tensor: Callable[[torch.Tensor], torch.Tensor]) -> fx.GraphModule:
        self._check_eval()
        part = Part(self._root, graph).eval()
        own = _graph.shadow(part, tensor)
        # Without this, a reference cycle keeps gigabytes of weights in memory.
        for module in (part, own):
            module.graph.owning_module = None
        return own

    def fingerprint(self, layer: str) -> str:
        """Return a digest that is equal for equal networks up to a layer.

        Parameters
        ----------
        layer : str
            Name of a stage or layer.

        Returns
        -------
        str
            32 hexadecimal digits, the same in every process, unless a custom layer
            cannot be traced: they are then unique to this object and its copies.
        """
        node = self._find(layer)
        key = node.meta["layer"]
        if key not in self._fingerprints:
            self._fingerprints[key] = _fingerprint.fingerprint(_graph.extract(self._full_graph, node), self._root)
        return self._fingerprints[key]

    def channel_axis(self, layer: str) -> int:
        """Return the channel axis of the output of a layer.

        Parameters
        ----------
        layer : str
            Name of a stage or layer.

        Returns
        -------
        int
            1 for outputs of shape (n_samples, channels, height, width), -1 if the
            channels come last, as in (n_samples, n_tokens, channels).
        """
        return self._channel_axes[self._find(layer)]

    def has_cls_token(self, layer: str) -> bool:
        """Check whether the first token of the output of a layer is a class token.

        Parameters
        ----------
        layer : str
            Name of a stage or layer.

        Returns
        -------
        bool
            Always False for outputs that are not of shape (n_samples, n_tokens,
            channels).
        """
        return _layout.has_class_token(self._find(layer), self._root)

    def output_shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of the output of a layer, without the batch axis.

        Parameters
        ----------
        layer : str
            Name of a stage or layer.

        Returns
        -------
        tuple of int
        """
        return self._find(layer).meta["shape"][1:]

    def macs(self, layer: str) -> int:
        """Return the number of multiply-accumulates per image up to a layer.

        Parameters
        ----------
        layer : str
            Name of a stage or layer, which is included.

        Returns
        -------
        int
            Number for convolutions, linear layers and attention, without elementwise
            operations.
        """
        return sum(node.meta.get("macs", 0) for node in _graph.ancestors([self._find(layer)]))


def whole_graph(backbone: Backbone) -> fx.GraphModule:
    """Return the traced network with its original head, sharing its weights."""
    graph = backbone._full_graph
    return backbone._part(_graph.extract(graph, _graph.output_node(graph)), torch.Tensor.detach)


def up_to(backbone: Backbone, n_stages: int) -> Backbone:
    """Return the network that ends with its ``n_stages``-th stage."""
    ends = dict(list(backbone._stage_ends.items())[:n_stages])
    return _changed_layers.ending(backbone, backbone._full_graph, ends)
