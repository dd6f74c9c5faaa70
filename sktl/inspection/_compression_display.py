"""Score, size and speed of compressed models."""

from sktl._estimators._find_fitted import find_fitted
from sktl._params import check_is_fitted
from sktl.compression._compression_chain import MadeOfAnother, compression_chain, original_of
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib
from sktl.inspection._cost_display import CostDisplay


class CompressionDisplay(CostDisplay):
    """Visualization of score, size and prediction time of compressed models.

    It is recommended to use `from_estimator` or `from_estimators` to create a display.
    All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    names : list of str
        Names of the models.
    scores : ndarray of shape (n_models,)
        Score of each model.
    nbytes : ndarray of shape (n_models,)
        Size of each pickled model, in bytes.
    milliseconds : ndarray of shape (n_models,)
        Prediction time of each model, in milliseconds per image.
    parameters : list of int or None, default=None
        Number of parameters of each model's network, or None for a model without a
        network.
    origins : dict of str to str, default=None
        Dict from the name of each derived model to the name of its original.
    score_name : str, default="score"
        Name of the score.
    score_errors : ndarray of shape (n_models,), default=None
        Standard error of each score, NaN if unknown. If None, no error bars are drawn.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with score against size.
    time_ax_ : matplotlib Axes
        Axes with score against prediction time.
    figure_ : matplotlib Figure
        Figure containing the axes.
    points_ : matplotlib PathCollection
        Markers of the models in ``ax_``.
    time_points_ : matplotlib PathCollection
        Markers of the models in ``time_ax_``.
    errorbar_, time_errorbar_ : matplotlib ErrorbarContainer or None
        Error bars of one standard error in each panel.
    labels_ : list of matplotlib Annotation
        Names of the models in ``ax_``.
    time_labels_ : list of matplotlib Annotation
        Names of the models in ``time_ax_``.
    arrows_ : list of matplotlib Annotation
        Arrows from each original to the derived model in ``ax_``.
    time_arrows_ : list of matplotlib Annotation
        Arrows from each original to the derived model in ``time_ax_``.

    See Also
    --------
    DistillationDisplay : Compare a teacher and its students.
    LotteryTicketDisplay : Plot score against the share of remaining weights.

    Notes
    -----
    Error bars show one standard error of the score, estimated from 100 bootstrap
    samples of the images. It is unknown if ``scoring`` is a function that is not a
    scikit-learn scorer.

    Both horizontal axes are logarithmic. If ``origins`` is known, a dashed line marks
    the size and the time of the original: a model that is left of the line in one panel
    and on the line in the other is smaller, but not faster. The size is that of the
    pickled estimator. The time is that of predicting several images at once, including
    reading them, without a cache. It depends on the machine, its load and the number of
    images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import PrunedClassifier
    >>> from sktl.inspection import CompressionDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = X[:200] / 16, X[200:300] / 16, y[:200], y[200:300]
    >>> network = FineTunedClassifier(max_epochs=1, random_state=0)
    >>> model = PrunedClassifier(network, amount=0.9, max_epochs=1).fit(X, y)
    >>> display = CompressionDisplay.from_estimator(model, X_test, y_test)
    >>> display.names
    ['original', 'pruned']
    >>> round(float(display.nbytes[1] / display.nbytes[0]), 1)
    0.3
    """

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        sample_weight=None,
        scoring=None,
        n_timed=64,
        n_repeats=5,
        ax=None,
        scatter_kw=None,
    ):
        """Compare a compressed model with its original and plot both.

        Parameters
        ----------
        estimator : estimator
            Fitted compressor, such as `sktl.compression.PrunedClassifier`, or a search
            over one. If several compressors are combined, each step is drawn.
        X : array-like of images
            Images that no model was trained on.
        y : array-like of shape (n_samples,)
            Labels of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        scoring : str or callable, default=None
            Name of a scorer, or callable with signature ``scorer(estimator, X, y)``. If
            None, accuracy is used for classifiers and R² for regressors.
        n_timed : int, default=64
            Number of images used to measure the prediction time: the first ones of
            ``X``. None uses all images.
        n_repeats : int, default=5
            Number of times the prediction time is measured. The median is used.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show score against size and score against time.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : CompressionDisplay
            Object that stores the computed values and the matplotlib artists. The
            models are named "original" and by the kind of compression, such as "pruned"
            or "low rank".

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InputError
            If the estimator does not hold the original model, because it is not a
            compressor or because it was pickled.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        models = _steps(estimator)
        names = list(models)
        return cls.from_estimators(
            models,
            X,
            y,
            origins=dict(zip(names[1:], names[:-1], strict=True)),
            sample_weight=sample_weight,
            scoring=scoring,
            n_timed=n_timed,
            n_repeats=n_repeats,
            ax=ax,
            scatter_kw=scatter_kw,
        )


def _steps(estimator):
    """Return the original and all models derived from it, by name."""
    if original_of(estimator) is None:
        check_is_fitted(estimator)
        compressed = find_fitted(estimator, MadeOfAnother)
        name = type(estimator if compressed is None else compressed.estimator).__name__
        raise InputError(
            f"{name} does not hold the original model: it is not a compressor, or it was pickled, which drops the "
            "original. Use CompressionDisplay.from_estimators({'original': ..., 'compressed': ...}, X, y) instead."
        )
    return compression_chain(estimator)
