"""A grid search over ``freeze_depth``, against the same search over a plain skorch net that freezes by `requires_grad`.

Both start from the paths of the ants and bees and run in a new process of their own; imports are not counted. The plain
net gets the photos as one array, decoded once. Its frozen stages and all its batch norms are in eval mode, its
frozen parameters are not in the optimizer. The second rival runs its frozen stages without gradients as well, and in
the memory layout that torch is faster with.

Run: python benchmarks/freeze_depth_search.py [--rounds 3] [--photos 244] [--epochs 5] [--quick]
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch
from ants_and_bees import photos
from common import eager_model, eager_transform, in_new_process, pretrained, run_script, show, weights_path
from PIL import Image
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sktl import FineTunedClassifier

BATCH = 64
RIVALS = {"plain": False, "no_grad, channels last": True}
ENGINES = {"auto": "auto, new machine", "onnxruntime": "onnxruntime, exported before"}


class PlainNetwork(nn.Module):
    """Torchvision's network with a new head, its first stages frozen by `requires_grad`."""

    def __init__(self, name, freeze_depth, is_tuned):
        super().__init__()
        network = eager_model(name, weights_path(name) if name == "mobilenet_v2" else None)
        if name == "mobilenet_v2":
            stages, n_features = list(network.features), network.last_channel
        else:
            stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
            stages = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
            n_features = network.fc.in_features
        depth = len(stages) if freeze_depth == "all" else range(len(stages))[freeze_depth]
        self.frozen, self.rest = nn.Sequential(*stages[:depth]), nn.Sequential(*stages[depth:])
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(n_features, 2)
        self.is_tuned = is_tuned
        if is_tuned:
            self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """Logits."""
        if self.is_tuned:
            with torch.no_grad():
                x = self.frozen(x.contiguous(memory_format=torch.channels_last))
        else:
            x = self.frozen(x)
        return self.head(self.rest(x).mean((2, 3)))

    def train(self, mode=True):
        """Keep the frozen stages and the statistics of all batch norms as they are."""
        super().train(mode)
        self.frozen.eval()
        for module in self.rest.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class PlainClassifier(NeuralNetClassifier):
    """A skorch net whose optimizer has only what learns."""

    def get_all_learnable_params(self):
        """Named parameters that are not frozen."""
        return ((name, parameter) for name, parameter in super().get_all_learnable_params() if parameter.requires_grad)


def some_photos(n: int) -> tuple[list[str], list[str]]:
    """``n`` training photos of both classes, in an order that has nothing to do with them."""
    paths, labels = photos("train")
    chosen = np.random.default_rng(0).permutation(len(paths))[:n]
    return [paths[i] for i in chosen], [labels[i] for i in chosen]


def rival_search(name, depths, n_photos, epochs, is_tuned) -> GridSearchCV:
    """Decode all photos, then search over the plain net."""
    paths, labels = some_photos(n_photos)
    transform = eager_transform()
    X = np.stack([transform(Image.open(path).convert("RGB")).numpy() for path in paths])
    y = np.array([label == "bees" for label in labels], dtype=np.int64)
    torch.manual_seed(0)
    net = PlainClassifier(
        PlainNetwork,
        module__name=name,
        module__freeze_depth="all",
        module__is_tuned=is_tuned,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        batch_size=BATCH,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    return GridSearchCV(net, {"module__freeze_depth": depths}, cv=3).fit(X, y)


def our_search(name, depths, n_photos, epochs, engine) -> GridSearchCV:
    """Search over the fine-tuned classifier."""
    settings = pretrained(name) if name == "mobilenet_v2" else {"weights": None}
    model = FineTunedClassifier(name, **settings, batch_size=BATCH, max_epochs=epochs, engine=engine, random_state=0)
    return GridSearchCV(model, {"freeze_depth": depths}, cv=3).fit(*some_photos(n_photos))


def do_job(who, **job) -> dict:
    """One search, timed."""
    start = time.perf_counter()
    search = rival_search(**job, is_tuned=RIVALS[who]) if who in RIVALS else our_search(**job, engine=who)
    took = time.perf_counter() - start
    (best,) = search.best_params_.values()
    return {"seconds": took, "score": float(search.best_score_), "best": best}


def measure(job: dict, n_rounds: int) -> list[tuple]:
    """Rows of one network and grid: everybody in turn, in each round."""
    found: dict[str, list[dict]] = {who: [] for who in (*RIVALS, *ENGINES)}
    with tempfile.TemporaryDirectory() as exported:
        in_new_process(__file__, {"who": "onnxruntime", **job}, SKTL_HOME=exported)
        for _ in range(n_rounds):
            for who in RIVALS:
                found[who].append(in_new_process(__file__, {"who": who, **job}))
            with tempfile.TemporaryDirectory() as new:
                found["auto"].append(in_new_process(__file__, {"who": "auto", **job}, SKTL_HOME=new))
            found["onnxruntime"].append(in_new_process(__file__, {"who": "onnxruntime", **job}, SKTL_HOME=exported))
    rows = []
    for rival in RIVALS:
        for engine, label in ENGINES.items():
            pairs = [(a["seconds"], b["seconds"]) for a, b in zip(found[rival], found[engine], strict=True)]
            ratios = [a / b for a, b in pairs]
            theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            scores = [f"{found[who][0]['score']:.3f} ({found[who][0]['best']})" for who in (rival, engine)]
            spread = f"{min(ratios):.1f}-{max(ratios):.1f}"
            rows.append((rival, label, theirs, ours, statistics.median(ratios), spread, *scores))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody is timed, in turn")
    parser.add_argument("--photos", type=int, default=244)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--quick", action="store_true", help="two epochs of 24 photos, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.photos, options.epochs = 1, 24, 2
    header = ("skorch net", "engine", "skorch s", "sktl s", "ratio", "range", "score", "sktl's score")
    for name in options.networks:
        for depths in (["all", -1, -2], ["all"]) if name == "mobilenet_v2" else (["all", -1, -2],):
            job = {"name": name, "depths": depths, "n_photos": options.photos, "epochs": options.epochs}
            title = f"{name}, freeze_depth in {depths}, cv=3, {options.epochs} epochs, {options.photos} photos"
            show(title, header, measure(job, options.rounds))


if __name__ == "__main__":
    run_script(do_job, main)
