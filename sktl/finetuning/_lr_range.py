"""Learning rate range test."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.base import clone
from sklearn.utils._param_validation import Interval
from skorch.callbacks import Callback

from sktl._estimators._backbone_parameter import network_parameter
from sktl._estimators._network_estimator import NetworkEstimator
from sktl._params import validate_params
from sktl._training._schedules import set_learning_rates
from sktl._training._skorch_net import StopTraining
from sktl._warnings import warn
from sktl.exceptions import DivergenceError, InputError, TrainingWarning

_DECAY = 0.9  # of the running mean of the loss, which decides when to stop
_WARM_UP = 10  # number of steps until this mean is reliable
_EXPLODED = 4.0  # multiple of the smallest running mean from which the loss does not recover
_WIDTH = 0.03  # standard deviation of the smoothing kernel, as a share of all steps
_CLEAR = 4.5  # standard errors by which the loss must fall; noise alone does so in about 1 of 50 tests


@dataclass(frozen=True, eq=False)
class LRRangeTest:
    """Result of `sktl.finetuning.lr_range_test`: the loss at each learning rate.

    Parameters
    ----------
    lr : ndarray of shape (n_steps,)
        Learning rate of each step, in increasing order.
    loss : ndarray of shape (n_steps,)
        Loss of the batch of each step, before the update of the weights.
    smoothed_loss : ndarray of shape (n_steps,)
        The loss after clipping at four times the mean of the first ten losses and
        Gaussian smoothing.
    suggestion : float
        Learning rate at which ``smoothed_loss`` falls most steeply; NaN if it never
        falls clearly.
    """

    lr: np.ndarray
    loss: np.ndarray
    smoothed_loss: np.ndarray
    suggestion: float

    def __repr__(self) -> str:
        low, high = self.lr[[0, -1]]
        return f"LRRangeTest({len(self.lr)} steps from lr={low:.2g} to {high:.2g}, suggestion={self.suggestion:.2g})"


@validate_params(
    {
        "estimator": "no_validation",  # the error should not name a private class
        "lr_min": [Interval(Real, 0, None, closed="neither")],
        "lr_max": [Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 20, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def lr_range_test(estimator, X, y, *, sample_weight=None, lr_min=1e-6, lr_max=1.0, n_steps=100):
    """Train with an increasing learning rate to find rates at which the loss falls.

    A clone of the estimator is trained on all of ``X`` while the learning rate grows by
    a constant factor in each step [1]_. The test ends after ``n_steps`` steps, or
    earlier if the loss diverges: if it becomes NaN or infinite, or if its running mean
    exceeds four times the smallest running mean. The estimator itself is not changed.

    Read more in the :doc:`user guide </finetuning>`.

    Parameters
    ----------
    estimator : FineTunedClassifier or FineTunedRegressor
        The estimator for which to choose ``lr``, fitted or not. The test ignores its
        ``lr``, ``lr_schedule``, ``max_epochs``, ``early_stopping``, ``unfreeze_every``
        and callbacks. All other parameters are used; the result depends most on
        ``batch_size``.
    X : array-like of images
        Paths, images, a batch array or rows of pixels; see the user guide.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets of the images.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows. A weight of zero leaves a row out.
    lr_min : float, default=1e-06
        Learning rate of the first step, at which the loss should not change yet.
    lr_max : float, default=1.0
        Learning rate of the last step, at which the loss should diverge.
    n_steps : int, default=100
        Number of steps, at least 20. More steps give a smoother curve and take longer.

    Returns
    -------
    LRRangeTest
        Object with the arrays ``lr``, ``loss`` and ``smoothed_loss``, and the
        ``suggestion``.

    Raises
    ------
    ValueError
        If ``estimator`` is not a fine-tuning estimator (for example, a pipeline), if
        ``lr_min`` is not smaller than ``lr_max``, or if another parameter is invalid.
    DivergenceError
        If the loss becomes NaN or infinite within the first ten steps, because
        ``lr_min`` is too large.

    Warns
    -----
    TrainingWarning
        If the loss never falls clearly. The suggestion is then NaN.

    See Also
    --------
    sktl.inspection.LRRangeDisplay : Plot of the loss over the learning rate.

    Notes
    -----
    The suggestion is the rate at which the smoothed loss falls most steeply, over the
    logarithm of the rate, during the last descent from the initial level to the
    minimum. The initial level is the median of the first half of the steps before the
    minimum. There is a suggestion only if this descent exceeds 4.5 standard errors of
    the smoothed loss, which are estimated from the differences between successive
    batches.

    The suggestion is a starting point. It is based on the training loss of the first
    steps and gives no information about overfitting or about long training at this
    rate. Since each step continues from the weights of the step before, a good
    initialization, which ``head_init="probe"`` often provides, leaves little room for
    improvement and gives a flat curve. In this case, plot the curve with
    `sktl.inspection.LRRangeDisplay` or compare a few rates in a grid search.

    References
    ----------
    .. [1] Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017,
           section 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.finetuning import lr_range_test
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(head_init="random", random_state=0)
    >>> result = lr_range_test(model, X[:200] / 16, y[:200])
    >>> 1e-4 < result.suggestion < 1e-1
    True
    """
    if not isinstance(estimator, NetworkEstimator):
        raise InputError(
            "The 'estimator' parameter must be a FineTunedClassifier or FineTunedRegressor. Got "
            f"{type(estimator).__name__} instead. For a pipeline or search, pass the estimator inside it, and X as "
            "transformed by the steps before it."
        )
    if lr_min >= lr_max:
        raise InputError(
            "The 'lr_min' parameter of lr_range_test must be smaller than 'lr_max'. "
            f"Got lr_min={lr_min} and lr_max={lr_max} instead."
        )
    rates = np.geomspace(lr_min, lr_max, n_steps)
    recorder = _RisingRate(rates)
    trial = _trial(estimator, lr_min, n_steps, recorder)
    try:
        trial.fit(X, y, sample_weight=sample_weight)
    except DivergenceError as error:
        n_seen = len(recorder.losses_)
        if n_seen < _WARM_UP:
            raise DivergenceError(
                f"The loss became NaN or infinite after {n_seen} of {n_steps} steps, at lr={rates[n_seen]:.2g}, too "
                f"early for a result. Use a smaller lr_min than {lr_min:.2g}, or more steps."
            ) from error
    loss = np.array(recorder.losses_)
    width = max(1.0, _WIDTH * n_steps)
    # Without clipping, smoothing would spread a divergence to earlier steps.
    smoothed = gaussian_filter1d(np.minimum(loss, _EXPLODED * loss[:_WARM_UP].mean()), width, mode="reflect")
    lr = rates[: len(loss)]
    suggestion = _steepest_fall(lr, loss, smoothed, width)
    if np.isnan(suggestion):
        warn(
            f"The loss does not fall clearly between lr={lr[0]:.2g} and lr={lr[-1]:.2g}, so the suggestion is NaN. The "
            "initialization may already be good (as it often is with head_init='probe'), or the loss may vary too much "
            "between batches. Try more n_steps, a larger batch_size, or head_init='random' for the test.",
            TrainingWarning,
        )
    return LRRangeTest(lr, loss, smoothed, suggestion)


class _RisingRate(Callback):
    """Callback that sets the rate of each step and stops if the loss diverges.

    Parameters
    ----------
    rates : ndarray of shape (n_steps,)
        Learning rates of the head. The rates of the stages keep their ratio to the
        head's.
    """

    def __init__(self, rates):
        self.rates = rates

    def on_train_begin(self, net, **kwargs):
        """Reset the records."""
        self.losses_: list[float] = []
        self._total = 0.0
        self._smallest = np.inf

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the learning rates of this step."""
        if training:
            set_learning_rates(net.optimizer_, self.rates[len(self.losses_)] / self.rates[0])

    def on_batch_end(self, net, training=False, loss=None, **kwargs):
        """Record the loss; stop after the last step or if the loss diverges."""
        if not training:
            return
        self.losses_.append(loss.item())
        n_steps = len(self.losses_)
        self._total = _DECAY * self._total + (1 - _DECAY) * self.losses_[-1]
        # Without this correction, the first means would be biased towards zero.
        mean = self._total / (1 - _DECAY**n_steps)
        if n_steps >= _WARM_UP:
            self._smallest = min(self._smallest, mean)
        if n_steps == len(self.rates) or mean > _EXPLODED * self._smallest:
            raise StopTraining


def _trial(estimator, lr_min, n_steps, recorder):
    """Return a clone of the estimator that trains until the recorder stops it."""
    net_params = {
        key: value
        for key, value in (estimator.net_params or {}).items()
        if key != "lr" and not key.startswith("callbacks")
    }
    network = network_parameter(estimator)
    trial = clone(estimator).set_params(
        **{network: getattr(estimator, network)},  # clone would make a fitted estimator unfitted
        lr=lr_min,
        lr_schedule="constant",
        max_epochs=n_steps,  # an epoch has at least one step
        early_stopping=False,
        unfreeze_every=None,
        warm_start=False,
        callbacks=[("lr_range", recorder)],
        net_params=net_params,
        verbose=0,
    )
    return trial.set_callbacks()


def _steepest_fall(lr: np.ndarray, loss: np.ndarray, smoothed: np.ndarray, width: float) -> float:
    """Return the rate of the steepest fall, or NaN if the fall may be noise."""
    lowest = int(smoothed.argmin())
    if lowest == 0:
        return float("nan")
    level = np.median(smoothed[: (lowest + 1) // 2])
    if level - smoothed[lowest] <= _CLEAR * _smoothed_error(loss[: max(lowest + 1, _WARM_UP)], width):
        return float("nan")
    # Before the descent begins, the loss fluctuates and may fall as steeply by chance.
    begin = int(np.flatnonzero(smoothed[:lowest] >= level)[-1])
    slopes = np.gradient(smoothed[: lowest + 1])  # steps are evenly spaced in the logarithm of the rate
    return float(lr[begin + slopes[begin:].argmin()])


def _smoothed_error(loss: np.ndarray, width: float) -> float:
    """Estimate the standard error of the smoothed loss from successive batches.

    The variance of second differences is six times that of the noise, and the trend
    hardly affects it; a Gaussian mean of width s divides the variance by 2 sqrt(pi) s.
    """
    noise = np.sqrt(np.mean(np.diff(loss, 2) ** 2) / 6)
    return float(noise / np.sqrt(2 * np.sqrt(np.pi) * width))
