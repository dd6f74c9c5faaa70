"""What a fitted autoencoder gives: codes, reconstructions, scores, labels and new rows, and their errors."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sktl.exceptions import ImageError, ImageWarning, InputError


def test_reconstruct_is_the_inverse_of_transform(make, ratings):
    """To the bit, in float32 and float64, with missing entries, which are filled in."""
    model = make().fit(ratings)
    for X in (ratings, ratings.astype(np.float32), ratings[:1]):
        reconstruction = model.reconstruct(X)
        np.testing.assert_array_equal(model.inverse_transform(model.transform(X)), reconstruction)
        assert reconstruction.dtype == model.transform(X).dtype == X.dtype
        assert np.isfinite(reconstruction).all()


def test_missing_entries_are_filled_in(make, rows, ratings):
    """Better than by the mean of the column."""
    model = make(8, max_epochs=40, noise="masking", hidden_layer_sizes=(64,)).fit(ratings)
    missing = np.isnan(ratings)
    error = np.square(model.reconstruct(ratings) - rows)[missing].mean()
    assert error < 0.7 * np.square(np.nanmean(ratings, axis=0) - rows)[missing].mean()


def test_scores(make, ratings):
    """A row's score is minus the mean squared error over its own entries; score is their mean."""
    model = make().fit(ratings)
    scores = model.score_samples(ratings)
    errors = np.nanmean(np.square(model.reconstruct(ratings) - ratings), axis=1)
    usual = np.isclose(scores, -errors)
    assert usual.mean() > 0.8
    assert (scores[~usual] < -errors[~usual]).mean() > 0.9
    assert model.score(ratings) == pytest.approx(scores.mean())
    np.testing.assert_array_equal(model.decision_function(ratings), scores - model.offset_)
    np.testing.assert_array_equal(model.predict(ratings) == -1, scores < model.offset_)


def test_rows_far_away_are_outliers(make, rows):
    """Also along a principal axis, on which PCA reconstructs everything without error."""
    model = make(max_epochs=0, hidden_layer_sizes=()).fit(rows)
    center = rows.mean(0)
    far = center + 1000 * model.inverse_transform(np.eye(5)) - 1000 * model.inverse_transform(np.zeros((5, 5)))
    left = np.broadcast_to(model.reconstruct([center]) - center, far.shape)
    np.testing.assert_allclose(model.reconstruct(far) - far, left, atol=0.01)
    assert (model.predict(far) == -1).all()
    assert model.predict([center]) == [1]


@pytest.mark.parametrize("factor", [1e39, 1e100, 1e200])
def test_rows_outside_of_float32_are_outliers(make, rows, factor):
    """Their codes are finite, and their errors are not NaN, which would be no outlier."""
    model = make().fit(rows)
    far = factor * rows[:3]
    assert (model.predict(far) == -1).all()
    assert (model.score_samples(far) < -factor).all()
    assert np.isfinite(model.transform(far)).all()


def test_fit_predict_flags_the_share(make, rows):
    """With a float, fit_predict equals fit and predict, and that share of the rows is flagged."""
    model = make(contamination=0.1)
    labels = model.fit_predict(rows)
    assert (labels == -1).sum() == 12
    np.testing.assert_array_equal(labels, make(contamination=0.1).fit(rows).predict(rows))


def test_codes_of_another_width(make, rows):
    """The error says which width is taken; NaN stays NaN."""
    model = make().fit(rows)
    with pytest.raises(InputError, match=r"codes of shape \(n_samples, 5\).*\(2, 4\)"):
        model.inverse_transform(np.zeros((2, 4)))
    assert np.isnan(model.inverse_transform([[np.nan] * 5])).all()


def test_samples(make, rows):
    """New rows lie among the old ones, each call draws others, a seed repeats them, and no global generator moves."""
    model = make(max_epochs=20).fit(rows)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    drawn = model.sample(200)
    assert drawn.shape == (200, 64)
    assert (model.predict(drawn) == 1).mean() > 0.8
    np.testing.assert_allclose(drawn.mean(0), rows.mean(0), atol=2)
    assert not np.array_equal(model.sample(200), drawn)
    np.testing.assert_array_equal(make(max_epochs=20).fit(rows).sample(200), drawn)
    np.testing.assert_array_equal(model.sample(3, random_state=7), model.sample(3, random_state=7))
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("n_samples", [0, -1, 1.5])
def test_bad_numbers_of_samples(make, rows, n_samples):
    """At least one row is drawn."""
    with pytest.raises(ValueError, match=r"'n_samples' parameter of Autoencoder.sample must be an int in the range"):
        make(max_epochs=0).fit(rows).sample(n_samples)


def test_frames(make, ratings):
    """A DataFrame gives named columns where asked for, and other columns are refused."""
    frame = pd.DataFrame(ratings, columns=[f"user {number}" for number in range(64)])
    model = make(2).fit(frame).set_output(transform="pandas")
    codes = model.transform(frame)
    assert codes.columns.tolist() == ["autoencoder0", "autoencoder1"]
    np.testing.assert_array_equal(model.inverse_transform(codes), model.reconstruct(frame))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame.rename(columns={"user 0": "nobody"}))


def test_pickles_predict_the_same(make, ratings):
    """Codes, labels and samples too."""
    model = make().fit(ratings)
    loaded = pickle.loads(pickle.dumps(model))
    for method in ("transform", "reconstruct", "decision_function"):
        np.testing.assert_array_equal(getattr(loaded, method)(ratings), getattr(model, method)(ratings))
    np.testing.assert_array_equal(loaded.sample(4), model.sample(4))


def test_unreadable_images(make, digits, tmp_path):
    """With on_error="nan" they are left out of fit and score, and have NaN; there is no label for them."""
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path, image in zip(paths, digits[0], strict=False):
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    paths[3].write_bytes(b"nothing")
    small = {"backbone": "sktl_mini", "preprocessing": {"resize_size": 32, "crop_size": 32}, "freeze_depth": "all"}
    with pytest.raises(ImageError, match=r"3\.png"):
        make(2, **small).fit(paths)
    model = make(2, **small, on_error="nan")
    with pytest.warns(ImageWarning, match="1 of 12 images cannot be read and were left out"):
        model.fit(paths)
    with pytest.warns(ImageWarning, match="rows of NaN"):
        assert np.isnan(model.transform(paths)).any(1).nonzero()[0].tolist() == [3]
    with pytest.warns(ImageWarning, match="rows of NaN"):
        assert np.isnan(model.score_samples(paths)).nonzero()[0].tolist() == [3]
    with pytest.warns(ImageWarning, match="left out of the score"):
        assert np.isfinite(model.score(paths))
    with pytest.raises(ImageError, match=r"predict has no label.*score_samples returns rows of NaN"):
        model.predict(paths)
