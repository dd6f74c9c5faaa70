"""Linear probes at every stage: the same numbers as by hand, and one pass over the pictures."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._frozen import _prefix
from sktl.backbones import load_backbone
from sktl.exceptions import ImageError, ImageWarning
from sktl.inspection import LayerProbeDisplay

STAGES = ["stem", "layer1", "layer2", "layer3", "layer4"]


def test_scores_are_those_by_hand(digits):
    """Each stage has the score of the same model on the extractor's features, and chance that of a dummy."""
    X, y = digits[0][:100], digits[1][:100]
    cv = KFold(3, shuffle=True, random_state=0)
    display = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=cv)
    assert display.stages == STAGES
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 30, max_iter=1000))
    for stage, scores in zip(STAGES, display.scores, strict=True):
        features = PretrainedFeatureExtractor(layers=stage).fit_transform(X).astype(float)
        np.testing.assert_allclose(scores, cross_val_score(probe, features, y, cv=cv))
    assert display.chance == pytest.approx(cross_val_score(DummyClassifier(), X, y, cv=cv).mean())
    np.testing.assert_allclose(display.errorbar_.lines[0].get_ydata(), display.scores.mean(1))
    assert set(display.chance_line_.get_ydata()) == {display.chance}
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == STAGES
    assert display.ax_.get_ylabel().startswith("accuracy")


def test_one_pass_over_the_pictures(digits, monkeypatch):
    """The frozen stages run once for all stages, not once for each."""
    seen = []
    run = _prefix.FrozenPrefix.run
    monkeypatch.setattr(
        _prefix.FrozenPrefix, "run", lambda self, images, *a: seen.append(self.spec.layers) or run(self, images, *a)
    )
    LayerProbeDisplay.from_estimator(PretrainedFeatureExtractor(cache=None), digits[0][:40], digits[1][:40] % 2, cv=2)
    assert seen == [tuple(STAGES)]


def test_all_stages_are_judged_on_the_same_folds(digits):
    """A splitter that draws new folds each time it is asked is asked once: equal features get equal scores."""

    class Labels(LogisticRegression):
        def fit(self, X, y):
            return super().fit(np.zeros_like(X), y)

        def predict(self, X):
            return super().predict(np.zeros_like(X))

    splitter = ShuffleSplit(4, random_state=np.random.RandomState(0))
    display = LayerProbeDisplay.from_estimator("sktl_mini", *digits, cv=splitter, probe=Labels(), n_jobs=1)
    assert (display.scores == display.scores[0]).all()
    assert display.scores[0].std() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda X: load_backbone("sktl_mini"),
        lambda X: PretrainedFeatureExtractor(
            load_backbone("sktl_mini").module, preprocessing=load_backbone("sktl_mini").preprocessing
        ),
        lambda X: PretrainedFeatureExtractor(cache=None),
        lambda X: PretrainedFeatureExtractor(PretrainedFeatureExtractor().fit(X)),
        lambda X: PretrainedFeatureExtractor(layers=0).fit(X),
        lambda X: make_pipeline(PretrainedFeatureExtractor(layers=0), LogisticRegression()).fit(X, X[:, 20] > 0.5),
        lambda X: FineTunedClassifier(max_epochs=0).fit(X, np.arange(len(X)) % 2),
    ],
)
def test_every_way_to_name_a_network(digits, make):
    """A network, and estimators fitted or not, of a module or a fitted estimator too, give what its name gives."""
    X, y = digits[0][:60], digits[1][:60] % 2
    expected = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=2).scores
    np.testing.assert_allclose(LayerProbeDisplay.from_estimator(make(X), X, y, cv=2).scores, expected)


def test_a_fitted_estimator_reads_pictures_as_it_learnt_to_and_is_not_changed(digits):
    """The value range is that of its fit, not that of these pictures; and its attributes stay."""
    X, y = digits[0][:60] * 16, digits[1][:60] % 2  # a range of its own: neither 0-1 nor 0-255
    with pytest.warns(ImageWarning, match="from 0 to 16"):
        model = FineTunedClassifier(max_epochs=0).fit(X, y)
    before = dict(vars(model))
    display = LayerProbeDisplay.from_estimator(model, X / 3, y, cv=2)
    assert vars(model) == before
    dark = LayerProbeDisplay.from_estimator("sktl_mini", np.uint8(np.rint(X / 16 / 3 * 255)), y, cv=2)
    np.testing.assert_allclose(display.scores, dark.scores)


def test_what_was_learnt_is_probed(digits):
    """A fine-tuned network's trained stages have other features, its frozen ones the same."""
    X, y = digits[0][:100], digits[1][:100]
    trained = FineTunedClassifier(freeze_depth=3, lr=0.01, max_epochs=5, random_state=0).fit(X, y)
    before = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=2).scores
    after = LayerProbeDisplay.from_estimator(trained, X, y, cv=2).scores
    np.testing.assert_allclose(after[:3], before[:3])
    assert np.abs(after[3:] - before[3:]).max() > 0


@pytest.mark.parametrize("how", ["target", "estimator"])
def test_regression(digits, how):
    """Numbers are probed by ridge regression, and so are whole numbers where a regressor says what they are."""
    X, y = digits[0][:60], digits[1][:60].astype(float)
    estimator = "sktl_mini"
    if how == "target":
        y += 0.5
    else:
        estimator = FineTunedRegressor(max_epochs=0).fit(X, y)
    display = LayerProbeDisplay.from_estimator(estimator, X, y, cv=2)
    features = PretrainedFeatureExtractor().fit_transform(X).astype(float)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=30))
    np.testing.assert_allclose(display.scores[-1], cross_val_score(ridge, features, y, cv=2), rtol=1e-3)
    assert display.score_name == "R²"
    assert display.chance <= 0


def test_other_scores_and_axes(digits):
    """The score is any of scikit-learn's, named on the axis, and keywords reach matplotlib."""
    _, ax = plt.subplots()
    X, y = digits[0][:60], digits[1][:60] % 2
    settings = {"cv": 2, "scoring": "roc_auc", "pooling": "max", "ax": ax, "errorbar_kw": {"color": "red"}}
    display = LayerProbeDisplay.from_estimator("sktl_mini", X, y, **settings)
    assert display.ax_ is ax
    assert display.chance == 0.5
    assert ax.get_ylabel().startswith("roc_auc")
    assert display.errorbar_.lines[0].get_color() == "red"


def test_without_chance():
    """Scores alone can be drawn too, of a network with many stages."""
    display = LayerProbeDisplay([f"features.{i}" for i in range(19)], np.random.default_rng(0).random((19, 5))).plot()
    assert display.chance_line_ is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"pooling": "flatten"},
            ValueError,
            "'pooling' parameter must be 'avg', 'max' or 'gem', which .*Got 'flatten' instead",
        ),
        ({"y": [0, 1]}, ValueError, "inconsistent numbers of samples"),
        ({"X": []}, ImageError, "X is empty"),
    ],
)
def test_bad_input(digits, change, error, message):
    """Each is an error that says what is wrong."""
    given = {"X": digits[0], "y": digits[1], **change}
    with pytest.raises(error, match=message):
        LayerProbeDisplay.from_estimator("sktl_mini", **given)


def test_real_photos(shared_data):
    """On ants and bees the last stages of MobileNetV2 are far better than chance, and better than the first one."""
    paths = [str(path) for path in sorted((shared_data / "hymenoptera" / "train").glob("*/*.jpg"))][::3]
    extractor = PretrainedFeatureExtractor(
        "mobilenet_v2",
        weights=shared_data / "mobilenet_v2_imagenet" / "model.safetensors",
        preprocessing={"resize_size": 256},
    )
    display = LayerProbeDisplay.from_estimator(extractor, paths, ["ants" in path for path in paths], cv=3)
    means = display.scores.mean(1)
    assert means[-1] > 0.9 > means[0] + 0.1
    assert display.chance < 0.6


def test_near_copies_are_held_out_together(digits):
    """A number of folds is one of whole groups: images with the label of chance are not known from their copies."""
    originals = np.tile(np.arange(20), 4)
    X = digits[0][:20][originals]
    y = np.random.default_rng(0).permutation(np.arange(20) % 2)[originals]
    plain = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=4)
    grouped = LayerProbeDisplay.from_estimator("sktl_mini", X, y, cv=4, groups=originals)
    assert plain.scores[-1].mean() > 0.95
    assert grouped.scores[-1].mean() < 0.8
