"""load_image_folder: what is found, in which order, what is left out or refused, and what takes the result."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, features
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.datasets import load_image_folder
from sktl.datasets._folder import _EXTENSIONS
from sktl.exceptions import ImageError, ImageWarning, InputError, MissingDependencyError


@pytest.fixture
def make_files(tmp_path):
    """A function that makes empty files from paths below a folder, and returns the folder."""

    def make(*names, folder="photos"):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name in names:
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return root

    return make


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twelve small images of two classes, dark and light."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, lowest in [("dark", 0), ("light", 150)]:
        (root / name).mkdir()
        for i in range(6):
            pixels = rng.integers(lowest, lowest + 100, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def relative(root, data):
    """The paths below the folder, with slashes."""
    return [Path(path).relative_to(root).as_posix() for path in np.asarray(data).ravel()]


def test_a_bunch_as_scikit_learn_gives(make_files):
    """All attributes of scikit-learn's loaders, with pandas objects, in the order of the file names."""
    root = make_files("dog/b.jpg", "cat/2.png", "dog/a.jpg", "cat/10.png")
    bunch = load_image_folder(root)
    expected = ["cat/10.png", "cat/2.png", "dog/a.jpg", "dog/b.jpg"]
    assert isinstance(bunch.data, pd.DataFrame)
    assert list(bunch.data.columns) == bunch.feature_names == ["image"]
    assert relative(root, bunch.data) == relative(root, bunch.filenames) == expected
    assert all(type(path) is str for path in bunch.data["image"])
    assert bunch.target.name == "target"
    assert bunch.target.tolist() == ["cat", "cat", "dog", "dog"]
    assert bunch.target_names == ["cat", "dog"]
    pd.testing.assert_frame_equal(bunch.frame, pd.concat([bunch.data, bunch.target], axis=1))
    assert "4 images of 2 classes" in bunch.DESCR
    assert bunch.DESCR.endswith("cat: 2\ndog: 2")


def test_arrays_without_pandas(make_files):
    """as_frame=False gives the same data and target as object arrays, of two dimensions and one."""
    root = make_files("cat/1.png", "dog/1.png")
    frames, arrays = load_image_folder(root), load_image_folder(root, as_frame=False)
    assert arrays.frame is None
    assert arrays.data.shape == (2, 1)
    assert arrays.data.dtype == arrays.target.dtype == arrays.filenames.dtype == object
    np.testing.assert_array_equal(arrays.data, frames.data)
    np.testing.assert_array_equal(arrays.target, frames.target)


@pytest.mark.parametrize("as_frame", [True, False])
def test_return_X_y(make_files, as_frame):
    """return_X_y gives the data and the target of the Bunch."""
    root = make_files("cat/1.png", "dog/1.png")
    bunch = load_image_folder(root, as_frame=as_frame)
    X, y = load_image_folder(root, as_frame=as_frame, return_X_y=True)
    assert type(X) is type(bunch.data)
    assert type(y) is type(bunch.target)
    np.testing.assert_array_equal(X, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)


def test_pandas_is_optional(make_files, monkeypatch):
    """Where pandas is missing, "auto" gives arrays, and True says how to install it."""
    root = make_files("cat/1.png")
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    assert isinstance(load_image_folder(root).data, np.ndarray)
    with pytest.raises(MissingDependencyError, match=r"as_frame=True.*sktl\[pandas\]"):
        load_image_folder(root, as_frame=True)


def test_nested_folders_belong_to_the_class(make_files):
    """Images are found at any depth, in the order of their paths, and the top folder is their class."""
    root = make_files("cat/b/2.png", "cat/a/x/y/1.png", "cat/c.png", "dog/cat/1.png")
    X, y = load_image_folder(root, return_X_y=True)
    assert relative(root, X) == ["cat/a/x/y/1.png", "cat/b/2.png", "cat/c.png", "dog/cat/1.png"]
    assert y.tolist() == ["cat", "cat", "cat", "dog"]


def test_what_systems_leave_in_folders_is_ignored(make_files):
    """Hidden files and folders and those of operating systems give neither images nor classes nor a warning."""
    root = make_files(
        *(
            "cat/1.png",
            "cat/.2.png",
            "cat/._1.png",
            "cat/Thumbs.db",
            "cat/.ipynb_checkpoints/1.png",
            "cat/@eaDir/1.jpg",
        ),
        *(".git/1.png", ".hidden.png", "__MACOSX/cat/1.png", "desktop.ini", "labels.csv", "cat/notes.txt", "cat/jpg"),
    )
    bunch = load_image_folder(root)
    assert relative(root, bunch.data) == ["cat/1.png"]
    assert bunch.target_names == ["cat"]


def test_a_hidden_folder_may_be_given(make_files):
    """Only what is below the given folder is looked at for a dot."""
    root = make_files("cat/1.png", folder=".data")
    assert len(load_image_folder(root).data) == 1


@pytest.mark.parametrize("extension", _EXTENSIONS)
def test_extensions_of_images(make_files, extension):
    """Each known extension is found, in lower and in upper case."""
    assert len(load_image_folder(make_files(f"a/1{extension}", f"a/2{extension.upper()}")).data) == 2


def test_pillow_reads_what_is_looked_for():
    """Every extension is one that Pillow opens by itself, but for those of plugins."""
    Image.init()
    known = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    plugins = {".heic", ".heif", ".jxl", ".mpo"}  # .mpo is read as JPEG, whatever the extension
    if not features.check("avif"):
        plugins |= {".avif", ".avifs"}
    assert set(_EXTENSIONS) - plugins <= known
    assert len(set(_EXTENSIONS)) == len(_EXTENSIONS)


@pytest.mark.parametrize("extensions", [[".npy", ".ome.tif"], ("NPY", "ome.tif"), ["*.npy", "*.OME.TIF"]])
def test_extensions_of_ones_own(make_files, extensions):
    """extensions= replaces the list, in any case, with or without a dot or a star."""
    root = make_files("a/1.NPY", "a/2.png", "a/3.ome.tif", "a/4.tif", "a/5npy")
    assert relative(root, load_image_folder(root, extensions=extensions).data) == ["a/1.NPY", "a/3.ome.tif"]


@pytest.mark.parametrize("extensions", [[], [""], ["."], [".png", None]])
def test_extensions_that_are_none(make_files, extensions):
    """A list of extensions that would match nothing, or every file, is an error."""
    with pytest.raises(InputError, match="'extensions' parameter must"):
        load_image_folder(make_files("a/1.png"), extensions=extensions)


@pytest.mark.parametrize(
    "params",
    [{"path": b"photos"}, {"path": ["photos"]}, {"as_frame": "yes"}, {"return_X_y": 2}, {"extensions": ".png"}],
)
def test_parameters_are_validated(tmp_path, params):
    """A wrong type is scikit-learn's error, which names the parameter."""
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter of load_image_folder must be"):
        load_image_folder(**{"path": tmp_path, **params})


def test_classes_without_images_are_left_out(make_files):
    """They are named in a warning, and are not among the target names, so these equal a classifier's classes."""
    root = make_files("cat/1.png", "annotations/1.xml", "empty/", "folders/in/folders/", "dog/1.png")
    with pytest.warns(ImageWarning, match="Skipped 3 folders without images in .*: 'annotations', 'empty', 'folders'"):
        bunch = load_image_folder(root)
    assert bunch.target_names == ["cat", "dog"] == sorted(set(bunch.target))


def test_a_long_list_is_cut(make_files):
    """A warning names five folders and counts the others."""
    root = make_files("z/1.png", *(f"{i}/" for i in range(8)))
    with pytest.warns(ImageWarning, match="Skipped 8 folders without images in .*: '0', '1', '2', '3', '4' and 3 more"):
        load_image_folder(root)


def test_images_beside_the_classes_are_left_out(make_files):
    """They are counted in a warning that points to the caller's line."""
    root = make_files("cat/1.png", "cover.png", "poster.JPG", "readme.txt")
    with pytest.warns(
        ImageWarning, match=r"Skipped 2 images outside the class folders of .*, such as .*cover\.png"
    ) as record:
        bunch = load_image_folder(root)
    assert relative(root, bunch.data) == ["cat/1.png"]
    assert [warning.filename for warning in record] == [__file__]


@pytest.mark.parametrize("as_frame", [True, False])
def test_images_without_classes(make_files, as_frame):
    """A folder with images and no class folders is unlabeled data: the target is None."""
    root = make_files("b.png", "a.jpg", "notes.txt", folder="new")
    bunch = load_image_folder(root, as_frame=as_frame)
    assert relative(root, bunch.data) == ["a.jpg", "b.png"]
    assert bunch.data.shape == (2, 1)
    assert bunch.target is None
    assert bunch.target_names == []
    assert "2 images without labels" in bunch.DESCR
    X, y = load_image_folder(root, as_frame=as_frame, return_X_y=True)
    assert len(X) == 2
    assert y is None
    if as_frame:
        pd.testing.assert_frame_equal(bunch.frame, bunch.data)


def test_unlabeled_beside_folders_without_images(make_files):
    """Folders without images make no classes; they are named all the same."""
    root = make_files("a.jpg", "metadata/a.json")
    with pytest.warns(ImageWarning, match="Skipped 1 folder without images in .*: 'metadata'"):
        assert load_image_folder(root).target is None


def test_no_such_folder(tmp_path, monkeypatch):
    """The error has the path, and for a relative one where it starts from."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ImageError, match=r"folder that exists\. Got 'potos' instead\. Relative paths start from"
    ) as error:
        load_image_folder("potos")
    assert repr(os.getcwd()) in str(error.value)
    with pytest.raises(ImageError, match=r"Got '.*potos' instead\.$"):
        load_image_folder(tmp_path / "potos")
    with pytest.raises(ImageError, match=r"folder that exists\. Got ''"):
        load_image_folder("")


def test_a_similar_folder(make_files, tmp_path, monkeypatch):
    """A slip in the last part of a path: the folder beside it that is meant."""
    root = make_files("train/cat/1.png", "test/cat/1.png", folder="clothing")
    for wrong in ("trian", "Train", "training"):
        with pytest.raises(ImageError, match=rf"Got '.*{wrong}' instead\. Did you mean '.*clothing/train'\?$"):
            load_image_folder(root / wrong)
    with pytest.raises(ImageError, match=r"Got '.*holidays' instead\.$"):
        load_image_folder(root / "holidays")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"Did you mean 'clothing'\?$"):
        load_image_folder("cloting/")


def test_a_file_is_not_a_folder(make_files):
    """A file, such as an archive that was not unpacked, is an error that says so."""
    root = make_files("photos.zip")
    with pytest.raises(ImageError, match=r"must be a folder. Got the file '.*photos\.zip' instead"):
        load_image_folder(root / "photos.zip")
    with pytest.raises(ImageError, match=r"Got the file '.*1\.jpg' instead\. Did you mean its folder, '.*photos'\?$"):
        load_image_folder(make_files("1.jpg") / "1.jpg")


def test_parts_one_folder_deeper(make_files):
    """A folder around a data set: the warning names the part to load, not the next folder to fail at."""
    root = make_files("clothing/train/hat/1.png", "clothing/test/hat/1.png", "clothing/train/shoe/1.png")
    with pytest.warns(ImageWarning, match=r"parts of a dataset: 'test', 'train'\. Did you mean '.*clothing/train'\?"):
        load_image_folder(root)


def test_no_images(make_files):
    """The error says what was looked for and what was found."""
    with pytest.raises(ImageError, match=r"No images found in '.*photos'.* \.jpg \.jpeg .*but found no files\.$"):
        load_image_folder(make_files("cat/", ".hidden/1.png"))
    with pytest.raises(ImageError, match=r"found 2 files with other extensions, such as '.*1\.dcm'"):
        load_image_folder(make_files("cat/1.dcm", "readme.txt", folder="scans"))
    with pytest.raises(ImageError, match=r"Looked for the extensions \.dcm, but found 1 file with"):
        load_image_folder(make_files("cat/1.png", folder="drawings"), extensions=["dcm"])


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (["train/cat/1.png", "test/cat/1.png"], "train"),
        (["Training/cat/1.png", "Testing/cat/1.png"], "Training"),
        (["val/cat/1.png", "train/cat/1.png", "test/1.png"], "train"),
        (["train/cat/1.png"], "train"),
        (["test/test/1.png"], "test"),
        (["train/1.png", "test/1.png"], "train"),
        (["train/good/1.png", "test/bad/1.png", "ground_truth/bad/1.png"], "train"),
    ],
)
def test_parts_of_a_data_set_are_not_classes(make_files, files, meant):
    """A folder of train, test and the like is an error that names the part that was probably meant."""
    root = make_files(*files)
    with pytest.raises(ImageError, match=r"must be classes\. Got parts of a dataset instead: .*Did you mean") as error:
        load_image_folder(root)
    assert repr(str(root / meant)) in str(error.value)


def test_a_class_may_be_called_train(make_files):
    """Among other classes the vehicle is one."""
    assert load_image_folder(make_files("bus/1.png", "train/1.png")).target_names == ["bus", "train"]


def test_one_folder_around_the_classes(make_files):
    """A folder that an archive put around the class folders gives one class, and a warning that says what was meant."""
    root = make_files("PetImages/Cat/1.png", "PetImages/Dog/1.png")
    with pytest.warns(ImageWarning, match=r"one class folder, 'PetImages'.*'Cat', 'Dog'. Did you mean '.*PetImages'\?"):
        assert load_image_folder(root).target_names == ["PetImages"]


@pytest.mark.parametrize("files", [["cat/1.png", "cat/a/1.png", "cat/b/1.png"], ["cat/a/1.png", "cat/a/b/2.png"]])
def test_one_class(make_files, files):
    """One class alone is no reason for a warning."""
    assert load_image_folder(make_files(*files)).target_names == ["cat"]


@pytest.mark.parametrize("form", [str, Path, lambda path: f"{path}{os.sep}"], ids=["str", "Path", "slash"])
def test_paths_begin_with_the_given_path(make_files, monkeypatch, form):
    """A relative path gives relative paths, an absolute one absolute paths, all of them str."""
    root = make_files("cat/1.png")
    monkeypatch.chdir(root.parent)
    assert list(load_image_folder(form("photos")).filenames) == [os.path.join("photos", "cat", "1.png")]
    assert list(load_image_folder(form(root)).filenames) == [os.path.join(str(root), "cat", "1.png")]
    monkeypatch.chdir(root)
    assert os.path.samefile(load_image_folder(form(".")).filenames[0], root / "cat" / "1.png")


def test_home_directory(make_files, monkeypatch):
    """A leading ~ is expanded."""
    root = make_files("cat/1.png")
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    assert relative(root, load_image_folder("~/photos").data) == ["cat/1.png"]


def test_names_in_all_languages(make_files):
    """Spaces, letters of all languages and names like numbers are kept as they are, and sorted as str."""
    names = ["10", "2", "Größe x", "a b", "犬", "🐈"]
    bunch = load_image_folder(make_files(*(f"{name}/ä 1.png" for name in names)))
    assert bunch.target_names == sorted(names)
    assert all(Path(path).is_file() for path in bunch.filenames)


def test_names_that_are_not_utf_8(make_files):
    """A file name from an old archive survives in a DataFrame; a file system that refuses such names is skipped."""
    root = make_files("cat/1.png")
    try:
        Path(os.fsdecode(os.fsencode(root / "cat") + b"/caf\xe9.png")).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system has names in UTF-8 only")
    assert all(os.path.isfile(path) for path in load_image_folder(root).data["image"])


def link(place, target):
    try:
        place.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links on this file system, or no right to make them")


def test_links_are_followed(make_files):
    """A linked folder is a class, a linked file an image; a link to nothing or to itself is neither."""
    elsewhere = make_files("a/1.png", "b.png", folder="elsewhere")
    root = make_files("cat/1.png")
    link(root / "dog", elsewhere / "a")
    link(root / "cat" / "2.png", elsewhere / "b.png")
    link(root / "cat" / "3.png", elsewhere / "nothing.png")
    link(root / "cat" / "4.png", root / "cat" / "4.png")
    link(root / "fish", elsewhere / "nothing")
    X, y = load_image_folder(root, return_X_y=True)
    assert relative(root, X) == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert y.tolist() == ["cat", "cat", "dog"]


def test_links_in_a_circle_end(make_files):
    """Each real folder is visited once per class, and the root is not visited again."""
    root = make_files("cat/1.png", "cat/in/2.png", "dog/1.png")
    link(root / "cat" / "in" / "self", root / "cat" / "in")
    link(root / "cat" / "up", root)
    link(root / "dog" / "cats", root / "cat")
    link(root / "everything", root)
    with pytest.warns(ImageWarning, match="Skipped 1 folder without images in .*: 'everything'"):
        X, _ = load_image_folder(root, return_X_y=True)
    assert relative(root, X) == ["cat/1.png", "cat/in/2.png", "dog/1.png", "dog/cats/1.png", "dog/cats/in/2.png"]


def test_the_order_of_the_file_system_does_not_matter(make_files, monkeypatch):
    """A file system that lists in reverse gives the same paths in the same order."""
    root = make_files("b/2.png", "b/1.png", "a/1.png", "a/c/1.png")
    expected = list(load_image_folder(root).filenames)
    scandir = os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Reversed(sorted(scandir(path), key=lambda e: e.name)[::-1]))
    assert list(load_image_folder(root).filenames) == expected


@pytest.fixture(params=["frame", "array"])
def table(request, photos):
    """The images of two classes and their labels, as a DataFrame and a Series or as arrays."""
    return load_image_folder(photos, as_frame=request.param == "frame", return_X_y=True)


def features_pipeline():
    return make_pipeline(PretrainedFeatureExtractor(), LogisticRegression())


def test_features_are_those_of_a_list_of_paths(photos, table):
    """The column of paths gives the features that the same paths in a list give, to the bit."""
    paths = load_image_folder(photos).filenames.tolist()
    extractor = PretrainedFeatureExtractor(cache=None)
    np.testing.assert_array_equal(extractor.fit_transform(table[0]), extractor.fit_transform(paths))


def test_predict_gives_names(photos, table):
    """What is fitted on class names predicts them, and its classes are the target names."""
    model = features_pipeline().fit(*table)
    assert model.classes_.tolist() == load_image_folder(photos).target_names
    assert model.predict(table[0]).tolist() == list(table[1])


@pytest.mark.parametrize(
    "estimator",
    [
        BaggingClassifier(features_pipeline(), n_estimators=2, random_state=0),
        BaggingClassifier(FineTunedClassifier(max_epochs=1, random_state=0), n_estimators=2, random_state=0),
        AdaBoostClassifier(FineTunedClassifier(max_epochs=1, random_state=0), n_estimators=2, random_state=0),
    ],
    ids=["bagging of features", "bagging of networks", "boosting of networks"],
)
def test_ensembles_take_the_column(table, estimator):
    """scikit-learn's ensembles, which index rows of a two-dimensional table and refuse a list of paths."""
    X, y = table
    assert estimator.fit(X, y).score(X, y) == 1
    with pytest.raises(ValueError, match="Expected 2D array"):
        estimator.fit(np.asarray(X).ravel().tolist(), y)


def test_permutation_importance_takes_the_column(table):
    """The one column that decides has an importance."""
    model = features_pipeline().fit(*table)
    assert permutation_importance(model, *table, n_repeats=3, random_state=0).importances_mean[0] > 0.1


def test_cross_validation_takes_the_column(table):
    """Rows are indexed in folds."""
    assert cross_val_score(features_pipeline(), *table, cv=2).mean() == 1


def test_a_student_of_labeled_and_unlabeled_images(photos, make_files):
    """Labels that are names, and -1 for the images of a folder without classes, are what a student learns from."""
    X, y = load_image_folder(photos, return_X_y=True)
    new = make_files(folder="new")
    for i, path in enumerate(X["image"]):
        (new / f"{i}.png").write_bytes(Path(path).read_bytes())
    more, _ = load_image_folder(new, return_X_y=True)
    student = DistilledClassifier(features_pipeline(), unlabeled=-1, max_epochs=1, random_state=0)
    student.fit(pd.concat([X, more]), [*y, *[-1] * len(more)])
    assert student.classes_.tolist() == ["dark", "light"]


def test_no_warning_without_a_doubt(photos):
    """A folder of classes as documented is loaded in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image_folder(photos)


def test_files_of_any_extension(tmp_path):
    """DICOM files often have no extension: "*" loads every file; the error about other extensions says how."""
    (tmp_path / "ct").mkdir()
    for name in ("IM0001", "IM0002"):
        (tmp_path / "ct" / name).write_bytes(b"x")
    with pytest.raises(ImageError, match=r"2 files with other extensions.*Use extensions=\['\*'\] to load"):
        load_image_folder(tmp_path)
    assert len(load_image_folder(tmp_path, extensions=["*"]).filenames) == 2
    (tmp_path / "ct" / "a.dcm").write_bytes(b"x")
    (tmp_path / "ct" / "IM0001").unlink()
    (tmp_path / "ct" / "IM0002").unlink()
    with pytest.raises(ImageError, match=r"1 file with other extensions.*Use extensions=\['\.dcm'\] to load"):
        load_image_folder(tmp_path)
