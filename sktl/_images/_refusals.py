"""Errors for inputs that are not tables of images, with the line of code that makes one of them."""

import glob
import os
from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from sktl._images._lazy import LazyImage
from sktl._images._sources import FOLDER, PATH, is_file, is_source


def single_fault(X: Any) -> "str | None":
    """Say that ``X`` is one image, one folder or one pattern, if it is."""
    if isinstance(X, PATH) and not is_file(X):
        if os.path.isdir(X):
            return f"X={os.fsdecode(X)!r} {FOLDER}"
        if glob.has_magic(os.fsdecode(X)) and not os.path.exists(X):
            return f"X={os.fsdecode(X)!r} is a pattern of file names. Give the files: sorted(glob.glob(pattern))."
    elif isinstance(X, Mapping) and isinstance(X.get("path", X.get("bytes")), list | tuple):
        return None  # columns, not one image
    if isinstance(X, (Image.Image, LazyImage)) or (is_source(X) and not hasattr(X, "__array__")):
        return f"X is one single image ({type(X).__name__}). Give a list of images, such as [X]."
    return None


def dataset_fault(X: Any) -> "str | None":
    """Say which line takes the images out of a data set of another library, if ``X`` is one."""
    line = None
    if type(X).__module__.partition(".")[0] == "datasets":
        line = _huggingface_line(X)
    elif isinstance(X, DataLoader):
        line = "X = [image for image, _ in loader.dataset], without the loader"
    elif isinstance(X, Dataset):
        line = _torch_line(X)
    if line is None:
        return None
    return f"X must hold the images only. Got a whole data set ({type(X).__name__}). Use {line}."


def _huggingface_line(X: Any) -> "str | None":
    """For a `Dataset` or `DatasetDict`; a column of one is a table of images."""
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
    return "X = [image for image, _ in dataset], y = [label for _, label in dataset], without transforms"
