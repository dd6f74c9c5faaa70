"""8-bit integers on three kinds of processor: whether they predict the same, and how long they take.

The kinds are this processor, and the same one with instructions hidden from the process by
tests/compression/older_processor.c: without VNNI, and without AVX-512. The network is MobileNetV2 with the 1,000
classes that it was pretrained for, on photos that were not calibrated on. "16 bits" lets sums overflow; "7 bits" are
smaller weights, which cannot. Times are processor times of one thread, the networks in turns, as a share of that of the
network in floats, all in ONNX Runtime.

Run: OMP_NUM_THREADS=1 python benchmarks/int8_processors.py    (Linux; x86-64 with VNNI; a C compiler)
"""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime.quantization
from common import machine, show
from compression import imagenet_classifier
from sklearn.frozen import FrozenEstimator

from sktl._frozen._onnx import session_options
from sktl.compression import QuantizedClassifier, _int8, _integer_session

SOURCE = Path(__file__).parents[1] / "tests" / "compression" / "older_processor.c"
KINDS = {"VNNI": {}, "AVX-512, no VNNI": {"OLDER_PROCESSOR": "avx512"}, "AVX2": {"OLDER_PROCESSOR": "avx2"}}
N_TIMED, N_ROUNDS = 8, 15


def make_networks(folder: Path) -> None:
    """Write the networks, images as they take them, and what these show."""
    network, paths = imagenet_classifier()
    calibration, others = np.arange(1000)[::5], np.flatnonzero(np.arange(1000) % 5)
    quantizer, quantize = onnxruntime.quantization.QDQQuantizer, _int8._quantize
    found, seen = {}, []

    def keep_floats(model, bounds):
        found["floats"] = model.SerializeToString()
        return quantize(model, bounds)

    def with_fewer_bits(*args, **kwargs):
        return quantizer(*args, **{**kwargs, "reduce_range": True})

    compressor = QuantizedClassifier(FrozenEstimator(network), freeze_depth=0, random_state=0)
    some = [paths[i] for i in calibration]
    with mock.patch.object(onnxruntime.quantization, "QDQQuantizer", with_fewer_bits):
        found["7 bits"] = compressor.fit(some, calibration).estimator_.net_.model
    with mock.patch.object(_int8, "_quantize", keep_floats):
        net = compressor.fit(some, calibration).estimator_.net_
    found["8 bits"] = net.model
    with mock.patch.object(net, "outputs", lambda x: (seen.append(np.array(x)), np.zeros((len(x), 1000)))[1]):
        compressor.predict_proba([paths[i] for i in others])
    (folder / "networks.pickle").write_bytes(pickle.dumps((found, np.concatenate(seen), others)))


def measure(folder: Path, kind: str) -> None:
    """Outputs of each network on the processor that this process sees, and the share of time that it takes."""
    models, x, _ = pickle.loads((folder / "networks.pickle").read_bytes())
    sessions = {name: _integer_session.integer_session(model, 1) for name, model in models.items()}
    sessions["16 bits"] = _integer_session._session(models["8 bits"], session_options(1))
    name = sessions["floats"].get_inputs()[0].name
    times: dict[str, list[float]] = {key: [] for key in sessions}
    for _ in range(N_ROUNDS):
        for key, session in sessions.items():
            start = time.process_time()
            for row in range(N_TIMED):
                session.run(None, {name: x[row : row + 1]})
            times[key].append(time.process_time() - start)
    shares = {
        key: statistics.median(a / b for a, b in zip(taken, times["floats"], strict=True))
        for key, taken in times.items()
    }
    outputs = {
        key: np.concatenate([session.run(None, {name: x[row : row + 1]})[0] for row in range(len(x))])
        for key, session in sessions.items()
    }
    (folder / f"{kind}.pickle").write_bytes(pickle.dumps((outputs, shares, _integer_session.overflows())))


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Softmax of logits (n, n_classes)."""
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def main() -> None:
    """Make the networks, run them on each kind of processor, and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "older_processor.so"
        subprocess.run(["cc", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
        make_networks(folder)
        found = {}
        for kind, hidden in KINDS.items():
            environment = {**os.environ, **hidden, **({"LD_PRELOAD": str(library)} if hidden else {})}
            subprocess.run([sys.executable, __file__, json.dumps([name, kind])], env=environment, check=True)
            found[kind] = pickle.loads((folder / f"{kind}.pickle").read_bytes())
        models, _, y = pickle.loads((folder / "networks.pickle").read_bytes())
    floats = found["VNNI"][0]["floats"]
    rows = []
    for kind, (outputs, shares, overflows) in found.items():
        for key in ("floats", "8 bits", "16 bits", "7 bits"):
            here = outputs[key]
            there = found["VNNI"][0][key]
            rows.append(
                (
                    kind + (" (overflows)" if overflows else ""),
                    key,
                    f"{100 * np.mean(here.argmax(1) == y):.1f}",
                    f"{100 * np.mean(here.argmax(1) == floats.argmax(1)):.1f}",
                    f"{np.abs(probabilities(here) - probabilities(floats)).max():.3f}",
                    "0" if np.array_equal(here, there) else f"{np.abs(here - there).max():.2g}",
                    f"{len(models.get(key, models['8 bits'])):,}",
                    f"{shares[key]:.2f}",
                )
            )
    headings = ("processor", "", "accuracy", "agreement", "largest difference of a probability")
    show(
        f"MobileNetV2, 1,000 classes, {len(y)} photos",
        (*headings, "of a logit, from VNNI", "bytes of the graph", "time / floats"),
        rows,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(json.loads(sys.argv[1])[0]), json.loads(sys.argv[1])[1])
    else:
        print(machine())
        main()
