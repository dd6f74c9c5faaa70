"""What fine-tuned classifiers and regressors share: ``fit``, and a ``freeze_depth`` that goes by the data."""

from sklearn.base import _fit_context, is_classifier
from sklearn.callback import with_callbacks

from sktl._estimators._auto_depth import assess_situation, strategy_params
from sktl._estimators._backbone_parameter import has_random_weights
from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import NetworkEstimator
from sktl.backbones._stages import depth_error
from sktl.exceptions import BackboneError


class FineTunedEstimator(NetworkEstimator):
    """Adapts a network to the rows that `fit` is given."""

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None, groups=None):
        """Train the network.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            A classifier's labels of any kind, numbers or strings; a regressor's targets, one or several.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows; a weight of zero is a row that is not there.
        X_val : array-like of pictures, default=None
            Pictures to judge on after each epoch, in place of a share of ``X``.
        y_val : array-like, default=None
            Their labels or targets.
        sample_weight_val : array-like of shape (n_pictures_val,), default=None
            Their weights.
        groups : array-like of shape (n_images,), default=None
            What each row of ``X`` belongs to, such as the subject or the original of near-copies: numbers or strings.
            Rows of a group stay on one side where rows are set aside (``early_stopping``) or left out (the regressor's
            ``head_init="probe"``). Not used otherwise.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._fit(FitInput(X, y, sample_weight, X_val, y_val, sample_weight_val, groups))

    def _resolve_depth(self, table, is_new):
        """How many stages are frozen; a network that has begun to learn keeps what was chosen for it."""
        if self.freeze_depth != "auto":
            try:
                return self.backbone_.stage_index(self.freeze_depth)
            except BackboneError:
                names = [stage.name for stage in self.backbone_.stages]
                raise depth_error(self.freeze_depth, self.backbone_.name, names, ("all", "auto")) from None
        if not is_new:
            return self.freeze_depth_
        if has_random_weights(self):
            return 0  # nothing has been learned that could be kept
        situation = assess_situation(self, table.images, len(self.classes_) if is_classifier(self) else None)
        params = strategy_params(situation.strategy, len(self.backbone_.stages))
        return self.backbone_.stage_index(params["freeze_depth"])
