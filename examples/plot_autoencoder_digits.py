"""
Codes of digits: PCA and autoencoders
=====================================

An autoencoder learns to describe each image by a few numbers, its code, from which the
image can be reconstructed. Principal component analysis (PCA) does the same with linear
maps. :class:`~sktl.autoencoders.Autoencoder` starts as PCA and improves on it with
nonlinear layers. This example compares both on handwritten digits, plots codes of two
numbers, fills in missing pixels, and draws new digits.
"""

# %%
# Reconstruction error
# --------------------
#
# The digits of scikit-learn have 8 × 8 pixels. We fit both models for codes of several
# lengths and compute the mean squared error of digits that they have not seen.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer

from sktl.autoencoders import Autoencoder
from sktl.inspection import EmbeddingDisplay, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X = X / 16  # from 0-16 to 0-1
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, random_state=0)

lengths = [2, 4, 8, 16, 32]
pcas = {length: PCA(length).fit(X_train) for length in lengths}
autoencoders = {length: Autoencoder(length, random_state=0).fit(X_train) for length in lengths}


def error(model):
    """Return the mean squared error of the reconstruction of the test digits."""
    return np.mean((model.inverse_transform(model.transform(X_test)) - X_test) ** 2)


fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.plot(lengths, [error(pcas[length]) for length in lengths], "o-", label="PCA")
ax.plot(lengths, [error(autoencoders[length]) for length in lengths], "o-", label="Autoencoder")
ax.set(xscale="log", yscale="log", xlabel="length of the code", ylabel="mean squared error")
ax.set_xticks(lengths, [str(length) for length in lengths])
ax.set_yticks([0.003, 0.01, 0.03], ["0.003", "0.01", "0.03"])
ax.minorticks_off()
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %%
# Reconstructions
# ---------------
#
# With four numbers per digit, PCA returns blurred digits, and some are unreadable. The
# rows show the digits, their reconstructions, and the squared errors.

for model in (pcas[4], autoencoders[4]):
    display = ReconstructionDisplay.from_estimator(model, X_test, n_images=10)
    display.figure_.suptitle(type(model).__name__)
plt.show()

# %%
# Codes of two numbers
# --------------------
#
# Codes of two numbers can be plotted; the ``FunctionTransformer`` leaves them as they
# are. Neither model has seen the labels, which only color the points. The classes
# overlap less in the codes of the autoencoder.

# sphinx_gallery_thumbnail_number = 4
fig, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for ax, model in zip(axes, (pcas[2], autoencoders[2]), strict=True):
    codes = model.transform(X_test)
    EmbeddingDisplay.from_features(
        codes, y_test, X_test, method=FunctionTransformer(), ax=ax, max_thumbnails=15, thumbnail_size=20
    )
    neighbors = KNeighborsClassifier(15).fit(model.transform(X_train), y_train)
    ax.set(xlabel="first number", ylabel="second number")
    ax.set_title(f"{type(model).__name__}: nearest neighbors classify {neighbors.score(codes, y_test):.0%}")
plt.show()

# %%
# Not for classification
# ----------------------
#
# Short codes are for plots and storage. As features for a classifier, they are not
# better than the pixels themselves: a code keeps what is needed to reconstruct an
# image, and not what distinguishes the classes.

tables = {"64 pixels": (X_train, X_test)}
for name, models in {"PCA": pcas, "Autoencoder": autoencoders}.items():
    tables[f"16 numbers of {name}"] = models[16].transform(X_train), models[16].transform(X_test)
for name, (train, test) in tables.items():
    accuracy = LogisticRegression(max_iter=1000).fit(train[:200], y_train[:200]).score(test, y_test)
    print(f"{name:26s} accuracy with 200 labels: {accuracy:.3f}")

# %%
# Missing pixels
# --------------
#
# NaN stands for entries that were not observed. With ``noise="masking"``, the
# autoencoder learns to predict entries that are hidden from it. Here, a third of the
# pixels is missing at random. For comparison, we fill in the mean of each pixel, and
# the mean of the nearest neighbors of each digit.

rng = np.random.default_rng(0)
is_hidden = rng.random(X_test.shape) < 1 / 3
X_holes = np.where(is_hidden, np.nan, X_test)
model = Autoencoder(32, noise="masking", noise_level=0.33, random_state=0).fit(X_train)
filled = {
    "mean of the pixel": np.broadcast_to(X_train.mean(axis=0), X_test.shape),
    "nearest neighbors": KNNImputer().fit(X_train).transform(X_holes),
    "autoencoder": model.reconstruct(X_holes),
}
for name, values in filled.items():
    print(f"{name:18s} mean squared error of missing pixels: {np.mean((values - X_test)[is_hidden] ** 2):.3f}")

fig, axes = plt.subplots(3, 10, figsize=(8, 2.7), layout="constrained")
for row, images in zip(axes, (X_test, X_holes, filled["autoencoder"]), strict=True):
    for ax, image in zip(row, images, strict=False):
        ax.imshow(np.ma.masked_invalid(image.reshape(8, 8)), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], facecolor="#f2c14e")
for ax, label in zip(axes[:, 0], ("digits", "given", "filled in"), strict=True):
    ax.set_ylabel(label, fontsize=9)
plt.show()

# %%
# With this few rows, nearest neighbors are better than the autoencoder. Their time grows
# with the number of training rows, which they need for every prediction.
#
# New digits
# ----------
#
# The method ``sample`` draws codes from a Gaussian mixture that is fitted to the codes
# of the training digits, and decodes them.

fig, axes = plt.subplots(2, 10, figsize=(8, 1.8), layout="constrained")
for ax, image in zip(axes.flat, autoencoders[16].sample(20, random_state=0), strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set_axis_off()
plt.show()
