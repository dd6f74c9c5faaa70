"""
Searching over the freeze depth
===============================

Fine-tuning usually trains the last stages of a pretrained network and keeps the first
stages frozen. The number of frozen stages, ``freeze_depth``, is a hyperparameter that a
grid search can tune. The search is fast because the outputs of frozen stages are
cached: they are computed once per image and depth, not once per epoch and fold.
"""

# %%
# Crops of photographs and handwritten digits
# -------------------------------------------
#
# We fine-tune ``sktl_mini`` on two datasets of 300 images each: small crops of the two
# sample images that ship with scikit-learn, and handwritten digits.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from sktl import FineTunedClassifier
from sktl.backbones import describe_backbone
from sktl.datasets import load_image_folder, make_image_folder
from sktl.inspection import FreezeDepthDisplay, LayerProbeDisplay, MisclassifiedDisplay

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=600, size=(8, 16))
crops, labels = load_image_folder(folder, return_X_y=True)
digits, numbers = load_digits(return_X_y=True)
datasets = {
    "crops of photographs": train_test_split(crops, labels, train_size=300, stratify=labels, random_state=0),
    "handwritten digits": train_test_split(digits / 16, numbers, train_size=300, stratify=numbers, random_state=0),
}

# %%
# The network has five stages.

describe_backbone("sktl_mini")

# %%
# Linear probes of the stages
# ---------------------------
#
# A linear model on the features of each stage shows how well the pretrained features
# transfer (Yosinski et al. 2014).

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, (name, (X, _, y, _)) in zip(axes, datasets.items(), strict=True):
    LayerProbeDisplay.from_estimator("sktl_mini", X, y, ax=ax)
    ax.set_title(name)
plt.show()

# %%
# On the digits, the accuracy rises up to the last stage: its features are useful as
# they are. On the crops, the accuracy is highest in the middle of the network, so there
# may be something to gain from training the last stages.
#
# Grid search
# -----------
#
# The candidates range from training the head alone (``"all"`` stages are frozen) to
# training the last three stages.

searches = {}
for name, (X, _, y, _) in datasets.items():
    model = FineTunedClassifier(max_epochs=6, random_state=0)
    searches[name] = GridSearchCV(model, {"freeze_depth": ["all", -1, -2, -3]}, cv=3).fit(X, y)

fig, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained", sharey="row", height_ratios=(3, 2))
for column, (name, search) in zip(axes.T, searches.items(), strict=True):
    FreezeDepthDisplay.from_search(search, ax=column)
    column[0].set_title(name)
plt.show()

# %%
# The search agrees with the probes. On the crops, the accuracy rises slightly with each
# stage that is trained. On the digits, training stages does not improve the accuracy,
# and training the head alone is by far the fastest.

for name, (_, X_test, _, y_test) in datasets.items():
    score = searches[name].score(X_test, y_test)
    print(f"{name}: {searches[name].best_params_}, accuracy on the test set: {score:.3f}")

# %%
# The method ``trainable_summary`` of the best estimator lists the trained stages and
# their learning rates.

searches["crops of photographs"].best_estimator_.trainable_summary()

# %%
# Misclassified images
# --------------------
#
# The model confuses trees with the pagoda more than any other classes. The images are
# its most confident errors.

# sphinx_gallery_thumbnail_number = 3
_, X_test, _, y_test = datasets["crops of photographs"]
MisclassifiedDisplay.from_estimator(searches["crops of photographs"], X_test, y_test)
plt.show()

temporary.cleanup()
