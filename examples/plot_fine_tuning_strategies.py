"""
Strategies of fine-tuning
=========================

A pretrained network can be adapted in many ways: train the head alone, or some stages with it; start the head at
random, or from a linear probe; let all learn at once, or one stage after the other; at one rate, or slower towards the
input. Each of these is a parameter. Here are five ways, on the same pictures.
"""

# %%
# 300 digits to learn from
# ------------------------

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sktl import FineTunedClassifier
from sktl.inspection import TrainingCurveDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, train_size=300, stratify=y, random_state=0)

strategies = {
    "head alone,\nfrom a probe": {"freeze_depth": "all"},
    # a random head has far to go: it learns ten times as fast, the last stage as it does elsewhere
    "last stage,\nrandom head": {"freeze_depth": -1, "head_init": "random", "lr": 5e-3, "lr_decay": 0.05},
    "last stage,\nfrom a probe": {"freeze_depth": -1},
    "three stages,\none by one": {"freeze_depth": -3, "unfreeze_every": 2},
    "all stages,\nat a tenth": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
}

# %%
# Five seeds would be better than one; for a picture of how they learn, one will do.

models = {
    name: FineTunedClassifier(max_epochs=8, random_state=0, **params).fit(
        X_train, y_train, X_val=X_test[:500], y_val=y_test[:500]
    )
    for name, params in strategies.items()
}

# %%
# The first epochs
# ----------------
#
# A random head has to find its classes first, and sends large gradients through features that are good already. After a
# linear probe the network starts from the best that its frozen features can do, and goes on from there (LP-FT, Kumar et
# al. 2022).

# sphinx_gallery_thumbnail_number = 1
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, model in models.items():
    ax.plot(range(1, 9), model.history_[:, "valid_loss"], marker="o", markersize=3, label=name)
ax.set(xlabel="epoch", ylabel="loss on 500 other digits", yscale="log")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()

# %%
# What they reach
# ---------------

fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
scores = [model.score(X_test[500:], y_test[500:]) for model in models.values()]
seconds = [sum(model.history_[:, "dur"]) for model in models.values()]
ax.plot(scores, list(models), "o")
for row, (score, time) in enumerate(zip(scores, seconds, strict=True)):
    ax.annotate(f"{score:.3f}, {time:.1f} s of training", (score, row), (8, 0), textcoords="offset points", va="center")
ax.set(xlabel="accuracy on the other digits", xlim=(0.92, 1.0))
ax.invert_yaxis()
plt.show()

# %%
# Stop in time
# ------------
#
# With ``early_stopping`` a part of the rows is set aside, and the best epoch's weights are kept. The untouched start,
# epoch 0, is one of the candidates.

model = FineTunedClassifier(max_epochs=30, early_stopping=True, n_iter_no_change=3, random_state=0).fit(
    X_train, y_train
)
TrainingCurveDisplay.from_estimator(model)
plt.show()
