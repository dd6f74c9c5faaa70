"""Losses and scores of each training epoch."""

import numpy as np

from sktl._estimators._find_fitted import require_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes, two_axes
from sktl.inspection._score_axis import score_name


class TrainingCurveDisplay:
    """Visualization of the loss and the validation score of each training epoch.

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

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the losses.
    score_ax_ : matplotlib Axes or None
        Axes with the validation score, if there is one.
    figure_ : matplotlib Figure
        Figure containing the axes.
    lines_ : list of matplotlib Line2D
        Curves of the training loss and, if there are validation rows, of the validation
        loss and the validation score.

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
    ):
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.valid_score = valid_score
        self.best_epoch = best_epoch
        self.score_name = score_name
        self.start_loss = start_loss
        self.start_score = start_score

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, line_kw=None):
        """Plot the training history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with a ``history_``, or a pipeline or search that contains
            one.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if there is a validation score; two Axes show the losses and the
            score.
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
            One row per epoch with ``train_loss`` and, optionally, ``valid_loss`` and
            ``valid_score``. The values of the initial weights are read from the
            attribute ``start`` of the ``history_`` of an sktl estimator.
        best_epoch : int, default=None
            The epoch whose weights were kept; 0 means the initial weights.
        score_name : str, default="score"
            Name of the score.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if there is a validation score; two Axes show the losses and the
            score.
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
        """Plot the losses and the validation score.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two if there is a validation score; two Axes show the losses and the
            score.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the curves.

        Returns
        -------
        display : TrainingCurveDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        has_score = self.valid_score is not None
        if has_score:
            self.figure_, (self.ax_, self.score_ax_) = two_axes(self, ax, (8.5, 3.6), nrows=1, ncols=2)
        else:
            self.figure_, self.ax_ = one_axes(self, ax, (5.5, 3.6))
            self.score_ax_ = None
        self.lines_ = []
        self._draw(self.ax_, self.train_loss, line_kw, label="training", color="C0")
        if self.valid_loss is not None:
            self._draw(self.ax_, self.valid_loss, line_kw, self.start_loss, label="validation", color="C1")
        self.ax_.set(xlabel="epoch", ylabel="loss")
        if has_score:
            self._draw(self.score_ax_, self.valid_score, line_kw, self.start_score, label="validation", color="C1")
            self.score_ax_.set(xlabel="epoch", ylabel=f"validation {self.score_name}")
        for panel in [self.ax_, *([self.score_ax_] if has_score else [])]:
            self._finish(panel)
        self.ax_.set_title("loss by epoch", fontsize="medium")
        if has_score:
            self.score_ax_.set_title(f"validation {self.score_name} by epoch", fontsize="medium")
        self.ax_.legend(fontsize="small")
        return self

    @classmethod
    def _from_history(cls, history, best_epoch, score_name):
        columns = {
            name: np.array([epoch.get(name, np.nan) for epoch in history], dtype=float)
            for name in ("train_loss", "valid_loss", "valid_score")
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
        ax.grid(alpha=0.3)
        if self.best_epoch is not None and self.valid_loss is not None:
            kept = f"epoch {self.best_epoch}" if self.best_epoch else "initial weights"
            ax.axvline(self.best_epoch, color=MUTED, linestyle="--", linewidth=1, zorder=0, label=f"kept: {kept}")
