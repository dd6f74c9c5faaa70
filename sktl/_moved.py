"""New locations of names in pickles of earlier versions.

A pickle refers to a class or function by its module. Private modules of sktl are
renamed without notice, but pickles of users must still load, so names that have been in
pickles stay in this table. Public names are looked up in the public module.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, ClassVar

# Removed modules, with the new module and the names that pickles may contain.
MOVED = {
    # Until 0.1.0
    "sktl._engine._backbone_parameter": ("sktl._estimators._backbone_parameter", "LeftBehind"),
    "sktl._engine._footprint": ("sktl._estimators._footprint", "Footprint Footprints footprint"),
    "sktl._engine._losses": ("sktl._training._losses", "ClassificationLoss RegressionLoss"),
    "sktl._engine._net": ("sktl._training._skorch_net", "TransferNet"),
    "sktl._engine._network": ("sktl._frozen._prefix_network", "Normalization"),
    "sktl._engine._rest": ("sktl._training._rest_network", "RestNetwork"),
    "sktl._engine._soft_targets": ("sktl.distillation", "soft_target_loss"),
    "sktl._images._pictures": ("sktl._images._image_table", "Images"),
    "sktl._images._reading": ("sktl._images._read_settings", "Reading"),
    "sktl.compression._curve": ("sktl.compression._lottery_curve", "LotteryCurve _epoch"),
    "sktl.compression._packed": ("sktl.compression._packed_pickle", "Packed"),
    "sktl.datasets._unreadable": ("sktl.datasets", "find_unreadable_images"),
    "sktl.distillation._losses": (
        "sktl.distillation",
        "attention_loss attention_map decoupled_loss "
        "hint_loss relational_angle_loss relational_distance_loss similarity_loss",
    ),
    "sktl.inspection._compression": ("sktl.inspection", "CompressionDisplay"),
    "sktl.inspection._cost": ("sktl.inspection._cost_display", "CostDisplay"),
    "sktl.inspection._distillation": ("sktl.inspection", "DistillationDisplay"),
    "sktl.inspection._embedding": ("sktl.inspection", "EmbeddingDisplay"),
    "sktl.inspection._evidence_maps": ("sktl.inspection", "grad_cam"),
    "sktl.inspection._freeze_depth": ("sktl.inspection", "FreezeDepthDisplay"),
    "sktl.inspection._gradcam": ("sktl.inspection", "GradCAMDisplay"),
    "sktl.inspection._layer_probe": ("sktl.inspection", "LayerProbeDisplay"),
    "sktl.inspection._lottery": ("sktl.inspection", "LotteryTicketDisplay"),
    "sktl.inspection._lr_range": ("sktl.inspection", "LRRangeDisplay"),
    "sktl.inspection._misclassified": ("sktl.inspection", "MisclassifiedDisplay"),
    "sktl.inspection._photos": ("sktl.inspection._decoded_images", "Photos"),
    "sktl.inspection._training_curve": ("sktl.inspection", "TrainingCurveDisplay"),
    "sktl.inspection._transferability": ("sktl.inspection", "TransferabilityDisplay"),
    "sktl.selection._classes": ("sktl.selection", "gbc_score h_score transrate_score"),
    "sktl.selection._domain": ("sktl.selection", "DomainDistance domain_distance"),
    "sktl.selection._evidence": ("sktl.selection", "logme_score"),
    "sktl.selection._probe": ("sktl.selection", "probe_score"),
    "sktl.selection._source": ("sktl.selection", "leep_score nce_score nleep_score"),
    "sktl.selection._strategy": ("sktl.selection", "StrategyAdvice recommend_strategy"),
}

# Names that changed as well.
RENAMED = {
    ("sktl._engine._backbone_parameter", "LeftBehind"): "MissingNetwork",
    ("sktl._images._reading", "Reading"): "ReadSettings",
    ("sktl.inspection._photos", "Photos"): "DecodedImages",
}


class _Moved(ModuleType):
    """Entry in `sys.modules` for a removed module, which imports the new one if needed.

    Other names raise an error without an import, because `pickle` searches all modules
    for objects without a module.
    """

    def __getattr__(self, name: str) -> Any:
        module, names = MOVED.get(self.__name__, ("", ""))
        if name not in names.split():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module), RENAMED.get((self.__name__, name), name))


class RenamedAttributes:
    """Mixin for classes whose attributes had other names in earlier pickles."""

    _renamed: ClassVar[dict[str, str]] = {}  # the earlier name, and today's

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the attributes by today's names."""
        vars(self).update({self._renamed.get(name, name): value for name, value in state.items()})


def register() -> None:
    """Register removed modules, so that pickles of earlier versions can be loaded."""
    packages = {name.rpartition(".")[0] for name in MOVED if name.startswith("sktl._engine.")}
    for name in [*packages, *MOVED]:
        sys.modules[name] = _Moved(name, "Names of an earlier version of sktl, for pickles that hold them.")
