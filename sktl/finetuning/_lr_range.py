"""The learning rate range test: which rates make the loss fall, from one short training."""

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

_DECAY = 0.9  # of the running mean of the loss that says when to stop
_WARM_UP = 10  # steps that this mean needs to be more than the first batches' luck
_EXPLODED = 4.0  # times the smallest running mean: then the loss will not come back
_WIDTH = 0.03  # standard deviation of the smoothing kernel, as a share of all steps
_CLEAR = 4.5  # standard errors by which the loss must fall; noise alone reaches it in about one test of fifty


@dataclass(frozen=True, eq=False)
class LRRangeTest:
    """The loss at each learning rate of a range test; made by `lr_range_test`.

    Parameters
    ----------
    lr : ndarray of shape (n_steps,)
        The learning rate of each step, rising.
    loss : ndarray of shape (n_steps,)
        The loss of each step's batch, before the step was taken.
    smoothed_loss : ndarray of shape (n_steps,)
        The same without most of the noise between batches: a Gaussian mean over neighbouring steps, to which a loss
        counts no more than four times the mean of the first ten.
    suggestion : float
        The learning rate at which ``smoothed_loss`` falls most steeply; NaN where it never falls clearly.
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
        "estimator": "no_validation",  # its error should not name a private class
        "lr_min": [Interval(Real, 0, None, closed="neither")],
        "lr_max": [Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 20, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def lr_range_test(estimator, X, y, *, sample_weight=None, lr_min=1e-6, lr_max=1.0, n_steps=100):
    """Train with a learning rate that rises from step to step, and see which rates make the loss fall.

    A copy of the estimator is trained, from its own start (``head_init`` and all), on all of ``X``; the rate of each
    step is the one before times a constant. It ends after ``n_steps`` steps, or before that, when the loss has
    exploded: a running mean of it has risen to four times its smallest value, or it is no finite number. The
    estimator itself is not changed.

    Parameters
    ----------
    estimator : FineTunedClassifier or FineTunedRegressor
        Whose ``lr`` is to be chosen, fitted or not. Its ``lr``, ``lr_schedule``, ``max_epochs``, ``early_stopping``,
        ``unfreeze_every`` and callbacks play no part in the test; everything else does, ``batch_size`` above all.
    X : array-like of pictures
        Paths, pictures, a batch array or rows of pixels, see the user guide.
    y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
        Targets.
    sample_weight : array-like of shape (n_pictures,), default=None
        Weights of the rows; a weight of zero is a row that is not there.
    lr_min : float, default=1e-06
        Learning rate of the first step: so small that nothing is learnt.
    lr_max : float, default=1.0
        Learning rate of the last step: so large that nothing can be learnt.
    n_steps : int, default=100
        Steps from the one to the other, 20 or more. With more of them, each rate is used for longer and the curve is
        smoother.

    Returns
    -------
    LRRangeTest
        With the arrays ``lr``, ``loss`` and ``smoothed_loss``, and the ``suggestion``.

    Raises
    ------
    ValueError
        Where ``estimator`` is something else (a pipeline for one), ``lr_min`` is not below ``lr_max``, or another
        parameter is out of its range.
    DivergenceError
        Where the loss is no finite number within the first few steps: ``lr_min`` is too large already.

    Warns
    -----
    TrainingWarning
        Where the loss never falls clearly; the suggestion is NaN.

    See Also
    --------
    sktl.inspection.LRRangeDisplay : The curve as a picture.

    Notes
    -----
    The suggestion is the rate at which the smoothed loss falls most steeply over the logarithm of the rate, on its last
    way down from the level at which it starts (the median of the first half of the steps before its minimum) to its
    minimum. There is one only where that way is longer than 4.5 standard errors of the smoothed loss, by the noise
    between successive batches.

    It is a place to start from and no more. The loss is that of training batches in the first steps: it says nothing
    of overfitting, nor of what many epochs would do at that rate. What was learnt at smaller rates is not undone at
    larger ones, so a start that is good already, as ``head_init="probe"`` often gives, leaves little to fall and a
    flat curve; look at it (`sktl.inspection.LRRangeDisplay`), or compare a few rates in a grid search.

    References
    ----------
    .. [1] Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.finetuning import lr_range_test
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(head_init="random", random_state=0)
    >>> result = lr_range_test(model, X[:200] / 16, y[:200])
    >>> bool(1e-4 < result.suggestion < 1e-1)
    True
    """
    if not isinstance(estimator, NetworkEstimator):
        raise InputError(
            f"estimator= has to be a FineTunedClassifier or a FineTunedRegressor, got {type(estimator).__name__}. Of a "
            "pipeline or search, give that estimator itself, and X as the steps before it leave it."
        )
    if lr_min >= lr_max:
        raise InputError(f"lr_min={lr_min} must be smaller than lr_max={lr_max}: the rate rises from one to the other.")
    rates = np.geomspace(lr_min, lr_max, n_steps)
    recorder = _RisingRate(rates)
    trial = _trial(estimator, lr_min, n_steps, recorder)
    try:
        trial.fit(X, y, sample_weight=sample_weight)
    except DivergenceError as error:
        n_seen = len(recorder.losses_)
        if n_seen < _WARM_UP:
            raise DivergenceError(
                f"The loss is no finite number after {n_seen} steps, at lr={rates[n_seen]:.2g}: nothing has been seen "
                f"by then. Use more than n_steps={n_steps} steps, or a range that begins below lr_min={lr_min:.2g}."
            ) from error
    loss = np.array(recorder.losses_)
    width = max(1.0, _WIDTH * n_steps)
    # An explosion of many powers of ten would be seen long before it is there.
    smoothed = gaussian_filter1d(np.minimum(loss, _EXPLODED * loss[:_WARM_UP].mean()), width, mode="reflect")
    lr = rates[: len(loss)]
    suggestion = _steepest_fall(lr, loss, smoothed, width)
    if np.isnan(suggestion):
        warn(
            f"The loss never falls clearly from lr={lr[0]:.2g} to lr={lr[-1]:.2g}, so there is no suggestion (NaN). "
            "The start may be as good as it gets (head_init='probe' often is), or the batches differ too much: try "
            "more n_steps, a larger batch_size, or head_init='random' for the test.",
            TrainingWarning,
        )
    return LRRangeTest(lr, loss, smoothed, suggestion)


class _RisingRate(Callback):
    """Set the rate of each step, note its loss, and end the training when there is nothing more to see.

    Parameters
    ----------
    rates : ndarray of shape (n_steps,)
        Learning rates of the head; the stages keep their ratio to it.
    """

    def __init__(self, rates):
        self.rates = rates

    def on_train_begin(self, net, **kwargs):
        """Begin anew."""
        self.losses_: list[float] = []
        self._total = 0.0
        self._smallest = np.inf

    def on_batch_begin(self, net, training=False, **kwargs):
        """Set the rates of this step."""
        if training:
            set_learning_rates(net.optimizer_, self.rates[len(self.losses_)] / self.rates[0])

    def on_batch_end(self, net, training=False, loss=None, **kwargs):
        """Note the loss; stop after the last step, or when the loss has exploded."""
        if not training:
            return
        self.losses_.append(loss.item())
        n_steps = len(self.losses_)
        self._total = _DECAY * self._total + (1 - _DECAY) * self.losses_[-1]
        mean = self._total / (1 - _DECAY**n_steps)  # without it, the first means would lean towards zero
        if n_steps >= _WARM_UP:
            self._smallest = min(self._smallest, mean)
        if n_steps == len(self.rates) or mean > _EXPLODED * self._smallest:
            raise StopTraining


def _trial(estimator, lr_min, n_steps, recorder):
    """A copy of the estimator that trains for as many steps as the recorder wants."""
    net_params = {
        key: value
        for key, value in (estimator.net_params or {}).items()
        if key != "lr" and not key.startswith("callbacks")
    }
    network = network_parameter(estimator)
    trial = clone(estimator).set_params(
        **{network: getattr(estimator, network)},  # a fitted estimator would have been made an unfitted one
        lr=lr_min,
        lr_schedule="constant",
        max_epochs=n_steps,  # an epoch has one step or more
        early_stopping=False,
        unfreeze_every=None,
        warm_start=False,
        callbacks=[("lr_range", recorder)],
        net_params=net_params,
        verbose=0,
    )
    return trial.set_callbacks()


def _steepest_fall(lr: np.ndarray, loss: np.ndarray, smoothed: np.ndarray, width: float) -> float:
    """The rate at which the smoothed loss falls most steeply on its way to its minimum; NaN where that may be noise."""
    lowest = int(smoothed.argmin())
    if lowest == 0:
        return float("nan")
    level = np.median(smoothed[: (lowest + 1) // 2])
    if level - smoothed[lowest] <= _CLEAR * _smoothed_error(loss[: max(lowest + 1, _WARM_UP)], width):
        return float("nan")
    # Before the way down begins, the loss goes up and down by chance, and may fall as steeply.
    begin = int(np.flatnonzero(smoothed[:lowest] >= level)[-1])
    slopes = np.gradient(smoothed[: lowest + 1])  # steps are evenly spaced in the logarithm of the rate
    return float(lr[begin + slopes[begin:].argmin()])


def _smoothed_error(loss: np.ndarray, width: float) -> float:
    """Standard error of the smoothed loss, by the noise between successive batches.

    Second differences hold six times the variance of the noise and next to nothing of the trend; a Gaussian mean of
    width s has that variance divided by 2 sqrt(pi) s.
    """
    noise = np.sqrt(np.mean(np.diff(loss, 2) ** 2) / 6)
    return float(noise / np.sqrt(2 * np.sqrt(np.pi) * width))
