"""Losses and score of a training, epoch by epoch."""

import numpy as np

from sktl._estimators._find_fitted import require_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes, two_axes
from sktl.inspection._score_axis import score_name


class TrainingCurveDisplay:
    """Training and validation loss of each epoch, and the validation score beside them.

    It is recommended to use `from_estimator` or `from_history` to create one. All parameters are stored as attributes.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Loss of the rows that are learnt from.
    valid_loss : array-like of shape (n_epochs,), default=None
        Loss of the rows that are judged on, NaN in epochs where there were none.
    valid_score : array-like of shape (n_epochs,), default=None
        Their score.
    best_epoch : int, default=None
        The epoch whose weights are kept; 0 is the untouched start.
    score_name : str, default="score"
        What the score is.
    start_loss : float, default=None
        Validation loss of the untouched start, drawn as epoch 0.
    start_score : float, default=None
        Its validation score.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the losses.
    score_ax_ : matplotlib Axes or None
        With the validation score, where there is one.
    figure_ : matplotlib Figure
        With both of them.
    lines_ : list of matplotlib Line2D
        The curves: training loss, then validation loss and validation score where there are any.

    See Also
    --------
    LRRangeDisplay : The loss against the learning rate, before a training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import TrainingCurveDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=3, early_stopping=True, random_state=0).fit(X[:200] / 16, y[:200])
    >>> display = TrainingCurveDisplay.from_estimator(model)
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
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            With ``history_``: fine-tuned, or a pipeline or search with such an estimator in it.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of all curves.

        Returns
        -------
        display : TrainingCurveDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        InputError
            Where it has no ``history_``, or an empty one.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        trained = require_fitted(estimator, "history_", "it was not trained in epochs").estimator
        best_epoch = getattr(trained, "best_epoch_", None)
        return cls._from_history(trained.history_, best_epoch, score_name(trained)).plot(ax, line_kw=line_kw)

    @classmethod
    def from_history(cls, history, *, best_epoch=None, score_name="score", ax=None, line_kw=None):
        """Draw a history.

        Parameters
        ----------
        history : skorch.history.History or list of dict
            One row per epoch, with ``train_loss``, and ``valid_loss`` and ``valid_score`` where there are any. A
            history of sktl has those of the untouched start as ``start``.
        best_epoch : int, default=None
            The epoch whose weights are kept; 0 is the untouched start.
        score_name : str, default="score"
            What the score is.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of all curves.

        Returns
        -------
        display : TrainingCurveDisplay
            With the data, and with what was drawn.

        Raises
        ------
        InputError
            Where the history is empty or has no ``train_loss``.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        return cls._from_history(history, best_epoch, score_name).plot(ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw. One is divided where there is a score; two get the losses and the score; None makes a new
            figure.
        line_kw : dict, default=None
            Keywords for matplotlib's ``plot`` of all curves.

        Returns
        -------
        display : TrainingCurveDisplay
            This object.
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
            raise InputError(f"The history has {len(history)} epochs and no train_loss in them: nothing was trained.")
        start = getattr(history, "start", {})
        start = {f"start_{name}": start.get(f"valid_{name}") for name in ("loss", "score")}
        return cls(**columns, **start, best_epoch=best_epoch, score_name=score_name)

    def _draw(self, ax, values, line_kw, start=None, **style):
        first = 1 if start is None else 0
        values = values if start is None else np.r_[start, values]
        # With few epochs each one is seen; a single one would not make a line at all.
        style["marker"] = "o" if len(values) <= 30 else ""
        epochs = np.arange(first, first + len(values))
        self.lines_ += ax.plot(epochs, values, **{"markersize": 4, **style, **(line_kw or {})})

    def _finish(self, ax):
        """Whole epochs on the axis, and where there is a choice of epochs, which one was kept."""
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
        if self.best_epoch is not None and self.valid_loss is not None:
            kept = f"epoch {self.best_epoch}" if self.best_epoch else "the start"
            ax.axvline(self.best_epoch, color=MUTED, linestyle="--", linewidth=1, zorder=0, label=f"kept: {kept}")
