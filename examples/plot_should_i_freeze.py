"""
Should I freeze?
================

A pretrained network can be left as it is, with a new head on it; its last stages can go on learning, or all of it; or
it may be of no use at all. Which of these suits depends on how many pictures there are, and on how near they are to
those that the network knows. :func:`~sktl.selection.recommend_strategy` looks at both and says what to do. Here its
advice is followed, and everything else is tried as well.
"""

# %%
# Near and far, few and many
# --------------------------
#
# ``sktl_mini`` learnt from photos, paintings and drawings. The near pictures are cut out of a photo, turned and
# mirrored at random, and the question is which quarter of it each comes from: NW, at the upper left, to SE. Those to
# judge by are other cuts of the same photo, and may overlap with those to learn from. The far pictures are digits, 5 to
# 9. Of both there are few, ten of each class, or many, a hundred.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier
from sktl.exceptions import TransferWarning
from sktl.inspection import GradCAMDisplay
from sktl.selection import recommend_strategy

photo = Image.fromarray(load_sample_image("china.jpg"))
quarters = ["NW", "NE", "SW", "SE"]


def cut_out(n, random):
    """Squares of 32 to 64 pixels that lie within one quarter, all made 64 pixels wide."""
    width, height = photo.width // 2, photo.height // 2
    X, y = [], []
    for number in range(n):
        side = random.integers(32, 65)
        left = random.integers(width - side + 1) + width * (number % 2)
        top = random.integers(height - side + 1) + height * (number // 2 % 2)
        square = np.rot90(photo.resize((64, 64), box=(left, top, left + side, top + side)), random.integers(4))
        X.append(square[:, ::-1] if random.integers(2) else square)
        y.append(quarters[number % 4])
    return np.stack(X), np.array(y)


def some(y, n, first=0):
    """Rows of n pictures of each class."""
    return np.concatenate([np.flatnonzero(y == label)[first : first + n] for label in np.unique(y)])


photos, names = cut_out(800, np.random.default_rng(0))
digits, labels = load_digits(return_X_y=True)
digits, labels = digits[labels > 4] / 16, labels[labels > 4]
problems = {
    "near: a photo's quarters": train_test_split(photos, names, train_size=400, stratify=names, random_state=0),
    "far: digits": train_test_split(digits, labels, train_size=550, stratify=labels, random_state=0),
}

fig, axes = plt.subplots(2, 8, figsize=(8, 2.5), layout="constrained")
for row, (X, _, y, _) in zip(axes, problems.values(), strict=True):
    for ax, picture, label in zip(row, X, y, strict=False):
        ax.imshow(picture.reshape(8, 8) if picture.ndim == 1 else picture, cmap="gray")
        ax.set_title(label, fontsize=8)
        ax.axis("off")
plt.show()

# %%
# Ask for advice
# --------------
#
# It takes one pass over the pictures and a few linear models. The page says what to do, in which cell of the table the
# pictures are, and what for. Of few near pictures:

amounts = {"few": 10, "many": 100}
advice = {}
for kind, (X, _, y, _) in problems.items():
    for amount, n in amounts.items():
        rows = some(y, n)
        advice[kind, amount] = recommend_strategy(X[rows], y[rows])

advice["near: a photo's quarters", "few"]

# %%
# And of many far ones:

advice["far: digits", "many"]

# %%
# Try everything
# --------------
#
# ``advice.params`` are ready for ``FineTunedClassifier(**advice.params)``. Here each way is tried in each cell, next to
# a linear model of the pixels. Of few pictures there are two draws, for chance has a great part in what is learnt from
# them; many are gone over but three times, which is enough to see where it leads.

ways = {
    "no_transfer": None,  # a linear model of the pixels
    "freeze_all": {"freeze_depth": "all"},
    "last_stages": {"freeze_depth": -2},
    "train_all": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
}


def as_pixels(X):
    """Rows of pixels, of photos 16 × 16 means."""
    return X if X.ndim == 2 else X.reshape(-1, 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(X), -1)


def accuracy(way, X, X_test, y, y_test, max_epochs):
    """What one way reaches on other pictures."""
    if way == "no_transfer":
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000))
        return model.fit(as_pixels(X), y).score(as_pixels(X_test), y_test)
    return FineTunedClassifier(max_epochs=max_epochs, random_state=0, **ways[way]).fit(X, y).score(X_test, y_test)


reached = {}
for kind, (X, X_test, y, y_test) in problems.items():
    for way in ways:
        draws = [some(y, 10, first) for first in (0, 10)]
        scores = [accuracy(way, X[rows], X_test, y[rows], y_test, max_epochs=6) for rows in draws]
        reached[kind, "few", way] = np.mean(scores)
        rows = some(y, 100)
        reached[kind, "many", way] = accuracy(way, X[rows], X_test, y[rows], y_test, max_epochs=3)

# %%
# The ring marks what was advised:

# sphinx_gallery_thumbnail_number = 2
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained", sharey=True)
for ax, kind in zip(axes, problems, strict=True):
    for amount, color, height in [("few", "C1", 10), ("many", "C0", -16)]:
        scores = [reached[kind, amount, way] for way in ways]
        ax.plot(scores, range(len(ways)), "o", color=color, label=f"{amount} pictures")
        row = list(ways).index(advice[kind, amount].strategy)
        ax.plot(scores[row], row, "o", color=color, markersize=13, fillstyle="none")
        for place, score in enumerate(scores):
            ax.annotate(
                f"{score:.3f}", (score, place), (0, height), textcoords="offset points", ha="center", fontsize=8
            )
    ax.set(title=kind, xlabel="accuracy on other pictures", ylim=(3.6, -0.5))
    ax.margins(x=0.12)
    ax.grid(axis="x", alpha=0.3)
axes[0].set_yticks(range(len(ways)), ["pixels alone", "freeze all", "train the last two", "train all"])
axes[0].legend(fontsize=9, loc="upper right")
plt.show()

# %%
# Near, to transfer at all is the great step, ten points and more, and what is done then is about one or two. Far,
# pixels say much by themselves, and a frozen network adds little to that. Of many pictures, training brings something
# that the frozen stages do not give, on both sides. To train all stages takes twice as long as the last two; here it is
# half a point ahead on one side, two pictures of 400, and behind on the other.
#
# With few pictures the advice is not the best: near ones gain two points where stages learn, and far ones would better
# have been left frozen, by one. Two draws of forty or fifty pictures can hardly tell such ways apart, and a rule drawn
# from other sets of pictures (:doc:`/choosing`) cannot know. It is a start that costs seconds. Where points count,
# search over ``freeze_depth``, as in :ref:`sphx_glr_auto_examples_plot_freeze_depth.py`. How far each advice is below
# the best of its cell:

for kind, amount in advice:
    advised = advice[kind, amount].strategy
    best = max(ways, key=lambda way: reached[kind, amount, way])
    behind = reached[kind, amount, best] - reached[kind, amount, advised]
    print(f"{kind.partition(':')[0]:5s}{amount:5s} advice: {advised:12s} best: {best:12s} {behind:.3f} below")

# %%
# In one word
# -----------
#
# ``freeze_depth="auto"`` does what the table says when the estimator is fitted, by the number of pictures and their
# distance alone: no earlier stage is taken, and nobody asks the pixels.

for kind, (X, _, y, _) in problems.items():
    for amount, n in amounts.items():
        rows = some(y, n)
        model = FineTunedClassifier(freeze_depth="auto", max_epochs=0).fit(X[rows], y[rows])
        print(f"{kind.partition(':')[0]:5s}{amount:5s} {model.freeze_depth_} of 5 stages frozen")

# %%
# Where it looks
# --------------
#
# The two stages that learnt from many near pictures get some of them wrong. The places that spoke for the wrong quarter
# are roofs and trees as a rule, and these look alike on both sides of a border that only the question draws.

X, X_test, y, y_test = problems["near: a photo's quarters"]
model = FineTunedClassifier(max_epochs=3, random_state=0, **advice["near: a photo's quarters", "many"].params).fit(X, y)
wrong = model.predict(X_test) != y_test
GradCAMDisplay.from_estimator(model, X_test[wrong], y=y_test[wrong], n_photos=6)
plt.show()

# %%
# When not to transfer
# --------------------
#
# Noise, in which the brightness of one place says what it is: what a network knows of edges and shapes is of no use
# for that, and its features are means over all places, while a linear model of the pixels sees it at once. The
# advice is not to transfer, and comes with a warning:

random = np.random.default_rng(0)
X, y = random.random((500, 64)), np.arange(500) % 2
X[:, 3] = 0.2 + 0.6 * y
X, X_test, y, y_test = X[:300], X[300:], y[:300], y[300:]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", TransferWarning)
    hopeless = recommend_strategy(X, y)
print(hopeless.strategy)
print(*(str(said.message) for said in caught))

# %%
# On other pictures it holds:

for way in ("no_transfer", "freeze_all"):
    print(f"{way:12s}{accuracy(way, X, X_test, y, y_test, max_epochs=3):.3f}")
