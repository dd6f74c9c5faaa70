"""Targets of which some are unknown: what says so, what such rows weigh, and what a fitted teacher can do without."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.frozen import FrozenEstimator

from sktl.distillation._partial_targets import PartlyKnownNumbers, PartlyLabeledClasses, find_unlabeled
from sktl.exceptions import InputError

FITTED = FrozenEstimator(DummyClassifier().fit([[0]] * 3, ["a", "b", "c"]))


def classes(teacher=FITTED, classes=None, learned=None, unlabeled=-1, alpha=0.5, class_weight=None):
    owner = SimpleNamespace(teacher=teacher, unlabeled=unlabeled, alpha=alpha, class_weight=class_weight)
    return PartlyLabeledClasses(owner, classes, learned)


def numbers(teacher=FITTED, learned=None, unlabeled=np.nan, alpha=0.5):
    return PartlyKnownNumbers(SimpleNamespace(teacher=teacher, unlabeled=unlabeled, alpha=alpha), learned)


@pytest.mark.parametrize(
    ("y", "unlabeled", "expected"),
    [
        ([1, -1, 2], -1, [False, True, False]),
        ([1, -1, 2], None, [False] * 3),
        ([1.0, np.nan, 2.0], np.nan, [False, True, False]),
        (np.array(["a", None, pd.NA, np.nan], dtype=object), pd.NA, [False, True, True, True]),
        (np.array(["a", None, pd.NA, "?"], dtype=object), "?", [False, False, False, True]),
        (pd.Series([1, None, 3], dtype="Int64"), pd.NA, [False, True, False]),
        (np.array([[1.0, np.nan], [np.nan, 2.0]]), np.nan, [[False, True], [True, False]]),
        (["a", "?"], "?", [False, True]),
        ([1, 2], "?", [False, False]),
    ],
    ids=str,
)
def test_what_says_that_there_is_no_label(y, unlabeled, expected):
    """What equals it; and where it is something missing, all that is missing."""
    np.testing.assert_array_equal(find_unlabeled(y, unlabeled), expected)


def test_a_number_that_numpy_has_made_a_text():
    """It is an error, and no class of its own."""
    said = "y is an array of strings, in which NumPy has converted unlabeled=-1 to '-1'. Pass y as a list or with dtype"
    with pytest.raises(InputError, match=said):
        find_unlabeled(np.array(["a", -1]), -1)
    assert find_unlabeled(np.array(["a", "b"]), -1).tolist() == [False, False]


@pytest.mark.parametrize(
    ("y", "unlabeled"),
    [
        (["b", -1, "a", "b"], -1),
        (np.array(["b", np.nan, "a", "b"], dtype=object), np.nan),
        (pd.Series(["b", pd.NA, "a", "b"], index=[4, 3, 2, 1]), pd.NA),
        ([["b"], ["?"], ["a"], ["b"]], "?"),
    ],
    ids=["number", "nan", "NA", "column"],
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_rows_without_a_label(y, unlabeled):
    """They have the number -1, are not among the classes, and are neither known nor weighed by a class."""
    coding = classes(unlabeled=unlabeled, class_weight={"a": 3.0})
    y = np.array(y, dtype=object) if isinstance(y, list) else y
    index, factor = coding.encode(y, np.ones(4), learns=True)
    assert index.tolist() == [1, -1, 0, 1]
    assert coding.classes.tolist() == ["a", "b"]
    assert factor[1] == 1
    assert factor[2] == pytest.approx(3 * factor[0])
    assert coding.known(index).tolist() == [1, 0, 1, 1]


def test_numbers_beside_a_gap_stay_numbers():
    """Not texts, nor objects, of which scikit-learn knows no kind."""
    coding = classes(unlabeled=pd.NA)
    index, _ = coding.encode(np.array([2, pd.NA, 10, 2], dtype=object), np.ones(4), learns=True)
    assert index.tolist() == [0, -1, 1, 0]
    assert coding.classes.dtype.kind == "i"


def test_missing_labels_that_nobody_spoke_of():
    """The advice is to let the teacher speak for them."""
    with pytest.raises(
        InputError, match=r"the first one at position 1\. Drop those rows, or set unlabeled=numpy\.nan to"
    ):
        classes().encode(np.array(["a", None, "b"], dtype=object), np.ones(3), learns=True)


@pytest.mark.parametrize("make", [classes, numbers])
def test_what_an_unfitted_teacher_needs(make):
    """Targets, in some rows at least; the errors say how to give a fitted one, which needs none."""
    coding = make(DummyClassifier())
    way_out = r"sklearn\.frozen\.FrozenEstimator"
    with pytest.raises(InputError, match=rf"requires y to be passed, but the target y is None\. .*{way_out}"):
        coding.missing(3)
    coding.unlabeled = -1
    with pytest.raises(
        InputError,
        match=rf"All rows of y are unlabeled \(unlabeled=-1\), so the teacher cannot be fitted\. .*{way_out}",
    ):
        coding.encode(np.full(3, -1), np.ones(3), learns=True)
    missing = make().missing(3)
    assert find_unlabeled(missing, None).all()
    index, factor = make().encode(missing, np.ones(3), learns=True)
    assert len(index) == 3
    assert factor.tolist() == [1, 1, 1]


def test_a_transformer_needs_no_numbers():
    """What it gives are the targets, whether it is fitted or not; a regressor that is to be fitted needs some."""
    assert numbers(PCA(2)).needs_none
    assert numbers(FrozenEstimator(DummyRegressor())).needs_none
    assert not numbers(DummyRegressor()).needs_none
    assert not classes(PCA(2)).needs_none


def test_without_any_label_the_classes_are_the_teachers():
    """Or those that were given; afterwards only the same may be given."""
    coding = classes()
    coding.encode(coding.missing(2), np.ones(2), learns=True)
    assert coding.classes.tolist() == ["a", "b", "c"]
    some = classes(classes=["b", "a"])
    some.encode(np.array([-1, -1]), np.ones(2), learns=True)
    assert some.classes.tolist() == ["a", "b"]
    later = classes(classes=["a", "x"], learned=np.array(["a", "b"]))
    with pytest.raises(
        InputError, match=r"must be the same as in the first call, .*, or None\. Got \['a', 'x'\] instead\."
    ):
        later.encode(np.array(["a", "b"], dtype=object), np.ones(2), learns=False)


@pytest.mark.parametrize(("make", "y"), [(classes, ["a", -1, "b"]), (numbers, [1.0, np.nan, 3.0])])
def test_what_rows_without_a_target_weigh(make, y):
    """Nothing with alpha=0, which wants nothing of the teacher; and then there has to be a target somewhere."""
    y = np.array(y, dtype=object if make is classes else float)
    for alpha, expected in ((0, 0.0), (0.5, 1.0), (1, 1.0)):
        assert make(alpha=alpha).encode(y, np.ones(3), learns=True)[1][1] == expected
    with pytest.raises(InputError, match=r"alpha=0 ignores the teacher, but all rows of y are unlabeled\."):
        make(alpha=0).encode(y[[1, 1]], np.ones(2), learns=True)


def test_numbers_that_are_not_known():
    """They stay NaN, units are those of the others, and a row is known to the share of its targets that is."""
    y = np.array([[1.0, -9.0], [3.0, 5.0], [-9.0, -9.0], [1.0, 7.0]])
    coding = numbers(unlabeled=-9)
    encoded, factor = coding.encode(y, np.ones(4), learns=True)
    assert encoded.dtype == np.float32
    assert np.isnan(encoded).tolist() == [[False, True], [False, False], [True, True], [False, False]]
    np.testing.assert_allclose(coding.mean, [5 / 3, 6])
    assert factor.tolist() == [1, 1, 1, 1]
    assert coding.known(encoded).tolist() == [0.5, 1, 0, 1]
    assert numbers(unlabeled=-9, alpha=0).encode(y, np.ones(4), learns=True)[1].tolist() == [1, 1, 0, 1]


def test_numbers_of_which_none_is_known():
    """A column of NaN, whatever their shape; units have to come from elsewhere."""
    coding = numbers()
    encoded, factor = coding.encode(np.full((3, 2), np.nan), np.ones(3), learns=True)
    assert encoded.shape == (3, 1)
    assert np.isnan(encoded).all()
    assert factor.tolist() == [1, 1, 1]
    assert coding.n_outputs == 0
