"""
Comparing layers of a pretrained network
========================================

Early layers of a pretrained network respond to edges and textures, late layers to
shapes and objects. Which layer has the best features for a linear model depends on the
images. In sktl, ``layers`` is a hyperparameter like any other, and a grid search
compares the layers by cross-validation. The search is fast because the features of each
layer are cached.
"""

# %%
# Tiny crops and larger crops
# ---------------------------
#
# The function :func:`~sktl.datasets.make_image_folder` writes crops of the two sample
# images that ship with scikit-learn into a folder with one subfolder per class. We
# create two folders: one with crops of 4 to 8 pixels, which show little more than color
# and texture, and one with crops of 16 to 32 pixels, which show shapes.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder

temporary = TemporaryDirectory()
datasets = {}
for size in [(4, 8), (16, 32)]:
    name = f"{size[0]} to {size[1]} pixels"
    folder = make_image_folder(f"{temporary.name}/{size[1]}", n_samples=300, size=size)
    datasets[name] = load_image_folder(folder, return_X_y=True)

fig, axes = plt.subplots(2, 9, figsize=(8, 2.4), layout="constrained")
for row, (name, (X, y)) in zip(axes, datasets.items(), strict=True):
    row[0].set_ylabel(name, fontsize=9)
    for ax, index in zip(row, range(5, 300, 35), strict=True):
        ax.imshow(Image.open(X["image"][index]))
        ax.set(xticks=[], yticks=[])
        ax.set_title(y[index], fontsize=9)
plt.show()

# %%
# Grid search over the layers
# ---------------------------
#
# The network ``sktl_mini`` has five stages, from ``"stem"`` to ``"layer4"``. A list of
# names concatenates the features of several stages. As a baseline, we fit the same
# linear model on the raw pixels of the crops, resized to 8 × 8 pixels.

stages = ["stem", "layer1", "layer2", "layer3", "layer4"]
grid = {"pretrainedfeatureextractor__layers": [*stages, ["layer2", "layer4"]]}
pipe = make_pipeline(PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
cv = StratifiedKFold(5, shuffle=True, random_state=0)

searches, baselines = {}, {}
for name, (X, y) in datasets.items():
    searches[name] = GridSearchCV(pipe, grid, cv=cv).fit(X, y)
    pixels = [np.ravel(Image.open(path).resize((8, 8))) for path in X["image"]]
    baselines[name] = cross_val_score(pipe[1:], pixels, y, cv=cv).mean()
    print(f"{name:15s} best layers: {searches[name].best_params_['pretrainedfeatureextractor__layers']}")

# %%
# Accuracy of each layer
# ----------------------
#
# The error bars are standard errors over the folds.

# sphinx_gallery_thumbnail_number = 2
fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for color, name in zip(["C0", "C1"], datasets, strict=True):
    results = searches[name].cv_results_
    ax.errorbar(
        [*stages, "layer2\n+ layer4"],
        results["mean_test_score"],
        yerr=results["std_test_score"] / np.sqrt(5),
        fmt="o-",
        color=color,
        capsize=4,
        label=name,
    )
    ax.axhline(baselines[name], color=color, linestyle="--", label=f"{name}, raw pixels")
ax.set(xlabel="layers", ylabel="accuracy (5-fold)")
ax.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.2))
plt.show()

# %%
# All layers are better than raw pixels. The best layer differs: in tiny crops, the
# early layers have the best features, and the accuracy falls towards the last layer. In
# larger crops, the accuracy rises with depth. Crops of the same image overlap, so all
# scores are optimistic, but they can be compared.

temporary.cleanup()
