"""Train ``sktl_mini``, the packaged backbone, with `sktl.DistilledRegressor` from unlabelled pictures and two networks.

The student looks at 64 x 64 pictures and learns to predict the principal components of what two teachers
(MobileNetV2 and MobileNetV3-Small) see in the same pictures at 224 x 224. So that its averaged features keep what a
small glyph is made of, it also predicts a coarse layout of the picture: an 8 x 8 thumbnail and 4 x 4 histograms of edge
directions. The outputs for those are thrown away afterwards.

Three steps; drawing and the teachers' part of training take up what was done before::

    python tools/train_sktl_mini.py draw --data DATA --work WORK                # 2 ms a picture, on one core
    python tools/train_sktl_mini.py train --data DATA --work WORK --minutes 60  # 8 ms once, then 1.5 in each epoch
    python tools/train_sktl_mini.py export --work WORK                          # where training was cut short

``DATA`` holds ``mobilenet_v2_imagenet/model.safetensors``,
``mobilenet_v3_small_imagenet/model.safetensors`` and the pictures named in ``sktl_mini_pictures.py``. Nothing that
measures the network is read; ``tools/measure_sktl_mini.py`` measures it.
"""

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from sktl_mini_pictures import PictureSource
from torch import Tensor, nn
from torchvision import models

from sktl import DistilledRegressor, PretrainedFeatureExtractor
from sktl._training._skorch_net import StopTraining
from sktl.backbones import Preprocessing
from sktl.backbones._mini import MINI_PREPROCESSING, N_COMPONENTS, sktl_mini

N_HELD_OUT = 2000  # drawn from source pictures that no other is drawn from; they tell how far training is
N_FOR_COMPONENTS = 20_000  # pictures that the teachers' components are learnt from
N_LAYOUT = 64  # a fifth of what is predicted

# --------------------------------------------------------------------------------------------- pictures


def draw(data: Path, work: Path, n_pictures: int, seed: int, n_processes: int) -> None:
    """Write pictures of 224 x 224 as JPEG files under ``work``; those already there are kept."""
    jobs = [(data, work, n_pictures, seed, rank, n_processes) for rank in range(n_processes)]
    with ProcessPoolExecutor(n_processes) as pool:
        print(f"{sum(pool.map(_draw_share, jobs)):,} pictures drawn")


def _draw_share(job: tuple[Path, Path, int, int, int, int]) -> int:
    data, work, n_pictures, seed, rank, n_processes = job
    n_drawn = 0
    for part, n in (("held_out", N_HELD_OUT), ("train", n_pictures)):
        source = PictureSource(data, seed=seed, held_out=part == "held_out")
        for i in range(rank, n, n_processes):
            file = work / "pictures" / part / f"{i // 1000:04d}" / f"{i:07d}.jpg"
            if file.exists():
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            source.variant(i).save(file.with_suffix(".tmp"), "JPEG", quality=92)
            os.replace(file.with_suffix(".tmp"), file)
            n_drawn += 1
    return n_drawn


def pictures(work: Path, part: str) -> list[str]:
    """Paths of the pictures of one part, in order."""
    return [str(file) for file in sorted((work / "pictures" / part).glob("*/*.jpg"))]


# --------------------------------------------------------------------------------------------- teacher


class UnitVariance(TransformerMixin, BaseEstimator):
    """Centre, and divide by one number, so that the variances of all columns add up to 1: nobody outweighs another."""

    def fit(self, X, y=None):
        """Learn means and the total variance."""
        self.mean_ = X.mean(0, dtype=np.float64)
        self.scale_ = np.sqrt(np.square(X - self.mean_).sum(1).mean())
        return self

    def transform(self, X):
        """Centre and scale."""
        return (X - self.mean_) / self.scale_


class RotatedComponents(TransformerMixin, BaseEstimator):
    """Leading principal components, whitened in part, then rotated at random, so that all have like variances.

    Parameters
    ----------
    n_components : int
        How many.
    whitening : float
        Components are divided by their standard deviation to this power: with 0.5 the fine distinctions count more
        than they vary, and less than the coarse ones. The rotation keeps that balance where somebody standardises.
    seed : int, default=0
        Of the rotation.
    """

    def __init__(self, n_components, whitening, seed=0):
        self.n_components = n_components
        self.whitening = whitening
        self.seed = seed

    def fit(self, X, y=None):
        """Learn the components."""
        self.mean_ = X.mean(0)
        variances, axes = np.linalg.eigh(np.cov(X.T))
        kept = slice(-self.n_components, None)
        rotation, _ = np.linalg.qr(np.random.default_rng(self.seed).normal(size=(self.n_components,) * 2))
        self.components_ = axes[:, kept] / variances[kept] ** (self.whitening / 2) @ rotation
        self.explained_ = variances[kept].sum() / variances.sum()
        return self

    def transform(self, X):
        """Project."""
        return (X - self.mean_) @ self.components_


class Layout(TransformerMixin, BaseEstimator):
    """Where ink and edges are, of paths of pictures: an 8 x 8 grey thumbnail and 4 x 4 x 8 edge strengths."""

    def fit(self, X, y=None):
        """Learn nothing."""
        self.n_features_out_ = 192
        return self

    def transform(self, X):
        """Read, resize as for the student, and describe."""
        small = np.stack([MINI_PREPROCESSING.apply(np.asarray(Image.open(path))) for path in X])
        blocks = torch.from_numpy(small).split(500)
        return torch.cat([describe_layout(block.permute(0, 3, 1, 2).float() / 255) for block in blocks]).numpy()


def describe_layout(pictures: Tensor) -> Tensor:
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


def make_teacher(data: Path, cache: Path):
    """Return the transformer of paths whose 256 + 64 columns the student learns to predict."""
    mobilenet_v3 = models.mobilenet_v3_small()
    mobilenet_v3.load_state_dict(load_file(data / "mobilenet_v3_small_imagenet" / "model.safetensors"))
    seen = [
        make_pipeline(
            PretrainedFeatureExtractor(
                network.eval(), preprocessing=Preprocessing(224, 224), engine="onnxruntime", cache=cache
            ),
            UnitVariance(),
        )
        for network in (mobilenet_v2_as_source(data), mobilenet_v3)
    ]
    return make_union(
        make_pipeline(make_union(*seen), RotatedComponents(N_COMPONENTS, whitening=0.5)),
        make_pipeline(Layout(), StandardScaler(), RotatedComponents(N_LAYOUT, whitening=0.0)),
    )


def mobilenet_v2_as_source(data: Path) -> nn.Module:
    """Return torchvision's MobileNetV2, padded as the network that its weights were converted from.

    Strided convolutions are padded right and bottom only, which is worth nine points of accuracy on
    ``imagenet_sample``.
    """
    network = models.mobilenet_v2()
    network.load_state_dict(load_file(data / "mobilenet_v2_imagenet" / "model.safetensors"))
    strided = [k for k, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for key in strided:
        parent, _, child = key.rpartition(".")
        conv = network.get_submodule(key)
        conv.padding = (0, 0)
        setattr(network.get_submodule(parent), child, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv))
    return network


# --------------------------------------------------------------------------------------------- training


class Jitter(Callback):
    """Show each batch a little shifted, brighter or darker, harder or softer.

    What the teachers say stays what they said of the picture itself, so it may only change a little: a mirrored picture
    has another layout. Done here, on a whole batch, because ``augment=`` works picture by picture, from the file.
    """

    def __init__(self, seed):
        self.seed = seed

    def on_train_begin(self, net, **kwargs):
        """Seed."""
        self.generator_ = torch.Generator().manual_seed(self.seed)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Change uint8 pictures (n, height, width, 3) in place: a batch is a copy of what is stored."""
        if not training:
            return
        shown = batch[0]["x"]
        n, side = shown.shape[:2]
        y, x = torch.randint(-3, 4, (2, n, 1), generator=self.generator_) + torch.arange(side)
        y, x = y.clamp(0, side - 1), x.clamp(0, side - 1)
        moved = shown[torch.arange(n)[:, None, None], y[:, :, None], x[:, None, :]].float()
        light, contrast = torch.rand(2, n, 1, 1, 1, generator=self.generator_) * 2 - 1
        shown.copy_(((moved - 127.5) * (1 + 0.15 * contrast) + 127.5 + 15 * light).clamp_(0, 255))


class Clock(Callback):
    """Warm-up and a cosine by the clock, the weights written down every five minutes, and an end when time is up.

    Parameters
    ----------
    minutes : float
        When to end.
    file : Path
        Where the weights of the network and its head go.
    """

    def __init__(self, minutes, file):
        self.minutes = minutes
        self.file = file

    def on_train_begin(self, net, **kwargs):
        """Start."""
        self.started_ = self.saved_ = time.time()
        self.losses_ = []
        self.n_steps_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the learning rates."""
        done = min((time.time() - self.started_) / (60 * self.minutes), 1)
        factor = min((self.n_steps_ + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * done) + 1e-3)
        for group in net.optimizer_.param_groups:
            group["lr"] = group["base_lr"] * factor

    def on_batch_end(self, net, training=False, loss=None, **kwargs):
        """Note the loss, keep the weights, and stop, which keeps what was learnt."""
        self.n_steps_ += 1
        self.losses_.append(loss.item())
        now = time.time()
        is_over = now - self.started_ >= 60 * self.minutes
        if is_over or now - self.saved_ >= 300:
            epoch = len(net.history)
            facts = {"seconds": round(now - self.started_), "epoch": epoch, "steps": self.n_steps_}
            print(json.dumps(facts | {"loss": round(float(np.mean(self.losses_[-200:])), 4)}), flush=True)
            self.saved_ = now
            module = net.module_
            torch.save({"stages": module.stages.state_dict(), "head": module.head.state_dict()}, self.file)
        if is_over:
            raise StopTraining


def train(args: argparse.Namespace) -> None:
    """Fit the teacher's components, distil them, and write the student's weights."""
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    shown, held_out = pictures(args.work, "train")[: args.pictures], pictures(args.work, "held_out")
    cache = args.work / "cache"
    teacher = make_teacher(args.data, cache).fit(shown[:N_FOR_COMPONENTS])
    student = DistilledRegressor(
        FrozenEstimator(teacher),
        "sktl_mini",
        weights=args.start,
        knowledge="response",
        alpha=1.0,
        freeze_depth=0,
        freeze_bn=False,
        max_epochs=10_000,  # the clock ends it
        lr=args.lr,
        lr_decay=1.0,
        lr_schedule="constant",  # the clock sets the rates
        weight_decay=args.weight_decay,
        batch_size=256,
        callbacks=[Jitter(args.seed), Clock(args.minutes, args.work / "last.pt")],
        cache=cache,
        random_state=args.seed,
    )
    # In bfloat16 convolutions take half the time. Without the cache of autocast, which is one for the whole block, for
    # then the first weights would be used in every step.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        student.fit(shown)
    answers = teacher.transform(held_out)
    errors = np.square((student.predict(held_out) - answers) / answers.std(0)).mean(0)
    print("held-out errors, 1 is what a constant would get:")
    print(f"components {errors[:N_COMPONENTS].mean():.4f}, layout {errors[N_COMPONENTS:].mean():.4f}")


def export(work: Path, out: Path) -> None:
    """Write the last weights as float16 safetensors; those too small for float16 become zero."""
    last = torch.load(work / "last.pt", weights_only=True)
    head = {f"fc.{name.rpartition('.')[2]}": value[:N_COMPONENTS] for name, value in last["head"].items()}
    state = {**last["stages"], **head}
    halves = {k: v.contiguous().half() if v.is_floating_point() else v for k, v in state.items()}
    network = sktl_mini()
    network.load_state_dict(halves)
    if not all(v.isfinite().all() for v in network.state_dict().values()):
        raise ValueError("a weight is not finite in float16")
    save_file(halves, out, metadata={"format": "pt", "name": "sktl_mini", "weights": "SKTL_V1"})
    print(f"{out}: {out.stat().st_size:,} bytes")


def main() -> None:
    """Run one of the steps; training ends with an export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("draw", "train", "export"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of pictures and teachers")
    parser.add_argument(
        "--work", type=Path, default=Path("build/sktl_mini"), help="folder for the rest: 30 kB a picture"
    )
    parser.add_argument("--out", type=Path, default=Path("build/sktl_mini/sktl_mini.safetensors"))
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2, help="of draw")
    parser.add_argument("--threads", type=int, default=1, help="of train; more only where nobody else works")
    parser.add_argument("--minutes", type=float, default=120, help="how long the student is trained")
    parser.add_argument("--start", type=Path, help="weights to start from, instead of random ones")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.step == "draw":
        draw(args.data, args.work, args.pictures, args.seed, args.processes)
        return
    if args.step == "train":
        train(args)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
