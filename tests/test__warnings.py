"""A warning names the file and the line of the user's program, whatever stands between the two."""

import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier

from sktl import FineTunedClassifier
from sktl._images._learn import _warn_once
from sktl._warnings import _TOLD, warn, worker_threads
from sktl.exceptions import ImageWarning, SktlWarning

SCRIPT = "user_script.py"
BEFORE = """
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sktl import DistilledClassifier, FineTunedClassifier, PretrainedFeatureExtractor
from sktl.datasets import load_image_folder
from sktl.finetuning import lr_range_test
from sktl.selection import recommend_strategy

X, y = load_digits(n_class=2, return_X_y=True)
X, y = X[:24] / 16, y[:24]
wide = np.hstack([y[:, None], X]).clip(0, 1)
quick = dict(max_epochs=0, random_state=0, cache=None)
fitted = FineTunedClassifier(**quick).fit(X * 255, y)
chance = np.random.default_rng(0).integers(0, 2, 24)
noise = np.random.default_rng(0).random((200, 64))
"""

CALLS = {
    "fit": "FineTunedClassifier(**quick).fit(wide, y)",
    "fit_transform": "PretrainedFeatureExtractor(cache=None).fit_transform(wide)",
    "predict": "fitted.predict(X)",
    "predict_proba": "fitted.predict_proba(X)",
    "score": "fitted.score(X, y)",
    "pipeline": "make_pipeline(FunctionTransformer(), FineTunedClassifier(**quick)).fit(wide, y)",
    "search": "GridSearchCV(FineTunedClassifier(**quick), {'lr': [0.1]}, cv=2).fit(wide, y)",
    "cache": "PretrainedFeatureExtractor(cache=__file__ + '/no/folder').fit(X).transform(X)",
    "unreadable": "PretrainedFeatureExtractor(on_error='nan', cache=None).fit_transform(['nowhere.png'] * 3)",
    "teacher": "DistilledClassifier(make_pipeline(LogisticRegression()), **quick).fit(X, y, np.linspace(0.5, 1, 24))",
    "range test": "lr_range_test(FineTunedClassifier(batch_size=8, random_state=0), X, chance, n_steps=20)",
    "advice": "recommend_strategy(noise, np.arange(200) % 2)",
}


@pytest.fixture(scope="module")
def names():
    """What a user's script has before the line that warns."""
    made = {"__name__": "__main__", "__file__": __file__}
    exec(compile(BEFORE, SCRIPT, "exec"), made)
    return made


@pytest.mark.parametrize("call", CALLS)
def test_the_users_line(names, call, monkeypatch):
    """Of each warning of ours, from `fit`, `predict` and `transform`, in pipelines and searches, and from functions."""
    if call == "advice":
        monkeypatch.setattr("sktl.selection._strategy_advice._WORTH_IT", 1.0)
    code = compile("\n" * 41 + CALLS[call], SCRIPT, "exec")
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        exec(code, names)
    ours = [warning for warning in record if issubclass(warning.category, SktlWarning)]
    assert ours, "the call warns"
    assert {(warning.filename, warning.lineno) for warning in ours} == {(SCRIPT, 42)}


def test_in_threads(names):
    """A thread that works for a line names it; one that nobody knows of names what it runs."""
    outcome: list = []

    def look(name, make):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            make()
        outcome.append((name, record[-1].filename))

    def work():
        with worker_threads(1) as pool:
            pool.submit(warn, "odd", ImageWarning).result()

    look("pool", work)
    assert outcome == [("pool", __file__)]
    thread = threading.Thread(target=_warn_once, args=("odd",))
    look("alone", lambda: (thread.start(), thread.join()))
    assert outcome[1][1] == threading.__file__


class Wrapped(ClassifierMixin, BaseEstimator):
    """A user's own class around one of ours."""

    def __init__(self, lr=0.1):
        self.lr = lr

    def fit(self, X, y):
        """Fit the one inside."""
        self.inner_ = FineTunedClassifier(max_epochs=0, random_state=0).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        """Predict with it."""
        return self.inner_.predict(X)


LOOPS = {
    "search": lambda X, y: GridSearchCV(Wrapped(), {"lr": [0.1, 0.2]}, cv=2).fit(X, y),
    "ensemble": lambda X, y: BaggingClassifier(Wrapped(), n_estimators=2, random_state=0).fit(X, y),
    "classes": lambda X, y: OneVsRestClassifier(Wrapped()).fit(X, y),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_once_per_loop(digits, loop):
    """Also around a user's own class; the next loop tells again."""
    X, y = digits[0][:12].reshape(12, -1) * 16, digits[1][:12]
    X[:, 0] = 16
    for _ in range(2):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            LOOPS[loop](X, y)
        assert len([one for one in record if "neither 0-1 nor 0-255" in str(one.message)]) == 1


def test_once_per_cross_validation_of_an_estimator(digits):
    """What has been told of it is known as long as it lives, and is not added to by each call."""
    X, y = digits[0][:12].reshape(12, -1) * 16, digits[1][:12]
    X[:, 0] = 16
    model, counts = FineTunedClassifier(max_epochs=0, random_state=0), []
    for _ in range(4):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            cross_val_score(model, X, y, cv=2)
        counts.append(len(record))
    assert counts == [1, 0, 0, 0]
    assert len(_TOLD[model]) == 1


def test_the_same_warning_is_shown_once_for_each_line():
    """As Python's own: the user's module keeps what it has been told."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("look", ImageWarning)
        warn("look", ImageWarning)
    lines = [warning.lineno for warning in record]
    assert len(lines) == 2
    assert lines[1] - lines[0] == 1


def test_a_script_is_told_its_own_line(tmp_path):
    """Run by itself, or by name as a module: the text that Python prints begins with the file and the line."""
    program = """
        import numpy as np
        from sktl import PretrainedFeatureExtractor
        PretrainedFeatureExtractor(cache=None).fit(np.linspace(0, 1, 170).reshape(2, 85))
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(program).strip())
    for how in ([str(path)], ["-m", "script"]):
        done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert f"{path}:3: ImageWarning" in done.stderr
    assert np.size(done.stdout) == 1
