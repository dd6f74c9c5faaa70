"""The objective of autoencoders: penalties, and a start from the training rows alone."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from sktl.autoencoders._objective import ReconstructionLoss


def test_the_penalty_is_the_mean_absolute_code():
    """It is added to each row's error; without codes, as for the score, there is none."""
    errors, code = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    loss = ReconstructionLoss(0.5)
    assert loss.per_row((errors, code), None).tolist() == [2, 2]
    assert loss.per_row(errors, None).tolist() == [1, 2]
    batch = {"weight": torch.tensor([3.0, 1.0])}
    assert loss((errors, code), None, batch).item() == 4
    assert loss.score(errors.numpy(), np.zeros(2), np.array([3, 1])) == -1.25


def test_sparsity_makes_codes_small(make, rows):
    """With the penalty, codes are nearer to zero."""
    plain, sparse = (make(sparsity=sparsity, max_epochs=20).fit(rows) for sparsity in (0.0, 1.0))
    assert np.abs(sparse.transform(rows)).mean() < 0.9 * np.abs(plain.transform(rows)).mean()


def test_the_start_does_not_see_held_out_rows(make, rows):
    """Mean and axes are those of the rows that remain after the validation split, so the split is honest."""
    model = make(max_epochs=0).fit(rows)
    held = rows[~np.isin(np.arange(120), _learned(model, rows))]
    learned = rows[_learned(model, rows)]
    assert (len(held), len(learned)) == (12, 108)
    np.testing.assert_allclose(model.transform(rows), PCA(5).fit(learned).transform(rows), atol=1e-3)
    pca = PCA(5).fit(learned)
    error = np.square(pca.inverse_transform(pca.transform(held)) - held).mean()
    scale = model.net_.module_.head.scale.item()
    model = make().fit(rows)
    assert model.history_.start["valid_loss"] == pytest.approx(error / scale**2, rel=1e-4)


def _learned(model, rows):
    """Positions of the training rows, found by their codes, of which the estimator keeps those for `sample`."""
    codes = model.transform(rows).astype(np.float32)
    return [number for number, code in enumerate(codes) if (np.abs(model._codes - code) < 1e-6).all(1).any()]
