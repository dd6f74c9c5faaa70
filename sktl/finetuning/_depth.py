"""``freeze_depth="auto"``: as deep as suits the pictures and labels."""

from typing import Any

from sklearn.base import is_classifier

from sktl._estimators._auto_depth import look, strategy_params
from sktl._estimators._backbone_parameter import has_random_weights
from sktl._estimators._labeled_images import LabeledImages
from sktl.backbones._stages import depth_error
from sktl.exceptions import BackboneError


class DepthByData:
    """Gives an estimator that trains a network ``freeze_depth="auto"``; a mixin."""

    def _resolve_depth(self: Any, learning: LabeledImages, is_new: bool) -> int:
        """How many stages are frozen; a network that has begun to learn keeps what was chosen for it."""
        if self.freeze_depth != "auto":
            try:
                return super()._resolve_depth(learning, is_new)  # type: ignore[misc]  # mypy sees no base of a mixin
            except BackboneError:
                names = [stage.name for stage in self.backbone_.stages]
                raise depth_error(self.freeze_depth, self.backbone_.name, names, ("all", "auto")) from None
        if not is_new:
            return self.freeze_depth_
        if has_random_weights(self):
            return 0  # nothing has been learnt that could be kept
        situation = look(self, learning.images, len(self.classes_) if is_classifier(self) else None)
        params = strategy_params(situation.strategy, len(self.backbone_.stages))
        return self.backbone_.stage_index(params["freeze_depth"])
