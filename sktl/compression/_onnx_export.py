"""The ONNX graph of a network in float: exported once for all networks of the same structure."""

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
    "scheme='int8' runs in ONNX Runtime, which cannot express this network ({reason}). Use scheme='float16' or "
    "scheme='codebook', which any network can be stored in."
)
_MAX_TEMPLATES = 32  # kilobytes each: a graph without its weights

# Most of an export is the same for all networks of one structure, and takes a second; what remains takes a twentieth of
# it. Folds and candidates of a search differ in their weights alone.
_TEMPLATES: dict[str, bytes] = {}
_TEMPLATES_LOCK = Lock()
register_store("exported graphs without weights", _TEMPLATES.clear, _TEMPLATES_LOCK)


def check_engine() -> None:
    """Refuse to begin where a package is missing.

    Raises
    ------
    MissingDependencyError
        Where a package of the extra ``onnx`` is not installed.
    """
    for package in ("onnxruntime", "onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose=PURPOSE)


def export_float(network: nn.Module, example: Tensor) -> Any:
    """The ONNX model of a network, with what is constant in it computed, and a free number of rows.

    Parameters
    ----------
    network : Module
        In eval mode, on the CPU; maps one tensor to one tensor.
    example : Tensor of shape (2, ...)
        Rows of the kind that it takes.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    EngineError
        Where ONNX cannot express the network.
    MissingDependencyError
        Where a package of the extra ``onnx`` is not installed.
    """
    check_engine()
    with named_failure(FAILURE), exporting(), quiet():
        rows = torch.export.Dim("n")
        program = torch.export.export(network, (example,), dynamic_shapes=({0: rows},), strict=False)
        return _simplified(_translate(program))


def _translate(program: torch.export.ExportedProgram) -> Any:
    """The ONNX model of an exported program, from the template of its structure where there is one."""
    import onnx

    tensors = _tensors(program)
    # Operations, their settings, and the shapes of all that they use; no values of weights. Comments
    # are left out, which name the line that an operation comes from, and in it how many networks were traced before.
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
    assert exported is not None  # it is None for the exporter that writes files only
    model = exported.model_proto
    initializers = {initializer.name: initializer for initializer in model.graph.initializer}
    # All weights have to be there under their names, as they are, or other weights could not take their places.
    if all(name in initializers and initializers[name].raw_data == _bytes(tensors[name]) for name in tensors):
        _keep_template(structure, model, tensors)
    return model


def _keep_template(structure: str, model: Any, tensors: dict[str, Tensor]) -> None:
    """Keep a graph without its weights, in the place of the oldest one where there are many."""
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
    """Weights, buffers and constants that an exported program uses, by name."""
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
    """The model after ONNX Runtime has computed what is constant in it, so that weights stand where they are used."""
    import onnx
    import onnxruntime

    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "model.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)
