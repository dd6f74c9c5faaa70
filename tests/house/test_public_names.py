"""What users may import, written down: a name that appears or vanishes is a decision, not an accident."""

import importlib
import re
import tomllib
from types import ModuleType

import pytest

PUBLIC = {
    "sktl": [
        "DistilledClassifier",
        "DistilledRegressor",
        "FineTunedClassifier",
        "FineTunedRegressor",
        "PretrainedFeatureExtractor",
        "__version__",
        "clear_caches",
    ],
    "sktl.anomaly": [
        "AnomalyDetector",
    ],
    "sktl.autoencoders": [
        "Autoencoder",
        "ReconstructionClassifier",
    ],
    "sktl.backbones": [
        "Backbone",
        "Preprocessing",
        "Stage",
        "describe_backbone",
        "list_backbones",
        "load_backbone",
    ],
    "sktl.compression": [
        "Footprint",
        "LotteryTicketClassifier",
        "LowRankClassifier",
        "PrunedClassifier",
        "QuantizedClassifier",
        "footprint",
    ],
    "sktl.datasets": [
        "find_unreadable_images",
        "load_image_folder",
        "make_image_folder",
    ],
    "sktl.distillation": [
        "DistilledClassifier",
        "DistilledRegressor",
        "attention_loss",
        "attention_map",
        "decoupled_loss",
        "hint_loss",
        "relational_angle_loss",
        "relational_distance_loss",
        "similarity_loss",
        "soft_target_loss",
    ],
    "sktl.exceptions": [
        "BackboneError",
        "CacheWarning",
        "CompressionError",
        "DivergenceError",
        "EngineError",
        "ImageError",
        "ImageWarning",
        "InputError",
        "MissingDependencyError",
        "SktlError",
        "SktlWarning",
        "TrainingWarning",
        "TransferWarning",
        "WeightsDownloadError",
        "WeightsError",
        "WeightsMismatchError",
    ],
    "sktl.feature_extraction": [
        "PretrainedFeatureExtractor",
    ],
    "sktl.finetuning": [
        "FineTunedClassifier",
        "FineTunedRegressor",
        "LRRangeTest",
        "lr_range_test",
    ],
    "sktl.inspection": [
        "AnomalyMapDisplay",
        "CompressionDisplay",
        "DistillationDisplay",
        "EmbeddingDisplay",
        "FreezeDepthDisplay",
        "GradCAMDisplay",
        "LRRangeDisplay",
        "LayerProbeDisplay",
        "LotteryTicketDisplay",
        "MisclassifiedDisplay",
        "ReconstructionDisplay",
        "TrainingCurveDisplay",
        "TransferabilityDisplay",
        "grad_cam",
    ],
    "sktl.preprocessing": [
        "ImageReader",
        "PixelRowsToImages",
    ],
    "sktl.selection": [
        "BackboneRanking",
        "BackboneSelector",
        "DomainDistance",
        "StrategyAdvice",
        "domain_distance",
        "gbc_score",
        "h_score",
        "leep_score",
        "logme_score",
        "nce_score",
        "nleep_score",
        "probe_score",
        "recommend_strategy",
        "transrate_score",
    ],
    "sktl.self_supervised": [
        "SelfSupervisedExtractor",
        "nt_xent_loss",
        "vicreg_loss",
    ],
}


def test_public_modules(public_modules):
    """The rooms without an underscore are those listed."""
    assert set(public_modules) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    """``__all__`` is the list above, and each name is there."""
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    for public in module.__all__:
        assert getattr(module, public) is not None


@pytest.mark.parametrize("name", ["sktl", "sktl.backbones"])
def test_a_package_shows_nothing_else(name):
    """Beside its names a package has modules and dunders only, so that completion offers what is meant to be used."""
    module = importlib.import_module(name)
    extra = {n for n in vars(module) if not n.startswith("_") and not isinstance(getattr(module, n), ModuleType)}
    assert extra <= set(PUBLIC[name])


def test_the_documentation_has_every_name(root):
    """The reference lists what may be imported, and the page on installation every extra, no more and no less."""
    pages = sorted((root / "docs" / "api").glob("*.rst"))
    reference = "".join(page.read_text(encoding="utf-8") for page in pages)
    listed = re.findall(r"^   (\w+)$", reference, flags=re.MULTILINE)
    names = {name for names in PUBLIC.values() for name in names if not name.startswith("__")}
    assert sorted(listed) == sorted(names)
    install = (root / "docs" / "install.rst").read_text(encoding="utf-8")
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"``sktl\[(\w+)\]``", install)) == set(extras)


def test_the_html_of_an_estimator_links_to_its_page(root, PublicEstimator):
    """The question mark in a notebook opens the page that the reference has of the class."""
    pages = [page.read_text(encoding="utf-8") for page in sorted((root / "docs" / "api").glob("*.rst"))]
    blocks = [block for page in pages for block in re.split(r"(?=^\.\. currentmodule:: )", page, flags=re.MULTILINE)]
    documented = {
        f"{block.split()[2]}.{name}"
        for block in blocks
        if block.startswith(".. currentmodule")
        for name in re.findall(r"^   (\w+)$", block, flags=re.MULTILINE)
    }
    link = PublicEstimator._get_doc_link(PublicEstimator.__new__(PublicEstimator))
    assert re.fullmatch(r"https://.*/generated/(.*)\.html", link)[1] in documented
