"""What a fit is given as a table: equal rows are one, near-copies are on one side if groups say what is a copy."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from sktl import DistilledClassifier, DistilledRegressor, FineTunedClassifier, FineTunedRegressor
from sktl._estimators import _network_estimator
from sktl._estimators._checked_table import FitInput, as_targets, checked_table, distinct
from sktl._estimators._target_coding import ClassCoding
from sktl.compression import LotteryTicketClassifier, PrunedClassifier, QuantizedClassifier
from sktl.exceptions import ImageWarning, InputError

N_ORIGINALS, N_COPIES = 16, 4


@pytest.fixture(scope="module")
def copies(digits):
    """Sixteen digits of two kinds, four noisy copies of each, in any order; labels, and the original as a string."""
    images, labels = digits
    originals = np.r_[np.flatnonzero(labels == 0)[:8], np.flatnonzero(labels == 1)[:8]]
    random = np.random.default_rng(0)
    rows = random.permutation(np.repeat(originals, N_COPIES))
    noisy = np.clip(images[rows] + random.normal(scale=0.01, size=(len(rows), 8, 8)), 0, 1)
    return noisy.reshape(-1, 64), labels[rows], np.array([f"digit {row}" for row in rows])


@pytest.fixture
def splits(copies, monkeypatch):
    """The originals on either side of each split that is made, in a list that grows."""
    X, _, groups = copies
    original = {row.tobytes(): group for row, group in zip(X, groups, strict=True)}
    made, hold_out = [], _network_estimator.hold_out

    def noted(*args, **kwargs):
        sides = hold_out(*args, **kwargs)
        made.append([{original[side.given[0][row].tobytes()] for row in side.images.positions} for side in sides])
        return sides

    monkeypatch.setattr(_network_estimator, "hold_out", noted)
    return made


@pytest.fixture(scope="module")
def stopped(quick):
    """Parameters of a short fit with early stopping."""
    return {**quick, "max_epochs": 1, "early_stopping": True, "validation_fraction": 0.25}


KINDS = {
    "fine-tuned classifier": lambda params: FineTunedClassifier(**params),
    "fine-tuned regressor": lambda params: FineTunedRegressor(**params),
    "distilled classifier": lambda params: DistilledClassifier(LogisticRegression(), **params),
    "distilled regressor": lambda params: DistilledRegressor(Ridge(), **params),
    "its teacher": lambda params: DistilledClassifier(FineTunedClassifier(**params), max_epochs=1, freeze_depth="all"),
    "pruned": lambda params: PrunedClassifier(FineTunedClassifier(**{**params, "freeze_depth": -1}), max_epochs=1),
    "a stack": lambda params: QuantizedClassifier(KINDS["pruned"](params), scheme="float16"),
    "lottery": lambda params: LotteryTicketClassifier(
        FineTunedClassifier(**{**params, "early_stopping": False}), n_rounds=1
    ),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_no_near_copy_is_on_both_sides(copies, splits, stopped, make):
    """Without groups near-copies of what is evaluated are learned from; with them never, and a quarter is set aside."""
    X, y, groups = copies
    y = y if hasattr(make(stopped), "predict_proba") else y + np.arange(len(y)) / 100
    model = make(stopped).fit(X, y)
    assert splits
    assert all(learned & evaluated for learned, evaluated in splits)
    splits.clear()
    clone(model).fit(X, y, groups=groups)
    assert splits
    assert not any(learned & evaluated for learned, evaluated in splits)
    assert {len(evaluated) for _, evaluated in splits} <= {3, 4}  # of 16, or of those that a teacher learns from


@pytest.mark.parametrize("is_routed", [False, True])
def test_groups_come_through_a_search(copies, splits, stopped, is_routed):
    """A pipeline in a search gives each fit the groups of its fold: routed, or as a parameter of the step."""
    X, y, groups = copies
    with sklearn.config_context(enable_metadata_routing=is_routed):
        model = FineTunedClassifier(**stopped)
        model = model.set_fit_request(groups=True) if is_routed else model
        pipe = Pipeline([("scale", "passthrough"), ("model", model)])
        given = {"groups": groups} if is_routed else {"model__groups": groups}
        pipe.fit(X, y, model__groups=groups) if not is_routed else pipe.fit(X, y, groups=groups)
        search = GridSearchCV(pipe, {"model__lr": [0.001]}, cv=GroupKFold(2) if is_routed else 2, error_score="raise")
        search.fit(X, y, **given)
    assert len(splits) == 4
    assert not any(learned & evaluated for learned, evaluated in splits)
    assert [len(learned | evaluated) for learned, evaluated in splits][1::2] == [8, 16] if is_routed else True


@pytest.mark.parametrize(
    "around", [lambda model: PrunedClassifier(model, max_epochs=0), lambda model: DistilledClassifier(model)]
)
def test_groups_are_routed_to_what_is_fitted(copies, splits, stopped, around):
    """They go to the estimator inside where it asks for them, and not without a word where it does not."""
    X, y, groups = copies
    stopped = {**stopped, "max_epochs": 0, "freeze_depth": -1}
    with sklearn.config_context(enable_metadata_routing=True):
        around(FineTunedClassifier(**stopped).set_fit_request(groups=True)).fit(X, y, groups=groups)
        assert splits
        assert not splits[0][0] & splits[0][1]
        with pytest.raises(UnsetMetadataPassedError):
            around(FineTunedClassifier(**stopped)).fit(X, y, groups=groups)


def test_names_and_orders_of_groups_make_no_difference(copies, quick):
    """What is learned depends on which rows belong together, and not on what their group is called or on the order."""
    X, y, groups = copies
    params = {**quick, "early_stopping": True}
    one = FineTunedClassifier(**params).fit(X, y, groups=groups)
    _, numbers = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(X))
    other = FineTunedClassifier(**params).fit(X[order], y[order], groups=99 - numbers[order])
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_an_image_in_two_groups_joins_them(copies, splits, stopped):
    """Equal images are on one side, with all that belongs to either of them."""
    X, y, groups = copies
    first, second = np.unique(groups)[:2]
    twin = X[groups == first][:1]
    FineTunedClassifier(**stopped).fit(np.r_[X, twin], np.r_[y, y[groups == first][:1]], groups=[*groups, second])
    (learned, evaluated) = splits[0]
    assert not learned & evaluated
    assert {first, second} <= learned or {first, second} <= evaluated


def test_rows_that_are_not_there_have_no_group(copies, splits, stopped):
    """A row of weight zero joins nothing, and takes its group along."""
    X, y, groups = copies
    joins = np.r_[groups, groups]  # each image once more, in the group of its neighbor, and without weight
    joins[len(groups) :] = np.roll(groups, 1)
    weight = np.r_[np.ones(len(X)), np.zeros(len(X))]
    FineTunedClassifier(**stopped).fit(np.r_[X, X], np.r_[y, y], sample_weight=weight, groups=joins)
    assert {len(side) for side in splits[0]} == {12, 4}


def test_images_that_cannot_be_read_take_their_groups_along(copies, stopped):
    """They are left out before groups are joined and split: what is learned is what the others give alone."""
    X, y, groups = copies
    images = [row.reshape(8, 8) for row in X]
    broken = [b"no image", b"no image either"]
    params = {**stopped, "on_error": "nan"}
    others = [np.unique(groups)[0], "alone"]
    with pytest.warns(ImageWarning, match="2 of 66 images"):
        model = FineTunedClassifier(**params).fit(images + broken, [*y, 0, 1], groups=[*groups, *others])
    expected = FineTunedClassifier(**params).fit(images, y, groups=groups)
    np.testing.assert_array_equal(model.predict_proba(images), expected.predict_proba(images))


def test_a_warm_start_keeps_its_rows(copies, splits, stopped):
    """What was evaluated in the first fit is evaluated in the second."""
    X, y, groups = copies
    model = FineTunedClassifier(**stopped, warm_start=True).fit(X, y, groups=groups)
    model.fit(X, y, groups=groups)
    assert splits[0] == splits[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda groups: groups[1:], "must have one entry for each of the 64 images. Got 63 entries"),
        (lambda groups: [None, *groups[1:]], "Got None at position 0"),
        (lambda groups: ["a"] * len(groups), "must have at least two groups"),
    ],
)
def test_groups_that_cannot_be_split(copies, stopped, change, message):
    """An error says so, and what to do."""
    X, y, groups = copies
    with pytest.raises(InputError, match=message):
        FineTunedClassifier(**stopped).fit(X, y, groups=change(groups))


def test_groups_that_are_the_classes(copies, stopped):
    """Then there is nothing that could be evaluated and not be missing where there is learned."""
    X, y, _ = copies
    with pytest.raises(InputError, match="each of the 2 groups has a class that no other group has"):
        FineTunedClassifier(**stopped).fit(X, y, groups=y)
    with pytest.raises(
        InputError, match=r"LotteryTicketClassifier holds out whole groups.*or X_val and y_val"
    ) as caught:
        LotteryTicketClassifier(FineTunedClassifier()).fit(X, y, groups=y)
    assert "early_stopping" not in str(caught.value)


def test_groups_that_are_not_needed(copies, splits, quick):
    """Where no rows are set aside they make no difference, whatever they are; nobody warns."""
    X, y, groups = copies
    plain = FineTunedClassifier(**quick).fit(X, y).predict_proba(X)
    for unused in (groups, ["a"] * len(X)):
        np.testing.assert_array_equal(FineTunedClassifier(**quick).fit(X, y, groups=unused).predict_proba(X), plain)
    given = {"X_val": X[:9], "y_val": y[:9]}
    one = FineTunedClassifier(**quick, early_stopping=True).fit(X, y, **given)
    other = FineTunedClassifier(**quick, early_stopping=True).fit(X, y, groups=["a"] * len(X), **given)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert not splits


def test_a_teacher_that_is_a_search_by_groups(copies, quick):
    """Its folds get the groups of the rows that it is fitted to; one that takes no groups is fitted without."""
    X, y, groups = copies

    class Folds(GroupKFold):
        def split(self, X, y, groups):
            seen.append(len(np.unique(groups)))
            return super().split(X, y, groups)

    seen = []
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=Folds(2))
    DistilledClassifier(search, **quick).fit(X, y, groups=groups)
    assert seen == [N_ORIGINALS]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(make_table):
    """Eight rows: pictures 0, 1, 2, 0, 1, 0, 3, 3 with labels 0, 1, 0, 0, 1, 2, 1, 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    return make_table(
        pixels[[0, 1, 2, 0, 1, 0, 3, 3]], [0, 1, 0, 0, 1, 2, 1, 1], np.arange(1.0, 9), np.arange(11.0, 19)
    )


def test_equal_rows_are_one(table):
    """Equal pictures with equal targets become one row that weighs what they weighed; other targets stay apart."""
    merged = distinct(table)
    rows = {(row, label): weights for row, label, *weights in zip(merged.images.positions, *merged[1:4], strict=True)}
    assert rows == {
        (0, 0): [1 + 4, 11 + 14],
        (1, 1): [2 + 5, 12 + 15],
        (2, 0): [3, 13],
        (5, 2): [6, 16],
        (6, 1): [7 + 8, 17 + 18],
    }


def test_their_order_is_that_of_their_content(table):
    """However a table is shuffled, the same rows come in the same order; several targets are compared whole."""
    order = np.random.default_rng(1).permutation(8)
    several = table._replace(y=np.stack([table.y, table.y + 0.5], axis=1))
    for one in (table, several):
        first, second = distinct(one), distinct(one.take(order))
        np.testing.assert_array_equal(first.y, second.y)
        np.testing.assert_array_equal(first.weight, second.weight)
        assert [first.images.digest(i) for i in range(5)] == [second.images.digest(i) for i in range(5)]


@pytest.fixture
def door():
    """What checks tables: an estimator that reads images, and keeps what it learns of them."""

    def check(given, coding, *, on_error="raise"):
        model = FineTunedClassifier(on_error=on_error)
        return model, checked_table(model, given, coding, learns=True)

    return check


def test_rows_of_no_weight_are_not_there(digits, door):
    """Whether a row or its class weighs nothing; the weights of rows stand beside those with classes in them."""
    X, y = digits
    weight = np.where(np.arange(30) % 5 == 0, 0.0, 2.0)
    model, table = door(FitInput(X, y, weight), ClassCoding("Some", {1: 0.0, 2: 3.0}))
    assert sorted(table.images.positions) == [i for i in range(30) if i % 5 and y[i] != 1]
    assert model.classes_.tolist() == [0, 1, 2]
    assert set(table.sample_weight) == {2.0}
    np.testing.assert_allclose(table.weight[table.y == 2], 3 * table.weight[table.y == 0][0])
    assert table.is_weighted
    assert table.given[1] is y


def test_what_a_table_says_beside_its_images_keeps_rows_apart(digits, door):
    """Equal images with equal labels are two rows where the rest of their rows differs, for whoever takes tables."""
    X, y = np.repeat(digits[0][:4], 2, axis=0), np.repeat(digits[1][:4], 2)
    table = door(FitInput(X, y), ClassCoding("Some", None))[1]
    assert len(table.y) == 4
    assert table.beside is None
    images, model = [*np.rint(255 * X).astype(np.uint8)], DistilledClassifier(LogisticRegression())
    for other, n_rows in ((np.arange(8), 8), (np.arange(8) // 2, 4)):
        given = FitInput(pd.DataFrame({"image": images, "other": other}), y, np.arange(8))
        table = checked_table(model, given, ClassCoding("Some", None), learns=True)
        assert len(table.y) == n_rows - (n_rows == 8)  # a row that weighs nothing is none
        assert len(set(table.beside)) == len(table.y)


def test_a_later_table_teaches_nothing(digits, door):
    """Its labels are numbered as the first one's, and the estimator gets no attributes."""
    X, y = digits
    coding = ClassCoding("Some", None, learned=np.array([0, 1, 2, 3]))
    model, table = door(FitInput(X, y), coding)
    assert model.classes_.tolist() == [0, 1, 2]
    coding.classes = np.array([0, 1, 2, 3])
    later = checked_table(model, FitInput(X, y), coding, learns=False)
    assert model.classes_.tolist() == [0, 1, 2]
    assert sorted(later.y) == sorted(table.y)


def test_what_cannot_be_read_is_left_out(digits, door):
    """With a warning, with its label and its weight."""
    images = [*(np.rint(255 * digits[0][:6]).astype(np.uint8)), "missing.png"]
    with pytest.warns(ImageWarning, match="Image 6"):
        table = door(FitInput(images, [0, 1, 2, 0, 1, 2, 9]), ClassCoding("Some", None), on_error="nan")[1]
    assert sorted(table.images.positions) == [0, 1, 2, 3, 4, 5]
    assert sorted(table.y) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("half", [{"X_val": [1]}, {"y_val": [1]}])
def test_half_a_validation_set_is_none(half):
    """The error asks for both; with both it is a table of its own, without groups."""
    with pytest.raises(InputError, match=rf"X_val and y_val must be passed together\. Got only {next(iter(half))}\."):
        _ = FitInput([0], [0], **half).has_validation
    whole = FitInput([0], [0], [2], [1], [3], [4], groups=[5])
    assert whole.has_validation
    assert whole.validation == FitInput([1], [3], [4])
    assert not FitInput([0], [0]).has_validation


def test_labels_of_two_kinds_stay_two_kinds():
    """NumPy would make texts of numbers beside texts."""
    assert as_targets(["a", 1]).tolist() == ["a", 1]
    assert as_targets(["a", "b"]).dtype.kind == "U"
    assert as_targets([1, 2.5]).dtype.kind == "f"
