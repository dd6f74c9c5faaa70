"""Loading of backbones from names, files and modules."""

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

# Loaded networks, most recently used last. Each may take hundreds of megabytes.
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
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied without the
        hooks that you registered and left unchanged. A `sktl.backbones.Backbone`, or
        that of a fitted sktl estimator, is returned as it is.
    weights : str, path or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local file, and None initializes the network at random.

        A file may be in safetensors format or written by `torch.save` (``.pt``,
        ``.pth``, ``.bin``, ``.ckpt``, ``.pth.tar``). It contains a state dict, possibly
        inside a training checkpoint, and only tensors are read from it. Prefixes of the
        names, such as ``module.``, ``model.`` or ``backbone.``, are removed. The head
        in the file may have another number of classes. If the file has no head, the
        network ends before its head.

        For your own network, ``"default"`` and None keep its weights, and a path is
        loaded into the copy. A `sktl.backbones.Backbone` keeps its own weights.
    in_channels : int, default=3
        Number of channels of the network's input: 3 for color, 1 for grayscale, more
        for multispectral images. The first convolution is adapted to numbers other than
        3. With one channel, a grayscale image gives exactly the same output as its RGB
        version.
    preprocessing : Preprocessing, dict or None, default=None
        Size, crop, interpolation, mean and standard deviation used to prepare the
        images. None uses the preprocessing of the weights: for a file, that of the
        published weights with the same file name or else of the default ones; for your
        own network, the defaults of `sktl.backbones.Preprocessing`. A dict replaces
        some of the values.
    random_state : int, RandomState or None, default=None
        Seed of the random weights. Only used if ``weights=None``. The global generators
        of torch are not changed.

    Returns
    -------
    Backbone
        The network in evaluation mode, with parameters that do not require gradients.
        The same object is returned for the same name and settings while it is among the
        four most recently used ones, so it must not be modified.

    Raises
    ------
    BackboneError
        If the name, the published weights, ``preprocessing`` or ``in_channels`` are
        invalid or contradict a given backbone, or if the network cannot be traced.
    FileNotFoundError
        If ``weights`` is the path of a file that does not exist.
    MissingDependencyError
        If the name starts with ``timm:`` and timm is not installed.
    WeightsDownloadError
        If published weights cannot be downloaded.
    WeightsMismatchError
        If a file cannot be read, does not contain a state dict or belongs to another
        network, or if weights are NaN, infinite or too large to compute with.

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
            f"The weights of backbone={backbone!r} were trained with {architecture.caveat}. To use them anyway, pass "
            "preprocessing={} for the size and normalization of the weights, or your own preprocessing."
        )
    default = architecture.preprocessing(name, path)
    wanted = check_preprocessing(preprocessing, default)
    key = _memo_key(backbone, name, path, in_channels, wanted, random_state)
    with _MEMO_LOCK:
        if key in _MEMO:
            _MEMO.move_to_end(key)
            return _MEMO[key]
    seed = 0  # for values that the weights replace
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
    """Check whether a file is still the one that was read, and not being written."""
    try:
        return _weights_files.file_digest(path) in key
    except WeightsMismatchError:  # deleted meanwhile
        return False


def _remember(key: Hashable, loaded: Backbone) -> None:
    with _MEMO_LOCK:
        _MEMO[key] = loaded
        while len(_MEMO) > _MEMO_SIZE or (len(_MEMO) > 1 and sum(map(_n_bytes, _MEMO.values())) > _MEMO_BYTES):
            _MEMO.popitem(last=False)


def _n_bytes(backbone: Backbone) -> int:
    return sum(tensor.nbytes for tensor in chain(backbone.module.parameters(), backbone.module.buffers()))


def _no_network(backbone: Any) -> BackboneError:
    """Return the error for a ``backbone`` of an unsupported type."""
    is_class = isinstance(backbone, type)
    return BackboneError(
        f"backbone={backbone!r} is of type {type(backbone).__name__}. Use a name from sktl.backbones.list_backbones(), "
        "an nn.Module, a Backbone, or a fitted sktl estimator"
        + (f". Pass an instance instead of the class: {backbone.__name__}(...)." if is_class else ".")
    )


def _resolve_weights(
    architecture: Architecture, weights: "str | PathLike[str] | None"
) -> "tuple[str | None, Path | None]":
    """Return ``weights`` as a published name or as a path, or neither if random."""
    if weights is None:
        return None, None
    if isinstance(weights, str):
        if weights.lower() == "default":
            if architecture.default is None:
                raise BackboneError(
                    f"No weights are published for backbone={architecture.name!r}. Use weights=None or the path of a "
                    "weights file."
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
    """Return the key of a loaded network, or None if random without a fixed seed."""
    if name is None and path is None:
        if not isinstance(random_state, (int, np.integer)):
            return None
        return backbone, int(random_state), in_channels, preprocessing
    if path is None:
        return backbone, name, in_channels, preprocessing
    # The content counts: a rewritten file may have the same size and times.
    return backbone, _weights_files.file_digest(path), path.name, in_channels, preprocessing


def _read_state(architecture: Architecture, name: str | None, path: Path | None) -> "StateDict | None":
    """Return the weights, or None if they are random."""
    if path is not None:
        return _weights_files.read_state_dict(path)
    return architecture.adjust(architecture.fetch(name)) if name is not None else None


def _build(
    architecture: Architecture, state: "StateDict | None", preprocessing: Preprocessing, path: Path | None, origin: str
) -> tuple[nn.Module, bool]:
    """Return the network with these weights, and whether its head is pretrained."""
    if state is None:
        return architecture.build(None, preprocessing), False
    if path is not None:
        names = list(_empty(architecture, state, preprocessing).state_dict())
        state = named_as(state, names, architecture.adjust, origin=origin)
    module = _empty(architecture, state, preprocessing)
    has_head = _weights.load_state_dict(module, state, origin=origin)
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers())):  # the file lacks some tensors
        module = architecture.build(state, preprocessing)
        has_head = _weights.load_state_dict(module, state, origin=origin)
    return module, has_head


def _empty(architecture: Architecture, state: StateDict, preprocessing: Preprocessing) -> nn.Module:
    """Return the network into which a state dict will be loaded."""
    try:
        with torch.device("meta"):  # initializing at random takes longer than reading the file
            return architecture.build(state, preprocessing)
    except RuntimeError:  # the constructor computes with tensors
        return architecture.build(state, preprocessing)


def _check_agreement(
    backbone: Backbone,
    weights: "str | PathLike[str] | None",
    in_channels: int,
    preprocessing: "Preprocessing | Mapping[str, Any] | None",
) -> None:
    """Raise an error for settings that a loaded network would ignore silently."""
    if not _own_weights(weights):
        raise BackboneError(
            f"weights={str(weights)!r} cannot be loaded into the given network, which already has weights. Use "
            "weights='default', or pass the name of the network and these weights to sktl.backbones.load_backbone."
        )
    if in_channels != backbone.in_channels:
        raise BackboneError(
            f"in_channels={in_channels!r}, but the given network has {backbone.in_channels} input channels. Use "
            f"in_channels={backbone.in_channels}."
        )
    if check_preprocessing(preprocessing, backbone.preprocessing) != backbone.preprocessing:
        raise BackboneError(
            f"preprocessing={preprocessing!r} differs from that of the given network. Pass it to "
            "sktl.backbones.load_backbone together with the name of the network, or to the estimator that contains "
            "this network."
        )


def _own_weights(weights: "str | PathLike[str] | None") -> bool:
    """Check whether ``weights`` means the current weights of a given network."""
    return weights is None or (isinstance(weights, str) and weights.lower() == "default")


def _own(
    module: nn.Module,
    weights: "str | PathLike[str] | None",
    in_channels: int,
    preprocessing: "Preprocessing | Mapping[str, Any] | None",
) -> Backbone:
    """Return a copy of the user's own network, without the user's hooks."""
    name, default = type(module).__name__, Preprocessing()
    path = None
    if weights is not None and not _own_weights(weights):
        choices = "'default' or None to keep the weights of the network"
        path = _weights_files.as_weights_path(weights, backbone=name, choices=choices)
    copied = without_tracing(copy.deepcopy(module)).cpu().float().eval()
    for layer in copied.modules():
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks):
            for number, hook in list(hooks.items()):
                # Hooks of torch (spectral norm, weight norm, pruning) compute weights.
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
    """Raise an error if the network and its traced graph give different outputs.

    The graph does not represent memory that two tensors share.
    """
    part = whole_graph(backbone)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, backbone.in_channels, *backbone.preprocessing.crop_shape, generator=generator)
    results = []
    for network in (backbone.module, part):
        with Randomness(0).drawn_from(), torch.no_grad():  # some networks are random in eval mode, too
            results.append(next(filter(torch.is_tensor, tree_leaves(network(image.clone()))), None))
    expected, found = results
    if expected is None or found is None:  # no tensor found in an output of a custom class
        return
    rounding = 1e-5 * expected.abs().max().item()
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=0, atol=rounding, equal_nan=True):
        raise BackboneError(
            f"The network {backbone.name!r} and its traced graph give different outputs, probably because forward() "
            "changes a tensor through a view (x.view(n, -1).mul_(2), x[:, :2].mul_(3)). Replace in-place operations on "
            "views (x = x * 2). If forward() compares type(module), use isinstance(module, ...) instead, because "
            "tracing replaces the classes of modules with subclasses."
        )
