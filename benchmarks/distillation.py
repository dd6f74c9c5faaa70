"""What a student gains from its teacher: ants and bees, MobileNetV2 into small networks, six kinds of knowledge.

The teacher is asked about the photos that it was fine-tuned on, of which it is nearly certain: there is less to be
learnt from its answers than from those to photos that are new to it. Freeze depths, learning rates and weights of the
kinds were chosen in trials on the same 153 photos, for all rows alike: differences below the spread mean nothing.

Run: python benchmarks/distillation.py [student ...] [--seeds 5]
"""

import argparse
import statistics

import numpy as np
from ants_and_bees import photos
from common import imagenet_paths, machine, pretrained, show
from sklearn.frozen import FrozenEstimator

from sktl import DistilledClassifier, FineTunedClassifier

NO_LABEL = "?"
FROM_SCRATCH = {
    "weights": None,
    "freeze_depth": 0,
    "head_init": "random",
    "max_epochs": 20,
    "lr": 2e-3,
    "lr_decay": 1.0,
}
# Smaller pictures, as a network that starts with nothing learns from 244 photos in any case next to nothing of details.
SMALL = {"resize_size": 144, "crop_size": 128}
STUDENTS = {
    "sktl_mini": {"student": "sktl_mini", "freeze_depth": -2},
    "mobilenet_v3_small": {"student": "mobilenet_v3_small", "freeze_depth": -4, **pretrained("mobilenet_v3_small")},
    "sktl_mini, random": {"student": "sktl_mini", **FROM_SCRATCH},
    "mobilenet_v3_small, random": {"student": "mobilenet_v3_small", "preprocessing": SMALL, **FROM_SCRATCH},
}
# From nothing the whole network learns, which takes minutes: not all kinds.
KINDS_FROM_SCRATCH = ("response", "response + feature", "response + relation", "feature")
KNOWLEDGE = {
    "response": "response",
    "response, alpha=0.3, temperature=1": "response",
    "decoupled": "decoupled",
    "response + feature": {"response": 1.0, "feature": 10.0},
    "response + attention": {"response": 1.0, "attention": 10.0},
    "response + relation": {"response": 1.0, "relation": 10.0},
    "response + similarity": {"response": 1.0, "similarity": 10.0},
    "feature": {"feature": 10.0},
    "relation": {"relation": 10.0},
}


CAUTIOUS = {"response, alpha=0.3, temperature=1": {"alpha": 0.3, "temperature": 1.0}}
WITH_MORE = ("response", "response + feature")


def accuracies(teacher, settings, n_seeds, train, val) -> str:
    """Mean and standard deviation over the seeds."""
    scores = [
        DistilledClassifier(
            FrozenEstimator(teacher), random_state=seed, unlabeled=NO_LABEL, **{"temperature": 2.0, **settings}
        )
        .fit(*train)
        .score(*val)
        for seed in range(n_seeds)
    ]
    spread = statistics.stdev(scores) if n_seeds > 1 else 0.0
    return f"{statistics.mean(scores):.3f} ± {spread:.3f}"


def main(names: list[str], n_seeds: int) -> None:
    """Print a table for each student."""
    (X, y), val = photos("train"), photos("val")
    unlabeled = imagenet_paths()[::2]
    more = X + unlabeled, y + [NO_LABEL] * len(unlabeled)
    teacher = FineTunedClassifier("mobilenet_v2", random_state=0, **pretrained("mobilenet_v2")).fit(X, y)
    print(f"Teacher: {teacher.score(*val):.3f}", flush=True)
    certainty = [float(np.median(np.abs(teacher.decision_function(paths)))) for paths in (X, val[0])]
    print(f"Median difference of its logits, on what it learnt and on val: {certainty}", flush=True)
    for name in names:
        settings = STUDENTS[name]
        rows = [("none: the student alone", accuracies(teacher, {**settings, "alpha": 0.0}, n_seeds, (X, y), val), "")]
        is_random = "weights" in settings and settings["weights"] is None
        for title in KINDS_FROM_SCRATCH if is_random else KNOWLEDGE:
            knowledge = KNOWLEDGE[title]
            chosen = {**settings, "knowledge": knowledge, **CAUTIOUS.get(title, {})}
            with_more = accuracies(teacher, chosen, n_seeds, more, val) if title in WITH_MORE and not is_random else ""
            rows.append((title, accuracies(teacher, chosen, n_seeds, (X, y), val), with_more))
            print(rows[-1], flush=True)
        header = ("knowledge", "244 labelled photos", "and 500 without labels")
        show(f"{name}: accuracy on val, {n_seeds} seeds", header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("students", nargs="*", default=list(STUDENTS))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())
    main(arguments.students, arguments.seeds)
