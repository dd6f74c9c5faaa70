"""A small folder of real images for examples and first steps, without a download."""

import os
from numbers import Integral
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from sktl._params import validate_params
from sktl.exceptions import InputError

# Class name -> (index of scikit-learn's sample image, left, top, right, bottom of its region).
_REGIONS = {
    "flower": (1, 180, 95, 435, 350),
    "leaf": (1, 0, 0, 170, 427),
    "pagoda": (0, 95, 75, 325, 350),
    "sky": (0, 330, 0, 640, 130),
    "tree": (0, 200, 300, 640, 427),
    "water": (0, 340, 205, 540, 290),
}
_LARGEST = min(min(right - left, bottom - top) for _, left, top, right, bottom in _REGIONS.values())


@validate_params(
    {
        "path": [str, os.PathLike],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "size": [tuple, list],
        "labeled": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_image_folder(path, *, n_samples=120, size=(32, 64), labeled=True, random_state=0):
    """Write a small folder of images with one subfolder per class.

    The images are crops of the two sample images of scikit-learn
    (:func:`sklearn.datasets.load_sample_images`), saved as PNG files. There are six
    classes: flower, leaf, pagoda, sky, tree and water. Nothing is downloaded. Use the
    folder to try an estimator before your own images are ready.

    Read more in the :doc:`user guide </datasets>`.

    Parameters
    ----------
    path : str or path-like
        Folder to create. It may exist if it is empty.
    n_samples : int, default=120
        Number of images. The class sizes differ by at most one image.
    size : tuple of (int, int), default=(32, 64)
        Smallest and largest side of the crops, in pixels, from 1 to 85. Small crops are
        harder to classify.
    labeled : bool, default=True
        Whether to write the images into one subfolder per class. If False, all images
        are written into ``path`` itself, as images to predict.
    random_state : int, RandomState instance or None, default=0
        Seed of the crops. Pass another int for other crops of the same sample images.

    Returns
    -------
    path : pathlib.Path
        The folder.

    Raises
    ------
    InputError
        If the folder exists and is not empty, or if ``size`` is invalid.

    See Also
    --------
    load_image_folder : Load such a folder as ``X`` and ``y``.

    Notes
    -----
    Crops of one sample image overlap, so scores on a test split are optimistic.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sktl.datasets import load_image_folder, make_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     X, y = load_image_folder(make_image_folder(folder), return_X_y=True)
    >>> len(X)
    120
    >>> sorted(set(y))
    ['flower', 'leaf', 'pagoda', 'sky', 'tree', 'water']
    """
    folder = Path(path).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"The 'path' parameter must be a new or empty folder. Got {str(path)!r} instead.")
    if (
        len(size) != 2
        or not all(isinstance(side, Integral) for side in size)
        or not 1 <= size[0] <= size[1] <= _LARGEST
    ):
        raise InputError(
            f"The 'size' parameter must be two ints with 1 <= smallest <= largest <= {_LARGEST}. Got {size!r} instead."
        )
    random = check_random_state(random_state)
    samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    names = list(_REGIONS)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_samples):
        name = names[number % len(names)]
        file = folder / name / f"{number:04}.png" if labeled else folder / f"{number:04}.png"
        file.parent.mkdir(exist_ok=True)
        sample, *region = _REGIONS[name]
        samples[sample].crop(_random_box(region, size, random)).save(file)
    return folder


def _random_box(region, size, random) -> tuple[int, int, int, int]:
    """Draw a square crop inside a region, as (left, top, right, bottom)."""
    left, top, right, bottom = region
    side = random.randint(size[0], size[1] + 1)
    x, y = random.randint(left, right - side + 1), random.randint(top, bottom - side + 1)
    return int(x), int(y), int(x + side), int(y + side)
