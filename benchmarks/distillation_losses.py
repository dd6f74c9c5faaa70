"""The losses of distillation against published programs, on seeded tensors.

Needs timm (``pip install timm``) and torchdistill (``pip install torchdistill``); what is not installed is left out.

Run: python benchmarks/distillation_losses.py
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator

import numpy as np
import torch
from common import machine, show
from torch import Tensor, nn

from sktl.distillation import (
    attention_loss,
    attention_map,
    hint_loss,
    relational_angle_loss,
    relational_distance_loss,
    similarity_loss,
    soft_target_loss,
)

TEMPERATURES = (1.0, 4.0)
Rows = Iterator[tuple[str, Tensor, float]]


def drawn(*shapes: tuple[int, ...], scale: float = 1.0) -> list[Tensor]:
    """Tensors of normal numbers, in double precision, the same for ever."""
    random = np.random.RandomState(0)
    return [torch.tensor(scale * random.standard_normal(shape)) for shape in shapes]


def logits() -> list[Tensor]:
    """Student's and teacher's, of 8 rows and 10 classes."""
    return drawn((8, 10), (8, 10), scale=3)


def torchdistill() -> Rows:
    """Its losses, each with its own way to be told where student and teacher are."""
    losses = importlib.import_module("torchdistill.losses.mid_level")

    def of(loss: nn.Module, student: Tensor, teacher: Tensor, *targets: Tensor) -> float:
        return float(loss({"a": {"output": student}}, {"a": {"output": teacher}}, *targets))

    student, teacher = logits()
    classes = torch.zeros(8, dtype=torch.long)
    for temperature in TEMPERATURES:
        ours = soft_target_loss(student, teacher, temperature)
        # The factor T² is there only together with a part of cross-entropy, here 1e-12 of it.
        loss = losses.KDLoss("a", "output", "a", "output", temperature, alpha=1e-12, beta=1.0)
        yield f"soft_target_loss, T={temperature:g}", ours, of(loss, student, teacher, classes)
    alone = losses.KDLoss("a", "output", "a", "output", TEMPERATURES[-1], alpha=0.0)
    yield f"the same, T={temperature:g}, its alpha=0: T² is missing", ours, of(alone, student, teacher)

    student, teacher = drawn((4, 3, 5, 5), (4, 7, 5, 5))
    ours = attention_loss(attention_map(student), attention_map(teacher))
    place = {"io": "output", "path": "a"}
    for mode in ("code", "paper"):
        loss = losses.ATLoss({"pair": {"student": place, "teacher": place}}, mode=mode)
        yield f"attention_loss, its mode={mode!r}", ours, of(loss, student, teacher)

    student, teacher = drawn((8, 5), (8, 9))
    for ours_of, factors in ((relational_distance_loss, (1.0, 0.0)), (relational_angle_loss, (0.0, 1.0))):
        loss = losses.RKDLoss("a", "a", *factors, reduction="mean")
        yield ours_of.__name__, ours_of(student, teacher), of(loss, student, teacher)

    student, teacher = drawn((8, 3, 2, 2), (8, 5, 4, 4))
    loss = losses.SPKDLoss("a", "a", reduction="batchmean")
    yield "similarity_loss: its rows have 1-norm 1", similarity_loss(student, teacher), of(loss, student, teacher)


class Constant(nn.Module):
    """A network for timm's tasks that gives the same whatever it is shown."""

    in_chans = 3
    pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

    def __init__(self, out: Tensor):
        super().__init__()
        self.register_buffer("out", out)
        self.num_classes = self.num_features = self.head_hidden_size = out.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.out

    forward_features = forward

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features or logits, which are the same here."""
        return x


def timm() -> Rows:
    """Its training tasks, around networks that give the tensors."""
    tasks = importlib.import_module("timm.task")
    student, teacher = logits()
    pictures, classes = torch.zeros(8, 3, 2, 2, dtype=torch.float64), torch.zeros(8, dtype=torch.long)

    def of(task: type[nn.Module], **parameters: float) -> float:
        made = task(Constant(student), Constant(teacher), nn.CrossEntropyLoss(), verbose=False, **parameters)
        return float(made(pictures, classes)["kd_loss"])

    for temperature in TEMPERATURES:
        ours = soft_target_loss(student, teacher, temperature)
        rival = of(tasks.LogitDistillationTask, temperature=temperature)
        yield f"soft_target_loss, T={temperature:g}", ours, rival
    yield "hint_loss", hint_loss(student, teacher), of(tasks.FeatureDistillationTask)


def compare(name: str, losses: Callable[[], Rows]) -> None:
    """One table: the mean over our rows, the rival's value, and how far they are apart."""
    try:
        version = importlib.metadata.version(name)
        rows = [(title, float(ours.mean()), rival) for title, ours, rival in losses()]
    except ImportError as error:
        print(f"\n{name} is left out: {error}. To compare with it: pip install {name}", flush=True)
        return
    show(
        f"Losses against {name} {version}",
        ("loss", "ours", name, "relative difference"),
        [
            (title, f"{ours:.9f}", f"{rival:.9f}", f"{abs(ours - rival) / abs(rival):.0e}")
            for title, ours, rival in rows
        ],
    )


if __name__ == "__main__":
    print(machine())
    compare("torchdistill", torchdistill)
    compare("timm", timm)
