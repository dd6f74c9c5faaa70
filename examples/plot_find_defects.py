"""
Finding defects and their position
==================================

In a production line, good parts are plentiful, and defects are rare and all different.
A detector therefore learns how good parts look, without labels and without training: it
keeps the features of image patches of good parts. A patch of a new image that is far
from all of them is a defect, and the map of these distances shows its position.
"""

# %%
# Images of good and defective parts
# ----------------------------------
#
# Our part is a piece of the facade in one of the sample images that ship with
# scikit-learn. The camera sees it shifted by up to three pixels, in changing light and
# with noise. The defects are a scratch, a stain, or a square that belongs elsewhere.

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image
from sklearn.metrics import roc_auc_score

from sktl.anomaly import AnomalyDetector
from sktl.inspection import AnomalyMapDisplay

photo = load_sample_image("china.jpg")
rng = np.random.default_rng(0)


def good_part():
    """Return an image of the part as the camera sees it."""
    top, left = 190 + rng.integers(-3, 4), 170 + rng.integers(-3, 4)
    part = photo[top : top + 64, left : left + 64] * rng.uniform(0.85, 1.15)
    return (part + rng.normal(scale=4, size=part.shape)).clip(0, 255).astype(np.uint8)


def defective_part(kind):
    """Return an image with a defect, and the mask of its pixels."""
    image, mask = Image.fromarray(good_part()), Image.new("1", (64, 64))
    x, y = (int(position) for position in rng.integers(10, 46, size=2))
    if kind == "scratch":
        line = [(x, y), (x + int(rng.integers(-9, 10)), y + 12)]
        for canvas, color in [(image, (225, 220, 210)), (mask, 1)]:
            ImageDraw.Draw(canvas).line(line, fill=color, width=2)
    elif kind == "stain":
        for canvas, color in [(image, (70, 60, 30)), (mask, 1)]:
            ImageDraw.Draw(canvas).ellipse((x, y, x + 8, y + 6), fill=color)
    else:
        elsewhere = int(rng.integers(0, 54)), int(rng.integers(0, 54))
        square = image.crop((*elsewhere, elsewhere[0] + 9, elsewhere[1] + 9))
        image.paste(square.point(lambda value: value * 0.6), (x, y))
        ImageDraw.Draw(mask).rectangle((x, y, x + 8, y + 8), fill=1)
    return np.asarray(image), np.asarray(mask)


X_good = np.stack([good_part() for _ in range(80)])  # to learn from
kinds = ["scratch", "stain", "square"] * 8
defects, masks = (np.stack(arrays) for arrays in zip(*map(defective_part, kinds), strict=True))
X_new = np.concatenate([[good_part() for _ in range(40)], defects])
y_new = np.repeat([1, -1], [40, 24])  # as in scikit-learn, 1 is normal and -1 an outlier

fig, axes = plt.subplots(2, 6, figsize=(8, 2.9), layout="constrained")
for ax, image in zip(axes[0], X_good, strict=False):
    ax.imshow(image)
for ax, image, kind in zip(axes[1], defects, kinds, strict=False):
    ax.imshow(image)
    ax.set_title(kind, fontsize=9)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("good")
axes[1, 0].set_ylabel("defective")
plt.show()

# %%
# Detecting defective parts
# -------------------------
#
# ``method="patchcore"`` compares patches with all patches of good parts. In `fit`, the
# images go through the network once.

detector = AnomalyDetector(method="patchcore", random_state=0).fit(X_good)
predicted = detector.predict(X_new)
print(f"defects that are found: {np.mean(predicted[y_new == -1] == -1):.0%}")
print(f"good parts that are flagged: {np.mean(predicted[y_new == 1] == -1):.0%}")

# %%
# :class:`~sktl.inspection.AnomalyMapDisplay` shows the most anomalous images with their
# maps, and the scores of all images. Images to the left of the threshold are flagged.

# sphinx_gallery_thumbnail_number = 2
AnomalyMapDisplay.from_estimator(detector, X_new, y_new)
plt.show()

# %%
# Comparing the methods
# ---------------------
#
# The area under the ROC curve (AUC) is 1 if all defective images have lower scores than
# all good ones. For pixels, it compares the maps with the masks of the defects.
# Features of whole images (``"knn"`` and ``"mahalanobis"``) change less with a small
# defect than those of patches, and have no maps.

for method in ("knn", "mahalanobis", "padim", "patchcore"):
    compared = AnomalyDetector(method=method, random_state=0).fit(X_good)
    auc = roc_auc_score(y_new, compared.score_samples(X_new))
    of_pixels = ""
    if method in ("padim", "patchcore"):
        pixel_auc = roc_auc_score(masks.ravel(), compared.anomaly_map(defects).ravel())
        of_pixels = f"  AUC of pixels {pixel_auc:.3f}"
    print(f"{method:12s} AUC of images {auc:.3f}{of_pixels}")

# %%
# The threshold
# -------------
#
# With ``contamination="auto"``, the threshold is chosen such that 5 % of new good parts
# are flagged. The scores of the training images would be a bad measure for this, because
# the model knows these images. Therefore, each training image is scored by a model that
# has not learned from it. We compare both kinds of scores for ``"padim"``, with those of
# new good parts. (A training image is recognized by its content and not compared to
# itself, so we change one pixel of each image to get the scores of images that the model
# knows.)

padim = AnomalyDetector(method="padim", random_state=0).fit(X_good)
changed = X_good.copy()
changed[:, 0, 0, 0] ^= 1
scores = {
    "training images,\nmodel knows them": padim.score_samples(changed),
    "training images,\nmodel does not know them": padim.training_scores_,
    "new good parts": padim.score_samples(X_new[y_new == 1]),
}

fig, ax = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
ax.boxplot(list(scores.values()), orientation="horizontal", tick_labels=list(scores), whis=(5, 95))
ax.axvline(padim.offset_, color="C3", linestyle="--", label="threshold")
ax.set_xlabel("score (low: anomalous)")
ax.legend(loc="lower center")
plt.show()

# %%
# The lowest 5 % of the scores of known images would be a threshold that flags nearly
# all new good parts:

known, _, new = scores.values()
print(f"good parts below the 5 % quantile of known images: {np.mean(new < np.quantile(known, 0.05)):.0%}")
print(f"good parts below the threshold of the detector:    {np.mean(new < padim.offset_):.0%}")
