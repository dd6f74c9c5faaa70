"""Score, size and speed of teachers and students."""

from sktl._params import check_is_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib
from sktl.inspection._cost_display import CostDisplay


class DistillationDisplay(CostDisplay):
    """Visualization of score, size and prediction time of teachers and students.

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
    CompressionDisplay : Compare a compressed model and its original.
    FreezeDepthDisplay : Plot score and fit time against freeze depth.

    Notes
    -----
    Error bars show one standard error of the score, estimated from 100 bootstrap
    samples of the images. It is unknown if ``scoring`` is a function that is not a
    scikit-learn scorer.

    Both horizontal axes are logarithmic. The size is that of the pickled estimator. The
    time is that of predicting several images at once, including reading them, without a
    cache. It depends on the machine, its load and the number of images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import DistillationDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = X[:200] / 16, X[200:300] / 16, y[:200], y[200:300]
    >>> models = {
    ...     "pixels": LogisticRegression().fit(X, y),
    ...     "network": FineTunedClassifier(max_epochs=1, random_state=0).fit(X, y),
    ... }
    >>> display = DistillationDisplay.from_estimators(models, X_test, y_test)
    >>> display.names, display.scores.shape, display.parameters
    (['pixels', 'network'], (2,), [None, 1661514])
    """

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        alone=None,
        sample_weight=None,
        scoring=None,
        n_timed=64,
        n_repeats=5,
        ax=None,
        scatter_kw=None,
    ):
        """Compare a distilled model with its teacher and plot both.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator with a ``teacher_``: a distilled classifier or regressor,
            or a search over one.
        X : array-like of images
            Images that no model was trained on.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images.
        alone : estimator, default=None
            Fitted student that was trained without the teacher, to show what
            distillation gains. None leaves it out.
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
        display : DistillationDisplay
            Object that stores the computed values and the matplotlib artists. The
            models are named "teacher", "student alone" and "distilled".

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        InputError
            If the estimator has no ``teacher_``, because it was not distilled or
            because it was pickled.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        distilled = getattr(estimator, "best_estimator_", estimator)
        if getattr(distilled, "teacher_", None) is None:
            check_is_fitted(estimator)
            raise InputError(
                f"{type(distilled).__name__} has no teacher_: it was not distilled, or it was pickled, which drops the "
                "teacher. Use DistillationDisplay.from_estimators({'teacher': ..., 'distilled': ...}, X, y) instead."
            )
        # A teacher that only provides features has no score to compare.
        teacher = distilled.teacher_ if hasattr(distilled.teacher_, "predict") else None
        models = {"teacher": teacher, "student alone": alone, "distilled": estimator}
        return cls.from_estimators(
            {name: model for name, model in models.items() if model is not None},
            X,
            y,
            origins=None if teacher is None else {"distilled": "teacher"},
            sample_weight=sample_weight,
            scoring=scoring,
            n_timed=n_timed,
            n_repeats=n_repeats,
            ax=ax,
            scatter_kw=scatter_kw,
        )
