"""Names that pickles hold: what an earlier version wrote is found, wherever it is now."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sktl
from sktl import _moved

# All public names, and all others that pickles of fitted estimators held, by their modules. A module or a class may be
# renamed: then it is put in the tables of `sktl._moved`, and its names stay here.
HELD = {
    # Before 0.1.0
    "sktl._engine._backbone_parameter": "LeftBehind",
    "sktl._engine._footprint": "Footprint Footprints footprint",
    "sktl._engine._losses": "ClassificationLoss RegressionLoss",
    "sktl._engine._net": "TransferNet",
    "sktl._engine._network": "Normalization",
    "sktl._engine._rest": "RestNetwork",
    "sktl._engine._soft_targets": "soft_target_loss",
    "sktl._images._format": "ImageFormat",
    "sktl._images._lazy": "LazyImage",
    "sktl._images._pictures": "Images",
    "sktl._images._reading": "Reading",
    "sktl._part": "_Function _Place _loaded",
    "sktl._stores": "clear_caches",
    "sktl._table": "counted",
    "sktl.backbones._backbone": "Backbone",
    "sktl.backbones._describe": "describe_backbone",
    "sktl.backbones._load": "load_backbone",
    "sktl.backbones._mini": "ResidualBlock SktlMini",
    "sktl.backbones._preprocessing": "Preprocessing",
    "sktl.backbones._registry": "list_backbones",
    "sktl.backbones._stages": "Stage",
    "sktl.compression._codec": "Encoded",
    "sktl.compression._curve": "LotteryCurve _epoch",
    "sktl.compression._int8": "Int8Net",
    "sktl.compression._lottery": "LotteryTicketClassifier",
    "sktl.compression._low_rank": "LowRankClassifier",
    "sktl.compression._packed": "Packed",
    "sktl.compression._pruned": "PrunedClassifier",
    "sktl.compression._quantized": "QuantizedClassifier",
    "sktl.datasets._folder": "load_image_folder",
    "sktl.datasets._unreadable": "find_unreadable_images",
    "sktl.distillation._classifier": "DistilledClassifier",
    "sktl.distillation._knowledge": "ClassifierDistillationLoss RegressorDistillationLoss",
    "sktl.distillation._layers": "LayerPair",
    "sktl.distillation._losses": (
        "attention_loss attention_map decoupled_loss hint_loss "
        "relational_angle_loss relational_distance_loss similarity_loss"
    ),
    "sktl.distillation._regressor": "DistilledRegressor",
    "sktl.exceptions": "BackboneError ImageError InputError SktlError",
    "sktl.feature_extraction": "PretrainedFeatureExtractor",
    "sktl.finetuning._classifier": "FineTunedClassifier",
    "sktl.finetuning._lr_range": "LRRangeTest lr_range_test",
    "sktl.finetuning._regressor": "FineTunedRegressor",
    "sktl.inspection._compression": "CompressionDisplay",
    "sktl.inspection._cost": "CostDisplay",
    "sktl.inspection._distillation": "DistillationDisplay",
    "sktl.inspection._embedding": "EmbeddingDisplay",
    "sktl.inspection._evidence_maps": "grad_cam",
    "sktl.inspection._freeze_depth": "FreezeDepthDisplay",
    "sktl.inspection._gradcam": "GradCAMDisplay",
    "sktl.inspection._layer_probe": "LayerProbeDisplay",
    "sktl.inspection._lottery": "LotteryTicketDisplay",
    "sktl.inspection._lr_range": "LRRangeDisplay",
    "sktl.inspection._misclassified": "MisclassifiedDisplay",
    "sktl.inspection._photos": "Photos",
    "sktl.inspection._training_curve": "TrainingCurveDisplay",
    "sktl.inspection._transferability": "TransferabilityDisplay",
    "sktl.preprocessing": "ImageReader PixelRowsToImages",
    "sktl.selection._classes": "gbc_score h_score transrate_score",
    "sktl.selection._domain": "DomainDistance domain_distance",
    "sktl.selection._evidence": "logme_score",
    "sktl.selection._probe": "probe_score",
    "sktl.selection._ranking": "BackboneRanking",
    "sktl.selection._selector": "BackboneSelector",
    "sktl.selection._source": "leep_score nce_score nleep_score",
    "sktl.selection._strategy": "StrategyAdvice recommend_strategy",
}


@pytest.mark.parametrize("module", HELD)
def test_names_in_pickles_of_before_are_found(module):
    """Each is loaded as pickle does it, and from the public module it is the same."""
    for name in HELD[module].split():
        found = pickle.loads(f"c{module}\n{name}\n.".encode())
        assert found.__name__ == _moved.RENAMED.get((module, name), name)


@pytest.mark.parametrize("name", _moved.MOVED)
def test_moved_modules_are_no_more(name):
    """None of them is a module of today, which would be hidden; a name that has never been there is not found."""
    place = Path(sktl.__file__).parents[1].joinpath(*name.split("."))
    assert not place.exists()
    assert not place.with_suffix(".py").exists()
    assert not hasattr(sys.modules[name], "nothing_of_that_name")
    assert not hasattr(sys.modules[name], "__path__")


def test_renamed_names_are_of_moved_modules():
    """Only a module of the table is asked for them."""
    assert {module for module, _ in _moved.RENAMED} <= set(_moved.MOVED)


def test_a_pickle_is_loaded_where_nothing_is_imported_yet():
    """Its first name may be of a module whose whole package is no more."""
    code = "import pickle; print(pickle.loads(b'csktl._engine._net\\nTransferNet\\n.').__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "TransferNet\n"


def test_a_pickle_of_others_imports_nothing():
    """pickle asks all modules for a function that does not say where it comes from: none of these loads a room."""
    code = (
        "import pickle, sys, sktl\nfrom scipy.special import expit\nbefore = set(sys.modules)\npickle.dumps(expit)\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def earlier(made, **renamed):
    """The same object as an earlier version would have pickled it: with the earlier names of its attributes."""
    again = object.__new__(type(made))
    again.__setstate__({renamed.get(name, name): value for name, value in vars(made).items()})
    return again


@pytest.mark.parametrize("kind", ["distance", "advice"])
def test_attributes_of_results_that_were_renamed(kind):
    """A result that was pickled with the earlier name of an attribute has it under today's, and prints itself."""
    from sktl.selection import DomainDistance, StrategyAdvice

    made = {
        "distance": lambda: DomainDistance("a network", 40, 0.1, 0.5),
        "advice": lambda: StrategyAdvice(
            "freeze_all", {}, "a network", 40, 2, "little", "similar", 0.1, {}, {"layer4": 0.9}, 0.5
        ),
    }[kind]()
    again = earlier(made, n_images="n_pictures")
    assert again == made
    assert "40 images" in repr(again)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("kind", ["embedding", "gradcam", "misclassified"])
def test_attributes_of_displays_that_were_renamed(kind):
    """A display that was pickled with the earlier names draws itself again, with its images."""
    from sktl.inspection import EmbeddingDisplay, GradCAMDisplay, MisclassifiedDisplay

    images, labels, p = np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), np.ones(2)
    made = {
        "embedding": lambda: EmbeddingDisplay(np.eye(2), labels, images=images),
        "gradcam": lambda: GradCAMDisplay(images, np.zeros((2, 8, 8)), labels, p, labels, p),
        "misclassified": lambda: MisclassifiedDisplay(
            np.eye(2, dtype=int), labels, labels, labels, labels[::-1], images=images
        ),
    }[kind]()
    again = earlier(made.plot(), images="photos", image_axes_="photo_axes_", images_ax_="photos_ax_")
    assert vars(again).keys() == vars(made).keys()
    assert again.plot().images is images
