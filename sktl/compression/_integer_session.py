"""The same sums of integers on every processor: what the one that this runs on does with large products."""

import base64
import functools
from typing import Any

import numpy as np

from sktl._frozen._onnx import session_options

# MatMulInteger of four activations, unsigned, with four weights of 127, signed: an ONNX model that needs no package to
# be made.
_PROBE = base64.b64decode(
    "CAcSADpYChgKAXgKAXcSAXkiDU1hdE11bEludGVnZXISAWcqDwgECAEQA0IBd0oEf39/f1oTCgF4Eg4KDAgCEggKAggBCgIIBGITCgF5Eg4KDAgG"
    "EggKAggBCgIIAUIECgAQDQ=="
)
_WIDE_SUMS = "session.x64quantprecision"  # ONNX Runtime's name for it


@functools.cache
def overflows() -> bool:
    """Whether sums of two 8-bit products overflow the 16 bits that this processor has for them.

    On processors of x86 with AVX2 or AVX-512 and without VNNI they do: ONNX Runtime multiplies unsigned activations and
    signed weights with an instruction (``vpmaddubsw``) that adds two products in 16 bits, and saturates.
    """
    x = np.full((1, 4), 255, np.uint8)
    ((sum_,),) = _session(_PROBE, session_options(1)).run(None, {"x": x})[0]
    return int(sum_) != 4 * 255 * 127


def integer_session(model: bytes, n_threads: int) -> Any:
    """A session whose sums of integers are exact, on whatever processor this is.

    Where sums would overflow, ONNX Runtime adds 128 to weights of more than 7 bits and to their zero points: products
    of two unsigned numbers are added in 32 bits. That takes longer, and would take longer with VNNI too.

    Parameters
    ----------
    model : bytes
        An ONNX model with 8-bit weights.
    n_threads : int
        How many threads share the work.

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
