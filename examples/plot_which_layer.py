"""
Which layer?
============

Early stages of a pretrained network see edges and textures, late ones objects. Which of them serves best depends on how
near your pictures are to those that the network was trained on. For sktl this is an ordinary hyper-parameter: a grid
search over ``layers`` runs the network over each picture about once, since every stage that it passes is kept.
"""

# %%
# A small problem: 300 handwritten digits
# ---------------------------------------
#
# Rows of 64 pixels, as scikit-learn has them: pictures of 8 × 8.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor

X, y = load_digits(return_X_y=True)
X, _, y, _ = train_test_split(X / 16, y, train_size=300, stratify=y, random_state=0)

fig, axes = plt.subplots(1, 10, figsize=(8, 1), layout="constrained")
for ax, row, label in zip(axes, X, y, strict=False):
    ax.imshow(row.reshape(8, 8), cmap="gray")
    ax.set_title(str(label), fontsize=9)
    ax.axis("off")

# %%
# Search over the stages
# ----------------------
#
# Stages have names, read from the network; the last candidate joins two of them.

stages = ["stem", "layer1", "layer2", "layer3", "layer4"]
pipe = make_pipeline(PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
cv = StratifiedKFold(5, shuffle=True, random_state=0)
search = GridSearchCV(pipe, {"pretrainedfeatureextractor__layers": [*stages, ["layer2", "layer4"]]}, cv=cv).fit(X, y)
print(search.best_params_)

# %%
# How far each stage gets
# -----------------------
#
# For comparison: the same model on the raw pixels.

pixels = cross_val_score(make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)), X, y, cv=cv).mean()
names = [*stages, "layer2\n+ layer4"]
scores = search.cv_results_["mean_test_score"]

# sphinx_gallery_thumbnail_number = 2
fig, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
ax.errorbar(names, scores, yerr=search.cv_results_["std_test_score"], fmt="o", capsize=4, label="features of sktl_mini")
ax.axhline(pixels, color="tab:gray", linestyle="--", label="raw pixels")
ax.set_ylabel("accuracy (5-fold)")
ax.set_xlabel("layers=")
ax.legend(loc="lower right")
plt.show()
