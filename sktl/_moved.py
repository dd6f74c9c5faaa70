"""Where the names are that pickles of earlier versions hold: a pickle names a class or a function by its module.

Modules of sktl are private and are renamed without notice, but files of users outlive that: what stood in a pickle once
stays in these tables. Public names are found in the public module, wherever they are defined.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

# Modules that are no more: where what pickles hold of them is now.
MODULES = {
    # Until 0.1.0
    "sktl._engine._backbone_parameter": "sktl._estimators._backbone_parameter",
    "sktl._engine._footprint": "sktl._estimators._footprint",
    "sktl._engine._losses": "sktl._training._losses",
    "sktl._engine._net": "sktl._training._skorch_net",
    "sktl._engine._network": "sktl._frozen._prefix_network",
    "sktl._engine._rest": "sktl._training._rest_network",
    "sktl._engine._soft_targets": "sktl.distillation",
    "sktl._images._reading": "sktl._images._read_settings",
    "sktl.compression._curve": "sktl.compression._lottery_curve",
    "sktl.compression._packed": "sktl.compression._packed_pickle",
    "sktl.datasets._unreadable": "sktl.datasets",
    "sktl.distillation._losses": "sktl.distillation",
    "sktl.inspection._compression": "sktl.inspection",
    "sktl.inspection._distillation": "sktl.inspection",
    "sktl.inspection._embedding": "sktl.inspection",
    "sktl.inspection._evidence_maps": "sktl.inspection",
    "sktl.inspection._freeze_depth": "sktl.inspection",
    "sktl.inspection._gradcam": "sktl.inspection",
    "sktl.inspection._layer_probe": "sktl.inspection",
    "sktl.inspection._lottery": "sktl.inspection",
    "sktl.inspection._lr_range": "sktl.inspection",
    "sktl.inspection._misclassified": "sktl.inspection",
    "sktl.inspection._training_curve": "sktl.inspection",
    "sktl.inspection._transferability": "sktl.inspection",
    "sktl.selection._classes": "sktl.selection",
    "sktl.selection._domain": "sktl.selection",
    "sktl.selection._evidence": "sktl.selection",
    "sktl.selection._probe": "sktl.selection",
    "sktl.selection._source": "sktl.selection",
    "sktl.selection._strategy": "sktl.selection",
}

# Names that are others now, of modules in the table above.
RENAMED = {
    ("sktl._engine._backbone_parameter", "LeftBehind"): "MissingNetwork",
    ("sktl._images._reading", "Reading"): "ReadSettings",
}


class _Moved(ModuleType):
    """What `sys.modules` has for a module that is no more; it imports the new one when a name is looked up."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __path__, which tells packages from modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(MODULES[self.__name__]), RENAMED.get((self.__name__, name), name))


def register() -> None:
    """Let pickle find names of earlier versions."""
    for name in MODULES:
        sys.modules[name] = _Moved(name, "Names of an earlier version of sktl, for pickles that hold them.")
