"""How good teachers and students are, against how large and how slow they are."""

from sktl._params import check_is_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib
from sktl.inspection._cost_display import CostDisplay


class DistillationDisplay(CostDisplay):
    """Score of several models against their size and against their time, such as a teacher's and its students'.

    It is recommended to use `from_estimator` or `from_estimators` to create one. All parameters are stored as
    attributes.

    Parameters
    ----------
    names : list of str
        Of the models.
    scores : ndarray of shape (n_models,)
        How good each one is.
    nbytes : ndarray of shape (n_models,)
        Bytes on disk of each one, pickled.
    milliseconds : ndarray of shape (n_models,)
        How long each one takes for a picture.
    parameters : list of int or None, default=None
        How many parameters each one's network has; None for a model without a network.
    origins : dict of str to str, default=None
        Which model came of which, by their names.
    score_name : str, default="score"
        What the score is.
    score_errors : ndarray of shape (n_models,), default=None
        Standard error of each score, NaN where it is not known; None draws no error bars.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the sizes.
    time_ax_ : matplotlib Axes
        With the times.
    figure_ : matplotlib Figure
        With both of them.
    points_ : matplotlib PathCollection
        Models by size.
    time_points_ : matplotlib PathCollection
        Models by time.
    errorbar_, time_errorbar_ : matplotlib ErrorbarContainer or None
        One standard error of each score, in either panel.
    labels_ : list of matplotlib Annotation
        Their names beside the sizes.
    time_labels_ : list of matplotlib Annotation
        Their names beside the times.
    arrows_ : list of matplotlib Annotation
        From each origin to what came of it, by size.
    time_arrows_ : list of matplotlib Annotation
        From each origin to what came of it, by time.

    See Also
    --------
    CompressionDisplay : The same for a compressed model and its original.
    FreezeDepthDisplay : Score and fit time against how much of one network is frozen.

    Notes
    -----
    Error bars are one standard error of the score: how much it would differ for other images of the same kind, from 100
    bootstrap samples of those given. A score that is a function of the user's has none.

    Both horizontal axes are logarithmic. The bytes are those that `pickle` writes for the whole estimator. The time is
    that of a prediction for several pictures together, reading them included, without any cache; it depends on the
    machine, on its load, and on how many pictures there are.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import DistillationDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = X[:200] / 16, X[200:300] / 16, y[:200], y[200:300]
    >>> models = {"pixels": LogisticRegression(), "network": FineTunedClassifier(max_epochs=1, random_state=0)}
    >>> models = {name: model.fit(X, y) for name, model in models.items()}
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
        """Compare a distilled model with its teacher, and draw them.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``teacher_``: a distilled classifier or regressor, or a search over one.
        X : array-like of images
            Images that no model has learnt from.
        y : array-like of shape (n_images,) or (n_images, n_targets)
            Their labels or targets.
        alone : estimator, default=None
            Fitted: what the student becomes without the teacher, to see what distilling gives. None leaves it out.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the pictures in the score.
        scoring : str or callable, default=None
            The score; None takes each estimator's own: accuracy, or the coefficient of determination.
        n_timed : int, default=64
            For how many of the pictures, the first ones, the time is taken; None takes all.
        n_repeats : int, default=5
            How often it is taken; the median counts.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : DistillationDisplay
            With the data, and with what was drawn. The models are called "teacher", "student alone" and "distilled".

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        InputError
            Where it has no ``teacher_``: it was not distilled, or was pickled, which leaves the teacher behind.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        distilled = getattr(estimator, "best_estimator_", estimator)
        if getattr(distilled, "teacher_", None) is None:
            check_is_fitted(estimator)
            raise InputError(
                f"{type(distilled).__name__} has no teacher_: it was not distilled, or was pickled, which leaves the "
                "teacher behind. Use DistillationDisplay.from_estimators({'teacher': ..., 'distilled': ...}, X, y)."
            )
        # A teacher of features has no score that could stand beside the others'.
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
