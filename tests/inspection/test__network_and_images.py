"""What is understood of an estimator: its network, its layers, its pooling, and how it reads pictures."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._images import check_images
from sktl.compression import QuantizedClassifier
from sktl.exceptions import BackboneError
from sktl.inspection._network_and_images import as_labels, network_and_images, network_inputs, read_layers
from sktl.selection import BackboneSelector


@pytest.mark.parametrize(
    ("make", "layers", "pooling"),
    [
        (lambda X, y: "sktl_mini", ["layer4"], "avg"),
        (lambda X, y: PretrainedFeatureExtractor(layers=["stem", 2], pooling="max"), ["stem", "layer2"], "max"),
        (lambda X, y: PretrainedFeatureExtractor(layers=1, pooling="none").fit(X), ["layer1"], "flatten"),
        (lambda X, y: make_pipeline(PretrainedFeatureExtractor(layers=0), LogisticRegression()), ["stem"], "avg"),
        (lambda X, y: BackboneSelector(layers=["layer2"]), ["layer2"], "avg"),
        (lambda X, y: FineTunedClassifier(max_epochs=0, pooling="max"), ["layer4"], "max"),
        (
            lambda X, y: GridSearchCV(FineTunedClassifier(max_epochs=0), {"pooling": ["gem"]}, cv=2),
            ["layer4"],
            "gem",
        ),
    ],
)
def test_the_layers_that_it_reads_itself(digits, make, layers, pooling):
    """An extractor's own, also inside a pipeline or a selector; of others the last stage, as they pool it."""
    X, y = digits[0][:20], digits[1][:20] % 2
    estimator = make(X, y)
    if not isinstance(estimator, str | PretrainedFeatureExtractor):
        estimator.fit(X, y)
    found = network_and_images(estimator, X)
    assert read_layers(found) == (layers, pooling)
    assert read_layers(found, 1) == (["layer1"], pooling)
    assert read_layers(found, ["stem", -1]) == (["stem", "layer4"], pooling)
    assert found.features(layers, pooling)[0].shape[0] == 20


def test_a_frozen_estimator(digits):
    """What wraps one estimator is looked through, and the network is the very one that was trained."""
    model = FineTunedClassifier(max_epochs=0).fit(digits[0][:20], digits[1][:20])
    assert network_and_images(FrozenEstimator(model), digits[0]).backbone is model.backbone_


def test_features_behind_the_steps(digits):
    """So the features are those that the last step of the pipeline is given."""
    X, y = digits[0][:20], digits[1][:20] % 2
    pipe = make_pipeline(FunctionTransformer(np.fliplr), PretrainedFeatureExtractor(), LogisticRegression()).fit(X, y)
    (features,) = network_and_images(pipe, X).features(["layer4"], "avg")
    np.testing.assert_allclose(features, pipe[:-1].transform(X), rtol=1e-5)


def test_the_last_step_says_what_is_learnt(digits):
    """Whole numbers are numbers where the pipeline around an extractor is a regressor."""
    X, y = digits[0][:20], digits[1][:20]
    for last, is_regression in ((Ridge(), True), (LogisticRegression(max_iter=2000), False)):
        pipe = make_pipeline(PretrainedFeatureExtractor(), last).fit(X, y)
        assert network_and_images(pipe, X).is_regression(y) == is_regression


def test_labels_of_any_kind():
    """Missing ones among texts stay missing; texts and numbers together are refused."""
    assert as_labels(["a", None, "b"]).tolist() == ["a", None, "b"]
    labels = as_labels(["a", np.nan])
    assert labels[0] == "a"
    assert np.isnan(labels[1])
    assert as_labels([[True], [False]]).dtype == bool
    with pytest.raises(
        ValueError, match=r"^y has both strings and numbers as labels\. Use only strings or only numbers\.$"
    ):
        as_labels(["a", 1, None])


def test_numbers_or_classes(digits):
    """A classifier or regressor says what its targets are; with an extractor the targets say it."""
    X, y = digits[0][:20], digits[1][:20].astype(float)
    assert network_and_images(FineTunedRegressor(max_epochs=0).fit(X, y), X).is_regression(y)
    assert not network_and_images(FineTunedClassifier(max_epochs=0).fit(X, y), X).is_regression(y + 0.5)
    assert not network_and_images("sktl_mini", X).is_regression(y)
    assert network_and_images("sktl_mini", X).is_regression(y + 0.5)
    assert not network_and_images("sktl_mini", X).is_regression(y.astype(str))


def test_what_cannot_be_looked_at(digits):
    """Integers have no layers; a layer that is not there, and an estimator that is not fitted, are named."""
    X, y = digits[0][:20], digits[1][:20] % 2
    model = FineTunedClassifier(max_epochs=0).fit(X, y)
    with pytest.raises(ValueError, match="is int8-quantized"):
        network_and_images(QuantizedClassifier(FrozenEstimator(model)).fit(X, y), X)
    with pytest.raises(BackboneError, match="does not name layers"):
        read_layers(network_and_images("sktl_mini", X), 7)
    with pytest.raises(ValueError, match="Fit it first"):
        network_and_images(BackboneSelector(), X)


def test_features_are_those_of_an_extractor(digits):
    """One table for each layer, in order."""
    X = digits[0][:20]
    first, last = network_and_images("sktl_mini", X).features(["stem", "layer4"], "max")
    both = PretrainedFeatureExtractor(layers=["stem", "layer4"], pooling="max").fit_transform(X)
    np.testing.assert_allclose(np.hstack([first, last]), both)


def test_pictures_as_the_network_sees_them():
    """They are resized and cropped, and no more of them read than are wanted."""
    X = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3), dtype=np.uint8)
    fitted = FineTunedClassifier(max_epochs=0, random_state=0).fit(X, list("ababa"))
    images = network_inputs(fitted, check_images(fitted, [*X[:2], "nowhere.png"], reset=False).take(slice(2)))
    assert (images.shape, images.dtype) == ((2, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(images, [fitted.backbone_.preprocessing.apply(image) for image in X[:2]])
