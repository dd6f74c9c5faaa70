"""A teacher that sees a table of images and numbers, and a student that reads its column of images."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.compression import PrunedClassifier
from sktl.exceptions import ImageError
from sktl.selection import BackboneSelector

DEEP = {"knowledge": "relation", "freeze_depth": -1}


@pytest.fixture(scope="module")
def table(digits, tmp_path_factory):
    """Paths of thirty images with a text and two numbers beside each, and their labels."""
    images, y = digits
    folder = tmp_path_factory.mktemp("table")
    paths = [str(folder / f"{number}.png") for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    columns = {"photo": paths, "caption": ["a digit"] * 30, "price": np.arange(30.0), "weight": images.mean((1, 2))}
    return pd.DataFrame(columns), y


def teacher_of_tables():
    mixed = make_column_transformer((PretrainedFeatureExtractor(), "photo"), (StandardScaler(), ["price", "weight"]))
    return make_pipeline(mixed, LogisticRegression(max_iter=300))


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_teacher_of_images_and_numbers(table, make, is_frozen):
    """The teacher sees the table, the student its photos, alone or in the table, before and after pickling."""
    X, y = table
    teacher = FrozenEstimator(teacher_of_tables().fit(X, y)) if is_frozen else teacher_of_tables()
    student = make(teacher, **DEEP).fit(X, y, X_val=X[:5], y_val=y[:5])
    assert student.image_column_ == "photo"
    assert student.feature_names_in_.tolist() == ["photo"]
    np.testing.assert_allclose(student.teacher_.predict_proba(X), teacher_of_tables().fit(X, y).predict_proba(X))
    expected = student.predict_proba(X)
    for images in (X[["photo"]], X[["price", "photo"]], list(X["photo"])):
        np.testing.assert_array_equal(student.predict_proba(images), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(student)).predict_proba(X), expected)
    assert student.footprint_.to_dict()["agreement"][1] > 0.5
    assert student.score(X, y) > 0.8
    with pytest.raises(ImageError, match=r"columns \['price', 'weight'\], but not 'photo'"):
        student.predict(X[["price", "weight"]])


def test_a_students_own_network_is_that_of_its_column(table, make):
    """It is the student of the same answers to the images alone."""
    X, y = table
    teacher = teacher_of_tables().fit(X, y)

    class Answers(FineTunedClassifier):
        """Says what the teacher says of the table's rows, when it is shown the images alone."""

        classes_ = teacher.classes_

        def __sklearn_is_fitted__(self):
            return True

        def decision_function(self, images):
            rows = X.set_index("photo", drop=False).loc[np.ravel(images)]
            return teacher.decision_function(rows)

        def predict_proba(self, images):
            rows = X.set_index("photo", drop=False).loc[np.ravel(images)]
            return teacher.predict_proba(rows)

        def predict(self, images):
            return self.classes_[self.decision_function(images).argmax(1)]

    of_table = make(FrozenEstimator(teacher), cache=None).fit(X, y)
    of_images = make(FrozenEstimator(Answers()), cache=None).fit(X[["photo"]], y)
    np.testing.assert_allclose(of_table.predict_proba(X), of_images.predict_proba(X[["photo"]]), atol=1e-6)


def test_rows_differ_by_what_stands_beside_the_image(table, make, calls, watched):
    """The same photo with another price is another row, of which the teacher has its own answer, in a cache too."""
    X, y = table
    numbers = FunctionTransformer(lambda rows: rows[["price"]].to_numpy() / 1000)
    teacher = FrozenEstimator(make_pipeline(numbers, watched).fit(X, y))
    twice = pd.concat([X, X.assign(price=X["price"] + 100)], ignore_index=True)
    make(teacher).fit(twice, np.tile(y, 2))
    seen = np.concatenate([rows.ravel() for rows in calls.asked if len(rows) != 16])
    assert sorted(seen) == sorted(twice["price"] / 1000)


def test_arrays_of_objects(table, make):
    """A column of an array goes by its number."""
    X, y = table
    values = X[["price", "photo"]].to_numpy(object)
    mixed = make_column_transformer((PretrainedFeatureExtractor(), [1]), (StandardScaler(), [0]))
    student = make(make_pipeline(mixed, LogisticRegression(max_iter=300)), **DEEP).fit(values, y)
    assert student.image_column_ == 1
    np.testing.assert_array_equal(student.predict(values), student.predict(list(X["photo"])))


def test_two_columns_of_images(table, make):
    """Nobody says which of them is the student's: the error names both."""
    X, y = table
    with pytest.raises(
        ImageError, match=r"2 columns with images, \['photo', 'back'\], but DistilledClassifier accepts"
    ):
        make(teacher_of_tables()).fit(X.assign(back=X["photo"]), y)


def test_what_was_learnt_of_a_table_is_forgotten(table, make):
    """A fit to images alone has no column any more; a table that it did not learn from is refused as ever."""
    X, y = table
    student = make(teacher_of_tables()).fit(X, y).set_params(teacher=FineTunedClassifier(max_epochs=0))
    student.fit(X[["photo"]], y)
    assert not hasattr(student, "image_column_")
    with pytest.raises(ImageError, match=r"DistilledClassifier was fitted on images \(kind='files'\)"):
        student.predict(X)


def test_a_compressed_student_takes_the_table(table, make):
    """What is made of a student sees the same table."""
    X, y = table
    student = make(teacher_of_tables(), freeze_depth=-1)
    pruned = PrunedClassifier(student, amount=0.5, max_epochs=1, random_state=0).fit(X, y)
    assert pruned.predict(X).tolist() == pruned.predict(X[["photo"]]).tolist()
    assert clone(pruned).get_params()["amount"] == 0.5


EXTRACTORS = {
    "selector": lambda: make_pipeline(BackboneSelector(), LogisticRegression(max_iter=300)),
    "selector in a union": lambda: make_pipeline(make_union(BackboneSelector()), LogisticRegression(max_iter=300)),
    "frozen step": lambda: make_pipeline(make_pipeline(PretrainedFeatureExtractor()), LogisticRegression(max_iter=300)),
    "votes": lambda: VotingClassifier([("a", FineTunedClassifier(max_epochs=0))], voting="soft"),
    "stacked": lambda: StackingClassifier([("a", FineTunedClassifier(max_epochs=0))], cv=2),
}


@pytest.fixture(scope="module")
def of_the_network_alone(digits, quick):
    """What a student predicts whose teacher is the network alone."""
    X, y = digits
    teacher = FrozenEstimator(FineTunedClassifier(max_epochs=0).fit(X, y))
    return DistilledClassifier(teacher, **quick | DEEP).fit(X, y).predict_proba(X)


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("name", EXTRACTORS)
def test_layers_of_a_network_wherever_it_is(digits, make, of_the_network_alone, name, is_frozen):
    """What its layers say of the images reaches the student through whatever stands around the network."""
    X, y = digits
    teacher = EXTRACTORS[name]()
    teacher = FrozenEstimator(teacher.fit(X, y)) if is_frozen else teacher
    student = make(teacher, **DEEP).fit(X, y)
    # The same layer of the same network, so the same relations to learn from.
    np.testing.assert_allclose(student.predict_proba(X), of_the_network_alone, atol=1e-6)
