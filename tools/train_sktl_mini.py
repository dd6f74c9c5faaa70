"""Train ``sktl_mini``, the packaged backbone, from unlabelled pictures and two ImageNet networks.

The student looks at 64 x 64 pictures and learns to predict the principal components of what two teachers
(MobileNetV2 and MobileNetV3-Small) see in the same pictures at 224 x 224. So that its averaged features keep what a
small glyph is made of, a second head, thrown away afterwards, also predicts a coarse layout of the picture: an 8 x 8
thumbnail and 4 x 4 histograms of edge directions.

Three steps, each restartable, all seeded::

    python tools/train_sktl_mini.py prepare --data DATA --work WORK    # pictures and teachers' features: 4 ms each
    python tools/train_sktl_mini.py train --work WORK --epochs 20      # 0.8 ms per picture on two cores
    python tools/train_sktl_mini.py export --work WORK --out sktl/backbones/sktl_mini.safetensors

``DATA`` holds ``mobilenet_v2_imagenet/model.safetensors``, ``mobilenet_v3_small_imagenet/model.safetensors`` and the
pictures named in ``sktl_mini_pictures.py``. Nothing that measures the network is read; ``tools/measure_sktl_mini.py``
measures it.
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sktl_mini_pictures import PictureSource
from torch import Tensor, distributed, multiprocessing, nn
from torchvision import models

from sktl.backbones._mini import MINI_PREPROCESSING, N_COMPONENTS, sktl_mini

SHARD = 1000
N_HELD_OUT = 2000  # the first two shards, of source pictures that no other shard uses: they choose the checkpoint
N_FOR_COMPONENTS = 50_000
TEACHERS = ("mobilenet_v2", "mobilenet_v3_small")
TEACHER_WIDTHS = (1280, 576)


# --------------------------------------------------------------------------------------------- teachers


class Teachers(nn.Module):
    """uint8 pictures (n, 224, 224, 3) to the concatenated pooled features (n, 1856) of both teachers."""

    def __init__(self, folder: Path, *, names: tuple[str, ...] = TEACHERS, as_source: bool = True):
        super().__init__()
        self.networks = nn.ModuleList(load_teacher(name, folder, as_source=as_source) for name in names)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Normalise, run all, average over space."""
        x = (pictures.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return torch.cat([network(x).mean((2, 3)) for network in self.networks], 1)


def load_teacher(name: str, folder: Path, *, as_source: bool) -> nn.Module:
    """Return the convolutions of a torchvision network with the weights in ``folder``.

    ``as_source`` pads MobileNetV2's strided convolutions as the network that these weights come from does (right and
    bottom only), which is worth several points of ImageNet accuracy; False leaves it as torchvision builds it.
    """
    network = getattr(models, name)()
    network.load_state_dict(load_file(folder / f"{name}_imagenet" / "model.safetensors"))
    if as_source and name == "mobilenet_v2":
        strided = [k for k, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for key in strided:
            parent, _, child = key.rpartition(".")
            conv = network.get_submodule(key)
            conv.padding = (0, 0)
            setattr(network.get_submodule(parent), child, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv))
    return network.features.eval()


def open_session(network: nn.Module | None, file: Path, *, n_threads: int = 1):
    """Return an ONNX Runtime session (far faster than PyTorch here) of a network on 8 uint8 pictures, exported once."""
    import onnxruntime

    if not file.exists():
        example = (torch.zeros(8, 224, 224, 3, dtype=torch.uint8),)
        torch.onnx.export(network.eval(), example, file, input_names=["x"], dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_session(session, pictures: np.ndarray) -> np.ndarray:
    """Run a session on any number of pictures, 8 at a time."""
    padded = np.concatenate([pictures, pictures[: -len(pictures) % 8]])
    batches = [padded[i : i + 8] for i in range(0, len(padded), 8)]
    return np.concatenate([session.run(None, {"x": batch})[0] for batch in batches])[: len(pictures)]


def prepare(data: Path, work: Path, n_pictures: int, n_processes: int) -> None:
    """Write shards of 1,000 student pictures and teachers' features under ``work``; those already there are kept."""
    work.mkdir(parents=True, exist_ok=True)
    open_session(Teachers(data), work / "teachers.onnx")
    missing = [s for s in range(n_pictures // SHARD) if not (work / f"features_{s:04d}.npy").exists()]
    with ProcessPoolExecutor(n_processes) as pool:
        for shard in pool.map(_prepare_shards, [(data, work, missing[i::n_processes]) for i in range(n_processes)]):
            print(f"{len(shard)} shards written", flush=True)


def _prepare_shards(job: tuple[Path, Path, list[int]]) -> list[int]:
    data, work, shards = job
    session = open_session(None, work / "teachers.onnx")
    sources = {held_out: PictureSource(data, held_out=held_out) for held_out in (False, True)}
    for shard in shards:
        source = sources[shard * SHARD < N_HELD_OUT]
        pictures = np.empty((SHARD, 72, 72, 3), np.uint8)
        features = np.empty((SHARD, sum(TEACHER_WIDTHS)), np.float16)
        for first in range(0, SHARD, 8):
            pairs = [source.variant(shard * SHARD + i) for i in range(first, first + 8)]
            pictures[first : first + 8] = [small for small, _ in pairs]
            features[first : first + 8] = run_session(session, np.stack([large for _, large in pairs]))
        np.save(work / f"pictures_{shard:04d}.npy", pictures)
        np.save(work / f".features_{shard:04d}.npy", features)
        os.replace(
            work / f".features_{shard:04d}.npy", work / f"features_{shard:04d}.npy"
        )  # last: marks the shard done
    return shards


# --------------------------------------------------------------------------------------------- targets


def principal_targets(features: np.ndarray) -> Tensor:
    """Reduce both teachers' features (n, 1856) to (n, 256) targets of mean square 1.

    Each teacher is scaled to total variance 1 first, so that neither outweighs the other; the components are then
    half whitened (divided by the square root of their standard deviation), so that the fine distinctions count too.
    All of this is learnt from the first 50,000, so that more pictures leave the targets of the others as they were.
    """
    scaled = []
    for part in torch.from_numpy(features).split(TEACHER_WIDTHS, dim=1):
        centred = part.float() - part[:N_FOR_COMPONENTS].float().mean(0)
        scaled.append(centred / centred[:N_FOR_COMPONENTS].square().sum(1).mean().sqrt())
    joined = torch.cat(scaled, 1)
    learnt = joined[:N_FOR_COMPONENTS]
    variances, axes = torch.linalg.eigh(learnt.T @ learnt / len(learnt))
    kept = slice(-N_COMPONENTS, None)
    targets = joined @ (axes[:, kept] / variances[kept] ** 0.25)
    explained = variances[kept].sum() / variances.sum()
    print(f"{N_COMPONENTS} components explain {explained:.3f} of the teachers' variance")
    return targets / targets[:N_FOR_COMPONENTS].square().mean().sqrt()


def layout_targets(pictures: Tensor) -> Tensor:
    """Describe where ink and edges are: pictures (n, 3, 64, 64) in [0, 1] to (n, 192).

    64 numbers are a grey 8 x 8 thumbnail, 128 the roots of the mean edge strength in 4 x 4 cells and 8 directions.
    """
    grey = pictures.mean(1, keepdim=True)
    dx = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    dy = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    angles = torch.arange(8) * (2 * math.pi / 8)
    along = dx * angles.cos().view(8, 1, 1) + dy * angles.sin().view(8, 1, 1)
    edges = F.avg_pool2d(F.pad(along.relu(), (1, 1, 1, 1)), 16)
    thumbnail = F.avg_pool2d(grey, 8)
    return torch.cat([thumbnail.flatten(1), (edges + 1e-4).sqrt().flatten(1)], 1)


# --------------------------------------------------------------------------------------------- training


class Shards:
    """The prepared pictures in memory, and batches of them."""

    def __init__(self, work: Path):
        names = sorted(work.glob("features_*.npy"))
        self.pictures = torch.from_numpy(np.concatenate([np.load(work / f"pictures_{p.stem[-4:]}.npy") for p in names]))
        self.targets = principal_targets(np.concatenate([np.load(p) for p in names]))
        numbers = [int(p.stem[-4:]) * SHARD + i for p in names for i in range(SHARD)]
        self.held_out = torch.arange(N_HELD_OUT)
        self.n_trained = len(self.pictures) - N_HELD_OUT
        self.may_flip = torch.tensor([PictureSource.kind(0, i) not in ("drawn", "coil") for i in numbers])

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield batches of indices of the training pictures for ever, shuffled anew in every epoch."""
        while True:
            order = N_HELD_OUT + torch.randperm(self.n_trained, generator=generator)
            yield from order[: self.n_trained // batch_size * batch_size].split(batch_size)

    def batch(self, index: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return pictures (n, 3, 64, 64) in [0, 1]: central crops, or jittered ones where a generator is given."""
        n = len(index)
        pictures = self.pictures[index]
        if generator is None:
            return pictures[:, 4:68, 4:68].permute(0, 3, 1, 2).float() / 255
        y, x = torch.randint(9, (2, n, 1), generator=generator) + torch.arange(64)
        flip = self.may_flip[index] & (torch.rand(n, generator=generator) < 0.5)
        x = torch.where(flip[:, None], x.flip(1), x)
        crops = pictures[torch.arange(n)[:, None, None], y[:, :, None], x[:, None, :]]
        light, contrast = torch.rand(2, n, 1, 1, 1, generator=generator) * 2 - 1
        crops = (crops.permute(0, 3, 1, 2).float() / 255 - 0.5) * (1 + 0.15 * contrast) + 0.5 + 0.06 * light
        return crops.clamp_(0, 1)


def normalise(pictures: Tensor) -> Tensor:
    """Apply MINI_PREPROCESSING's mean and std, channels last in memory."""
    mean = torch.tensor(MINI_PREPROCESSING.mean).view(1, 3, 1, 1)
    std = torch.tensor(MINI_PREPROCESSING.std).view(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


class Student(nn.Module):
    """``sktl_mini`` and the layout head, which reads the same averaged features and is thrown away."""

    def __init__(self, layout: Tensor):
        super().__init__()
        self.network = sktl_mini()
        self.layout_head = nn.Linear(self.network.fc.in_features, layout.shape[1])
        self.register_buffer("layout_mean", layout.mean(0))
        self.register_buffer("layout_std", layout.std(0))

    def losses(self, pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared errors of the teachers' components and of the layout; 1 is what a constant would get."""
        pooled = []
        handle = self.network.fc.register_forward_pre_hook(lambda _, args: pooled.append(args[0]))
        predicted = self.network(normalise(pictures)).float()
        handle.remove()
        layout = (layout_targets(pictures) - self.layout_mean) / self.layout_std
        return F.mse_loss(predicted, targets), F.mse_loss(self.layout_head(pooled[0]).float(), layout)


def train(rank: int, args: argparse.Namespace, meeting_place: str) -> None:
    """Train with AdamW and a cosine schedule; keep the averaged weights that predict held-out pictures best.

    Each process takes its share of every batch, with one thread: where other programs use the same cores, threads that
    wait for each other cost several times as much.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    distributed.init_process_group("gloo", f"file://{meeting_place}", rank=rank, world_size=args.processes)
    torch.manual_seed(args.seed)
    shuffling, jitter = torch.Generator().manual_seed(args.seed), torch.Generator().manual_seed(args.seed + 1 + rank)
    shards = Shards(args.work)
    student = Student(layout_targets(shards.batch(shards.held_out, None))).to(memory_format=torch.channels_last)
    if args.start:
        student.network.load_state_dict(torch.load(args.start, weights_only=True)["network"])
    average = copy.deepcopy(student).requires_grad_(False).eval()
    groups = [[p for p in student.parameters() if (p.ndim > 1) == decayed] for decayed in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": args.weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
    )
    n_steps = args.epochs * (shards.n_trained // args.batch_size)
    best, started = math.inf, time.time()
    for step, batch in enumerate(shards.shuffled(args.batch_size, shuffling)):
        done = _latest(max(step / n_steps, (time.time() - started) / (60 * args.minutes)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min((step + 1) / 500, 0.5 + 0.5 * math.cos(math.pi * min(done, 1)) + 1e-3)
        index = batch[rank :: args.processes]
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            teachers, layout = student.losses(shards.batch(index, jitter), shards.targets[index])
        optimizer.zero_grad()
        (teachers + args.layout_weight * layout).backward()
        _share_gradients(student, args.processes)
        optimizer.step()
        _follow(average, student, min(args.average, (step + 1) / (step + 10)))
        if rank == 0 and (step % 200 == 0 or done >= 1):
            losses = _held_out_losses(average, shards)
            facts = {"steps": step + 1, "train": round(teachers.item(), 4), "held_out": losses[0], "layout": losses[1]}
            print(json.dumps(facts | {"done": round(done, 3), "seconds": round(time.time() - started)}), flush=True)
            if losses[0] + args.layout_weight * losses[1] < best:
                best = losses[0] + args.layout_weight * losses[1]
                facts |= {"n_pictures": len(shards.pictures)} | {key: str(value) for key, value in vars(args).items()}
                torch.save({"network": average.network.state_dict(), "facts": facts}, args.checkpoint)
        if done >= 1:
            return


def _latest(done: float) -> float:
    """Agree between processes how much of the schedule is done, so that all stop at the same step."""
    agreed = torch.tensor(done, dtype=torch.float64)
    distributed.all_reduce(agreed, distributed.ReduceOp.MAX)
    return agreed.item()


def _share_gradients(student: nn.Module, n_processes: int) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [p.grad for p in student.parameters()]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / n_processes).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def _follow(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the averaged weights and BatchNorm statistics a little towards the student's."""
    for kept, new in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


@torch.inference_mode()
def _held_out_losses(student: Student, shards: Shards) -> tuple[float, float]:
    parts = shards.held_out.split(250)
    losses = [torch.stack(student.losses(shards.batch(part, None), shards.targets[part])) for part in parts]
    teachers, layout = torch.stack(losses).mean(0).tolist()
    return round(teachers, 4), round(layout, 4)


# --------------------------------------------------------------------------------------------- export


def export(checkpoint: Path, out: Path) -> None:
    """Write a checkpoint as float16 safetensors; weights too small for float16 become zero."""
    state = torch.load(checkpoint, weights_only=True)["network"]
    halves = {k: v.contiguous().half() if v.is_floating_point() else v for k, v in state.items()}
    network = sktl_mini()
    network.load_state_dict(halves)
    if not all(v.isfinite().all() for v in network.state_dict().values()):
        raise ValueError("a weight is not finite in float16")
    save_file(halves, out, metadata={"format": "pt", "name": "sktl_mini", "weights": "SKTL_V1"})
    print(f"{out}: {out.stat().st_size:,} bytes")


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "train", "export"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of pictures and teachers")
    parser.add_argument(
        "--work", type=Path, default=Path("build/sktl_mini"), help="folder for the rest (20 kB a picture)"
    )
    parser.add_argument("--out", type=Path, default=Path("sktl/backbones/sktl_mini.safetensors"))
    parser.add_argument("--checkpoint", type=Path, help="default: WORK/best.pt")
    parser.add_argument("--pictures", type=int, default=85_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="shorten the schedule to end by then")
    parser.add_argument("--start", type=Path, help="a checkpoint to start from, instead of random weights")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--layout-weight", type=float, default=0.25)
    parser.add_argument("--average", type=float, default=0.995, help="decay of the averaged weights, per step")
    parser.add_argument("--no-bfloat16", dest="bfloat16", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.checkpoint = args.checkpoint or args.work / "best.pt"
    if args.step == "prepare":
        prepare(args.data, args.work, args.pictures, args.processes)
    elif args.step == "train":
        with TemporaryDirectory() as folder:
            multiprocessing.spawn(train, (args, f"{folder}/processes"), args.processes)
    else:
        export(args.checkpoint, args.out)


if __name__ == "__main__":
    main()
