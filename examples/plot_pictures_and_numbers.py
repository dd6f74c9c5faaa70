"""
Pictures and numbers in one table
=================================

A column of image files is one more column of a table: a ``ColumnTransformer`` turns it into features, next to the
columns of numbers, and everything behind it is scikit-learn as ever.
"""

# %%
# A table with a column of files
# ------------------------------
#
# 160 tiny patches (8 × 8 pixels) of scikit-learn's two sample photos, saved as PNG files, each with one number that
# says a little about the label by itself.

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor

rng = np.random.default_rng(0)
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
rows = []
for name, photo in zip(["temple", "flower"], load_sample_images().images, strict=True):
    for index in range(80):
        top, left = rng.integers(0, np.array(photo.shape[:2]) - 8)
        path = folder / f"{name}_{index}.png"
        Image.fromarray(photo[top : top + 8, left : left + 8]).save(path)
        rows.append({"photo": str(path), "height": rng.normal(2.0 if name == "temple" else 0.0), "label": name})
df = pd.DataFrame(rows)
df.drop(columns="label").sample(3, random_state=0).assign(photo=lambda table: table["photo"].str[-15:])

# %%
# One pipeline for both
# ---------------------

pipe = make_pipeline(
    make_column_transformer(
        (PretrainedFeatureExtractor(), "photo"),
        (StandardScaler(), ["height"]),
    ),
    LogisticRegression(C=0.1, max_iter=1000),
)
pipe

# %%
# The number alone, the pictures alone, both
# ------------------------------------------

numbers = make_pipeline(make_column_transformer((StandardScaler(), ["height"])), LogisticRegression())
photos = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(C=0.1, max_iter=1000))
for name, model, X in [("number", numbers, df), ("photo", photos, df["photo"]), ("both", pipe, df)]:
    print(f"{name:>6}: {cross_val_score(model, X, df['label'], cv=5).mean():.3f}")

# %%
# Names of the features
# ---------------------
#
# They tell the network, the stage and the channel.

pipe.fit(df, df["label"])[0].get_feature_names_out()[[0, 1, -2, -1]]
