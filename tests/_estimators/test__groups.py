"""Groups stay whole: numbers of them, what joins them, and the choice of those that are set aside."""

import datetime

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneGroupOut

import sktl
from sktl._estimators._groups import accepts_groups, check_groups, choose_groups, folds_of, group_folds, joined
from sktl.exceptions import InputError


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b"],
        np.array([7, 3, 7]),
        np.array([[7.0], [3.0], [7.0]]),
        torch.tensor([7, 3, 7]),
        pd.Series(["b", "a", "b"], index=[5, 6, 7]),
        pd.Categorical(["b", "a", "b"]),
        pd.DataFrame({"subject": [2, 1, 2]}),
        [1, "1", 1],
        [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1), datetime.date(2020, 1, 1)],
    ],
    ids=["strings", "numbers", "column", "tensor", "series", "categorical", "frame", "mixed", "dates"],
)
def test_groups_of_any_kind(groups):
    """Labels of any kind are numbers, in the order in which they appear; 1 and "1" are two."""
    assert check_groups(groups, 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], "must have one entry for each of the 3 images. Got 2 entries instead"),
        ("subject", r"Got an array of shape \(\) instead"),
        (np.ones((3, 2)), r"Got an array of shape \(3, 2\) instead"),
        ([1, None, 2], "must not contain missing values. Got None at position 1, and 1 missing values in total"),
        ([1.0, np.nan, np.nan], "Got nan at position 1, and 2 missing values in total"),
        (pd.Series(["a", pd.NA, "b"], dtype=object), "Got <NA> at position 1"),
        ([{1}, {2}, {1}], "must have numbers or strings as entries. Got an entry of type set"),
    ],
)
def test_groups_that_are_none(groups, message):
    """The error says what came and what is wrong with it."""
    with pytest.raises(InputError, match=message):
        check_groups(groups, 3)


def test_no_groups():
    """None stays None."""
    assert check_groups(None, 3) is None


def test_groups_with_an_image_in_common_are_one():
    """From row to row, as far as it goes: a row of group 0 and one of group 1 have image "x", others have "y"."""
    stays = joined(np.array([0, 0, 1, 1, 2, 3]), [b"w", b"x", b"x", b"y", b"y", b"z"])
    assert len(set(stays[:5])) == 1
    assert stays[5] != stays[0]


@pytest.mark.parametrize(
    ("groups", "strata", "fraction", "share"),
    [
        (np.repeat(np.arange(100), 5), np.repeat(np.arange(100) % 10, 5), 0.1, 0.1),
        (np.repeat(np.arange(40), 5), None, 0.2, 0.2),
        (np.repeat(np.arange(40), 5), np.repeat(np.arange(40) % 4, 5), 0.7, 0.7),
        (np.repeat([0, 1], 10), np.arange(20) % 2, 0.1, 0.5),
        (np.repeat(np.arange(8), 5), np.repeat(np.arange(8) % 2, 5), 0.1, 0.25),  # one group of each class
        (np.arange(100), np.arange(100) % 10, 0.1, 0.1),
        (np.repeat(np.arange(31), np.arange(31)), np.arange(465) % 3, 0.3, 0.3),
    ],
    ids=["classes", "numbers", "most", "two groups", "few groups", "no groups", "unequal"],
)
def test_whole_groups_near_the_fraction(groups, strata, fraction, share):
    """No group is on both sides, each class is, and in shares as near as whole groups are."""
    chosen = choose_groups(groups, strata, fraction, seed=0)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert chosen.mean() == pytest.approx(share, abs=0.01)
    for label in np.unique([] if strata is None else strata):
        assert chosen[strata == label].mean() == pytest.approx(share, abs=0.04)


def test_a_seed_is_a_choice():
    """One seed is one choice, whatever the groups are called, and other seeds are others."""
    groups = np.repeat(np.arange(20), 3)
    chosen = choose_groups(groups, None, 0.2, seed=1)
    np.testing.assert_array_equal(chosen, choose_groups(50 - groups, None, 0.2, seed=1))
    assert any((chosen != choose_groups(groups, None, 0.2, seed=seed)).any() for seed in (2, 3))


def test_no_class_is_missing_where_there_is_learned():
    """A group with a class that no other has is learned; where each group has one, there is no choice."""
    groups, strata = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 9, 0, 1, 0, 1])
    for seed in range(5):
        assert not choose_groups(groups, strata, 0.5, seed)[:2].any()
    assert choose_groups(groups, groups, 0.5, seed=0) is None


def test_a_class_that_only_a_large_group_has_beside_others():
    """It is evaluated too, though more rows than were wanted are set aside for it."""
    groups = np.r_[np.repeat([0, 1], 50), np.arange(2, 22)]
    strata = np.r_[[0] * 49, 1, [0] * 49, 1, np.zeros(20)].astype(int)
    chosen = choose_groups(groups, strata, 0.1, seed=0)
    assert set(strata[chosen]) == {0, 1} == set(strata[~chosen])


@pytest.mark.parametrize("strata", [np.repeat(np.arange(12) % 3, 4), np.repeat(np.arange(12), 4), None])
def test_folds_of_whole_groups(strata):
    """Each row is held out once, with all of its group; classes in as many groups as folds are in each."""
    groups = np.repeat(np.arange(12), 4)
    folds = group_folds(groups, strata, 4, seed=0)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(48))
    for learning, held in folds:
        assert not set(groups[learning]) & set(groups[held])
        if strata is not None and strata.max() == 2:
            assert set(strata[held]) == {0, 1, 2}


def test_more_folds_than_groups():
    """There are as many folds as groups, and one group has none; classes of one row are no error."""
    assert len(group_folds(np.array([0, 0, 1, 1]), np.arange(4), 5, seed=0)) == 2
    with pytest.raises(InputError, match=r"must have at least two groups.*Got one instead"):
        group_folds(np.zeros(4, int), None, 5, seed=0)


def test_folds_by_a_number_or_a_splitter():
    """Without groups they are scikit-learn's own; with them a number is of groups, and a splitter is given them."""
    y, groups = np.tile([0, 1], 6), np.repeat(list("abc"), 4)
    assert len(folds_of(None, y, True, None)) == 5
    assert len(folds_of(LeaveOneGroupOut(), y, True, groups)) == 3
    for cv in (3, LeaveOneGroupOut(), GroupKFold(3)):
        for learning, held in folds_of(cv, y, True, groups):
            assert not set(groups[learning]) & set(groups[held])


def test_who_takes_groups():
    """What has the parameter, and a search whose folds want them."""
    model = LogisticRegression()
    assert accepts_groups(sktl.FineTunedClassifier())
    assert accepts_groups(GridSearchCV(model, {}, cv=GroupKFold(2)))
    assert not accepts_groups(GridSearchCV(model, {}, cv=KFold(2)))
    assert not accepts_groups(model)
