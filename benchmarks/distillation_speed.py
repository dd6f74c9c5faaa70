"""Ten epochs of distillation, MobileNetV2 into MobileNetV3-Small, against a loop that runs the teacher in each step.

The rival is tuned: photos are decoded once and lie in memory as tensors, the teacher is in eval mode, without gradients
and channels last; teacher and student get the same batches. Each run is a process of its own, so nothing is cached
before. The loop's networks are loaded before the clock starts; our `fit` loads its student while it runs.

Run: python benchmarks/distillation_speed.py [--epochs 10] [--rounds 3]
"""

import argparse
import statistics
import time

import torch
from ants_and_bees import photos
from common import eager_model, eager_transform, in_new_process, pretrained, run_script, show, weights_path
from PIL import Image
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn import functional

TEACHER, STUDENT, BATCH, TEMPERATURE, ALPHA = "mobilenet_v2", "mobilenet_v3_small", 32, 4.0, 0.9


def networks(is_tuned: bool) -> tuple[nn.Module, nn.Module]:
    """Torchvision's teacher and student, each with a linear head for two classes."""
    teacher, student = (eager_model(name, weights_path(name)) for name in (TEACHER, STUDENT))
    teacher.classifier = nn.Linear(teacher.last_channel, 2)
    student.classifier = nn.Linear(576, 2)
    layout = memory_layout(is_tuned)
    return teacher.eval().to(memory_format=layout), student.to(memory_format=layout)


def memory_layout(is_tuned: bool) -> torch.memory_format:
    """The one that is quick on a CPU, or the one that everybody has."""
    return torch.channels_last if is_tuned else torch.contiguous_format


def plain_loop(depth: int, epochs: int, is_tuned: bool) -> float:
    """Seconds of a loop as one writes it, after loading the networks."""
    paths, labels = photos("train")
    teacher, student = networks(is_tuned)
    frozen, learning = student.features[:depth], student.features[depth:]
    frozen.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=5e-4)
    transform = eager_transform()
    y = torch.tensor([label == "bees" for label in labels]).long()
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    X = [transform(Image.open(path).convert("RGB")) for path in paths] if is_tuned else paths
    for _ in range(epochs):
        for index in torch.randperm(len(y), generator=generator).split(BATCH):
            batch = [X[i] if is_tuned else transform(Image.open(X[i]).convert("RGB")) for i in index.tolist()]
            x = torch.stack(batch).contiguous(memory_format=memory_layout(is_tuned))
            with torch.no_grad():
                target = teacher(x)
                x = frozen(x)
            logits = student.classifier(learning(x).mean((2, 3)))
            soft = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, 1),
                functional.softmax(target / TEMPERATURE, 1),
                reduction="batchmean",
            )
            loss = ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * functional.cross_entropy(logits, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def ours(depth: int, epochs: int) -> float:
    """Seconds of `fit` with a teacher that is fitted already, nothing of these photos being cached."""
    from sktl import DistilledClassifier, FineTunedClassifier
    from sktl._frozen._cache import shared_memory_cache

    X, y = photos("train")
    teacher = FineTunedClassifier(TEACHER, freeze_depth="all", max_epochs=0, random_state=0, **pretrained(TEACHER))
    student = DistilledClassifier(
        FrozenEstimator(teacher.fit(X, y)),
        STUDENT,
        freeze_depth=depth,
        head_init="random",
        max_epochs=epochs,
        batch_size=BATCH,
        temperature=TEMPERATURE,
        alpha=ALPHA,
        random_state=0,
        **pretrained(STUDENT),
    )
    shared_memory_cache().clear()
    start = time.perf_counter()
    student.fit(X, y)
    return time.perf_counter() - start


def do_job(who: str, depth: int, epochs: int) -> dict:
    """One run, timed."""
    torch.manual_seed(0)
    taken = ours(depth, epochs) if who == "ours" else plain_loop(depth, epochs, is_tuned=who == "tuned")
    return {"seconds": taken}


def main() -> None:
    """Print medians, and the medians of the ratios of each round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for depth, what in ((0, "the whole student learns"), (9, "its first 9 of 13 blocks are frozen")):
        job = {"depth": depth, "epochs": options.epochs}
        rounds = [
            {who: in_new_process(__file__, {"who": who, **job})["seconds"] for who in ("plain", "tuned", "ours")}
            for _ in range(options.rounds)
        ]
        medians = [statistics.median(times[who] for times in rounds) for who in ("plain", "tuned", "ours")]
        ratios = [statistics.median(times[who] / times["ours"] for times in rounds) for who in ("plain", "tuned")]
        rows.append((what, *medians, *ratios))
        print(rows[-1], flush=True)
    header = ("", "plain loop (s)", "tuned loop (s)", "sktl (s)", "plain / sktl", "tuned / sktl")
    show(f"{options.epochs} epochs of 244 photos, {TEACHER} into {STUDENT}", header, rows)


if __name__ == "__main__":
    run_script(do_job, main)
