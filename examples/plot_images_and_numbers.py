"""
Images and numbers in one table
===============================

A table may have a column of image files next to columns of numbers. A
:class:`~sklearn.compose.ColumnTransformer` passes the images to a
:class:`~sktl.PretrainedFeatureExtractor` and scales the numbers. Any scikit-learn
estimator can follow.
"""

# %%
# A table with a column of paths
# ------------------------------
#
# The images are 180 small crops of the two sample images that ship with scikit-learn.
# We add a simulated number to each image: the angle of the camera, in degrees above the
# horizon.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=180, size=(6, 12))
df = load_image_folder(folder).frame

rng = np.random.default_rng(0)
mean_angle = {"sky": 50, "pagoda": 20, "flower": 10, "tree": -10, "water": -30, "leaf": -40}
df["angle"] = df["target"].map(mean_angle) + rng.normal(scale=10, size=len(df))
df.sample(4, random_state=0).assign(image=lambda table: table["image"].str[-15:]).round(1)

# %%
# The figure shows every third image at its angle. Neither the image nor the angle
# determines the class.

fig, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for column, label in enumerate(mean_angle):
    for path, angle in df.loc[df["target"] == label, ["image", "angle"]].iloc[::3].to_numpy():
        image = plt.imread(path)
        thumbnail = OffsetImage(image, zoom=28 / len(image))
        ax.add_artist(AnnotationBbox(thumbnail, (column + rng.uniform(-0.3, 0.3), angle), frameon=False))
ax.set(xlim=(-0.5, 5.5), ylim=(-72, 82), ylabel="angle (degrees)")
ax.set_xticks(range(6), list(mean_angle))
plt.show()

# %%
# One pipeline for both kinds of columns
# --------------------------------------
#
# The network returns 512 features per image. We reduce them to ten principal
# components, so that the angle is not one column among hundreds.

image_features = make_pipeline(PretrainedFeatureExtractor(), PCA(10, whiten=True, random_state=0))
pipe = make_pipeline(
    make_column_transformer((image_features, "image"), (StandardScaler(), ["angle"])),
    LogisticRegression(),
)
pipe

# %%
# Accuracy with the angle, the images, and both
# ---------------------------------------------

candidates = {
    "angle": (make_pipeline(StandardScaler(), LogisticRegression()), df[["angle"]]),
    "images": (make_pipeline(image_features, LogisticRegression()), df["image"]),
    "both": (pipe, df),
}
cv = StratifiedKFold(5, shuffle=True, random_state=0)
for name, (model, X) in candidates.items():
    scores = cross_val_score(model, X, df["target"], cv=cv)
    print(f"{name:6s} {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# The images are more informative than the angle, and the pipeline with both columns is
# the most accurate. For example, crops of the pagoda and of the trees look alike, but
# their angles differ.

temporary.cleanup()
