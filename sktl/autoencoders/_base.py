"""Base class of autoencoders: a table of numbers or images, through the one trainer."""

from itertools import groupby
from numbers import Integral

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._backbone_parameter import resolve_backbone
from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import NetworkEstimator, frozen_prefix, network_outputs
from sktl._estimators._target_coding import NoTargets
from sktl._estimators._threshold import choose_offset
from sktl._frozen._activations import Activations, GivenActivations
from sktl._frozen._readable import is_tolerant
from sktl._warnings import warn
from sktl.autoencoders._inference import encoded, scored
from sktl.autoencoders._objective import AutoencoderObjective, Design
from sktl.autoencoders._rows import check_numbers
from sktl.exceptions import InputError, TrainingWarning

_MOST_COMPONENTS = 32  # of n_components=None
_MOST_CODES = 10_000  # kept for `sample`
_MOST_SCORES = 1000  # kept for the threshold after `partial_fit`
_TOGETHER = 512  # rows per chunk, to bound memory


class AutoencoderBase(NetworkEstimator):
    """Base class of autoencoders, which defines what is trained and how it is applied.

    Without a backbone, the rows of a table of numbers are used instead of the output of
    the frozen stages.
    """

    _instead_of_held_out = "or early_stopping=False with a contamination such as 0.05"

    def _make_coding(self, is_new, classes):
        """Return the coding of a learner without targets."""
        return NoTargets(type(self).__name__)

    def _check_parameters(self):
        """Check the widths of the hidden layers and the amount of noise."""
        widths = self.hidden_layer_sizes
        if not all(isinstance(width, Integral) and int(width) > 0 for width in widths):
            raise InputError(
                f"The 'hidden_layer_sizes' parameter of {type(self).__name__} must be a tuple of positive integers, "
                f"such as (256,). Got {widths!r} instead."
            )

        if self.noise in ("masking", "salt_and_pepper") and self.noise_level >= 1:
            raise InputError(
                f"The 'noise_level' parameter of {type(self).__name__} must be less than 1 with noise={self.noise!r}, "
                f"because it is a share of the entries. Got {self.noise_level} instead."
            )

    def _make_objective(self, coding, table, depth, seed):
        """Return the reconstruction of what arrives at the cut."""
        shape, maps = self._shapes(table, depth)
        n_values = int(np.prod(shape))
        if not hasattr(self, "net_"):
            self.n_components_ = self._count_components(n_values, len(table.y))
        design = Design(
            shape=shape,
            maps=maps,
            n_components=self.n_components_,
            hidden=self.hidden_layer_sizes,
            activation=self.activation,
            init=self.init,
            noise=self.noise,
            noise_level=self.noise_level,
            sparsity=self.sparsity,
        )
        return AutoencoderObjective(design)

    def _count_components(self, n_values, n_rows):
        """Return the size of the code, and check that it fits the data."""
        if self.n_components is None:
            return max(1, min(n_values // 2, _MOST_COMPONENTS, n_rows))
        if self.init == "pca" and self.n_components > min(n_values, n_rows):
            raise InputError(
                f"init='pca' needs n_components of at most {min(n_values, n_rows)}, because there are {n_rows} "
                f"different training rows of {n_values} values. Got n_components={self.n_components} instead. Use "
                "fewer components, more rows, or init='random'."
            )
        if self.n_components >= n_values and self.noise is None and not self.sparsity:
            warn(
                f"With n_components={self.n_components} for {n_values} values in a row, the autoencoder can copy its "
                "input and need not learn anything. Use fewer components, noise or sparsity.",
                TrainingWarning,
            )
        return int(self.n_components)

    def _shapes(self, table, depth):
        """Return the shape of what is reconstructed and those of the trained maps."""
        if self.backbone is None:
            return table.images.numbers.shape[1:], ()
        (shape,) = frozen_prefix(self, depth, None).shapes
        maps = [stage.output_shape for stage in self.backbone_.stages[depth:]]
        shape = (shape[2], *shape[:2]) if depth == 0 else tuple(shape)
        wrong = [of for of in (shape, *maps) if len(of) != 3] if maps else []
        if wrong:
            raise InputError(
                f"The decoder mirrors stages with outputs of shape (channels, height, width). Got a stage of "
                f"{self.backbone_.name!r} with an output of shape {wrong[0]} instead. Use freeze_depth='all', which "
                "reconstructs pooled features, or a convolutional backbone."
            )
        # The decoder has one layer for all stages with outputs of the same shape.
        return shape, [of for of, _ in groupby(maps)]

    def _check_images(self, X, *, reset):
        """Check the rows of a table of numbers, or images."""
        if self.backbone is None:
            return check_numbers(self, X, reset=reset, n_least=2 if reset else 1)
        return super()._check_images(X, reset=reset)

    def _resolve_network(self):
        """Load the network, if there is one."""
        self._pooling = "flatten"
        if self.backbone is not None:
            self.backbone_ = resolve_backbone(self).body

    def _resolve_depth(self, table, is_new):
        """Return the number of frozen stages; features of all stages are pooled."""
        if self.backbone is None:
            return 0
        depth = super()._resolve_depth(table, is_new)
        self._pooling = "avg" if depth == len(self.backbone_.stages) else "flatten"
        return depth

    @property
    def _needs_held_out(self):
        """True if the threshold is chosen on rows that were not learned from."""
        return self.contamination == "auto"

    def _augmentation(self, seed):
        """Return no augmentation."""
        return None

    def _dataset(self, table, depth, objective, augmentation=None):
        """Return the rows of numbers, or the output of the frozen stages."""
        if self.backbone is not None:
            return super()._dataset(table, depth, objective, augmentation)
        activations = GivenActivations(torch.from_numpy(table.images.numbers))
        return table.dataset(activations, objective.targets(table), objective.columns(table))

    def _settle(self, data):
        """Keep some codes of the training rows, and choose the threshold."""
        generator = np.random.default_rng(data.seed)
        kept = np.sort(generator.permutation(len(data.rows))[:_MOST_CODES])
        self._keep_codes(self._by_chunk(data.rows.activations, encoded, kept))
        parts = [data.rows, *([] if data.valid is None else [data.valid])]
        judged = parts[-1:] if self.contamination == "auto" else parts
        scores = np.concatenate([self._by_chunk(part.activations, scored) for part in judged])
        weight = np.concatenate([part.columns["sample_weight"].numpy() for part in judged])
        self.offset_ = choose_offset(scores, self.contamination, weight)
        # `partial_fit` needs scores of rows that were not learned from.
        self._scores = scores if self.contamination == "auto" else np.empty(0)

    def _by_chunk(self, activations: Activations, function, positions=None):
        """Apply a function of the net and of rows at the cut to training rows."""
        positions = np.arange(len(activations)) if positions is None else positions
        chunks = (positions[start : start + _TOGETHER] for start in range(0, len(positions), _TOGETHER))
        return np.concatenate([function(self.net_, activations.batch(chunk, 0).numpy()) for chunk in chunks])

    def _apply(self, X, function):
        """Apply a function of the net and of rows at the cut to a table.

        Return the checked rows, the results, and the errors of unreadable images.
        """
        check_is_fitted(self, "net_")
        rows = self._check_images(X, reset=False)
        if self.backbone is None:
            return rows, self._by_chunk(GivenActivations(torch.from_numpy(rows.numbers)), function), None
        failures: dict | None = {} if is_tolerant(self, rows.on_error) else None
        results = network_outputs(self, rows, failures, lambda chunk: function(self.net_, chunk))
        results[list(failures or ())] = np.nan
        return rows, results, failures

    def _learn_step(self, X):
        """Train for one epoch, and choose the threshold from scores before it."""
        is_new = not hasattr(self, "net_")
        if is_new:
            self._scores = np.empty(0)
        else:
            self._scores = np.append(self._scores, self._known_scores(X))[-_MOST_SCORES:]
        self._fit_step(FitInput(X, None))
        codes = self._apply(X, encoded)[1]
        codes = codes[~np.isnan(codes).any(1)]
        self._keep_codes((codes if is_new else np.concatenate([self._codes, codes]))[-_MOST_CODES:])
        scores = self._known_scores(X) if is_new else self._scores
        self.offset_ = choose_offset(scores, self.contamination)
        return self

    def _keep_codes(self, codes):
        """Keep codes of training rows for `sample`, and set the range of usual ones."""
        self._codes, self._density = codes, None
        self.net_.module_.head.limit(codes)

    def _known_scores(self, X):
        """Return the scores of the rows that can be read."""
        scores = self._apply(X, scored)[1]
        return scores[~np.isnan(scores)]

    def _dtype(self, rows):
        """Return the dtype of codes: that of the numbers, or float32 for images."""
        return np.dtype(np.float32) if self.backbone is not None else rows.numbers.dtype
