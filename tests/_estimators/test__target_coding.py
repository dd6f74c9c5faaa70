"""What becomes of targets: numbers of classes and their weights, standardized numbers, and what is refused."""

import numpy as np
import pytest

from sktl._estimators._target_coding import ClassCoding, NoTargets, NumberCoding, TargetCoding, power_of_two
from sktl.exceptions import InputError

ONES = np.ones(4)


def test_a_table_without_targets():
    """Where they are needed the error is scikit-learn's; a coding that is nothing else has no words and no strata."""
    for coding in (TargetCoding("Some"), ClassCoding("Some", None), NumberCoding("Some")):
        with pytest.raises(InputError, match="This Some estimator requires y to be passed, but the target y is None"):
            coding.missing(4)
    assert TargetCoding("Some").attributes == {}
    assert TargetCoding("Some").strata(ONES) is None
    with pytest.raises(NotImplementedError):
        TargetCoding("Some").encode(ONES, ONES, learns=True)


def test_classes_are_those_that_are_encoded_first():
    """Sorted; later labels have the same numbers, and one that is none of them is an error with a way out."""
    coding = ClassCoding("Some", None)
    index, factor = coding.encode(["b", "a", "c", "a"], ONES, learns=True)
    assert (index.tolist(), factor.tolist()) == ([1, 0, 2, 0], [1, 1, 1, 1])
    assert coding.n_outputs == 3
    assert coding.attributes["classes_"].tolist() == ["a", "b", "c"]
    assert coding.encode(["c", "c"], ONES[:2], learns=False)[0].tolist() == [2, 2]
    with pytest.raises(InputError, match=r"labels \['d'\] that are not among the classes \['a', 'b', 'c'\]\. Pass all"):
        coding.encode(["d", "a"], ONES[:2], learns=False)
    assert coding.strata(index) is index


def test_classes_that_are_given_or_learned_already():
    """All that there will ever be, in any order; and those that a network has."""
    given = ClassCoding("Some", None, classes=[3, 1, 2])
    assert given.encode([3, 3, 2, 3], ONES, learns=True)[0].tolist() == [2, 2, 1, 2]
    learned = ClassCoding("Some", None, learned=np.array([1, 2, 3]))
    assert learned.encode([3, 1], ONES[:2], learns=False)[0].tolist() == [2, 0]
    assert learned.n_outputs == 3


@pytest.mark.parametrize("missing", [None, np.nan, float("nan")])
def test_labels_that_are_missing(missing):
    """The first position is named, and what to do."""
    with pytest.raises(InputError, match=r"y has missing labels, the first one at position 2\. Drop those rows"):
        ClassCoding("Some", None).encode(np.array(["a", "b", missing, missing], dtype=object), ONES, learns=True)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.array(["a", 1, "b", 2], dtype=object), "y has both strings and numbers as labels"),
        ([5, 5, 5, 5], "Some needs at least two classes. Got y with one class: 5"),
        ([0.1, 0.2, 0.3, 0.4], "continuous"),
        ([[1, 2], [3, 4], [1, 2], [3, 4]], "1d array"),
    ],
)
def test_labels_that_are_no_classes(y, says):
    """Each error says what came."""
    with pytest.raises(ValueError, match=says):
        ClassCoding("Some", None).encode(y, ONES, learns=True)


def test_weights_of_classes():
    """They multiply those of rows, whose total stays; balanced, each class weighs as much as every other."""
    y, weight = ["a", "a", "a", "b"], np.array([1.0, 2.0, 3.0, 2.0])
    _, factor = ClassCoding("Some", {"a": 1.0, "b": 6.0}).encode(y, weight, learns=True)
    assert factor[3] == pytest.approx(6 * factor[0])
    assert (factor * weight).sum() == pytest.approx(weight.sum())
    _, factor = ClassCoding("Some", "balanced").encode(y, weight, learns=True)
    assert (factor * weight)[:3].sum() == pytest.approx((factor * weight)[3])
    assert (factor * weight).sum() == pytest.approx(weight.sum())
    coding = ClassCoding("Some", "balanced", classes=["a", "b", "z"])  # a class without rows weighs something finite
    assert np.isfinite(coding.weights(np.array([0, 0, 1]), ONES[:3])).all()


@pytest.mark.parametrize(
    ("class_weight", "says"),
    [
        ({"a": -1.0}, "must map labels to finite weights of at least 0. Got {'a': -1.0} instead"),
        ({"a": "much"}, "Got {'a': 'much'} instead"),
        ({"b": float("inf")}, "Got {'b': inf} instead"),
        (
            {"a": 0, "b": 0},
            "must be at least 0 for each class, and positive for at least one class in y. Got {'a': 0, 'b': 0}",
        ),
    ],
)
def test_weights_that_are_none(class_weight, says):
    """The error quotes the entry."""
    with pytest.raises(ValueError, match=says):
        ClassCoding("Some", class_weight).encode(["a", "b", "b", "a"], ONES, learns=True)


@pytest.mark.parametrize("is_flat", [True, False])
def test_numbers_come_back_as_they_were(is_flat):
    """Standardized with the rows' weights, in float32; decoded in their own units and shape."""
    y, weight = np.array([[1e6, 2.0], [3e6, 4.0], [8e6, 4.0], [4e6, 0.0]]), np.array([1.0, 2.0, 1.0, 4.0])
    y = y[:, 0] if is_flat else y
    coding = NumberCoding("Some")
    encoded, factor = coding.encode(y, weight, learns=True)
    assert (encoded.dtype, encoded.shape) == (np.float32, (4, 1 if is_flat else 2))
    np.testing.assert_allclose(np.average(encoded, axis=0, weights=weight), 0, atol=1e-6)
    np.testing.assert_allclose(np.average(encoded**2, axis=0, weights=weight), 1, rtol=1e-5)
    assert factor.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(coding.decode(encoded), y, rtol=1e-6, atol=1e-6)
    assert coding.attributes == {"_coding": coding}
    assert coding.n_outputs == (1 if is_flat else 2)
    assert coding.strata(encoded) is None


def test_a_network_keeps_its_units():
    """What it has learned decides on later targets, and on their number; their shape is the first one's."""
    first = NumberCoding("Some")
    first.encode([0.0, 2.0, 0.0, 2.0], ONES, learns=True)
    later = NumberCoding("Some", first)
    assert later.encode([[5.0], [1.0]], ONES[:2], learns=False)[0].tolist() == [[4.0], [0.0]]
    assert later.is_flat
    assert later.decode(np.array([[4.0]])).tolist() == [5.0]
    with pytest.raises(InputError, match=r"y has 2 targets, but Some was fitted with 1\."):
        later.encode([[1.0, 2.0]] * 2, ONES[:2], learns=False)


def test_numbers_without_a_spread_and_of_any_size():
    """A constant is in units of one, and huge and tiny numbers have a mean and a deviation too."""
    coding = NumberCoding("Some")
    encoded, _ = coding.encode(
        np.c_[[7.0] * 4, [1e300, -1e300, 1e300, -1e300], [1e-300, 3e-300] * 2], ONES, learns=True
    )
    assert coding.scale[0] == 1
    np.testing.assert_allclose(coding.scale[1:], [1e300, 1e-300])
    np.testing.assert_allclose(encoded, np.c_[[0] * 4, [1, -1, 1, -1], [-1, 1] * 2], atol=1e-6)


def test_numbers_of_which_some_are_not_known():
    """Units are those of the known ones, the others stay NaN; a target that nobody knows is refused."""
    coding = NumberCoding("Some")
    y = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 5.0]])
    encoded = coding.standardized(y, ONES[:3], is_flat=False)
    np.testing.assert_array_equal(encoded, [[-1, np.nan], [1, 0], [np.nan, 0]])
    with pytest.raises(InputError, match=r"Target 1 of y is missing in all rows\. Drop this target"):
        coding.standardized(y * [1, np.nan], ONES[:3], is_flat=False)


def test_powers_of_two():
    """The largest that is no larger; 1 for nothing."""
    np.testing.assert_array_equal(power_of_two(np.array([0, 1, 1.5, 2, 1000, 0.3])), [1, 1, 1, 2, 512, 0.25])


def test_no_targets():
    """Whatever y holds is ignored: all rows have the same target and keep their weights."""
    coding = NoTargets("Some")
    assert coding.missing(2).tolist() == [0, 0]
    encoded, factor = coding.encode(["a", None], ONES[:2], learns=True)
    assert (encoded.tolist(), factor.tolist()) == ([0, 0], [1, 1])
    assert (coding.attributes, coding.strata(encoded)) == ({}, None)
