"""Lottery tickets in LeNet-300-100 on Fashion-MNIST, against both controls.

Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, section 2 and figures 1 and 4, with 20,000 pictures of
clothes in place of MNIST's digits: layers of 300 and 100 units, Adam, a fifth of the weights taken in each round (a
tenth of the last layer's). All networks are judged on the test pictures after their last epoch: nothing is chosen by
them.

Run: python benchmarks/lottery_ticket.py [--seeds 5] [--rounds 15] [--epochs 10] [--batch-size 128]
    [--picture lottery.png]
"""

import argparse

import torch
from common import CLOTHES, clothes, machine, show, spread
from torch import nn

from sktl import FineTunedClassifier
from sktl.compression import LotteryTicketClassifier

SETTINGS = {**CLOTHES, "optimizer": "adam", "lr": 1.2e-3, "lr_schedule": "constant"}


def lenet(seed: int) -> nn.Module:
    """LeNet-300-100, with the paper's initial values: Gaussian Glorot."""
    torch.manual_seed(seed)
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    for layer in layers[::2]:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), *layers)


def search(seed: int, n_rounds: int, n_epochs: int, batch_size: int) -> LotteryTicketClassifier:
    """One search with one beginning."""
    (X, y), (X_test, y_test) = clothes("train"), clothes("t10k")
    network = FineTunedClassifier(
        lenet(seed), max_epochs=n_epochs, batch_size=batch_size, random_state=seed, **SETTINGS
    )
    lottery = LotteryTicketClassifier(network, n_rounds=n_rounds, random_state=seed)
    return lottery.fit(X, y, X_val=X_test, y_val=y_test)


def main(n_seeds: int, n_rounds: int, n_epochs: int, batch_size: int, picture: str) -> None:
    """Print accuracy and the epoch of early stopping by what is left of the weights."""
    found = []
    for seed in range(n_seeds):
        found.append(search(seed, n_rounds, n_epochs, batch_size))
        print(f"\nseed {seed}: {found[-1].curve_}", flush=True)
    curves = [lottery.curve_.to_dict() for lottery in found]
    places = {key: i for i, key in enumerate(zip(curves[0]["ticket"], curves[0]["round"], strict=True))}
    rows = []
    for number in range(n_rounds + 1):
        row = []
        for ticket in ("winning", "random_init", "random_mask"):
            i = places.get((ticket, number))
            if i is None:  # the dense network is of no kind
                row += ["-", "-"]
                continue
            row.append(spread([curve["score"][i] for curve in curves], 100))
            row.append(spread([curve["early_stopping_epoch"][i] for curve in curves]))
        left = curves[0]["weights_left"][places["winning", number]]
        rows.append((f"{100 * left:.1f} %", *row))
    headings = ("winning ticket", "its epoch", "random values", "their epoch", "random places", "their epoch")
    show(
        f"LeNet-300-100: test accuracy (%) after {n_epochs} epochs of {batch_size} in a batch, and the epoch of the "
        f"lowest test loss, {n_seeds} seeds",
        ("weights left", *headings),
        rows,
    )
    if picture:
        draw(found, picture)


def draw(found: list[LotteryTicketClassifier], picture: str) -> None:
    """The curve, as in the paper's figure 4."""
    import matplotlib

    matplotlib.use("Agg")
    from sktl.inspection import LotteryTicketDisplay

    LotteryTicketDisplay.from_estimators(found).figure_.savefig(picture, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--picture", default="")
    arguments = parser.parse_args()
    print(machine())
    main(arguments.seeds, arguments.rounds, arguments.epochs, arguments.batch_size, arguments.picture)
