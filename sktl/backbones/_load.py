"""From what a user names to a `Backbone`."""

import copy
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.utils._pytree import tree_leaves

from sktl._locks import Lock
from sktl._messages import shortened_errors
from sktl._part import without_tracing
from sktl._randomness import Randomness
from sktl._stores import register_store
from sktl._threads import bounded_threads
from sktl.backbones import _input_channels, _weights, _weights_files
from sktl.backbones._architecture import Architecture
from sktl.backbones._backbone import Backbone, whole_graph
from sktl.backbones._checkpoint_names import named_as
from sktl.backbones._preprocessing import Preprocessing, check_preprocessing
from sktl.backbones._registry import find_architecture
from sktl.backbones._weights_files import StateDict
from sktl.exceptions import BackboneError, WeightsMismatchError

# Loaded networks, the most recently used last. Each may be hundreds of megabytes.
_MEMO: OrderedDict[Hashable, Backbone] = OrderedDict()
_MEMO_SIZE = 4
_MEMO_BYTES = 2**30  # of all but the last one
_MEMO_LOCK = Lock()
register_store("loaded networks", _MEMO.clear, _MEMO_LOCK)


@bounded_threads()
def load_backbone(
    backbone: Any,
    *,
    weights: "str | PathLike[str] | None" = "default",
    in_channels: int = 3,
    preprocessing: "Preprocessing | Mapping[str, Any] | None" = None,
    random_state: "int | np.random.RandomState | None" = None,
) -> Backbone:
    """Load a pretrained network.

    Parameters
    ----------
    backbone : str, nn.Module, Backbone or fitted estimator
        A name from `list_backbones`, ``"timm:<name>"`` for one of timm, a network of your own, which is copied (hooks
        that you registered on it are not), or a `Backbone`, which is returned as it is, as is that of an estimator of
        sktl.
    weights : str, path or None, default="default"
        ``"default"`` takes the best published weights, a published name (``"IMAGENET1K_V1"``) those, a path a local
        file, and None random ones. A file may be ``.safetensors`` or what `torch.save` has written (``.pt``, ``.pth``,
        ``.bin``, ``.ckpt``, ``.pth.tar``), of which only tensors are read: a state dict, alone or in a checkpoint, its
        names behind those of a training program (``module.``, ``model.``, ``backbone.``) or not. It may have a source
        head of another size, or none: then the network ends in front of it. For a network of your own, ``"default"``
        and None are the weights it has, and a path is loaded into the copy. A `Backbone` has its own.
    in_channels : int, default=3
        Channels of the pictures. The first convolution is adapted to any number but 3; for one channel, so that a
        grey picture gives exactly what it gives as RGB.
    preprocessing : Preprocessing, dict or None, default=None
        How pictures are resized, cropped and normalised. None takes what belongs to the weights; for a file, what
        belongs to the published weights of that file name, or to the default ones; for a network of your own, 256,
        224 and ImageNet's mean and standard deviation. A dict changes some of it.
    random_state : int, RandomState or None, default=None
        Seeds random weights. The global generators of torch are not touched.

    Returns
    -------
    Backbone
        In eval mode, its parameters not asking for gradients. The same object is returned for the same name and
        settings while it is among the four most recently used, so it must not be changed.

    Raises
    ------
    BackboneError
        Where the name, the published weights, the preprocessing or in_channels are not understood, where they
        contradict a `Backbone`, or where a network cannot be read as a graph.
    FileNotFoundError
        Where ``weights`` is a path and there is no such file.
    MissingDependencyError
        Where the name starts with ``timm:`` and timm is not installed.
    WeightsDownloadError
        Where published weights did not arrive.
    WeightsMismatchError
        Where a file cannot be read, is no state dict or that of another network, or where weights are NaN, infinite or
        too large to compute with.

    Examples
    --------
    >>> from sktl.backbones import load_backbone
    >>> load_backbone("sktl_mini")
    <Backbone sktl_mini: 5 stages, 3 channels>
    """
    in_channels = _input_channels.check_in_channels(in_channels)
    if not isinstance(backbone, str | type | nn.Module) and isinstance(getattr(backbone, "backbone_", None), Backbone):
        backbone = backbone.backbone_  # of a fitted estimator
    if isinstance(backbone, Backbone):
        _check_agreement(backbone, weights, in_channels, preprocessing)
        return backbone
    if isinstance(backbone, nn.Module):
        return _own(backbone, weights, in_channels, preprocessing)
    if not isinstance(backbone, str):
        raise _no_network(backbone)
    architecture = find_architecture(backbone)
    name, path = _resolve_weights(architecture, weights)
    if architecture.caveat and preprocessing is None and (name or path):
        raise BackboneError(
            f"backbone={backbone!r}: its weights were trained with {architecture.caveat}. To use them all the same, "
            "say so with preprocessing={} (the size and normalisation of the weights) or one of your own."
        )
    default = architecture.preprocessing(name, path)
    wanted = check_preprocessing(preprocessing, default)
    key = _memo_key(backbone, name, path, in_channels, wanted, random_state)
    with _MEMO_LOCK:
        if key in _MEMO:
            _MEMO.move_to_end(key)
            return _MEMO[key]
    seed = 0  # of what is drawn and then replaced by the file's
    if name is None and path is None:
        with shortened_errors():
            seed = check_random_state(random_state).randint(2**31)
    state = _read_state(architecture, name, path)
    with Randomness(seed).drawn_from():
        module, has_head = _build(architecture, state, wanted, path, str(path or name))
        adapted = _input_channels.adapt_input(module.eval().float(), in_channels, wanted, default)
    loaded = Backbone(
        module,
        name=backbone,
        preprocessing=adapted,
        in_channels=in_channels,
        has_classifier=has_head and architecture.classifies,
    )
    if not architecture.swept:
        _check_graph(loaded)
    if key is not None and (path is None or _is_unchanged(path, key)):
        _remember(key, loaded)
    return loaded


def _is_unchanged(path: Path, key: tuple) -> bool:
    """Whether a file is what it was: one that is written while it is read may be neither that nor what it is now."""
    try:
        return _weights_files.file_digest(path) in key
    except WeightsMismatchError:  # it is gone, and what was read of it is whole
        return False


def _remember(key: Hashable, loaded: Backbone) -> None:
    with _MEMO_LOCK:
        _MEMO[key] = loaded
        while len(_MEMO) > _MEMO_SIZE or (len(_MEMO) > 1 and sum(map(_n_bytes, _MEMO.values())) > _MEMO_BYTES):
            _MEMO.popitem(last=False)


def _n_bytes(backbone: Backbone) -> int:
    return sum(tensor.nbytes for tensor in chain(backbone.module.parameters(), backbone.module.buffers()))


def _no_network(backbone: Any) -> BackboneError:
    """What is wrong with something that names no network."""
    is_class = isinstance(backbone, type)
    return BackboneError(
        f"backbone={backbone!r} is of type {type(backbone).__name__}. Use a name from sktl.backbones.list_backbones(), "
        "an nn.Module, a Backbone, or a fitted estimator of sktl"
        + (f"; a class is none until it is called: {backbone.__name__}(...)." if is_class else ".")
    )


def _resolve_weights(
    architecture: Architecture, weights: "str | PathLike[str] | None"
) -> "tuple[str | None, Path | None]":
    """``weights`` as a published name, or as a path, or as neither (random)."""
    if weights is None:
        return None, None
    if isinstance(weights, str):
        if weights.lower() == "default":
            if architecture.default is None:
                raise BackboneError(
                    f"No weights are published for backbone={architecture.name!r}. Use weights=None or a file."
                )
            return architecture.default, None
        if weights in architecture.published:
            return weights, None
    choices = f"'default', one of {sorted(architecture.published)}, None for random weights"
    return None, _weights_files.as_weights_path(weights, backbone=architecture.name, choices=choices)


def _memo_key(
    backbone: str,
    name: str | None,
    path: Path | None,
    in_channels: int,
    preprocessing: Preprocessing,
    random_state: Any,
) -> tuple | None:
    """What determines a loaded network; None where nothing does (random weights without a fixed seed)."""
    if name is None and path is None:
        if not isinstance(random_state, (int, np.integer)):
            return None
        return backbone, int(random_state), in_channels, preprocessing
    if path is None:
        return backbone, name, in_channels, preprocessing
    # A file that was written again is another one, though its size and times may be those of before.
    return backbone, _weights_files.file_digest(path), path.name, in_channels, preprocessing


def _read_state(architecture: Architecture, name: str | None, path: Path | None) -> "StateDict | None":
    """The weights; None where they are to be random."""
    if path is not None:
        return _weights_files.read_state_dict(path)
    return architecture.adjust(architecture.fetch(name)) if name is not None else None


def _build(
    architecture: Architecture, state: "StateDict | None", preprocessing: Preprocessing, path: Path | None, origin: str
) -> tuple[nn.Module, bool]:
    """The network with these weights, and whether it has a head that has learnt something."""
    if state is None:
        return architecture.build(None, preprocessing), False
    if path is not None:
        names = list(_empty(architecture, state, preprocessing).state_dict())
        state = named_as(state, names, architecture.adjust, origin=origin)
    module = _empty(architecture, state, preprocessing)
    has_head = _weights.load_state_dict(module, state, origin=origin)
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers())):  # not all of it is in the file
        module = architecture.build(state, preprocessing)
        has_head = _weights.load_state_dict(module, state, origin=origin)
    return module, has_head


def _empty(architecture: Architecture, state: StateDict, preprocessing: Preprocessing) -> nn.Module:
    """The network into which a state dict will be loaded."""
    try:
        with torch.device("meta"):  # drawing random weights that the file replaces takes longer than reading it
            return architecture.build(state, preprocessing)
    except RuntimeError:  # a network that computes with tensors while it is built
        return architecture.build(state, preprocessing)


def _check_agreement(
    backbone: Backbone,
    weights: "str | PathLike[str] | None",
    in_channels: int,
    preprocessing: "Preprocessing | Mapping[str, Any] | None",
) -> None:
    """Refuse settings that a network which is loaded already would pass over in silence."""
    if not _own_weights(weights):
        raise BackboneError(
            f"weights={str(weights)!r}, but the network given is loaded already and has its weights. "
            "Use weights='default', or give load_backbone the network's name and these weights."
        )
    if in_channels != backbone.in_channels:
        raise BackboneError(
            f"in_channels={in_channels!r}, but the network given sees {backbone.in_channels} channels. "
            f"Use in_channels={backbone.in_channels}."
        )
    if check_preprocessing(preprocessing, backbone.preprocessing) != backbone.preprocessing:
        raise BackboneError(
            f"preprocessing={preprocessing!r} is not that of the network given, which is loaded already. "
            "Give it to sktl.backbones.load_backbone together with the network's name, or to the estimator whose "
            "network this is."
        )


def _own_weights(weights: "str | PathLike[str] | None") -> bool:
    """Whether ``weights`` means those that a network, given as one, has."""
    return weights is None or (isinstance(weights, str) and weights.lower() == "default")


def _own(
    module: nn.Module,
    weights: "str | PathLike[str] | None",
    in_channels: int,
    preprocessing: "Preprocessing | Mapping[str, Any] | None",
) -> Backbone:
    """A network of the user's own: copied, without the hooks that look at it."""
    name, default = type(module).__name__, Preprocessing()
    path = None
    if weights is not None and not _own_weights(weights):
        choices = "'default' or None for the weights that it has"
        path = _weights_files.as_weights_path(weights, backbone=name, choices=choices)
    copied = without_tracing(copy.deepcopy(module)).cpu().float().eval()
    for layer in copied.modules():
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks):
            for number, hook in list(hooks.items()):
                # torch's own hooks (spectral norm, weight norm, pruning) compute the weights and belong to the network.
                if not (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch."):
                    del hooks[number]
    if path is not None:
        state = named_as(_weights_files.read_state_dict(path), list(copied.state_dict()), dict, origin=str(path))
        _weights.load_state_dict(copied, state, origin=str(path))
        copied.eval()
    numbers = [*copied.named_parameters(), *(x for x in copied.named_buffers() if _weights.is_statistic(x[0]))]
    _weights.check_numbers(numbers, whose=f"backbone={name}(...)")
    with Randomness(0).drawn_from():
        wanted = _input_channels.adapt_input(copied, in_channels, check_preprocessing(preprocessing, default), default)
    loaded = Backbone(copied, name=name, preprocessing=wanted, in_channels=in_channels)
    _check_graph(loaded)
    return loaded


def _check_graph(backbone: Backbone) -> None:
    """Refuse a network that computes something else than its graph, which knows no memory shared by two tensors."""
    part = whole_graph(backbone)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, backbone.in_channels, *backbone.preprocessing.crop_shape, generator=generator)
    results = []
    for network in (backbone.module, part):
        with Randomness(0).drawn_from(), torch.no_grad():  # some networks draw numbers in eval mode too
            results.append(next(filter(torch.is_tensor, tree_leaves(network(picture.clone()))), None))
    expected, found = results
    if expected is None or found is None:  # an output of a class of its own, in which no tensor can be found
        return
    rounding = 1e-5 * expected.abs().max().item()
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=0, atol=rounding, equal_nan=True):
        raise BackboneError(
            f"The network {backbone.name!r} computes something else than the graph that was read from it, probably "
            "because it changes a part of a tensor through a view (x.view(n, -1).mul_(2), x[:, :2].mul_(3)). "
            "Write it without in-place operations on views (x = x * 2). Where forward() compares type(module), write "
            "isinstance(module, ...): while a network is read, its modules are of subclasses."
        )
