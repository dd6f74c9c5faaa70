"""Is the advice of `recommend_strategy` good? The five ways to use a network, each tried, on near and far pictures.

Six sets of pictures, of each of which few (ten of each class) and many (up to a hundred of each class) are learnt from.
The accuracy is that on up to a thousand other pictures, the mean of two draws; "earlier" takes the earlier
stage with the best LogME. The advice is what is said before anything is trained; its loss is what the best of the five
has more.

Run: OMP_NUM_THREADS=1 python benchmarks/strategies.py [mobilenet_v3_small sktl_mini ...] [--few]
"""

import argparse
import warnings

import numpy as np
from common import machine, show
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transferability_ranking import Table, cifar, extractor, folders, garments, halves, handwriting, some

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._estimators._auto_depth import strategy_params
from sktl.backbones._backbone import up_to
from sktl.exceptions import TransferWarning
from sktl.selection import StrategyAdvice, recommend_strategy
from sktl.selection._strategy_advice import _small_images

WAYS = ("freeze_all", "earlier_layer", "last_stages", "train_all", "no_transfer")
N_TEST = 1000
FEW, MANY = 10, 100  # of each class, at most
N_DRAWS = 2


def sets() -> dict[str, tuple[Table, Table]]:
    """Pictures to learn from and others to judge by; the first two sets are near to ImageNet."""
    return {
        "ants and bees": (folders("hymenoptera/train"), folders("hymenoptera/val")),
        "photos": halves(folders("pacs/photo")),
        "sketches": halves(folders("pacs/sketch")),
        "CIFAR-10": (cifar("train"), cifar("test")),
        "clothes": (garments("train"), garments("t10k")),
        "handwriting": halves(handwriting()),
    }


def pixels(own: PretrainedFeatureExtractor, train: Table, test: Table) -> float:
    """Accuracy of a linear model that sees small pictures and no network."""
    small = [_small_images(own, own._fit(X)) for X in (train[0], test[0])]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 30, max_iter=1000))
    return probe.fit(small[0], train[1]).score(small[1], test[1])


def accuracies(own: PretrainedFeatureExtractor, train: Table, test: Table, advice: StrategyAdvice) -> dict[str, float]:
    """What each way reaches on other pictures."""
    own.fit(train[0])
    network = {name: getattr(own, name) for name in ("backbone", "weights", "preprocessing")}
    stages = own.backbone_.stages
    earlier = max(list(advice.logme)[:-1], key=advice.logme.__getitem__)
    cut = {"backbone": up_to(own.backbone_, own.backbone_.stage_index(earlier))}
    found = {"no_transfer": pixels(own, train, test)}
    for way in WAYS[:-1]:
        params = (cut if way == "earlier_layer" else network) | strategy_params(way, len(stages))
        found[way] = FineTunedClassifier(**params, random_state=0).fit(*train).score(*test)
    return found


def cell(network: str, train: Table, test: Table, size: int) -> tuple[StrategyAdvice, dict[str, float], float]:
    """The advice, the mean accuracy of each way over some draws, and that of following the advice of each draw."""
    tables, taken = [], []
    for seed in range(N_DRAWS if size < len(train[1]) else 1):
        own, drawn = extractor(network), some(train, size, seed)
        advice = recommend_strategy(*drawn, own)
        tables.append(accuracies(own, drawn, test, advice))
        taken.append(tables[-1][advice.strategy])
    return advice, {way: float(np.mean([table[way] for table in tables])) for way in WAYS}, float(np.mean(taken))


def main(networks: list[str], only_few: bool) -> None:
    """Print a table for each network, and how often the advice was good."""
    warnings.simplefilter("error", TransferWarning)  # none of these sets is one that a network is of no use for
    losses, cells = [], {}
    for network in networks:
        rows = []
        for title, (train, test) in sets().items():
            n_classes = len(np.unique(train[1]))
            for each in (FEW,) if only_few else (FEW, MANY):
                size = min(each * n_classes, len(train[1]))
                advice, table, taken = cell(network, train, some(test, N_TEST), size)
                losses.append(100 * (max(table.values()) - taken))
                below = [100 * (max(table.values()) - table[way]) for way in WAYS]
                cells.setdefault((advice.amount, advice.domain), []).append(below)
                distance = "unknown" if advice.distance is None else f"{advice.distance:.2f}, {advice.domain}"
                found = [f"{100 * table[way]:.1f}" for way in WAYS]
                rows.append((title, str(size), distance, *found, advice.strategy, f"{losses[-1]:.1f}"))
                print(*rows[-1], flush=True)
        show(network, ("pictures", "number", "distance", *WAYS, "advice", "loss"), rows)
    means = [[*where, str(len(found)), *(f"{x:.1f}" for x in np.mean(found, axis=0))] for where, found in cells.items()]
    show("points below the best way, by cell of the table", ("data", "pictures", "sets", *WAYS), means)
    n_good = sum(loss <= 1.0 for loss in losses)
    print(f"within a point of the best: {n_good} of {len(losses)} cells; mean loss {np.mean(losses):.2f} points")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=["mobilenet_v3_small", "sktl_mini"])
    parser.add_argument("--few", action="store_true", help="the small sets only")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    main(arguments.networks, arguments.few)
