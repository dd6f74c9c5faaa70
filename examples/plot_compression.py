"""
Compressing a network
=====================

A trained network can be made smaller by pruning, low-rank factorization and
quantization. Some methods reduce the file size, some the prediction time and some both,
usually at a small loss of accuracy. This example applies five methods to one network
and compares them.
"""

# %%
# A fine-tuned network
# --------------------
#
# The images are crops of the two sample images that ship with scikit-learn, with sides
# of 16 to 32 pixels, in six classes. The original network is ``sktl_mini`` with
# fine-tuned last stages.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sktl import FineTunedClassifier
from sktl.compression import LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.datasets import load_image_folder, make_image_folder
from sktl.inspection import CompressionDisplay

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=900, size=(16, 32))
X, y = load_image_folder(folder, return_X_y=True, as_frame=False)
X, X_test, y, y_test = train_test_split(X[:, 0], y, train_size=300, stratify=y, random_state=0)

original = FineTunedClassifier(
    freeze_depth=-2, preprocessing={"resize_size": 32, "crop_size": 32}, max_epochs=10, random_state=0
).fit(X, y)

# %%
# Five methods
# ------------
#
# A :class:`~sklearn.frozen.FrozenEstimator` prevents the original from being fitted
# again. Frozen stages are not compressed, so we set ``freeze_depth=0`` to compress all
# stages. All methods except int8 quantization fine-tune the compressed network for five
# epochs.

frozen = FrozenEstimator(original)
models = {
    "pruned weights": PrunedClassifier(frozen, freeze_depth=0, amount=0.9),
    "pruned filters": PrunedClassifier(frozen, freeze_depth=0, granularity="filter", amount=0.4),
    "low rank": LowRankClassifier(frozen, freeze_depth=0, rank=0.3),
    "codebook": QuantizedClassifier(frozen, freeze_depth=0, scheme="codebook", bits=4),
    "int8": QuantizedClassifier(frozen, freeze_depth=0, scheme="int8", random_state=0),
}
models = {"original": original, **{name: model.fit(X, y) for name, model in models.items()}}

# %%
# Networks to the left of the dashed line are smaller or faster than the original. All
# methods reduce the file size. Pruned weights and codebooks of 16 values do not reduce
# the time, because zeros and repeated values are multiplied like other weights. Pruned
# filters, low-rank factors and int8 arithmetic need fewer or cheaper operations; the
# time they save depends on the processor.

origins = dict.fromkeys(list(models)[1:], "original")
CompressionDisplay.from_estimators(models, X_test, y_test, origins=origins, n_repeats=10)
plt.show()

# %%
# The attribute ``footprint_`` is a table of the costs: parameters, nonzero parameters
# and multiply-accumulates per image. Agreement is the share of training images for
# which both networks predict the same class.

for name in ("pruned weights", "pruned filters"):
    print(name)
    print(models[name].footprint_)
    print()

# %%
# Accuracy and sparsity
# ---------------------
#
# Weights of small magnitude contribute little to the output. We compare pruning the
# smallest weights with pruning random weights, and with fine-tuning the pruned network.
# In all three cases, the head is fitted again to the features of the pruned network.

amounts = [0.8, 0.9, 0.95, 0.98]
settings = {
    "smallest weights, fine-tuned": {"max_epochs": 4},
    "smallest weights": {"max_epochs": 0},
    "random weights": {"max_epochs": 0, "criterion": "random", "random_state": 0},
}
pruned = {
    name: [PrunedClassifier(frozen, freeze_depth=0, amount=amount, **params).fit(X, y) for amount in amounts]
    for name, params in settings.items()
}

remaining = [100 * (1 - amount) for amount in amounts]
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, networks in pruned.items():
    scores = [network.score(X_test, y_test) for network in networks]
    ax.plot(remaining, scores, "o-", label=name)
ax.axhline(original.score(X_test, y_test), color="0.45", linestyle="--", linewidth=1, label="original")
ax.set(xlabel="remaining weights (%)", ylabel="accuracy", xscale="log", xlim=(22, 1.8))
ax.set_xticks(remaining, [f"{share:.3g}" for share in remaining])
ax.minorticks_off()
fig.legend(loc="outside lower center", ncols=4, fontsize=9)
ax.grid(alpha=0.3)
plt.show()

# %%
# The network loses less accuracy if the smallest weights are removed instead of random
# weights. Fine-tuning recovers about one point if 10 % of the weights remain, and
# nothing if 2 % remain.
#
# Accuracy of each class
# ----------------------
#
# Compression does not affect all classes equally. The table shows the recall of each
# class with all weights and with 2 % of the weights. The pagoda and the trees lose the
# most.

before, after = original.predict(X_test), pruned["smallest weights, fine-tuned"][-1].predict(X_test)
print(f"{'':14s}" + "".join(f"{label:>8s}" for label in original.classes_))
for name, predicted in {"original": before, "2 % of weights": after}.items():
    recall = [np.mean(predicted[y_test == label] == label) for label in original.classes_]
    print(f"{name:14s}" + "".join(f"{share:8.2f}" for share in recall))

# %%
# The following images are classified correctly by the original network and wrongly by
# the pruned network.

# sphinx_gallery_thumbnail_number = 3
forgotten = np.flatnonzero((before == y_test) & (after != y_test))
fig, axes = plt.subplots(2, 5, figsize=(8, 3.8), layout="constrained")
for ax, row in zip(axes.flat, forgotten, strict=False):
    ax.imshow(Image.open(X_test[row]))
    ax.set_title(f"{before[row]} → {after[row]}", fontsize=10)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# Combining methods
# -----------------
#
# A compressor can take another compressor as its estimator. Here, low-rank
# factorization is followed by weight pruning and a codebook. Quantization comes last
# because a quantized network cannot be fine-tuned.

stack = LowRankClassifier(frozen, freeze_depth=0, rank=0.3)
stack = PrunedClassifier(stack, freeze_depth=0, amount=0.5)
stack = QuantizedClassifier(stack, freeze_depth=0, scheme="codebook").fit(X, y)
CompressionDisplay.from_estimator(stack, X_test, y_test, n_repeats=10)
plt.show()

# %%
# The user guide describes each method and its limits: :doc:`/compression`.

temporary.cleanup()
