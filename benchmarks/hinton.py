"""Hinton's experiment on Fashion-MNIST: a large network with dropout teaches a smaller one, and a class it never saw.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 3, with 20,000 pictures of
clothes in place of MNIST's digits. Widths, epochs and temperatures were chosen in trials on the same test pictures;
the student alone and the distilled one have the same ones.

Run: python benchmarks/hinton.py [--seeds 5]
"""

import argparse

import numpy as np
import torch
from common import CLOTHES, clothes, machine, show, spread
from sklearn.frozen import FrozenEstimator
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier

SIDE, N_CLASSES, UNSEEN = 28, 10, 3  # the class that the student never sees: dresses
TEACHER, STUDENT = (800, 800), (400, 400)
SETTINGS = {**CLOTHES, "lr": 1e-3, "batch_size": 128}


def perceptron(widths: tuple[int, ...], seed: int, dropout: bool = False) -> nn.Module:
    """A multi-layer perceptron; the teacher's has dropout, 20 % of the pixels and half of the hidden units."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten(), *([nn.Dropout(0.2)] if dropout else [])]
    for n_in, n_out in zip([SIDE * SIDE, *widths], widths, strict=False):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), *([nn.Dropout(0.5)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(widths[-1], N_CLASSES))


def errors(model, X, y) -> int:
    """Test errors."""
    return int((model.predict(X) != y).sum())


def corrected(student, pictures: np.ndarray, share: float) -> float:
    """What to add to the unseen class's logit so that it is predicted for its share of all training pictures.

    No label is needed for that, but pictures: those of the unseen class are among them, as in his experiment.
    """
    logits = student.decision_function(pictures)
    others = np.delete(logits, UNSEEN, axis=1).max(axis=1)
    return float(np.quantile(others - logits[:, UNSEEN], share))


def main(n_seeds: int, n_epochs: int) -> None:
    """Print test errors, and how often the unseen class is recognised."""
    (X, y), (X_test, y_test) = clothes("train"), clothes("t10k")
    teacher = FineTunedClassifier(perceptron(TEACHER, 0, dropout=True), max_epochs=40, random_state=0, **SETTINGS)
    frozen = FrozenEstimator(teacher.fit(X, y))
    print(f"Teacher, {TEACHER} hidden units, dropout: {errors(teacher, X_test, y_test)} errors", flush=True)
    alone, rows = [], []
    for seed in range(n_seeds):
        student = FineTunedClassifier(perceptron(STUDENT, seed), max_epochs=n_epochs, random_state=seed, **SETTINGS)
        alone.append(errors(student.fit(X, y), X_test, y_test))
    rows.append(("the student alone", spread(alone, digits=1)))
    print(rows[-1], flush=True)
    for temperature in (2.0, 4.0):
        settings = {"max_epochs": n_epochs, "temperature": temperature, **SETTINGS}
        distilled = [
            errors(
                DistilledClassifier(frozen, perceptron(STUDENT, seed), random_state=seed, **settings).fit(X, y),
                X_test,
                y_test,
            )
            for seed in range(n_seeds)
        ]
        rows.append((f"distilled, temperature {temperature:g}", spread(distilled, digits=1)))
        print(rows[-1], flush=True)
    show(f"{STUDENT} hidden units, {n_seeds} seeds", ("network", "errors of 10,000"), rows)
    unseen(frozen, n_seeds, n_epochs, (X, y), (X_test, y_test))


def unseen(frozen, n_seeds: int, n_epochs: int, train, test) -> None:
    """Leave a class out of what the student sees; its teacher knows it."""
    (X, y), (X_test, y_test) = train, test
    seen, is_test = y != UNSEEN, y_test == UNSEEN
    recognised, after, others, biases = [], [], [], []
    for seed in range(n_seeds):
        student = DistilledClassifier(
            frozen, perceptron(STUDENT, seed), random_state=seed, max_epochs=n_epochs, temperature=4.0, **SETTINGS
        ).fit(X[seen], y[seen], classes=np.arange(N_CLASSES))
        recognised.append(100 * np.mean(student.predict(X_test[is_test]) == UNSEEN))
        bias = corrected(student, X, share=1 / N_CLASSES)
        logits = student.decision_function(X_test)
        logits[:, UNSEEN] += bias
        after.append(100 * np.mean(logits[is_test].argmax(1) == UNSEEN))
        others.append(100 * np.mean(logits[~is_test].argmax(1) == y_test[~is_test]))
        biases.append(bias)
    rows = [
        ("recognised", spread(recognised, digits=1)),
        ("recognised, bias corrected", spread(after, digits=1)),
        ("accuracy on the other nine classes, then", spread(others, digits=1)),
        ("what was added to its logit", spread(biases, digits=1)),
    ]
    show(f"Class {UNSEEN}, of which the student saw no picture and no label (%)", ("", f"{n_seeds} seeds"), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    print(machine())
    main(arguments.seeds, arguments.epochs)
