"""
Comparing fine-tuning strategies
================================

A pretrained network can be adapted in many ways: train the head alone or some stages
with it, initialize the head at random or with a linear probe, train all stages at once
or unfreeze one after the other, use one learning rate or lower rates towards the input.
Each choice is a parameter of :class:`~sktl.FineTunedClassifier`. This example compares
five strategies on the same images.
"""

# %%
# A folder of small images
# ------------------------
#
# The images are crops of the two sample images that ship with scikit-learn, with sides
# of 16 to 32 pixels: 300 for training, 300 for validation and 300 for testing.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from sktl import FineTunedClassifier
from sktl.datasets import load_image_folder, make_image_folder
from sktl.inspection import TrainingCurveDisplay

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=900, size=(16, 32))
X, y = load_image_folder(folder, return_X_y=True)
X_train, X_other, y_train, y_other = train_test_split(X, y, train_size=300, stratify=y, random_state=0)
X_val, X_test, y_val, y_test = train_test_split(X_other, y_other, train_size=300, stratify=y_other, random_state=0)

# %%
# Five strategies
# ---------------
#
# The learning rate ``lr`` applies to the head, and ``lr_decay`` reduces it for the
# stages. A random head needs a higher learning rate than a head that starts from a
# linear probe.

strategies = {
    "head only,\nlinear probe": {"freeze_depth": "all"},
    "last stage,\nrandom head": {"freeze_depth": -1, "head_init": "random", "lr": 5e-3, "lr_decay": 0.05},
    "last stage,\nlinear probe": {"freeze_depth": -1},
    "three stages,\ngradually": {"freeze_depth": -3, "unfreeze_every": 2},
    "all stages,\nlow rate": {"freeze_depth": 0, "lr": 5e-5, "lr_decay": 1.0},
}
models = {
    name: FineTunedClassifier(max_epochs=8, random_state=0, **params).fit(X_train, y_train, X_val=X_val, y_val=y_val)
    for name, params in strategies.items()
}

# %%
# Validation loss
# ---------------
#
# A random head starts with a high loss, and its first gradients also change the
# pretrained features. A head that is initialized with a linear probe starts with a low
# loss (LP-FT, Kumar et al. 2022). All strategies that train stages end with a lower
# loss than the head alone.

# sphinx_gallery_thumbnail_number = 1
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, model in models.items():
    ax.plot(range(1, 9), model.history_[:, "valid_loss"], marker="o", label=name)
ax.set(xlabel="epoch", ylabel="validation loss", yscale="log")
ax.set_yticks([0.15, 0.2, 0.3, 0.5], ["0.15", "0.2", "0.3", "0.5"])
ax.minorticks_off()
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), labelspacing=1)
plt.show()

# %%
# Accuracy and training time
# --------------------------

seconds = [sum(model.history_[:, "dur"]) for model in models.values()]
scores = [model.score(X_test, y_test) for model in models.values()]
fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
bars = ax.barh(list(models), seconds, color=[f"C{index}" for index in range(5)])
ax.bar_label(
    bars, [f"{time:.1f} s, accuracy {score:.3f}" for time, score in zip(seconds, scores, strict=True)], padding=4
)
ax.set(xlabel="training time (s)")
ax.margins(x=0.4)
ax.invert_yaxis()
plt.show()

# %%
# The strategies that train stages have the same accuracy. The head alone is less than
# one point below, which may be chance with 300 test images, and takes a small fraction
# of the time. Training all stages takes the longest.

# %%
# Early stopping
# --------------
#
# With ``early_stopping``, a share of the rows is held out, training stops when the
# validation loss no longer decreases, and the weights of the best epoch are kept. Epoch
# 0 is the network before training.

model = FineTunedClassifier(max_epochs=30, early_stopping=True, n_iter_no_change=3, random_state=0).fit(
    X_train, y_train
)
TrainingCurveDisplay.from_estimator(model)
plt.show()

temporary.cleanup()
