"""Errors for inputs that are not tables of images, with the code that converts them."""

import glob
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import issparse
from torch.utils.data import DataLoader, Dataset, Subset

from sktl._images._image_table import ARRAY
from sktl._images._lazy import LazyImage, unwrapped
from sktl._images._sources import PATH, folder_fault, is_file, is_path_like, is_source, load_code
from sktl.exceptions import ImageError


def refuse_single(X: Any) -> None:
    """Raise an `ImageError` for a single image, a folder, a pattern or several folders.

    For callers that compare the lengths of tables before `check_images`.
    """
    if issparse(X):
        return  # scikit-learn raises an error
    fault = single_fault(X) or folders_fault(X.to_numpy().ravel() if hasattr(X, "to_numpy") else X)
    if fault is not None:
        raise ImageError(fault)


def single_fault(X: Any) -> "str | None":
    """Return an error message if ``X`` is a single image, folder or pattern."""
    if issparse(X):  # some sparse formats are mappings, but not dicts of an image
        return None
    X = out_of_scalar(X)
    if isinstance(X, PATH) and not is_file(X):
        path = os.fsdecode(X)
        if os.path.isdir(path):
            return f"X={path!r} {folder_fault(path)}"
        if glob.has_magic(path) and not os.path.exists(path):
            return f"X={path!r} is a glob pattern. Pass the list of files instead: sorted(glob.glob(pattern))."
        if not os.path.exists(path) and is_path_like(path):
            start = "" if os.path.isabs(path) else f" Relative paths start from {os.getcwd()!r}."
            return (
                f"X={path!r} is neither a file nor a folder.{start} Pass a list of files, or load a folder with "
                "sktl.datasets.load_image_folder."
            )
    elif isinstance(X, Mapping) and isinstance(X.get("path", X.get("bytes")), list | tuple):
        return None  # columns, not a single image
    if isinstance(X, (Image.Image, LazyImage)) or (is_source(X) and not hasattr(X, "__array__")):
        return f"X is a single image ({type(X).__name__}). Pass a list of images, such as [X]."
    return None


def out_of_scalar(X: Any) -> Any:
    """Return the item of a 0-dimensional array, or anything else unchanged."""
    return X.item() if isinstance(X, ARRAY) and not X.ndim else X


def folders_fault(X: Any) -> "str | None":
    """Return an error message if all items of a table are folders."""
    if not isinstance(X, list | tuple | np.ndarray):
        return None
    items = map(unwrapped, X)
    if not all(isinstance(item, PATH) and not is_file(item) and os.path.isdir(item) for item in items):
        return None
    paths = [os.fsdecode(unwrapped(item)) for item in X]
    if len(paths) == 1:
        return f"X contains one path, {paths[0]!r}, which {folder_fault(paths[0])}"
    try:
        parent = os.path.commonpath(paths)
    except ValueError:  # different drives, or relative and absolute
        return None
    return f"X contains {len(paths)} folders, such as {paths[0]!r}. Load the images in them: {load_code(parent or '.')}"


def dataset_fault(X: Any) -> "str | None":
    """Return an error message if ``X`` is a dataset of another library."""
    line = None
    if type(X).__module__.partition(".")[0] == "datasets":
        line = _huggingface_line(X)
    elif isinstance(X, DataLoader):
        line = "X = [image for image, _ in loader.dataset] without the DataLoader"
    elif isinstance(X, Dataset):
        line = _torch_line(X)
    if line is None:
        return None
    return f"X must contain only the images. Got a whole dataset ({type(X).__name__}) instead. Use {line}."


def _huggingface_line(X: Any) -> "str | None":
    """Return the code for a `Dataset` or `DatasetDict`, or None for a column."""
    if isinstance(X, Mapping):
        split = next(iter(X), "train")
        inner = _huggingface_line(X[split]) if X else None
        return (inner or 'X = dataset["image"]').replace("dataset", f"dataset[{split!r}]", 1)
    if not hasattr(X, "column_names"):
        return None
    kinds = {name: type(feature).__name__ for name, feature in (getattr(X, "features", None) or {}).items()}
    column = next((name for name, kind in kinds.items() if kind == "Image"), "image")
    if not hasattr(X, "__len__"):
        return f"X = [row[{column!r}] for row in dataset]"
    return f"X = dataset[{column!r}]"


def _torch_line(X: Any) -> str:
    if isinstance(X, Subset) and hasattr(X.dataset, "samples"):
        return (
            "X = [subset.dataset.samples[i][0] for i in subset.indices], "
            "y = [subset.dataset.targets[i] for i in subset.indices]"
        )
    if hasattr(X, "samples") and hasattr(X, "targets"):
        return "X = [path for path, _ in dataset.samples], y = dataset.targets"
    return "X = [image for image, _ in dataset], y = [label for _, label in dataset] with a dataset without transforms"
