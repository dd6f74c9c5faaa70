"""How good compressed models are, against how large and how slow they are."""

from sktl._estimators._find_fitted import find_fitted
from sktl._params import check_is_fitted
from sktl.compression._compression_chain import MadeOfAnother, compression_chain, original_of
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib
from sktl.inspection._cost_display import CostDisplay


class CompressionDisplay(CostDisplay):
    """Score of a network and of what compression made of it, against their size and against their time.

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
    DistillationDisplay : The same for a teacher and its students.
    LotteryTicketDisplay : Score against how many weights are left.

    Notes
    -----
    Error bars are one standard error of the score: how much it would differ for other images of the same kind, from 100
    bootstrap samples of those given. A score that is a function of the user's has none.

    Both horizontal axes are logarithmic, and where it is known what came of what, a dashed line shows where it began: a
    model to the left of it on the one side and on it on the other takes less room, but no less time. The bytes are
    those that `pickle` writes for the whole estimator. The time is that of a prediction for several pictures together,
    reading them included, without any cache; it depends on the machine, on its load, and on how many pictures there
    are.

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
    >>> bool(display.nbytes[1] < 0.5 * display.nbytes[0])
    True
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
        """Compare a compressed model with its original, and draw them.

        Parameters
        ----------
        estimator : estimator
            Fitted: a compressor such as `PrunedClassifier`, or a search over one. Of several in a stack each step is
            drawn.
        X : array-like of images
            Images that no model has learnt from.
        y : array-like of shape (n_images,)
            Their labels.
        sample_weight : array-like of shape (n_images,), default=None
            Weights of the pictures in the score.
        scoring : str or callable, default=None
            The score; None takes the accuracy.
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
        display : CompressionDisplay
            With the data, and with what was drawn. The models are called "original" and what became of it: "pruned",
            say, or "low rank".

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        InputError
            Where it has no original beside it: it is not compressed, or was pickled, which leaves the original behind.
        MissingDependencyError
            Where matplotlib is not installed.
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
    """The original, and every model that was made of it, up to the one given."""
    if original_of(estimator) is None:
        check_is_fitted(estimator)
        compressed = find_fitted(estimator, MadeOfAnother)
        name = type(estimator if compressed is None else compressed.estimator).__name__
        raise InputError(
            f"{name} has no original beside it: it was not compressed, or was pickled, which leaves the original "
            "behind. Use CompressionDisplay.from_estimators({'original': ..., 'compressed': ...}, X, y)."
        )
    return compression_chain(estimator)
