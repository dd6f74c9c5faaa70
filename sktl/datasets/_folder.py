"""Loading a folder of images as a table ``X`` and labels ``y``."""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from sktl._optional import import_optional, is_installed
from sktl._params import validate_params
from sktl._warnings import warn
from sktl.exceptions import ImageError, ImageWarning, InputError

# Image formats that Pillow reads; .heic, .heif and .jxl need a plugin. Pillow's own list
# also contains video and scientific formats.
_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".avifs", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx", ".sgi", ".qoi", ".psd", ".dds", ".xbm", ".xpm"),
)

# Folders that operating systems and programs create, with copies and thumbnails of files.
_SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}

# Names of the parts of a dataset. Their parent is not a folder of classes.
_PARTS = ("train", "training", "val", "valid", "validation", "test", "testing")


@validate_params(
    {
        "path": [str, os.PathLike],
        "as_frame": ["boolean", StrOptions({"auto"})],
        "return_X_y": ["boolean"],
        "extensions": [list, tuple, None],
    },
    prefer_skip_nested_validation=True,
)
def load_image_folder(path, *, as_frame="auto", return_X_y=False, extensions=None):
    """Load the paths and labels of a folder of images with one subfolder per class.

    The folder has the following structure:

    .. code-block:: text

        photos/
            cat/
                1.jpg
                2.jpg
            dog/
                2023/
                    3.png
                4.png

    The class of an image is the name of the top-level subfolder that contains it, at
    any depth. The images are not read here; estimators read each file when they need
    it.

    A folder with images but without class folders is loaded as unlabeled data, with the
    target ``None``.

    Read more in the :doc:`user guide </datasets>`.

    Parameters
    ----------
    path : str or path-like
        Folder that contains the class folders. A leading ``~`` is expanded to the home
        directory.
    as_frame : bool or "auto", default="auto"
        If True, the data is a pandas DataFrame and the target is a pandas Series. If
        False, both are NumPy arrays. ``"auto"`` uses pandas if it is installed.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    extensions : list of str or tuple of str, default=None
        Extensions of the files to load, such as ``[".dcm"]``, ignoring case. ``["*"]``
        loads every file. If None, files are loaded if Pillow can read their format
        (``.jpg``, ``.png``, ``.tif``, ``.webp`` and more), including formats that need
        a plugin (``.heic``, ``.heif``, ``.jxl``). Set it for files that are read by an
        `sktl.preprocessing.ImageReader`.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame or ndarray of shape (n_samples, 1)
            Path of each image as str, in one column named "image". Paths are relative
            if ``path`` is relative.
        target : Series or ndarray of shape (n_samples,), or None
            Class name of each image as str; None without class folders.
        frame : DataFrame or None
            ``data`` and ``target`` in one table; None if ``as_frame=False``.
        feature_names : list of str
            ``["image"]``.
        target_names : list of str
            Sorted class names, equal to ``classes_`` of a classifier fitted on the
            data.
        filenames : ndarray of shape (n_samples,)
            Path of each image as str.
        DESCR : str
            Description of the dataset: the folder and the number of images per class.

    (data, target) : tuple if ``return_X_y`` is True
        The ``data`` and ``target`` described above.

    Raises
    ------
    ImageError
        If ``path`` is not a folder, if it contains no images, or if its subfolders are
        parts of a dataset (``train``, ``test``) instead of classes. The message
        suggests a folder that may have been meant.
    MissingDependencyError
        If ``as_frame`` is True and pandas is not installed.

    Warns
    -----
    ImageWarning
        If class folders without images, or images outside the class folders, are
        skipped; or if there is only one class folder, whose subfolders look like the
        classes.

    See Also
    --------
    sklearn.datasets.load_files : Load text files from a folder of the same structure.
    sktl.PretrainedFeatureExtractor : Compute features of the images in ``data``.

    Notes
    -----
    The target contains class names, as in `sklearn.datasets.fetch_openml`, and not
    integers, as in `sklearn.datasets.load_files`. Therefore `predict` returns names,
    and ``return_X_y=True`` loses no information. Use
    `sklearn.preprocessing.LabelEncoder` to obtain integers.

    Classes and images are sorted by name, as Python sorts str, on every file system.
    Names that begin with a dot and folders created by operating systems (``__MACOSX``,
    ``@eaDir``) are ignored. Symbolic links are followed, and each real folder is
    visited once per class.

    The columns have the dtype object in all versions of pandas, which preserves file
    names that are not valid UTF-8.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from sktl.datasets import load_image_folder
    >>> folder = TemporaryDirectory()
    >>> for name, color in [("lemon", "yellow"), ("tomato", "red")]:
    ...     Path(folder.name, name).mkdir()
    ...     Image.new("RGB", (32, 32), color).save(Path(folder.name, name, "1.png"))
    >>> fruit = load_image_folder(folder.name)
    >>> fruit.target_names
    ['lemon', 'tomato']
    >>> fruit.data.shape
    (2, 1)
    >>> X, y = load_image_folder(folder.name, return_X_y=True)
    >>> list(y)
    ['lemon', 'tomato']
    >>> folder.cleanup()
    """
    if as_frame == "auto":
        as_frame = is_installed("pandas")
    pandas = None
    if as_frame:  # fails before the folder is read, which may take long
        pandas = import_optional("pandas", extra="pandas", purpose="load_image_folder(as_frame=True)")
    extensions = _check_extensions(extensions)
    folder = _check_folder(path)
    found = _find_images(folder, extensions)
    _check_found(folder, found, extensions)
    for text in _doubts(folder, found):
        warn(text, ImageWarning)
    bunch = _as_bunch(folder, found, pandas)
    return (bunch.data, bunch.target) if return_X_y else bunch


def _check_extensions(extensions: Sequence[str] | None) -> tuple[str, ...]:
    """Return lowercase endings of file names, with their dot."""
    if extensions is None:
        return _EXTENSIONS
    if not extensions or not all(isinstance(extension, str) and extension.strip(".") for extension in extensions):
        raise InputError(
            "The 'extensions' parameter must be a list of one or more file extensions, such as '.png', or '*' for all "
            f"files, or None. Got {extensions!r} instead."
        )
    return tuple("" if extension == "*" else "." + extension.lower().lstrip("*.") for extension in extensions)


def _check_folder(path: str | os.PathLike) -> str:
    """Return the folder to load, which is the start of all returned paths."""
    folder = os.path.expanduser(os.fspath(path))
    if os.path.isdir(folder):
        return str(Path(folder))
    if os.path.exists(folder):
        is_image = folder.lower().endswith(_EXTENSIONS)
        hint = f" Did you mean its folder, {os.path.dirname(folder) or '.'!r}?" if is_image else ""
        raise ImageError(f"The 'path' parameter must be a folder. Got the file {folder!r} instead.{hint}")
    start = "" if os.path.isabs(folder) else f" Relative paths start from the working directory, {os.getcwd()!r}."
    similar = _similar_folder(folder)
    hint = f" Did you mean {similar!r}?" if similar else ""
    raise ImageError(f"The 'path' parameter must be a folder that exists. Got {folder!r} instead.{start}{hint}")


def _similar_folder(folder: str) -> str | None:
    """Return an existing folder whose path is similar to one that does not exist."""
    parent, name = os.path.split(folder.rstrip(os.sep))
    if not name or not os.path.isdir(parent := parent or "."):
        return None
    try:
        names = {entry.name.lower(): entry.name for entry, is_folder in _entries(parent) if is_folder}
    except OSError:  # no permission
        return None
    close = difflib.get_close_matches(name.lower(), names, n=1)
    return os.path.normpath(os.path.join(parent, names[close[0]])) if close else None


@dataclass(frozen=True)
class _Found:
    """Paths found in a folder, in the order of the result."""

    classes: dict[str, list[str]]  # the images of each subfolder, possibly empty
    beside: list[str]  # the images outside the subfolders
    others: list[str]  # files with other extensions, at any depth

    @property
    def labeled(self) -> dict[str, list[str]]:
        """Subfolders that contain images."""
        return {name: images for name, images in self.classes.items() if images}

    @property
    def images(self) -> list[str]:
        """Images of the classes, or all images in a folder without classes."""
        return [image for images in self.labeled.values() for image in images] or self.beside

    @property
    def labels(self) -> list[str] | None:
        """Class of each image; None without classes."""
        return [name for name, images in self.labeled.items() for _ in images] or None


def _find_images(folder: str, extensions: tuple[str, ...]) -> _Found:
    found = _Found({}, [], [])
    for entry, is_folder in _entries(folder):
        images = found.classes.setdefault(entry.name, []) if is_folder else found.beside
        # A link may lead back to the root, whose images do not all belong to this class.
        files = _files(entry.path, {os.path.realpath(folder)}) if is_folder else [entry.path]
        for file in files:
            (images if file.lower().endswith(extensions) else found.others).append(file)
    return found


def _files(folder: str, visited: set[str]) -> Iterator[str]:
    """Yield every file below ``folder``, without the folders in ``visited``."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    for entry, is_folder in _entries(folder):
        if is_folder:
            yield from _files(entry.path, visited)
        else:
            yield entry.path


def _entries(folder: str) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Yield visible entries of a folder in order, and whether each is a folder."""
    with os.scandir(folder) as unordered:
        entries = sorted(unordered, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            continue
        # The type of an entry is known without disk access, except for links. A link that
        # is broken or circular is neither a file nor a folder.
        is_link = entry.is_symlink()
        if os.path.isdir(entry.path) if is_link else entry.is_dir():
            yield entry, True
        elif os.path.isfile(entry.path) if is_link else entry.is_file():
            yield entry, False


def _check_found(folder: str, found: _Found, extensions: tuple[str, ...]) -> None:
    """Raise an error if the folder has no images or its subfolders are not classes."""
    if not found.images:
        others = "no files."
        if found.others:
            extension = os.path.splitext(found.others[0])[1] or "*"
            others = (
                f"{_count(found.others, 'file')} with other extensions, such as {found.others[0]!r}. Use "
                f"extensions=[{extension!r}] to load such files."
            )
        raise ImageError(
            f"No images found in {folder!r}. Looked for the extensions {' '.join(extensions)}, but found {others}"
        )
    parts = [name for name in found.labeled if name.lower() in _PARTS]
    # A single class may be called "train". Two such names, or only such names, are parts.
    if len(parts) > 1 or (parts and len(parts) == len(found.labeled)):
        best = _best_part(parts)
        raise ImageError(
            f"The subfolders of {folder!r} must be classes. Got parts of a dataset instead: {_listed(parts)}. Load "
            f"each part separately. Did you mean {os.path.join(folder, best)!r}?"
        )


def _best_part(parts: list[str]) -> str:
    """Return the part of a dataset to train on."""
    return min(parts, key=lambda name: _PARTS.index(name.lower()))


def _doubts(folder: str, found: _Found) -> Iterator[str]:
    """Yield warnings about skipped images and unlikely classes."""
    if empty := [name for name in found.classes if name not in found.labeled]:
        yield f"Skipped {_count(empty, 'folder')} without images in {folder!r}: {_listed(empty)}."
    if not found.labeled:
        return
    if found.beside:
        yield (
            f"Skipped {_count(found.beside, 'image')} outside the class folders of {folder!r}, such as "
            f"{found.beside[0]!r}."
        )
    if len(found.labeled) == 1 and not found.beside:
        [(name, images)] = found.labeled.items()
        start = os.path.join(folder, name)
        nested = {image[len(start) + 1 :].rpartition(os.sep)[0].partition(os.sep)[0] for image in images}
        parts = [part for part in nested if part.lower() in _PARTS]
        if len(parts) > 1:
            yield (
                f"All images in {folder!r} are in one class folder, {name!r}, which contains parts of a dataset: "
                f"{_listed(sorted(nested))}. Did you mean {os.path.join(start, _best_part(parts))!r}?"
            )
        elif len(nested) > 1 and "" not in nested:
            yield (
                f"All images in {folder!r} are in one class folder, {name!r}. Its subfolders look like the classes: "
                f"{_listed(sorted(nested))}. Did you mean {start!r}?"
            )


def _count(things: list[str], noun: str) -> str:
    return f"1 {noun}" if len(things) == 1 else f"{len(things)} {noun}s"


def _listed(names: list[str], n_shown: int = 5) -> str:
    more = f" and {len(names) - n_shown} more" if len(names) > n_shown else ""
    return ", ".join(map(repr, names[:n_shown])) + more


def _as_bunch(folder: str, found: _Found, pandas: ModuleType | None) -> Bunch:
    """Return the images in the format of scikit-learn's dataset loaders."""
    filenames = np.array(found.images, dtype=object)
    data: Any = filenames.reshape(-1, 1)
    target: Any = None if found.labels is None else np.array(found.labels, dtype=object)
    frame = None
    if pandas is not None:
        columns = {"image": filenames} if target is None else {"image": filenames, "target": target}
        frame = pandas.DataFrame(columns, dtype=object)
        data, target = frame[["image"]], None if target is None else frame["target"]
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=["image"],
        target_names=list(found.labeled),
        filenames=filenames,
        DESCR=_describe(folder, found),
    )


def _describe(folder: str, found: _Found) -> str:
    if found.labels is None:
        return f"{_count(found.images, 'image')} without labels from the folder {folder!r}."
    counts = "\n".join(f"{name}: {n_images}" for name, n_images in Counter(found.labels).items())
    classes = f"{len(found.labeled)} class{'es' if len(found.labeled) > 1 else ''}"
    return f"{_count(found.images, 'image')} of {classes} from the folder {folder!r}.\n\n{counts}"
