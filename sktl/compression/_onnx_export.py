"""Export of float networks to ONNX, once for all networks of the same structure."""

import os
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktl._frozen._onnx import named_failure, quiet, session_options
from sktl._locks import Lock
from sktl._optional import import_optional
from sktl._process import exporting
from sktl._stores import register_store

PURPOSE = "scheme='int8'"
FAILURE = (
    "scheme='int8' runs in ONNX Runtime, which does not support this network ({reason}). Use scheme='float16' or "
    "scheme='codebook', which work with any network."
)
_MAX_TEMPLATES = 32  # some kilobytes each: a graph without its weights

# Networks of one structure share most of the export, which takes a second; the
# rest takes a twentieth of that. Folds and candidates of a search share a structure.
_TEMPLATES: dict[str, bytes] = {}
_TEMPLATES_LOCK = Lock()
register_store("exported graphs without weights", _TEMPLATES.clear, _TEMPLATES_LOCK)


def check_engine() -> None:
    """Raise a MissingDependencyError if a package of the extra ``onnx`` is missing."""
    for package in ("onnxruntime", "onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose=PURPOSE)


def export_float(network: nn.Module, example: Tensor) -> Any:
    """Export a network to ONNX with folded constants and a variable number of rows.

    Parameters
    ----------
    network : Module
        Network in eval mode on the CPU that maps one tensor to one tensor.
    example : Tensor of shape (2, ...)
        Example input.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    EngineError
        If the network cannot be exported to ONNX.
    MissingDependencyError
        If a package of the extra ``onnx`` is not installed.
    """
    check_engine()
    with named_failure(FAILURE), exporting(), quiet():
        rows = torch.export.Dim("n")
        program = torch.export.export(network, (example,), dynamic_shapes=({0: rows},), strict=False)
        return _simplified(_translate(program))


def _translate(program: torch.export.ExportedProgram) -> Any:
    """Convert an exported program to ONNX, from a cached template if there is one."""
    import onnx

    tensors = _tensors(program)
    # Operations, settings and shapes, without the values of weights and without
    # comments, which depend on how many networks were traced before.
    lines = [line for line in str(program).splitlines() if not line.lstrip().startswith("#")]
    structure = "\n".join([*lines, str([(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()])])
    with _TEMPLATES_LOCK:
        template = _TEMPLATES.get(structure)
    if template is not None:
        model = onnx.ModelProto.FromString(template)
        for initializer in model.graph.initializer:
            if initializer.name in tensors:
                initializer.raw_data = _bytes(tensors[initializer.name])
        return model
    exported = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False)
    assert exported is not None  # only the exporter that writes files returns None
    model = exported.model_proto
    initializers = {initializer.name: initializer for initializer in model.graph.initializer}
    # A template can be reused only if each weight is stored unchanged under its name.
    if all(name in initializers and initializers[name].raw_data == _bytes(tensors[name]) for name in tensors):
        _keep_template(structure, model, tensors)
    return model


def _keep_template(structure: str, model: Any, tensors: dict[str, Tensor]) -> None:
    """Cache a graph without its weights; drop the oldest one if the cache is full."""
    import onnx

    template = onnx.ModelProto()
    template.CopyFrom(model)
    for initializer in template.graph.initializer:
        if initializer.name in tensors:
            initializer.raw_data = b""
    with _TEMPLATES_LOCK:
        while len(_TEMPLATES) >= _MAX_TEMPLATES:
            del _TEMPLATES[next(iter(_TEMPLATES))]
        _TEMPLATES[structure] = template.SerializeToString()


def _tensors(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Return the weights, buffers and constants of an exported program by name."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    named = {**program.state_dict, **program.constants}
    return {
        spec.target: named[spec.target].detach()
        for spec in program.graph_signature.input_specs
        if spec.target is not None and spec.arg.name in used
    }


def _bytes(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.cpu().numpy()).tobytes()


def _simplified(model: Any) -> Any:
    """Let ONNX Runtime fold the constants of a model."""
    import onnx
    import onnxruntime

    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "model.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)
