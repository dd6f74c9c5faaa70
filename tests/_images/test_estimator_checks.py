"""The door alone makes a transformer that passes all of scikit-learn's checks."""

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from sktl._images import check_images


class Thumbnails(TransformerMixin, BaseEstimator):
    """The smallest estimator on pictures: 2 x 2 thumbnails."""

    def __init__(self, image_shape=None, *, channels="auto", in_channels=3):
        self.image_shape = image_shape
        self.channels = channels
        self.in_channels = in_channels

    def fit(self, X, y=None):
        check_images(self, X, reset=True)
        return self

    def transform(self, X):
        check_is_fitted(self)
        images = check_images(self, X, reset=False)
        thumbnails = [np.asarray(Image.fromarray(image.decode()).resize((2, 2))) for image in images]
        return np.stack(thumbnails).reshape(len(images), -1).astype(float)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


# The checks' tables are padded and scaled, which is said each time.
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
@parametrize_with_checks([Thumbnails()])
def test_common_checks(estimator, check):
    """Columns, names, dtypes, sparse, NaN, one row, many rows: as scikit-learn wants them, none excused."""
    check(estimator)
