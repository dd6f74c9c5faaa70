"""Losses and scores of each training epoch."""

import numpy as np

from sktl._estimators._find_fitted import require_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, row_of_axes
from sktl.inspection._score_axis import score_name

_FEATURES = {"std": "std of the features", "effective_rank": "effective rank", "knn_accuracy": "k-NN accuracy"}


class TrainingCurveDisplay:
    """Visualization of the loss and the scores of each training epoch.

    It is recommended to use `from_estimator` or `from_history` to create a display. All
    parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Training loss of each epoch.
    valid_loss : array-like of shape (n_epochs,), default=None
        Validation loss of each epoch, NaN for epochs without validation rows.
    valid_score : array-like of shape (n_epochs,), default=None
        Validation score of each epoch.
    best_epoch : int, default=None
        The epoch whose weights were kept; 0 means the initial weights.
    score_name : str, default="score"
        Name of the score.
    start_loss : float, default=None
        Validation loss of the initial weights, drawn as epoch 0.
    start_score : float, default=None
        Validation score of the initial weights.
    std : array-like of shape (n_epochs,), default=None
        Standard deviation of the features after each epoch, as in the ``history_`` of a
        `sktl.self_supervised.SelfSupervisedExtractor`.
    effective_rank : array-like of shape (n_epochs,), default=None
        Effective rank of the features.
    knn_accuracy : array-like of shape (n_epochs,), default=None
        Accuracy of the nearest neighbors of labeled images.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the losses.
    score_ax_ : matplotlib Axes or None
        Axes with the validation score, if there is one.
    feature_axes_ : list of matplotlib Axes
        Axes with the standard deviation, the effective rank and the accuracy of the
        features, as far as they are known.
    figure_ : matplotlib Figure
        Figure containing the axes.
    lines_ : list of matplotlib Line2D
        Curves of the training loss and, if there are validation rows, of the validation
        loss and the validation score; then those of the features.

    See Also
    --------
    LRRangeDisplay : Plot the loss against the learning rate, before training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import TrainingCurveDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=3, early_stopping=True, random_state=0)
    >>> display = TrainingCurveDisplay.from_estimator(model.fit(X[:200] / 16, y[:200]))
    >>> display.valid_score.shape
    (3,)
    """

    def __init__(
        self,
        train_loss,
        *,
        valid_loss=None,
        valid_score=None,
        best_epoch=None,
        score_name="score",
        start_loss=None,
        start_score=None,
        std=None,
        effective_rank=None,
        knn_accuracy=None,
    ):
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.valid_score = valid_score
        self.best_epoch = best_epoch
        self.score_name = score_name
        self.start_loss = start_loss
        self.start_score = start_score
        self.std = std
        self.effective_rank = effective_rank
        self.knn_accuracy = knn_accuracy

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, line_kw=None):
        """Plot the training history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with a ``history_``, or a pipeline or search that contains
            one.
        ax : matplotlib Axes or array-like of these, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            if there is more than the loss; several Axes show the losses, the validation
            score and the numbers of the features, as far as they are known.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.

        Returns
        -------
        display : TrainingCurveDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InputError
            If the estimator has no ``history_``, or an empty one.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        trained = require_fitted(estimator, "history_", "it was not trained in epochs").estimator
        best_epoch = getattr(trained, "best_epoch_", None)
        return cls._from_history(trained.history_, best_epoch, score_name(trained)).plot(ax, line_kw=line_kw)

    @classmethod
    def from_history(cls, history, *, best_epoch=None, score_name="score", ax=None, line_kw=None):
        """Plot a training history.

        Parameters
        ----------
        history : skorch.history.History or list of dict
            One row per epoch with ``train_loss`` and, optionally, ``valid_loss``,
            ``valid_score``, ``std``, ``effective_rank`` and ``knn_accuracy``. The
            values of the initial weights are read from the attribute ``start`` of the
            ``history_`` of an sktl estimator.
        best_epoch : int, default=None
            The epoch whose weights were kept; 0 means the initial weights.
        score_name : str, default="score"
            Name of the score.
        ax : matplotlib Axes or array-like of these, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            if there is more than the loss; several Axes show the losses, the validation
            score and the numbers of the features, as far as they are known.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.

        Returns
        -------
        display : TrainingCurveDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        InputError
            If the history is empty or has no ``train_loss``.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        return cls._from_history(history, best_epoch, score_name).plot(ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Plot the losses, the validation score and the numbers of the features.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of these, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            if there is more than the loss; several Axes show the losses, the validation
            score and the numbers of the features, as far as they are known.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.

        Returns
        -------
        display : TrainingCurveDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        features = {name: values for name in _FEATURES if (values := getattr(self, name)) is not None}
        has_score = self.valid_score is not None
        n_panels = 1 + has_score + len(features)
        width = 5.5 if n_panels == 1 else 0.5 + 4 * min(n_panels, 2) + 3.2 * max(n_panels - 2, 0)
        self.figure_, panels = row_of_axes(self, ax, (width, 3.6), n_panels)
        self.ax_, self.score_ax_ = panels[0], panels[1] if has_score else None
        self.feature_axes_ = panels[1 + has_score :]
        self.lines_ = []
        self._draw(self.ax_, self.train_loss, line_kw, label="training", color="C0")
        if self.valid_loss is not None:
            self._draw(self.ax_, self.valid_loss, line_kw, self.start_loss, label="validation", color="C1")
        self.ax_.set(xlabel="epoch", ylabel="loss", title="loss by epoch")
        if self.score_ax_ is not None:
            self._draw(self.score_ax_, self.valid_score, line_kw, self.start_score, label="validation", color="C1")
            name = f"validation {self.score_name}"
            self.score_ax_.set(xlabel="epoch", ylabel=name, title=f"{name} by epoch")
        for panel, (name, values) in zip(self.feature_axes_, features.items(), strict=True):
            self._draw(panel, values, line_kw, label="features", color="C2")
            panel.set(xlabel="epoch", ylabel=_FEATURES[name], title=f"{_FEATURES[name]} by epoch")
            panel.set_ylim(0, 1.05 * (np.nanmax(values) or 1))
        for panel in panels:
            self._finish(panel)
        self.ax_.legend(fontsize="small")
        return self

    @classmethod
    def _from_history(cls, history, best_epoch, score_name):
        columns = {
            name: np.array([epoch.get(name, np.nan) for epoch in history], dtype=float)
            for name in ("train_loss", "valid_loss", "valid_score", *_FEATURES)
            if any(name in epoch for epoch in history)
        }
        if "train_loss" not in columns:
            came = f"{len(history)} epochs without a 'train_loss'" if len(history) else "an empty history"
            raise InputError(
                f"The history must have at least one epoch with a 'train_loss'. Got {came} instead. Fit the estimator "
                "with max_epochs of at least 1."
            )
        start = getattr(history, "start", {})
        start = {f"start_{name}": start.get(f"valid_{name}") for name in ("loss", "score")}
        return cls(**columns, **start, best_epoch=best_epoch, score_name=score_name)

    def _draw(self, ax, values, line_kw, start=None, **style):
        first = 1 if start is None else 0
        values = values if start is None else np.r_[start, values]
        # Markers show the epochs if they are few; a single one makes no line.
        style["marker"] = "o" if len(values) <= 30 else ""
        epochs = np.arange(first, first + len(values))
        self.lines_ += ax.plot(epochs, values, **{"markersize": 4, **style, **(line_kw or {})})

    def _finish(self, ax):
        """Set integer ticks, and mark the epoch that was kept if there was a choice."""
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.title.set_fontsize("medium")
        ax.grid(alpha=0.3)
        if self.best_epoch is not None and self.valid_loss is not None:
            kept = f"epoch {self.best_epoch}" if self.best_epoch else "initial weights"
            ax.axvline(self.best_epoch, color=MUTED, linestyle="--", linewidth=1, zorder=0, label=f"kept: {kept}")
