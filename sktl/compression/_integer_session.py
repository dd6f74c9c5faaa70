"""ONNX Runtime sessions whose integer sums are exact on every processor."""

import base64
import functools
from typing import Any

import numpy as np

from sktl._frozen._onnx import session_options

# ONNX model: MatMulInteger of four unsigned activations and four signed weights (127).
# It is stored, so that the package onnx is not needed.
_PROBE = base64.b64decode(
    "CAcSADpYChgKAXgKAXcSAXkiDU1hdE11bEludGVnZXISAWcqDwgECAEQA0IBd0oEf39/f1oTCgF4Eg4KDAgCEggKAggBCgIIBGITCgF5Eg4KDAgG"
    "EggKAggBCgIIAUIECgAQDQ=="
)
_WIDE_SUMS = "session.x64quantprecision"  # ONNX Runtime's name for it


@functools.cache
def overflows() -> bool:
    """Check whether sums of two 8-bit products overflow 16 bits on this processor.

    This is the case on x86 processors with AVX2 or AVX-512 and without VNNI: ONNX
    Runtime multiplies unsigned activations and signed weights with an instruction
    (``vpmaddubsw``) that adds two products in 16 bits and saturates.
    """
    x = np.full((1, 4), 255, np.uint8)
    ((sum_,),) = _session(_PROBE, session_options(1)).run(None, {"x": x})[0]
    return int(sum_) != 4 * 255 * 127


def integer_session(model: bytes, n_threads: int) -> Any:
    """Return a session whose integer sums are exact on every processor.

    If sums would overflow, ONNX Runtime adds 128 to weights of more than 7 bits and to
    their zero points, and sums products of two unsigned numbers in 32 bits. This is
    slower, also with VNNI, so it is only used if needed.

    Parameters
    ----------
    model : bytes
        An ONNX model with 8-bit weights.
    n_threads : int
        Number of threads.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    options = session_options(n_threads)
    if overflows():
        options.add_session_config_entry(_WIDE_SUMS, "1")
    return _session(model, options)


def _session(model: bytes, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
