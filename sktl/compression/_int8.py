"""Networks in 8-bit integers: ranges from calibration, ONNX Runtime's quantizer, ONNX Runtime's integer kernels."""

import contextlib
import copy
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sktl._frozen._onnx import named_failure, session_options
from sktl._frozen._prefix_network import fuse
from sktl._optional import import_optional
from sktl._training._net import Counts, Net
from sktl._training._rest_network import RestNetwork
from sktl.backbones import Backbone
from sktl.backbones._hollow import hollow
from sktl.compression._integer_session import integer_session, overflows
from sktl.compression._onnx_export import FAILURE, PURPOSE, export_float
from sktl.exceptions import EngineError, InputError

# What is computed in integers, and what integers can pass through unchanged. All else (squeeze-excitation's products,
# norms and softmax of transformers) is little work and would lose much.
_LINEAR = ["Gemm", "MatMul"]
_WITH_WEIGHTS = ["Conv", *_LINEAR]
_OPERATORS = [*_WITH_WEIGHTS, "Relu", "Clip", "Add", "Concat", "MaxPool"]
_OPTIONS = {
    "MatMulConstBOnly": True,  # attention multiplies activations, whose ranges are another picture's
    "OpTypesToExcludeOutputQuantization": _LINEAR,  # what norms and activations take is rounded once, behind them
}
_N_LEVELS = 256
_N_BINS = 2048
_N_SAMPLED = 2**16  # values of each layer that a batch is judged by
_BATCH = 4  # pictures: all activations of a batch are in memory at once


class Int8Net(Net):
    """The rest of a network in 8-bit integers, which predicts and does nothing else.

    Parameters
    ----------
    model : bytes
        The quantised ONNX model; maps rows of one kind to outputs.
    parameters : int
        How many numbers were learnt.
    nonzero : int
        How many of them are not 0 in the quantised model.

    Attributes
    ----------
    device : str
        Where it runs: the CPU.
    counts : tuple of (int, int, int)
        Parameters, those that are not 0, and multiply-accumulates, of all stages: set by who knows the frozen ones.
    left_behind : tuple of str
        The tensors of the network that it was made of, which are nowhere any more.

    Notes
    -----
    It is pickled as its model, compressed. Where it arrives, a session is made when it is first used. Sums of integers
    are exact on every processor, see `integer_session`.
    """

    device = "cpu"
    is_trainable = False

    def __init__(self, model: bytes, *, parameters: int, nonzero: int):
        self._compressed = zlib.compress(model)
        self.parameters = parameters
        self.nonzero = nonzero
        self.counts: Counts = (parameters, nonzero, 0)
        self.left_behind: tuple[str, ...] = ()

    @property
    def model(self) -> bytes:
        """The quantised ONNX model."""
        return zlib.decompress(self._compressed)

    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Outputs for rows of activations, each row's its own.

        Parameters
        ----------
        activations : ndarray of shape (n, ...)
            Output of the frozen stages, float32; or pictures (n, height, width, channels), uint8.

        Returns
        -------
        ndarray of shape (n, n_outputs), float32

        Raises
        ------
        MissingDependencyError
            Where ONNX Runtime is not installed.
        """
        session = self._session()
        name = session.get_inputs()[0].name
        activations = _as_given(activations)
        # Row by row: what is computed in floats might otherwise round as the neighbours want it. A batch would not be
        # much faster, since the threads share the work within a row.
        outputs = [session.run(None, {name: activations[row : row + 1]})[0] for row in range(len(activations))]
        n_outputs = session.get_outputs()[0].shape[-1]
        return np.concatenate(outputs) if outputs else np.empty((0, n_outputs), np.float32)

    def run_fused(self, batch_size: int) -> None:
        """Nothing: it is fast as it is, row by row."""

    def count(self, backbone: Backbone) -> Counts:
        """What was counted when the network was still one of torch."""
        return self.counts

    def content(self) -> dict[str, Any]:
        """The model, and what is known of it."""
        return self.__getstate__()

    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone as it is: what was quantized is nowhere any more."""
        return backbone

    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone, of which a copy in memory has made room for what is not there."""
        return hollow(backbone, self.left_behind)

    def tensors(self) -> dict[str, Tensor]:
        """None: its model is compressed already."""
        return {}

    def hollow(self) -> "Int8Net":
        """The net itself."""
        return self

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Nothing: it has never been empty."""

    @property
    def note(self) -> str:
        """Which processors it is fast on, for whoever compares times."""
        here = ", unlike this one, which keeps sums exact in another way" if overflows() else ""
        return (
            "int8 saves time on processors with dot products of 8-bit integers (x86 with VNNI, ARM with dotprod)"
            f"{here}; predictions are the same on all."
        )

    def _session(self) -> Any:
        """A session of this process, on as many threads as torch has now."""
        made_for = os.getpid(), torch.get_num_threads()  # a child has none of its parent's threads
        if getattr(self, "_made_for", None) != made_for:
            import_optional("onnxruntime", extra="onnx", purpose=PURPOSE)
            with named_failure(FAILURE):
                self._running = integer_session(self.model, torch.get_num_threads())
            self._made_for = made_for
        return self._running

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_compressed", "parameters", "nonzero", "counts", "left_behind")
        return {name: self.__dict__[name] for name in kept}

    def __getattr__(self, name: str) -> Any:
        # Asked for where there is no such attribute: by what would train on, or look into the network.
        raise AttributeError(
            f"A network of integers has no {name!r}: it can predict, and nothing else. Take the estimator that was "
            "quantized."
        )


def quantize_int8(network: RestNetwork, calibration: Iterable[np.ndarray]) -> Int8Net:
    """Quantise a trained network: weights per output channel, activations with ranges fixed by calibration.

    Parameters
    ----------
    network : RestNetwork
        What is to be quantised; it stays as it is.
    calibration : iterable of ndarray of shape (n, ...)
        Batches of what it takes, float32, or uint8 pictures where no stage is frozen: some of the training data.

    Returns
    -------
    Int8Net
        Computes the same, about.

    Raises
    ------
    InputError
        Where there is nothing to calibrate with, or its activations are no finite numbers.
    EngineError
        Where ONNX cannot express the network.
    MissingDependencyError
        Where a package of the extra ``onnx`` is not installed.

    Notes
    -----
    A weight is a signed integer times the scale of its output channel, an activation an unsigned one times the scale of
    its layer [1]_, minus an offset that makes zero exact. Each range is the one with the least squared error on the
    calibration data, which the rare large values lie outside of [2]_.

    References
    ----------
    .. [1] Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
       CVPR 2018.
    .. [2] Nagel et al., "A White Paper on Neural Network Quantization", arXiv 2106.08295, 2021, section 3.1.
    """
    batches = _in_batches(calibration)
    folded = _Outputs(network)
    _balance(folded, batches)
    model = export_float(folded, torch.from_numpy(batches[0][:1]).repeat_interleave(2, 0))
    with named_failure(FAILURE):
        bounds = _bounds(model, batches)
    infinite = [name for name, bound in bounds.items() if not np.isfinite(bound).all()]
    if infinite:
        raise InputError(
            f"With the calibration pictures, {len(infinite)} layers of this network give no finite numbers, which have "
            "no place among integers. Train it with a smaller lr."
        )
    with named_failure(FAILURE), _silent_quantizer():
        quantized = _quantize(model, bounds)
    n_parameters = sum(parameter.numel() for parameter in folded.parameters())
    return Int8Net(
        quantized.SerializeToString(), parameters=n_parameters, nonzero=n_parameters - _count_zeros(quantized)
    )


class _Outputs(nn.Module):
    """A network's outputs and nothing else, its batch norms folded into its convolutions.

    Parameters
    ----------
    network : RestNetwork
        It is copied.
    """

    def __init__(self, network: RestNetwork):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        if isinstance(self.network.stages, fx.GraphModule):  # not where all stages are frozen
            self.network.stages = fuse(self.network.stages)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_outputs) of the frozen stages' output."""
        return self.network.head(self.network.features(x))


class _Balanced(nn.Module):
    """A linear layer that takes its inputs in like sizes, and so has weights of like sizes.

    Parameters
    ----------
    linear : nn.Linear
        Its weights are multiplied by what its inputs are divided by: the function is the same.
    size : Tensor of shape (n_features,)
        How large each input is, greater than 0.
    """

    size: Tensor

    def __init__(self, linear: nn.Linear, size: Tensor):
        super().__init__()
        self.register_buffer("size", size)
        self.linear = linear
        with torch.no_grad():
            linear.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_outputs) of inputs (n, n_features)."""
        return self.linear(x / self.size)


def _balance(outputs: _Outputs, batches: list[np.ndarray]) -> None:
    """Balance the linear layers of the head, in place.

    What reaches a head differs in size by factors of a thousand, and a weight is as large as its feature is small. With
    one scale for all weights of a class, those of the large features would be rounded to nothing. Both sides of the
    product bear half of it: the square root of a feature's size goes from the features to the weights.
    """
    head = outputs.network.head
    layers = {path: layer for path, layer in head.named_modules() if type(layer) is nn.Linear}
    squares = {path: torch.zeros(layer.in_features) for path, layer in layers.items()}

    def note(path: str, layer: nn.Module, args: tuple[Tensor]) -> None:  # what a hook returns, the layer would take
        squares[path] += args[0].square().flatten(0, -2).sum(0)

    handles = [layer.register_forward_pre_hook(partial(note, path)) for path, layer in layers.items()]
    with torch.inference_mode():
        for batch in batches:
            outputs(torch.from_numpy(batch))
    for handle in handles:
        handle.remove()
    for path, layer in layers.items():
        size = squares[path] ** 0.25  # the square root of the root of their mean, up to a factor
        is_seen = (size > 0) & size.isfinite()
        if is_seen.any():
            size = size.where(is_seen, size[is_seen].min()) / size[is_seen].max()
            outputs.network.set_submodule(f"head.{path}" if path else "head", _Balanced(layer, size))


def _in_batches(calibration: Iterable[np.ndarray]) -> list[np.ndarray]:
    """What to calibrate with, a few rows at a time."""
    given = [_as_given(np.asarray(batch)) for batch in calibration]
    batches = [batch[i : i + _BATCH] for batch in given for i in range(0, len(batch), _BATCH)]
    if not batches:
        raise InputError(
            "There are no pictures to calibrate with, so nobody knows how large activations are. Give at least one."
        )
    return batches


def _as_given(rows: np.ndarray) -> np.ndarray:
    """Pictures as they are, activations of any precision in float32."""
    return rows if rows.dtype == np.uint8 else rows.astype(np.float32, copy=False)


def _bounds(model: Any, batches: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """The range of each activation that is quantised, zero in it."""
    import onnxruntime

    probed, names = _with_activations(model)
    options = session_options(torch.get_num_threads())
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    key = session.get_inputs()[0].name
    computed = [name for name in names if name != key]

    def activations() -> Iterator[tuple[str, np.ndarray]]:
        for batch in batches:
            if key in names:
                yield key, batch
            yield from zip(computed, session.run(computed, {key: batch}), strict=True)

    extremes = dict.fromkeys(names, (0.0, 0.0))
    for name, values in activations():
        low, high = extremes[name]
        extremes[name] = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))  # nan stays nan
    if not np.isfinite(list(extremes.values())).all():
        return extremes
    counts = {name: np.zeros(_N_BINS) for name in names}
    for name, values in activations():
        flat = values.ravel()
        seen = flat[:: max(1, len(flat) // _N_SAMPLED)]
        seen = seen[seen != 0]  # zeros are exact, whatever the range
        counts[name] += np.histogram(seen, _N_BINS, extremes[name])[0] if extremes[name] != (0.0, 0.0) else 0
    return {name: best_range(counts[name], *extremes[name]) for name in names}


def _with_activations(model: Any) -> tuple[Any, list[str]]:
    """The model with all activations that are quantised among its outputs, and their names."""
    import onnx

    if not any(node.op_type in _WITH_WEIGHTS for node in model.graph.node):
        raise EngineError("there is no convolution and no linear layer in it")
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    weights = {initializer.name for initializer in graph.initializer}
    read = [
        name
        for node in graph.node
        if node.op_type in _OPERATORS
        for name in (*node.input, *node.output)
        if name not in weights and kinds.get(name) == onnx.TensorProto.FLOAT
    ]
    names = list(dict.fromkeys(read))
    given = {value.name for value in (*graph.input, *graph.output)}
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    return inferred, names


def best_range(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The range whose rounding and clipping have the least squared error together.

    Parameters
    ----------
    counts : ndarray of shape (n_bins,)
        A histogram of the values between ``low`` and ``high``, in bins of one width.
    low, high : float
        The smallest and the largest value; ``low <= 0 <= high``.

    Returns
    -------
    low, high : float
        Bounds within these, with 0 between them.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    shares = np.linspace(0.2, 1, 33)
    lows, highs = low * shares[:, None], high * shares[:, None]
    below = np.maximum(lows - centers, 0) ** 2 @ counts
    above = np.maximum(centers - highs, 0) ** 2 @ counts
    # Values are anywhere between two levels: their squared distance to the nearest is a twelfth of the step's square.
    step = (highs.T - lows) / (_N_LEVELS - 1)
    error = below[:, None] + above + counts.sum() * step**2 / 12
    # Of equal errors, the widest range: without any values there is nothing to say against it.
    first, second = np.unravel_index(error.size - 1 - np.argmin(error[::-1, ::-1]), error.shape)
    return float(lows[first, 0]), float(highs[second, 0])


def _quantize(model: Any, bounds: dict[str, tuple[float, float]]) -> Any:
    """The model with its weights in integers, and with where activations become integers and floats again."""
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in bounds.items()}
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=_OPERATORS,
        extra_options=_OPTIONS,
    )
    quantized = quantizer.quantize_model()
    quantizer.model.topological_sort()
    # What exporter and quantizer note for their developers would be a good part of a small file.
    del quantized.graph.value_info[:], quantized.metadata_props[:]
    for part in (*quantized.graph.node, *quantized.graph.initializer, *quantized.graph.input, *quantized.graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    return quantized


def _count_zeros(model: Any) -> int:
    """How many weights and biases are 0."""
    from onnx import numpy_helper

    weights = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(
        int(np.count_nonzero(numpy_helper.to_array(initializer) == 0))
        for initializer in model.graph.initializer
        if initializer.name in weights
    )


@contextlib.contextmanager
def _silent_quantizer() -> Iterator[None]:
    """Silence the quantizer, which speaks through the root logger, without touching what others say there meanwhile."""

    def is_from_others(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root = logging.getLogger()
    silencer = logging.NullHandler()  # without any handler, the first word would set one up for good
    root.addHandler(silencer)
    root.addFilter(is_from_others)
    try:
        yield
    finally:
        root.removeFilter(is_from_others)
        root.removeHandler(silencer)
