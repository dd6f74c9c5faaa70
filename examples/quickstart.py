"""Quick start: tell pictures apart with features of a pretrained network.

Run it as it is (scikit-learn's own little pictures of digits, nothing to download), or on your photos, one folder for
each class::

    python examples/quickstart.py
    python examples/quickstart.py path/to/photos
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder
from sktl.exceptions import ImageError


def photos(folder: str):
    """Paths of the images in ``folder``, and as labels the names of the class folders that they are in."""
    try:
        X, y = load_image_folder(folder, return_X_y=True)
    except ImageError as error:
        sys.exit(str(error))
    if y is None:
        sys.exit(f"The images in {folder!r} have no labels. Give a folder that has one folder for each class.")
    return X, y


def digits(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A small table: 200 rows of 8 x 8 pixels, 20 for each digit."""
    X, y = load_digits(return_X_y=True)
    X, _, y, _ = train_test_split(X / 16, y, train_size=n, stratify=y, random_state=0)
    return X, y


def main() -> None:
    """Cross-validate a pipeline of features and logistic regression."""
    X, y = photos(sys.argv[1]) if len(sys.argv) > 1 else digits()
    pipe = make_pipeline(PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = cross_val_score(pipe, X, y, cv=5)
    features = pipe[0].fit_transform(X)
    print(f"{len(X)} pictures of {len(set(y))} classes -> {features.shape[1]} features each")
    print(f"accuracy in 5-fold cross-validation: {scores.mean():.3f} ± {scores.std():.3f}")


if __name__ == "__main__":
    main()
