"""Training loss against learning rate."""

import numpy as np

from sktl.finetuning import lr_range_test
from sktl.inspection._axes import MUTED, check_matplotlib, finish, one_axes


class LRRangeDisplay:
    """Visualization of a learning rate range test.

    The test [1]_ increases the learning rate with each step. It is recommended to use
    `from_estimator` or `from_result` to create a display. All parameters are stored as
    attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    lr : ndarray of shape (n_steps,)
        Learning rate of each step, in ascending order.
    loss : ndarray of shape (n_steps,)
        Loss of the batch of each step.
    smoothed_loss : ndarray of shape (n_steps,)
        Smoothed loss of each step.
    suggestion : float, default=nan
        Learning rate to mark. NaN marks none.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure containing the axes.
    lines_ : list of matplotlib Line2D
        Curves of the loss and the smoothed loss.

    See Also
    --------
    sktl.finetuning.lr_range_test : Run the test and get a suggested learning rate.

    References
    ----------
    .. [1] Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017,
           section 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import LRRangeDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(head_init="random", random_state=0)
    >>> display = LRRangeDisplay.from_estimator(model, X[:200] / 16, y[:200])
    >>> display.ax_.get_xscale()
    'log'
    """

    def __init__(self, lr, loss, smoothed_loss, *, suggestion=float("nan")):
        self.lr = lr
        self.loss = loss
        self.smoothed_loss = smoothed_loss
        self.suggestion = suggestion

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, sample_weight=None, lr_min=1e-6, lr_max=1.0, n_steps=100, ax=None, line_kw=None
    ):
        """Run a learning rate range test and plot the loss.

        Parameters
        ----------
        estimator : FineTunedClassifier or FineTunedRegressor
            Fitted or unfitted estimator whose ``lr`` is to be chosen. It is not
            changed.
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out.
        lr_min : float, default=1e-06
            Learning rate of the first step.
        lr_max : float, default=1.0
            Learning rate of the last step.
        n_steps : int, default=100
            Number of steps from ``lr_min`` to ``lr_max``.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the smoothed loss.

        Returns
        -------
        display : LRRangeDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        result = lr_range_test(
            estimator, X, y, sample_weight=sample_weight, lr_min=lr_min, lr_max=lr_max, n_steps=n_steps
        )
        return cls.from_result(result, ax=ax, line_kw=line_kw)

    @classmethod
    def from_result(cls, result, *, ax=None, line_kw=None):
        """Plot the result of a learning rate range test.

        Parameters
        ----------
        result : LRRangeTest
            Result of `sktl.finetuning.lr_range_test`.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the smoothed loss.

        Returns
        -------
        display : LRRangeDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        display = cls(result.lr, result.loss, result.smoothed_loss, suggestion=result.suggestion)
        return display.plot(ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Plot the loss against the learning rate.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        line_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``plot`` to draw the smoothed loss.

        Returns
        -------
        display : LRRangeDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        self.figure_, self.ax_ = one_axes(self, ax, (6, 3.8))
        self.lines_ = [
            *self.ax_.plot(self.lr, self.loss, color="C0", alpha=0.35, linewidth=1, label="per batch"),
            *self.ax_.plot(
                self.lr, self.smoothed_loss, **{"color": "C0", "linewidth": 2, "label": "smoothed", **(line_kw or {})}
            ),
        ]
        if np.isfinite(self.suggestion):
            at = self.smoothed_loss[np.abs(np.log(self.lr / self.suggestion)).argmin()]
            self.ax_.axvline(self.suggestion, color=MUTED, linestyle="--", linewidth=1, zorder=0)
            label = f"steepest: lr={self.suggestion:.2g}"
            self.ax_.plot(self.suggestion, at, "o", color="C3", label=label)
        self.ax_.set(xscale="log", xlabel="learning rate (of the head)", ylabel="training loss", ylim=self._limits())
        finish(self.ax_, f"learning rate range test, {len(self.lr)} steps")
        self.ax_.legend(loc="lower left" if np.isfinite(self.suggestion) else "best")
        return self

    def _limits(self):
        """Return limits that hold the losses before the loss diverges."""
        n_before = int(self.smoothed_loss.argmin()) + 1
        low, high = self.loss.min(), max(self.loss[:n_before].max(), self.smoothed_loss[0])
        margin = 0.15 * (high - low) or 0.1
        return low - margin, high + margin
