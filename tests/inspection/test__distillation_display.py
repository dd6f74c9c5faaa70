"""A distilled model beside its teacher: which models are compared, and what they are called."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktl.inspection import DistillationDisplay


class Distilled(LogisticRegression):
    """What a distilled classifier looks like from outside: it has a teacher."""

    def fit(self, X, y):
        self.teacher_ = LogisticRegression(C=10, max_iter=1000).fit(X, y)
        return super().fit(X, y)


def test_teacher_and_distilled(digits, measured):
    """The teacher is the one that the student learnt from, the student alone stands between them where it is given."""
    X, y = digits[0][:100], digits[1][:100]
    distilled = Distilled(C=0.01).fit(X, y)
    alone = LogisticRegression(C=0.01).fit(X, y)
    display = DistillationDisplay.from_estimator(distilled, X, y, alone=alone, n_repeats=1)
    assert display.names == ["teacher", "student alone", "distilled"]
    assert [model for model, _, _ in measured] == [distilled.teacher_, alone, distilled]
    np.testing.assert_array_equal(display.scores, [model.score(X, y) for model in (distilled.teacher_, alone, alone)])
    assert DistillationDisplay.from_estimator(distilled, X, y, n_repeats=1).names == ["teacher", "distilled"]


def test_a_search_over_students(digits, measured):
    """The teacher is that of the best candidate."""
    X, y = digits[0][:60], digits[1][:60]
    search = GridSearchCV(Distilled(max_iter=1000), {"C": [0.1, 0.01]}, cv=2).fit(X, y)
    DistillationDisplay.from_estimator(search, X, y, n_repeats=1)
    assert [model for model, _, _ in measured] == [search.best_estimator_.teacher_, search]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Distilled(), NotFittedError, "not fitted"),
        (
            LogisticRegression().fit([[0], [1]], [0, 1]),
            ValueError,
            "has no teacher_: it was not distilled, or it was pickled, which drops the teacher",
        ),
    ],
)
def test_bad_input(digits, model, error, message):
    """Each is an error that says what is wrong and what to give."""
    with pytest.raises(error, match=message):
        DistillationDisplay.from_estimator(model, digits[0][:50], digits[1][:50])
