"""Base class of the fine-tuned classifier and regressor."""

from sklearn.base import _fit_context, is_classifier
from sklearn.callback import with_callbacks

from sktl._estimators._auto_depth import assess_situation, strategy_params
from sktl._estimators._backbone_parameter import has_random_weights
from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import NetworkEstimator
from sktl.backbones._stages import depth_error
from sktl.exceptions import BackboneError


class FineTunedEstimator(NetworkEstimator):
    """Base class of estimators that fine-tune a network on the rows passed to `fit`."""

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None, groups=None):
        """Fine-tune the network on labeled images.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets of the images. Labels can be numbers or strings.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out.
        X_val : array-like of images, default=None
            Images on which to evaluate after each epoch, instead of holding out a
            fraction of ``X``.
        y_val : array-like, default=None
            Labels or targets of ``X_val``.
        sample_weight_val : array-like of shape (n_samples_val,), default=None
            Weights of the rows of ``X_val``.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. Rows of one group stay on the same side of the validation
            split, and are left out together when the regressor's ``head_init="probe"``
            is cross-validated. Ignored otherwise.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._fit(FitInput(X, y, sample_weight, X_val, y_val, sample_weight_val, groups))

    def _resolve_depth(self, table, is_new):
        """Return the number of frozen stages; "auto" is resolved for new networks."""
        if self.freeze_depth != "auto":
            try:
                return self.backbone_.stage_index(self.freeze_depth)
            except BackboneError:
                names = [stage.name for stage in self.backbone_.stages]
                raise depth_error(self.freeze_depth, self.backbone_.name, names, ("all", "auto")) from None
        if not is_new:
            return self.freeze_depth_
        if has_random_weights(self):
            return 0  # random weights are not worth keeping
        situation = assess_situation(self, table.images, len(self.classes_) if is_classifier(self) else None)
        params = strategy_params(situation.strategy, len(self.backbone_.stages))
        return self.backbone_.stage_index(params["freeze_depth"])
