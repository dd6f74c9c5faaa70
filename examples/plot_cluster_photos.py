"""
Clustering unlabeled images
===========================

The features of a pretrained network are similar for images with similar content. A
clusterer of scikit-learn can therefore sort a folder of images into groups without any
label. This example finds groups of image crops, compares features with pixels, chooses
the number of clusters, and shows that a few labels are then enough to label all images.
"""

# %%
# A folder of images without labels
# ---------------------------------
#
# The function :func:`~sktl.datasets.make_image_folder` writes 240 crops of the two
# sample images that ship with scikit-learn, of six kinds. We keep the labels aside and
# use them only to check the result.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, normalize

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder
from sktl.inspection import EmbeddingDisplay

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=240)
X, hidden_labels = load_image_folder(folder, return_X_y=True)

fig, axes = plt.subplots(2, 8, figsize=(8, 2.1), layout="constrained")
for ax, row in zip(axes.flat, np.random.default_rng(0).permutation(len(X)), strict=False):
    ax.imshow(Image.open(X["image"][row]))
    ax.set_axis_off()
plt.show()

# %%
# K-means on features
# -------------------
#
# The features are scaled to unit length, so that Euclidean distances depend on the
# angle between two rows only. For comparison, we cluster the pixels of the images,
# resized to 16 × 16. The normalized mutual information (NMI) is 1 if the clusters equal
# the hidden labels, and about 0 if they have nothing to do with them.

pipe = make_pipeline(PretrainedFeatureExtractor(), Normalizer(), KMeans(6, n_init=5, random_state=0))
clusters = pipe.fit_predict(X)
pixels = np.stack([np.ravel(Image.open(path).resize((16, 16))) for path in X["image"]]) / 255

print(f"NMI, features: {normalized_mutual_info_score(hidden_labels, clusters):.2f}")
print(f"NMI, pixels:   {normalized_mutual_info_score(hidden_labels, pipe[-1].fit_predict(pixels)):.2f}")

# %%
# Each row shows the images of one cluster, from the center of the cluster on the left
# to its border on the right. The images on the right are the ones to look at: they are
# unusual for their cluster, or belong to another one.

features = normalize(PretrainedFeatureExtractor().fit_transform(X))  # from the cache
kmeans = KMeans(6, n_init=5, random_state=0).fit(features)
distances = kmeans.transform(features).min(axis=1)

fig, axes = plt.subplots(6, 9, figsize=(7.6, 5.4), layout="constrained")
for cluster, axes_row in enumerate(axes):
    rows = np.flatnonzero(kmeans.labels_ == cluster)
    rows = rows[np.argsort(distances[rows])]
    for ax, row in zip(axes_row, rows[np.linspace(0, len(rows) - 1, 9).astype(int)], strict=True):
        ax.imshow(Image.open(X["image"][row]))
        ax.set(xticks=[], yticks=[])
    axes_row[0].set_ylabel(f"cluster {cluster}\n{len(rows)} images", fontsize=9)
plt.show()

# %%
# How many clusters?
# ------------------
#
# The silhouette score compares the distances within clusters with those to the nearest
# other cluster, and needs no labels. Since the features are cached and k-means is fast,
# we can try many numbers.

numbers = range(2, 13)
fits = [KMeans(number, n_init=5, random_state=0).fit(features) for number in numbers]
scores = [silhouette_score(features, fit.labels_) for fit in fits]
agreement = [normalized_mutual_info_score(hidden_labels, fit.labels_) for fit in fits]

fig, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
ax.plot(numbers, scores, "o-", label="silhouette score, without labels")
ax.plot(numbers, agreement, "o--", color="C1", label="NMI with the hidden labels")
ax.set(xlabel="number of clusters", ylim=(0, 1.05))
ax.set_xticks(numbers)
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %%
# Both curves have their maximum at six clusters.
#
# The clusters in two dimensions
# ------------------------------
#
# :class:`~sktl.inspection.EmbeddingDisplay` plots the first two principal components of
# the features, with some of the images. The colors are the clusters.

# sphinx_gallery_thumbnail_number = 2
names = [f"cluster {cluster}" for cluster in kmeans.labels_]
fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
EmbeddingDisplay.from_features(features, names, X["image"], ax=ax)
plt.show()

# %%
# From clusters to labels
# -----------------------
#
# If we label one image of each cluster, the one nearest to its center, and give its
# label to the whole cluster, all images have a label.

nearest = kmeans.transform(features).argmin(axis=0)
given = hidden_labels.to_numpy()[nearest]
accuracy = np.mean(given[kmeans.labels_] == hidden_labels)
print(f"Labels given: {', '.join(given)}. Correct labels of all images: {accuracy:.0%}")

temporary.cleanup()
