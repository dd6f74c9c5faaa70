"""
Smaller, faster, or both
========================

A trained network can be made smaller in many ways. Some save room on the disk, some save time, some both, and each
costs a little of what the network has learnt. Here one network is compressed in five ways, and each is measured.
"""

# %%
# Five ways
# ---------
#
# The original is ``sktl_mini``, of which the last two stages have learnt to tell digits. Inside a ``FrozenEstimator``
# it is used as it is; otherwise each compressor would fit it anew. Stages that are frozen stay as large as they are, so
# ``freeze_depth=0`` says that all of them shall be compressed. What is left is trained for five epochs, but for int8.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sktl import FineTunedClassifier
from sktl.compression import LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.inspection import CompressionDisplay

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=300, stratify=y, random_state=0)

original = FineTunedClassifier(
    freeze_depth=-2,
    preprocessing={"resize_size": 32, "crop_size": 32},  # a quarter of its own: there are but 8 x 8 pixels to see
    max_epochs=10,
    random_state=0,
).fit(X, y)
frozen = FrozenEstimator(original)

models = {
    "pruned weights": PrunedClassifier(frozen, freeze_depth=0, amount=0.9),
    "pruned filters": PrunedClassifier(frozen, freeze_depth=0, granularity="filter", amount=0.4),
    "low rank": LowRankClassifier(frozen, freeze_depth=0, rank=0.3),
    "16 values": QuantizedClassifier(frozen, freeze_depth=0, scheme="codebook", bits=4),
    "int8": QuantizedClassifier(frozen, freeze_depth=0, scheme="int8", random_state=0),
}
models = {"original": original, **{name: model.fit(X, y) for name, model in models.items()}}

# %%
# What lies to the left of the dashed line is smaller than the original, or faster. Weights that are zero, or one of 16
# values, take less room in the file, and are multiplied like any others. Without some of its filters, as a product of
# smaller layers, or in integers of 8 bits, the network has less to do.

# sphinx_gallery_thumbnail_number = 1
origins = dict.fromkeys(list(models)[1:], "original")
CompressionDisplay.from_estimators(models, X_test, y_test, origins=origins, n_repeats=10)
plt.show()

# %%
# ``footprint_`` has it as a table, with what was counted: parameters, those that are not zero, and multiply-accumulates
# of one picture. The agreement is the share of pictures of the fit of which both say the same.

for name in ("pruned weights", "pruned filters"):
    print(name)
    print(models[name].footprint_)
    print()

# %%
# How much can go
# ---------------
#
# Small weights do little: a network without them is closer to what it was than one without as many of any size.
# Training brings some of the rest back. In all three cases the last layer, which gives the classes, is fitted anew to
# what the layers in front of it still say; that alone makes up for much.

amounts = [0.8, 0.9, 0.95, 0.98]
ways = {
    "small weights, then trained": {"max_epochs": 4},
    "small weights": {"max_epochs": 0},
    "any weights": {"max_epochs": 0, "criterion": "random", "random_state": 0},
}
pruned = {
    way: [PrunedClassifier(frozen, freeze_depth=0, amount=amount, **settings).fit(X, y) for amount in amounts]
    for way, settings in ways.items()
}

left = [100 * (1 - amount) for amount in amounts]
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for way, networks in pruned.items():
    ax.plot(left, [network.score(X_test, y_test) for network in networks], "o-", label=way)
ax.axhline(original.score(X_test, y_test), color="0.45", linestyle="--", linewidth=1, label="original")
ax.set(xlabel="weights left (%)", ylabel="accuracy", xscale="log", xlim=(22, 1.8))
ax.set_xticks(left, [f"{share:.3g}" for share in left])
ax.minorticks_off()
fig.legend(loc="outside lower center", ncols=4, fontsize=9)
ax.grid(alpha=0.3)
plt.show()

# %%
# What is forgotten
# -----------------
#
# An accuracy says how many pictures are lost, and not which. Without 98 % of the weights, some digits suffer more than
# others: of each, the share that is recognised.

before, after = original.predict(X_test), pruned["small weights, then trained"][-1].predict(X_test)
print("          " + "".join(f"{digit:6d}" for digit in range(10)))
for name, labels in {"original": before, "2 % left": after}.items():
    print(f"{name:10s}" + "".join(f"{np.mean(labels[y_test == digit] == digit):6.2f}" for digit in range(10)))

# %%
# And some of those that the original recognises, and the pruned network does not:

forgotten = np.flatnonzero((before == y_test) & (after != y_test))
fig, axes = plt.subplots(2, 7, figsize=(9, 3.2), layout="constrained")
for ax, row in zip(axes.flat, forgotten, strict=False):
    ax.imshow(X_test[row].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"{before[row]}, now {after[row]}", fontsize=10)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# One after the other
# -------------------
#
# A compressor may stand around another one. From the inside: smaller layers first, then fewer weights in them, then
# fewer values for these. int8 and codebooks come last, since what is rounded cannot be trained any further.

stack = LowRankClassifier(frozen, freeze_depth=0, rank=0.3)
stack = PrunedClassifier(stack, freeze_depth=0, amount=0.5)
stack = QuantizedClassifier(stack, freeze_depth=0, scheme="codebook").fit(X, y)
CompressionDisplay.from_estimator(stack, X_test, y_test, n_repeats=10)
plt.show()

# %%
# The user guide, :doc:`/compression`, says which way saves what, and where it does not.
