"""
Winning tickets
===============

A large network learns easily. Once it has learnt, most of its weights can be left out, but a small network that is
trained from the beginning does not get as far. Frankle and Carbin found that some do: hidden in the large network, from
its very first moment, is a small one that learns as well, *if it begins with the values that it had there*. They called
it a winning ticket. Here is one that reads digits.
"""

# %%
# The lottery
# -----------
#
# Train a network, take half of its weights away, the smallest ones; put those that are left back to what they were in
# the beginning, and train again; and so on for five rounds. Beside each ticket two controls are trained: one with the
# same connections and other first values, and one with as many connections at random places. All is done three times,
# with other first weights.

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
    """300 and 100 hidden neurons on the 64 pixels, with random weights; all of it learns, at one rate."""
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
# ``curve_`` is a table with a row for each network that was trained. The display draws those of several runs together.
# On the left, what tickets and controls score with fewer and fewer weights. On the right, after which of the 20 epochs
# their loss on the rows they are judged on was the lowest: how soon they have learnt what they can.

# sphinx_gallery_thumbnail_number = 1
LotteryTicketDisplay.from_estimators(lotteries)
plt.show()

# %%
# The same in numbers, where the fewest weights are left:

curves = [lottery.curve_.to_dict() for lottery in lotteries]
dense = [curve["score"][0] for curve in curves]
print(f"dense network {np.mean(dense):.3f}, from {min(dense):.3f} to {max(dense):.3f}")
print(f"{curves[0]['weights_left'][-1]:.1%} of the weights:")
for ticket in ("winning", "random_init", "random_mask"):
    last = [curve["score"][np.flatnonzero(np.array(curve["ticket"]) == ticket)[-1]] for curve in curves]
    print(f"{ticket:13s} {np.mean(last):.3f}, from {min(last):.3f} to {max(last):.3f}")

# %%
# What tickets look at
# --------------------
#
# ``winning_ticket_`` is the sparse network before its training, as an unfitted estimator. How many of its neurons look
# at each pixel? Nobody told it which pixels of a digit are always white.

looks = []
for lottery in lotteries:
    weights = lottery.winning_ticket_.backbone.module.parameters()
    first = next(weight for weight in weights if weight.ndim == 2)  # (300 neurons, 64 pixels)
    looks.append(torch.count_nonzero(first, dim=0).numpy().reshape(8, 8))
neurons = np.mean(looks, axis=0)  # of the three tickets
print(f"{neurons.mean():.1f} neurons look at a pixel; at the pixels from {neurons.min():.1f} to {neurons.max():.1f}")

fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
pictures = {"how much a pixel varies": X.std(axis=0).reshape(8, 8), "neurons that look at it": neurons}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    fig.colorbar(ax.imshow(picture, cmap="viridis", vmin=0), ax=ax)
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Playing it again
# ----------------
#
# A ticket is trained like any estimator, and its zeros stay zeros. On the rows of the lottery it becomes what the
# lottery made of it: the first number is the last score of the first ``curve_``. On half of them it has less to learn
# from, as the dense network has.

half = slice(0, 450)
ticket, whole = lotteries[0].winning_ticket_, network(0)
print(f"ticket         all rows {ticket.fit(X, y).score(X_test, y_test):.3f}", end="")
print(f"   half of them {ticket.fit(X[half], y[half]).score(X_test, y_test):.3f}")
print(f"dense network  all rows {whole.fit(X, y).score(X_test, y_test):.3f}", end="")
print(f"   half of them {whole.fit(X[half], y[half]).score(X_test, y_test):.3f}")

# %%
# A ticket is no faster than the dense network, for zeros are multiplied like other numbers, and finding it takes many
# trainings. It is an answer to the question why large networks learn so well. What makes networks smaller, or faster,
# is in the user guide, :doc:`/compression`.
