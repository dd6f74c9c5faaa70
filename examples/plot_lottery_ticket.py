"""
Finding winning lottery tickets
===============================

Most weights of a trained network can be removed without a loss of accuracy, but a
sparse network that is trained from random weights is usually less accurate. Frankle and
Carbin (2019) found sparse subnetworks that train as well as the dense network if they
start from the initial weights of the dense network. They call such a subnetwork a
winning ticket. This example finds winning tickets of a network that classifies
handwritten digits.
"""

# %%
# Iterative magnitude pruning
# ---------------------------
#
# :class:`~sktl.compression.LotteryTicketClassifier` trains a network, removes the half
# of its weights with the smallest magnitudes, resets the remaining weights to their
# initial values and trains again, for five rounds. In each round it also trains two
# controls: a network with the same connections and other initial weights, and a network
# with as many connections at random positions. We repeat the experiment with three
# random initializations.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sktl import FineTunedClassifier
from sktl.compression import LotteryTicketClassifier
from sktl.inspection import LotteryTicketDisplay

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=900, stratify=y, random_state=0)


def network(seed):
    """Return a network with 300 and 100 hidden units; all layers are trained with one learning rate."""
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return FineTunedClassifier(
        nn.Sequential(*layers),
        in_channels=1,
        preprocessing={"resize_size": 8, "crop_size": 8},
        freeze_depth=0,
        head_init="random",
        lr=0.002,
        lr_decay=1.0,
        max_epochs=20,
        batch_size=60,
        random_state=seed,
    )


lotteries = []
for seed in range(3):
    lottery = LotteryTicketClassifier(network(seed), prune_fraction=0.5, n_rounds=5, random_state=seed)
    lotteries.append(lottery.fit(X, y, X_val=X_test, y_val=y_test))

# %%
# Accuracy and training speed of the tickets
# ------------------------------------------
#
# The display shows the mean of the three experiments. On the left is the accuracy as a
# function of the remaining weights. On the right is the epoch with the lowest
# validation loss, which measures how fast a network trains.

# sphinx_gallery_thumbnail_number = 1
LotteryTicketDisplay.from_estimators(lotteries)
plt.show()

# %%
# The attribute ``curve_`` is a table with one row per trained network. The accuracies
# of the last round are:

curves = [lottery.curve_.to_dict() for lottery in lotteries]
dense = [curve["score"][0] for curve in curves]
print(f"dense network: {np.mean(dense):.3f}  (from {min(dense):.3f} to {max(dense):.3f})")
print(f"{curves[0]['weights_left'][-1]:.1%} of the weights:")
for ticket in ("winning", "random_init", "random_mask"):
    last = [curve["score"][np.flatnonzero(np.array(curve["ticket"]) == ticket)[-1]] for curve in curves]
    print(f"  {ticket:11s} {np.mean(last):.3f}  (from {min(last):.3f} to {max(last):.3f})")

# %%
# With 3.5 % of the weights, the winning tickets are less than two points below the
# dense network. Networks with the same connections and other initial weights lose about
# six points, and networks with random connections lose more than twice as much.
#
# Connections of the tickets
# --------------------------
#
# ``winning_ticket_`` is the sparse network before training, as an unfitted estimator.
# We count the hidden units that are connected to each pixel. Pruning removes most
# connections to the pixels at the left and right borders, which hardly vary.

counts = []
for lottery in lotteries:
    weights = lottery.winning_ticket_.backbone.module.parameters()
    first = next(weight for weight in weights if weight.ndim == 2)  # shape (300 units, 64 pixels)
    counts.append(torch.count_nonzero(first, dim=0).numpy().reshape(8, 8))
n_units = np.mean(counts, axis=0)
print(f"connected units per pixel: mean {n_units.mean():.1f}, from {n_units.min():.1f} to {n_units.max():.1f}")

fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
maps = {"standard deviation of the pixel": X.std(axis=0).reshape(8, 8), "number of connected units": n_units}
for ax, (title, values) in zip(axes, maps.items(), strict=True):
    fig.colorbar(ax.imshow(values, cmap="viridis", vmin=0), ax=ax)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Training a ticket
# -----------------
#
# A ticket can be trained like any estimator, and its removed weights stay zero. Trained
# on all rows, it has the accuracy in the last row of ``curve_``. Trained on half of the
# rows, it loses about as much accuracy as the dense network does.

half = slice(0, 450)
for name, model in {"ticket": lotteries[0].winning_ticket_, "dense network": network(0)}.items():
    print(f"{name:13s} all rows: {model.fit(X, y).score(X_test, y_test):.3f}", end="")
    print(f"   half of the rows: {model.fit(X[half], y[half]).score(X_test, y_test):.3f}")

# %%
# A ticket is not faster than the dense network, because zeros are multiplied like other
# weights, and the search takes many training runs. The user guide describes how to make
# networks smaller or faster: :doc:`/compression`.
