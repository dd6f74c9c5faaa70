"""
Should the network be frozen?
=============================

A pretrained network can be frozen below a new head, its last stages can be fine-tuned,
or all of it. The best strategy depends on the number of images and on their similarity
to the pretraining images. :func:`~sktl.selection.recommend_strategy` estimates both and
recommends a strategy. This example compares the recommendation with the accuracy of all
strategies.
"""

# %%
# Four problems: near and far, few and many
# -----------------------------------------
#
# ``sktl_mini`` was pretrained on photographs, paintings and drawings. The near images
# are small crops of photographs, in four classes. The far images are handwritten digits
# from 5 to 9. Of each, we use ten images per class, or a hundred.

import warnings
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier
from sktl.datasets import load_image_folder, make_image_folder
from sktl.exceptions import TransferWarning
from sktl.inspection import GradCAMDisplay
from sktl.selection import recommend_strategy

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=900, size=(8, 16))
paths, names = load_image_folder(folder, return_X_y=True, as_frame=False)
paths = paths[:, 0]
is_hard = ~np.isin(names, ["sky", "water"])  # the other four classes are harder
digits, labels = load_digits(return_X_y=True)
is_high = labels > 4
problems = {
    "near: crops": train_test_split(
        paths[is_hard], names[is_hard], train_size=400, stratify=names[is_hard], random_state=0
    ),
    "far: digits": train_test_split(
        digits[is_high] / 16, labels[is_high], train_size=550, stratify=labels[is_high], random_state=0
    ),
}

fig, axes = plt.subplots(2, 8, figsize=(8, 2.5), layout="constrained")
for row, (X, _, y, _) in zip(axes, problems.values(), strict=True):
    for ax, image, label in zip(row, X, y, strict=False):
        ax.imshow(Image.open(image) if isinstance(image, str) else image.reshape(8, 8), cmap="gray")
        ax.set_title(label, fontsize=9)
        ax.axis("off")
plt.show()

# %%
# Recommendations
# ---------------
#
# The recommendation takes one pass over the images and a few linear models. It contains
# the strategy, the parameters of the estimator and the reasons. For few near images:


def subset(y, n, first=0):
    """Return the rows of n images per class."""
    return np.concatenate([np.flatnonzero(y == label)[first : first + n] for label in np.unique(y)])


amounts = {"few": 10, "many": 100}
advice = {}
for kind, (X, _, y, _) in problems.items():
    for amount, n in amounts.items():
        rows = subset(y, n)
        advice[kind, amount] = recommend_strategy(X[rows], y[rows])

advice["near: crops", "few"]

# %%
# For many far images:

advice["far: digits", "many"]

# %%
# Accuracy of all strategies
# --------------------------
#
# We train each strategy on each problem, and a linear model on the pixels as a
# baseline. Results with few images are the mean of two draws. With many images, three
# epochs are enough for this comparison.

strategies = {
    "no_transfer": None,  # a linear model of the pixels
    "freeze_all": {"freeze_depth": "all"},
    "last_stages": {"freeze_depth": -2},
    "train_all": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
}


def to_pixels(X):
    """Return rows of pixels; crops are resized to 8 × 8 pixels."""
    return X if X.ndim == 2 else np.stack([np.ravel(Image.open(path).resize((8, 8))) for path in X])


def accuracy(strategy, X, X_test, y, y_test, max_epochs):
    """Return the accuracy of one strategy on the test set."""
    if strategy == "no_transfer":
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000))
        return model.fit(to_pixels(X), y).score(to_pixels(X_test), y_test)
    model = FineTunedClassifier(max_epochs=max_epochs, random_state=0, **strategies[strategy])
    return model.fit(X, y).score(X_test, y_test)


results = {}
for kind, (X, X_test, y, y_test) in problems.items():
    for strategy in strategies:
        draws = [subset(y, 10, first) for first in (0, 10)]
        scores = [accuracy(strategy, X[rows], X_test, y[rows], y_test, max_epochs=6) for rows in draws]
        results[kind, "few", strategy] = np.mean(scores)
        rows = subset(y, 100)
        results[kind, "many", strategy] = accuracy(strategy, X[rows], X_test, y[rows], y_test, max_epochs=3)

# %%
# A ring marks the recommended strategy.

fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained", sharey=True)
for ax, kind in zip(axes, problems, strict=True):
    for amount, color, offset in [("few", "C1", 10), ("many", "C0", -16)]:
        scores = [results[kind, amount, strategy] for strategy in strategies]
        ax.plot(scores, range(4), "o", color=color, label=f"{amount} images")
        row = list(strategies).index(advice[kind, amount].strategy)
        ax.plot(scores[row], row, "o", color=color, markersize=13, fillstyle="none")
        for row, score in enumerate(scores):
            ax.annotate(f"{score:.3f}", (score, row), (0, offset), textcoords="offset points", ha="center", fontsize=8)
    ax.set(title=kind, xlabel="accuracy on the test set", ylim=(3.6, -0.5))
    ax.margins(x=0.12)
    ax.grid(axis="x", alpha=0.3)
axes[0].set_yticks(range(4), ["pixels only", "freeze all", "train last two", "train all"])
axes[0].legend(fontsize=9, loc="upper right")
plt.show()

# %%
# On the crops, every strategy with transfer is far more accurate than the pixels. With
# many images, fine-tuning the last two stages is one to two points better than freezing
# all stages, on both kinds of images. Training all stages is not better and takes
# longer.
#
# The recommended strategy is the best one for three of the four problems. For few
# digits, it is about one point less accurate than freezing all stages. The rules of the
# recommendation were derived from other datasets (:doc:`/choosing`) and cannot be right
# for all. If accuracy matters, search over ``freeze_depth`` as in
# :ref:`sphx_glr_auto_examples_plot_freeze_depth.py`.

for (kind, amount), recommendation in advice.items():
    best = max(strategies, key=lambda strategy: results[kind, amount, strategy])
    loss = results[kind, amount, best] - results[kind, amount, recommendation.strategy]
    print(f"{kind:12s} {amount:4s}  recommended: {recommendation.strategy:11s}  best: {best:11s}  loss: {loss:.3f}")

# %%
# Automatic freeze depth
# ----------------------
#
# ``freeze_depth="auto"`` chooses the freeze depth in ``fit``, from the number of images
# and their distance from the pretraining images. It does not use an earlier stage and
# does not compare the features with the pixels.

for kind, (X, _, y, _) in problems.items():
    for amount, n in amounts.items():
        rows = subset(y, n)
        model = FineTunedClassifier(freeze_depth="auto", max_epochs=0).fit(X[rows], y[rows])
        print(f"{kind:12s} {amount:4s}  {model.freeze_depth_} of 5 stages frozen")

# %%
# Grad-CAM of the errors
# ----------------------
#
# Grad-CAM highlights the regions of an image that support the predicted class. Here are
# errors of the recommended model that is trained on many near images.

X, X_test, y, y_test = problems["near: crops"]
model = FineTunedClassifier(max_epochs=3, random_state=0, **advice["near: crops", "many"].params).fit(X, y)
is_wrong = model.predict(X_test) != y_test
# sphinx_gallery_thumbnail_number = 3
GradCAMDisplay.from_estimator(model, X_test[is_wrong], y=y_test[is_wrong], n_images=6)
plt.show()

# %%
# When not to transfer
# --------------------
#
# Pretrained features are not always useful. In this problem, the images are noise and
# the class is the brightness of a single pixel. A linear model of the pixels finds that
# pixel; the features are averages over the whole image. The recommendation is not to
# transfer, with a warning.

rng = np.random.default_rng(0)
X, y = rng.random((500, 64)), np.arange(500) % 2
X[:, 3] = 0.2 + 0.6 * y
X, X_test, y, y_test = X[:300], X[300:], y[:300], y[300:]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", TransferWarning)
    print(recommend_strategy(X, y).strategy)
print(*(str(warning.message) for warning in caught))

# %%
# The test set confirms the recommendation:

for strategy in ("no_transfer", "freeze_all"):
    print(f"{strategy:12s}{accuracy(strategy, X, X_test, y, y_test, max_epochs=3):.3f}")

temporary.cleanup()
