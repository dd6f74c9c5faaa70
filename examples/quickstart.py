"""Quick start: classify images with the features of a pretrained network.

Run it on the sample images that ship with scikit-learn, or on your own images, sorted
into one subfolder per class::

    python examples/quickstart.py
    python examples/quickstart.py path/to/photos
"""

import sys
import tempfile

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder
from sktl.exceptions import ImageError


def load(folder: str):
    """Return the paths of the images in ``folder`` and their labels, the names of the subfolders."""
    try:
        X, y = load_image_folder(folder, return_X_y=True)
    except ImageError as error:
        sys.exit(str(error))
    if y is None:
        sys.exit(f"The images in {folder!r} have no labels. Pass a folder with one subfolder per class.")
    return X, y


def evaluate(folder: str) -> None:
    """Cross-validate a pipeline of features and logistic regression."""
    X, y = load(folder)
    model = make_pipeline(PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = cross_val_score(model, X, y, cv=5)
    features = model[0].fit_transform(X)
    print(f"{len(X)} images of {len(set(y))} classes, {features.shape[1]} features per image")
    print(f"accuracy in 5-fold cross-validation: {scores.mean():.3f} ± {scores.std():.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        evaluate(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(str(make_image_folder(folder)))
