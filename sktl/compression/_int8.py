"""Quantization to 8-bit integers, calibrated and run with ONNX Runtime."""

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

# Operations on integers. The others (products of squeeze-excitation, normalization and
# softmax of transformers) take little time and would lose much accuracy.
_LINEAR = ["Gemm", "MatMul"]
_WITH_WEIGHTS = ["Conv", *_LINEAR]
_OPERATORS = [*_WITH_WEIGHTS, "Relu", "Clip", "Add", "Concat", "MaxPool"]
_OPTIONS = {
    "MatMulConstBOnly": True,  # attention multiplies activations, whose ranges differ between images
    "OpTypesToExcludeOutputQuantization": _LINEAR,  # rounded once, after normalization and activation functions
}
_N_LEVELS = 256
_N_BINS = 2048
_N_SAMPLED = 2**16  # values of each layer that are used per batch
_BATCH = 4  # images, since all activations of a batch are in memory at once


class Int8Net(Net):
    """Network after the frozen stages in 8-bit integers, which can only predict.

    Sums of integers are exact on every processor, see `integer_session`.

    Parameters
    ----------
    model : bytes
        The quantized ONNX model, which maps rows to outputs. Pickled with compression.
    parameters : int
        Number of parameters.
    nonzero : int
        Number of parameters that are nonzero in the quantized model.

    Attributes
    ----------
    device : str
        Device that runs the model: always the CPU.
    counts : tuple of (int, int, int)
        Parameters, nonzero parameters and multiply-accumulates, including frozen
        stages. Set by the caller.
    left_behind : tuple of str
        Tensors of the original network that have been dropped.
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
        """The quantized ONNX model."""
        return zlib.decompress(self._compressed)

    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Compute the outputs of each row independently of the other rows.

        Parameters
        ----------
        activations : ndarray of shape (n, ...)
            Output of the frozen stages, float32; or images (n, height, width,
            channels), uint8.

        Returns
        -------
        ndarray of shape (n, n_outputs), float32

        Raises
        ------
        MissingDependencyError
            If ONNX Runtime is not installed.
        """
        session = self._session()
        name = session.get_inputs()[0].name
        activations = _as_given(activations)
        # Row by row, so that rounding in float operations is independent of other rows.
        # A batch is not much faster, since the threads share the work within a row.
        outputs = [session.run(None, {name: activations[row : row + 1]})[0] for row in range(len(activations))]
        n_outputs = session.get_outputs()[0].shape[-1]
        return np.concatenate(outputs) if outputs else np.empty((0, n_outputs), np.float32)

    def run_fused(self, batch_size: int) -> None:
        """Do nothing: the model is optimized already."""

    def count(self, backbone: Backbone) -> Counts:
        """Return the counts of the network before quantization."""
        return self.counts

    def content(self) -> dict[str, Any]:
        """Return the model and its counts."""
        return self.__getstate__()

    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """Return the backbone unchanged: it does not have the quantized tensors."""
        return backbone

    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """Return a backbone without memory for the tensors that have been dropped."""
        return hollow(backbone, self.left_behind)

    def tensors(self) -> dict[str, Tensor]:
        """Return an empty dict: the model is compressed already."""
        return {}

    def hollow(self) -> "Int8Net":
        """Return the net itself."""
        return self

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: the net is always complete."""

    @property
    def note(self) -> str:
        """Note on processors that run integers fast, for the footprint table."""
        here = ", but not on this one, which needs a slower method for exact sums" if overflows() else ""
        return (
            "int8 saves time on processors with dot products of 8-bit integers (x86 with VNNI, ARM with dotprod)"
            f"{here}. Predictions are the same on all processors."
        )

    def _session(self) -> Any:
        """Return a session of this process with torch's current number of threads."""
        made_for = os.getpid(), torch.get_num_threads()  # a forked process does not have its parent's threads
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
        # Called for missing attributes, by code that trains or inspects the network.
        raise AttributeError(
            f"An int8 network can only predict and does not have {name!r}. Use the estimator that was quantized "
            "instead."
        )


def quantize_int8(network: RestNetwork, calibration: Iterable[np.ndarray]) -> Int8Net:
    """Quantize a trained network to 8-bit integers.

    Parameters
    ----------
    network : RestNetwork
        The network to quantize; it is not changed.
    calibration : iterable of ndarray of shape (n, ...)
        Batches of its inputs from the training data: float32, or uint8 images if no
        stage is frozen.

    Returns
    -------
    Int8Net
        The quantized network.

    Raises
    ------
    InputError
        If ``calibration`` is empty, or activations are NaN or infinite.
    EngineError
        If the network cannot be exported to ONNX.
    MissingDependencyError
        If a package of the extra ``onnx`` is not installed.

    Notes
    -----
    A weight is a signed integer times the scale of its output channel. An activation is
    an unsigned integer times the scale of its layer [1]_, minus an offset that makes
    zero exact. Each range has the least squared error on the calibration data, so that
    rare large values are clipped [2]_.

    References
    ----------
    .. [1] Jacob et al., "Quantization and Training of Neural Networks for Efficient
           Integer-Arithmetic-Only Inference", CVPR 2018.
    .. [2] Nagel et al., "A White Paper on Neural Network Quantization", arXiv
           2106.08295, 2021, section 3.1.
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
            f"Activations of {len(infinite)} layers are NaN or infinite on the calibration images and cannot be "
            "quantized. Train the network with a smaller lr."
        )
    with named_failure(FAILURE), _silent_quantizer():
        quantized = _quantize(model, bounds)
    n_parameters = sum(parameter.numel() for parameter in folded.parameters())
    return Int8Net(
        quantized.SerializeToString(), parameters=n_parameters, nonzero=n_parameters - _count_zeros(quantized)
    )


class _Outputs(nn.Module):
    """Copy of a network that returns only outputs, with batch normalization folded."""

    def __init__(self, network: RestNetwork):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        if isinstance(self.network.stages, fx.GraphModule):  # unless all stages are frozen
            self.network.stages = fuse(self.network.stages)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, n_outputs) for the output of the frozen stages."""
        return self.network.head(self.network.features(x))


class _Balanced(nn.Module):
    """Linear layer whose inputs, divided by ``size``, and weights are of similar size.

    ``size``, of shape (n_features,) and greater than 0, multiplies the weights, so that
    the function stays the same.
    """

    size: Tensor

    def __init__(self, linear: nn.Linear, size: Tensor):
        super().__init__()
        self.register_buffer("size", size)
        self.linear = linear
        with torch.no_grad():
            linear.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, n_outputs) of inputs (n, n_features)."""
        return self.linear(x / self.size)


def _balance(outputs: _Outputs, batches: list[np.ndarray]) -> None:
    """Balance the linear layers of the head, in place.

    Features of a head differ in size by factors of a thousand, and weights are large if
    their feature is small. With one scale for all weights of a class, the weights of
    large features would be rounded to zero. So the square root of the size of a feature
    is moved from the features to the weights.
    """
    head = outputs.network.head
    layers = {path: layer for path, layer in head.named_modules() if type(layer) is nn.Linear}
    squares = {path: torch.zeros(layer.in_features) for path, layer in layers.items()}

    def note(path: str, layer: nn.Module, args: tuple[Tensor]) -> None:  # must return None
        squares[path] += args[0].square().flatten(0, -2).sum(0)

    handles = [layer.register_forward_pre_hook(partial(note, path)) for path, layer in layers.items()]
    with torch.inference_mode():
        for batch in batches:
            outputs(torch.from_numpy(batch))
    for handle in handles:
        handle.remove()
    for path, layer in layers.items():
        size = squares[path] ** 0.25  # the square root of their root mean square, up to a factor
        is_seen = (size > 0) & size.isfinite()
        if is_seen.any():
            size = size.where(is_seen, size[is_seen].min()) / size[is_seen].max()
            outputs.network.set_submodule(f"head.{path}" if path else "head", _Balanced(layer, size))


def _in_batches(calibration: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Split the calibration data into batches of a few rows."""
    given = [_as_given(np.asarray(batch)) for batch in calibration]
    batches = [batch[i : i + _BATCH] for batch in given for i in range(0, len(batch), _BATCH)]
    if not batches:
        raise InputError(
            "Calibration requires at least one image to measure the ranges of the activations. Got 0 instead."
        )
    return batches


def _as_given(rows: np.ndarray) -> np.ndarray:
    """Return images unchanged and activations in float32."""
    return rows if rows.dtype == np.uint8 else rows.astype(np.float32, copy=False)


def _bounds(model: Any, batches: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return the range of each quantized activation, which includes zero."""
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
        extremes[name] = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))  # keeps NaN
    if not np.isfinite(list(extremes.values())).all():
        return extremes
    counts = {name: np.zeros(_N_BINS) for name in names}
    for name, values in activations():
        flat = values.ravel()
        seen = flat[:: max(1, len(flat) // _N_SAMPLED)]
        seen = seen[seen != 0]  # zeros are exact in every range
        counts[name] += np.histogram(seen, _N_BINS, extremes[name])[0] if extremes[name] != (0.0, 0.0) else 0
    return {name: best_range(counts[name], *extremes[name]) for name in names}


def _with_activations(model: Any) -> tuple[Any, list[str]]:
    """Return the model with all quantized activations as outputs, and their names."""
    import onnx

    if not any(node.op_type in _WITH_WEIGHTS for node in model.graph.node):
        raise EngineError("it does not have a convolution or linear layer")
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
    """Find the range with the least squared error of rounding and clipping together.

    Parameters
    ----------
    counts : ndarray of shape (n_bins,)
        Histogram of the values between ``low`` and ``high``, with bins of equal width.
    low, high : float
        Smallest and largest value; ``low <= 0 <= high``.

    Returns
    -------
    low, high : float
        Bounds of the range, which lies within the given one and includes 0.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    shares = np.linspace(0.2, 1, 33)
    lows, highs = low * shares[:, None], high * shares[:, None]
    below = np.maximum(lows - centers, 0) ** 2 @ counts
    above = np.maximum(centers - highs, 0) ** 2 @ counts
    # The mean squared error of rounding is step**2 / 12.
    step = (highs.T - lows) / (_N_LEVELS - 1)
    error = below[:, None] + above + counts.sum() * step**2 / 12
    # Of equal errors, take the widest range, for example without any values.
    first, second = np.unravel_index(error.size - 1 - np.argmin(error[::-1, ::-1]), error.shape)
    return float(lows[first, 0]), float(highs[second, 0])


def _quantize(model: Any, bounds: dict[str, tuple[float, float]]) -> Any:
    """Quantize the weights of a model and the activations with the given ranges."""
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
    # Debug information of exporter and quantizer would be a large part of a small file.
    del quantized.graph.value_info[:], quantized.metadata_props[:]
    for part in (*quantized.graph.node, *quantized.graph.initializer, *quantized.graph.input, *quantized.graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    return quantized


def _count_zeros(model: Any) -> int:
    """Count the weights and biases that are 0."""
    from onnx import numpy_helper

    weights = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(
        int(np.count_nonzero(numpy_helper.to_array(initializer) == 0))
        for initializer in model.graph.initializer
        if initializer.name in weights
    )


@contextlib.contextmanager
def _silent_quantizer() -> Iterator[None]:
    """Silence the quantizer's messages on the root logger, but no other messages."""

    def is_from_others(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root = logging.getLogger()
    silencer = logging.NullHandler()  # without a handler, the first message would install one
    root.addHandler(silencer)
    root.addFilter(is_from_others)
    try:
        yield
    finally:
        root.removeFilter(is_from_others)
        root.removeHandler(silencer)
