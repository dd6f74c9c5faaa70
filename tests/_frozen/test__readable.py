"""Images that cannot be read, in everything that trains: left out of fit, NaN afterwards, said once."""

import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktl import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
)
from sktl.compression import LotteryTicketClassifier, PrunedClassifier, QuantizedClassifier
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader

QUICK = {"max_epochs": 1, "random_state": 0}
BAD = [3, 7, 11]  # an empty file, one that is cut short, one that is not there
N = 24
WEIGHT = np.arange(N) % 2 + 1


@pytest.fixture(scope="module")
def table(tmp_path_factory, digits):
    """Paths of 24 digits, three of which cannot be read, and their labels."""
    folder, (X, y) = tmp_path_factory.mktemp("photos"), digits
    paths = [folder / f"img_{number:02}.png" for number in range(N)]
    for path, image in zip(paths, X, strict=False):
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    paths[BAD[0]].write_bytes(b"")
    paths[BAD[1]].write_bytes(paths[BAD[1]].read_bytes()[:60])
    paths[BAD[2]].unlink()
    return [str(path) for path in paths], y[:N]


@pytest.fixture
def damaged(tmp_path, digits):
    """Paths of 8 digits, three of which are there and cannot be decoded, and labels."""
    paths = [tmp_path / f"img_{number:02}.png" for number in range(8)]
    for number, (path, image) in enumerate(zip(paths, digits[0], strict=False)):
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
        if number in (1, 5, 6):
            path.write_bytes(path.read_bytes()[: 58 + number])
    return [str(path) for path in paths], [0, 1] * 4


@pytest.fixture(scope="module")
def clean(table):
    """The rows that can be read."""
    paths, y = table
    return [path for row, path in enumerate(paths) if row not in BAD], np.delete(y, BAD)


def told(call, n=1):
    """What a call gives, with the text of its one warning."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    assert [one.category for one in found] == [ImageWarning] * n
    text = str(found[0].message) if found else ""
    assert all(f"img_{row:02}.png" in text for row in BAD) or not n
    return result, text


TRAINERS = {
    "fine-tuned": FineTunedClassifier(**QUICK, on_error="nan"),
    "fine-tuned, live": FineTunedClassifier(**QUICK, on_error="nan", freeze_depth=-1, augment="flip", cache=None),
    # Its teacher takes no NaN, and reads the images itself.
    "distilled": DistilledClassifier(
        make_pipeline(PretrainedFeatureExtractor(), LogisticRegression()), **QUICK, on_error="nan"
    ),
    "pruned": PrunedClassifier(FineTunedClassifier(**QUICK, on_error="nan"), max_epochs=1),
    "quantized": QuantizedClassifier(FineTunedClassifier(**QUICK, on_error="nan")),
    "ticket": LotteryTicketClassifier(FineTunedClassifier(**QUICK, on_error="nan"), n_rounds=1, controls=False),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_classifier_learns_from_the_others(name, table, clean):
    """It is what it would be without those rows; one warning; NaN probabilities; labels are an error."""
    model, text = told(lambda: clone(TRAINERS[name]).fit(*table, WEIGHT))
    assert text.startswith("3 of 24 images cannot be read and were left out, because on_error='nan': Image 3 (")
    expected = clone(TRAINERS[name]).fit(*clean, np.delete(WEIGHT, BAD))
    probabilities, text = told(lambda: model.predict_proba(table[0]))
    assert "3 of 24 images cannot be read and have rows of NaN" in text
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(probabilities).all(axis=1)), BAD)
    np.testing.assert_array_equal(np.delete(probabilities, BAD, axis=0), expected.predict_proba(clean[0]))
    assert np.isnan(told(lambda: model.decision_function(table[0]))[0][BAD]).all()
    assert np.isnan(told(lambda: model.predict_log_proba(table[0]))[0][BAD]).all()
    score, text = told(lambda: model.score(*table))
    assert score == expected.score(*clean)
    assert "left out of the score" in text
    with pytest.raises(
        ImageError, match=r"^3 of 24 images cannot be read, so predict has no label.*find_unreadable_images\("
    ):
        model.predict(table[0])
    np.testing.assert_array_equal(model.predict(clean[0]), expected.predict(clean[0]))


@pytest.mark.parametrize("name", ["pruned", "quantized", "ticket"])
def test_a_footprint_is_measured_without_them(name, table):
    """The images that agreement is measured with can be read."""
    model, _ = told(lambda: clone(TRAINERS[name]).fit(*table))
    assert len(model.footprint_.to_dict()["agreement"]) == 2


@pytest.mark.parametrize(
    "model",
    [
        FineTunedRegressor(**QUICK, on_error="nan"),
        DistilledRegressor(make_pipeline(PretrainedFeatureExtractor(), Ridge()), **QUICK, on_error="nan"),
    ],
    ids=["fine-tuned", "distilled"],
)
def test_a_regressor_predicts_nan(model, table, clean):
    """Of several targets as of one; a score is that of the others."""
    paths, y = table
    targets = np.stack([y, -y], axis=1).astype(float)
    for given in (targets, targets[:, 0]):
        fitted, _ = told(lambda: clone(model).fit(paths, given))
        expected = clone(model).fit(clean[0], np.delete(given, BAD, axis=0))
        predicted, _ = told(lambda: fitted.predict(paths))
        assert np.isnan(predicted[BAD]).all()
        np.testing.assert_array_equal(np.delete(predicted, BAD, axis=0), expected.predict(clean[0]))
        assert told(lambda: fitted.score(paths, given))[0] == expected.score(clean[0], np.delete(given, BAD, axis=0))


def test_a_score_needs_as_many_labels_as_images(table):
    """What is left out does not hide that there are more or fewer of them, of a classifier and of a regressor."""
    paths, y = table
    for model in (FineTunedClassifier, FineTunedRegressor):
        fitted, _ = told(lambda model=model: model(max_epochs=0, random_state=0, on_error="nan").fit(paths, y))
        for labels, weight in ((np.resize(y, 40), None), (y[:20], None), (y, np.ones(40))):
            with pytest.raises(ValueError, match="inconsistent numbers of samples"):
                fitted.score(paths, labels, weight)


def test_rows_to_judge_on(table, clean):
    """X_val is left out of in the same way, with a warning of its own."""
    settings = {**QUICK, "early_stopping": True, "on_error": "nan"}
    model, _ = told(lambda: FineTunedClassifier(**settings).fit(*clean, X_val=table[0], y_val=table[1]))
    expected = FineTunedClassifier(**settings).fit(*clean, X_val=clean[0], y_val=clean[1])
    np.testing.assert_array_equal(model.predict_proba(clean[0]), expected.predict_proba(clean[0]))


def test_steps(table, clean):
    """`partial_fit` leaves them out as `fit` does."""
    model, _ = told(lambda: FineTunedClassifier(**QUICK, on_error="nan").partial_fit(*table, classes=[0, 1, 2]))
    expected = FineTunedClassifier(**QUICK).partial_fit(*clean, classes=[0, 1, 2])
    np.testing.assert_array_equal(model.predict_proba(clean[0]), expected.predict_proba(clean[0]))


def test_a_search_scores_the_others(table):
    """Each candidate has a score, by what can be read of each fold, and each image is named once."""
    search = GridSearchCV(FineTunedClassifier(**QUICK, on_error="nan"), {"freeze_depth": ["all", -1]}, cv=3)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        search.fit(*table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # The rows of the first fit, and those that it was tested on: together they are the table.
    texts = [str(one.message) for one in found]
    assert len(texts) == 2
    assert all(f"img_{row:02}.png" in "".join(texts) for row in BAD)
    probabilities, _ = told(lambda: search.predict_proba(table[0]))  # NaN is another outcome
    assert np.isnan(probabilities[BAD]).all()


def test_a_reader_in_front_is_enough(table):
    """ImageReader(on_error="nan") says it for estimators that train, too."""
    pipe = make_pipeline(ImageReader(on_error="nan"), FineTunedClassifier(**QUICK))
    model, _ = told(lambda: pipe.fit(*table))
    assert np.isnan(told(lambda: model.predict_proba(table[0]))[0][BAD]).all()


def test_they_are_decoded_once(table, monkeypatch):
    """What is known to be readable is not decoded to find that out again, in another fit with the same cache."""
    decoded = []
    decode = Image.Image.load
    model = FineTunedClassifier(**QUICK, on_error="nan")
    told(lambda: clone(model).fit(*table))
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image) or decode(image))
    told(lambda: clone(model).fit(*table))
    assert len(decoded) <= 1  # the one that is cut short


def test_errors_name_several(table):
    """By default too: one error for what is found at once, and the function that finds all."""
    fitted = FineTunedClassifier(**QUICK).fit(*(column[12:] for column in table))
    for call in (FineTunedClassifier(**QUICK).fit, fitted.score):
        with pytest.raises(ImageError, match=r"img_03\.png.*img_11\.png.*does not exist.*find_unreadable_images\(X\)"):
            call(*table)
    extractor = PretrainedFeatureExtractor().fit(table[0])
    for call in (fitted.predict, fitted.predict_proba, extractor.transform):
        with pytest.raises(ImageError, match=r"^Image 3 .*img_03.*img_07.*img_11.* At least 3 of 24 images"):
            call(table[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "flip"},
        {"augment": "flip", "n_views": 2},
        {"cache": None, "freeze_depth": 0, "head_init": "random"},
        {"cache": None, "freeze_depth": 0, "head_init": "random", "net_params": {"iterator_train__num_workers": 1}},
    ],
    ids=["live", "views", "no cache", "workers"],
)
def test_errors_name_several_in_a_training(settings, damaged):
    """Also if images are decoded batch by batch, changed or not, here or in a process of the loader's."""
    model = FineTunedClassifier(**{**QUICK, "batch_size": 2, **settings})
    with pytest.raises(ImageError, match=r"^Image 1 \(.*img_01.*img_05.*img_06.* 3 of 8 images cannot be read; sktl"):
        model.fit(*damaged)


def test_nothing_is_left(table):
    """If no image can be read there is nothing to learn from, and nothing to score."""
    bad, y = [table[0][row] for row in BAD], table[1][BAD]
    with pytest.raises(ImageError, match=r"^None of the 3 images can be read: Image 0 \("):
        FineTunedClassifier(**QUICK, on_error="nan").fit(bad, y)
    model, _ = told(lambda: FineTunedClassifier(**QUICK, on_error="nan").fit(*table))
    with pytest.raises(ValueError, match="The score is undefined, because none of the"):
        model.score(bad, y)
    assert np.isnan(told(lambda: model.predict_proba(bad))[0]).all()
