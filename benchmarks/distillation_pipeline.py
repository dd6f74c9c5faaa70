"""A pipeline of features and a support vector machine teaches a small network: what is kept, and at what latency.

The teacher is asked about the pictures that it was fitted on.

Run: python benchmarks/distillation_pipeline.py [--seeds 5]
"""

import argparse
import statistics

import numpy as np
from ants_and_bees import photos
from common import machine, pretrained, require_data, show
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktl import DistilledClassifier, PretrainedFeatureExtractor

N_TRAIN, N_TEST = 2000, 1000


def cifar(part: str, n: int) -> tuple[list[bytes], np.ndarray]:
    """The first JPEG files of a part of CIFAR-10, and their labels."""
    with np.load(require_data() / "cifar10_jpeg" / f"{part}.npz") as data:
        blob, offsets, labels = data["blob"], data["offsets"], data["labels"]
    return [blob[offsets[i] : offsets[i + 1]].tobytes() for i in range(n)], labels[:n]


def main(n_seeds: int) -> None:
    """Print one row for each set of pictures."""
    sets = {
        "ants and bees": (photos("train"), photos("val"), {"student": "mobilenet_v3_small", "freeze_depth": -4}),
        f"CIFAR-10, {N_TRAIN}": (cifar("train", N_TRAIN), cifar("test", N_TEST), {"student": "sktl_mini"}),
    }
    rows = []
    for name, (train, test, settings) in sets.items():
        if settings["student"] != "sktl_mini":
            settings = {**settings, **pretrained(settings["student"])}
        extractor = PretrainedFeatureExtractor("mobilenet_v2", **pretrained("mobilenet_v2"))
        svm = CalibratedClassifierCV(SVC(random_state=0), ensemble=False)
        teacher = make_pipeline(extractor, StandardScaler(), svm).fit(*train)
        students = [
            DistilledClassifier(FrozenEstimator(teacher), random_state=seed, **settings).fit(*train)
            for seed in range(n_seeds)
        ]
        taught = teacher.score(*test)
        scores = [student.score(*test) for student in students]
        print(students[0].footprint_, flush=True)
        cost = students[0].footprint_.to_dict()
        rows.append(
            (
                name,
                settings["student"],
                f"{taught:.3f}",
                f"{statistics.mean(scores):.3f}",
                f"{100 * statistics.mean(scores) / taught:.1f} %",
                cost["milliseconds"][0],
                cost["milliseconds"][1],
                cost["milliseconds"][1] / cost["milliseconds"][0],
            )
        )
    header = ("pictures", "student", "teacher", "student's mean", "kept", "teacher, ms", "student, ms", "ratio")
    show(f"MobileNetV2 features and SVC teach a network; {n_seeds} seeds", header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    print(machine())
    main(parser.parse_args().seeds)
