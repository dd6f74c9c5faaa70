"""Features of a pretrained network inside scikit-learn."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn
import torch
import torchvision
from PIL import Image
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import PretrainedFeatureExtractor
from sktl._frozen._cache import open_cache
from sktl.exceptions import BackboneError, ImageError, ImageWarning, WeightsMismatchError


@parametrize_with_checks([PretrainedFeatureExtractor()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the extractor passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def pictures():
    """Ten random uint8 pictures, five dark and five bright."""
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 120, (5, 32, 32, 3)), rng.integers(130, 256, (5, 32, 32, 3))
    return np.concatenate([dark, bright]).astype(np.uint8)


@pytest.fixture
def labels():
    return np.repeat(["dark", "bright"], 5)


@pytest.fixture
def paths(pictures, tmp_path):
    """The same pictures as PNG files."""
    names = []
    for index, picture in enumerate(pictures):
        names.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(picture).save(names[-1])
    return names


def test_the_kind_of_input_does_not_matter(image_source):
    """The same pictures, however they are given, have the same features."""
    extractor = PretrainedFeatureExtractor(cache=None)
    expected = extractor.fit_transform(image_source.pixels)
    np.testing.assert_allclose(extractor.fit_transform(image_source.X), expected, rtol=1e-4, atol=1e-5)


def test_pictures_and_numbers_in_one_table(paths, labels):
    """A column of paths and a column of prices go through one ColumnTransformer into one classifier."""
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"photo": paths, "price": np.arange(10.0), "label": labels})
    pipe = make_pipeline(
        make_column_transformer((PretrainedFeatureExtractor(), "photo"), (StandardScaler(), ["price"])),
        LogisticRegression(max_iter=1000),
    )
    assert pipe.fit(df, df["label"]).score(df, df["label"]) == 1
    assert pipe[0].get_feature_names_out()[0] == "pretrainedfeatureextractor__sktl_mini_layer4_0"
    assert pipe[0].get_feature_names_out()[-1] == "standardscaler__price"


def test_a_grid_search_over_layers_and_poolings(pictures, labels):
    """Layers and poolings are ordinary hyper-parameters, in processes as well; cross-validation works."""
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    grid = {"pretrainedfeatureextractor__layers": ["layer1", -1, ["stem", "layer4"]]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise").fit(pictures, labels)
    assert search.best_score_ == 1
    assert set(cross_val_predict(pipe, pictures, labels, cv=2)) == {"dark", "bright"}


def test_pandas_output_and_feature_names(pictures):
    """Names say backbone, layer and number; set_output and the global switch give a DataFrame with them."""
    pd = pytest.importorskip("pandas")
    extractor = PretrainedFeatureExtractor(layers=["stem", "layer4"]).set_output(transform="pandas")
    table = extractor.fit_transform(pictures)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == list(extractor.get_feature_names_out())
    assert table.columns[0] == "sktl_mini_stem_0"
    assert table.columns[-1].startswith("sktl_mini_layer4_")
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(PretrainedFeatureExtractor().fit_transform(pictures), pd.DataFrame)


def test_one_picture_is_its_row_of_the_batch(pictures):
    """What a batch is made of does not show in the features."""
    extractor = PretrainedFeatureExtractor(cache=None).fit(pictures)
    alone = np.concatenate([extractor.transform(pictures[i : i + 1]) for i in range(len(pictures))])
    np.testing.assert_allclose(extractor.transform(pictures), alone, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_a_plain_eval_mode_forward(pictures):
    """They equal preprocessing, eval-mode network and mean, written out with torch alone."""
    extractor = PretrainedFeatureExtractor(cache=None).fit(pictures)
    backbone = extractor.backbone_
    x = torch.stack([torch.tensor(backbone.preprocessing.apply(p)).permute(2, 0, 1) / 255 for p in pictures])
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    activations = []
    module = backbone.module
    handle = module.layer4.register_forward_hook(lambda m, i, output: activations.append(output.clone()))
    with torch.inference_mode():
        module((x - mean) / std)
    handle.remove()
    expected = activations[0].mean((2, 3)).numpy()
    np.testing.assert_allclose(extractor.transform(pictures), expected, rtol=1e-4, atol=1e-5)


def test_using_a_network_leaves_no_trace(pictures):
    """Buffers, mode, hooks, seeds, threads, gradients switch and configuration are as they were."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True))
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 (the global generator is what is looked at)
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        sklearn.get_config(),
    )
    PretrainedFeatureExtractor(network, cache=None).fit(pictures).transform(pictures)
    PretrainedFeatureExtractor(weights=None, random_state=0, cache=None).fit_transform(pictures)
    after = (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        sklearn.get_config(),
    )
    assert state == after
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_nothing_happens_before_fit(monkeypatch):
    """Building, cloning, setting parameters and showing an extractor loads and reads nothing."""
    monkeypatch.setattr("sktl.feature_extraction.resolve_backbone", lambda *args: pytest.fail("loaded a network"))
    extractor = clone(PretrainedFeatureExtractor("resnet18", cache="nowhere")).set_params(backbone="vgg11")
    assert "vgg11" in repr(extractor)
    assert "PretrainedFeatureExtractor" in extractor._repr_html_()


def test_set_params_changes_the_next_fit(pictures):
    """A grid search over backbones or weights is no silent no-op."""
    extractor = PretrainedFeatureExtractor(cache=None)
    first = extractor.fit_transform(pictures)
    random = extractor.set_params(weights=None, random_state=0).fit_transform(pictures)
    assert not np.allclose(first, random)
    np.testing.assert_array_equal(extractor.fit_transform(pictures), random)
    assert not np.allclose(extractor.set_params(random_state=1).fit_transform(pictures), random)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "flatten"])
def test_poolings_are_columns(pictures, pooling):
    """Every pooling gives one row per picture with as many columns as names."""
    extractor = PretrainedFeatureExtractor(pooling=pooling)
    features = extractor.fit_transform(pictures)
    assert features.shape == (10, len(extractor.get_feature_names_out()))
    assert features.dtype == np.float32


def test_pooling_none_gives_the_layer_as_it_is(pictures):
    """One layer comes out unpooled; its names and a join of several are refused with the way out."""
    extractor = PretrainedFeatureExtractor(pooling="none").fit(pictures)
    maps = extractor.transform(pictures)
    assert maps.ndim == 4
    np.testing.assert_allclose(
        maps.mean((2, 3)), PretrainedFeatureExtractor().fit_transform(pictures), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="pooling='flatten'"):
        extractor.get_feature_names_out()
    with pytest.raises(ValueError, match="Use one layer"):
        PretrainedFeatureExtractor(pooling="none", layers=["stem", "layer1"]).fit(pictures)


def test_a_network_of_ones_own(pictures):
    """Any traceable module serves; it is copied, and its features are its own."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(inplace=True))
    extractor = PretrainedFeatureExtractor(
        network, preprocessing={"resize_size": 32, "crop_size": 32, "mean": (0, 0, 0), "std": (1, 1, 1)}, cache=None
    )
    features = extractor.fit_transform(pictures)
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).mean((2, 3))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert extractor.backbone_.module is not network


def test_another_extractors_network_is_reused(pictures):
    """A fitted extractor lends its network; FrozenEstimator keeps it through clone(), else the error says so."""
    first = PretrainedFeatureExtractor(weights=None, random_state=3, cache=None).fit(pictures)
    expected = first.transform(pictures)
    np.testing.assert_array_equal(PretrainedFeatureExtractor(first, cache=None).fit_transform(pictures), expected)
    frozen = clone(PretrainedFeatureExtractor(FrozenEstimator(first), cache=None))
    np.testing.assert_array_equal(frozen.fit_transform(pictures), expected)
    with pytest.raises(ValueError, match="FrozenEstimator"):
        clone(PretrainedFeatureExtractor(first)).fit(pictures)


@pytest.mark.parametrize(
    ("settings", "says"), [({}, "in_channels=1"), ({"in_channels": 1, "preprocessing": {"crop_size": 32}}, "crop_size")]
)
def test_settings_that_a_loaded_network_would_ignore(pictures, settings, says):
    """Channels and preprocessing are part of a network that is there already: another wish is an error."""
    first = PretrainedFeatureExtractor(in_channels=1).fit(pictures)
    for network in (first, first.backbone_):
        with pytest.raises(ValueError, match=says):
            PretrainedFeatureExtractor(network, **settings).fit(pictures)
        same = PretrainedFeatureExtractor(network, in_channels=1, preprocessing=first.backbone_.preprocessing)
        np.testing.assert_array_equal(same.fit_transform(pictures), first.transform(pictures))


def test_a_class_token_is_asked_of_a_layer_that_has_none(pictures):
    """pooling="cls" takes no first channel or first place for a class token."""
    with pytest.raises(BackboneError, match="Use pooling='avg'"):
        PretrainedFeatureExtractor(pooling="cls").fit(pictures)


def test_grey_pictures_for_a_grey_network(pictures):
    """in_channels=1 adapts the first convolution: grey pictures have the features of the same grey in colour."""
    grey = pictures[..., 0]
    one = PretrainedFeatureExtractor(in_channels=1, cache=None).fit_transform(grey)
    three = PretrainedFeatureExtractor(cache=None).fit_transform(np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_allclose(one, three, rtol=1e-3, atol=1e-4)


def test_a_fitted_extractor_needs_nothing_where_it_is_loaded(paths, tmp_path, in_new_process):
    """Pickled with its weights, it gives the same features in a new process that cannot see the weights file."""
    from safetensors.torch import save_file

    from sktl.backbones import load_backbone

    state = load_backbone("sktl_mini", weights=None, random_state=5).module.state_dict()
    weights = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    extractor = PretrainedFeatureExtractor(weights=weights, cache=None).fit(paths)
    expected = extractor.transform(paths)
    weights.unlink()
    got = in_new_process("result = extractor.transform(paths)", extractor=extractor, paths=list(paths))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"backbone": "resnet1"}, BackboneError, "resnet18"),
        ({"layers": "layer9"}, BackboneError, "layer4"),
        ({"layers": 17}, BackboneError, "17"),
        ({"layers": True}, BackboneError, "True"),
        ({"layers": []}, BackboneError, "layers"),
        ({"pooling": "mean"}, ValueError, "avg"),
        ({"weights": "nowhere.safetensors"}, (OSError, BackboneError, ValueError), "nowhere.safetensors"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"cache": ""}, ValueError, "empty path"),
        ({"device": "gpu"}, ValueError, "cuda"),
        ({"precision": "float16", "device": "cpu"}, ValueError, "bfloat16"),
        ({"engine": "tensorrt"}, ValueError, "onnxruntime"),
    ],
    ids=str,
)
def test_a_bad_parameter_gets_an_error_that_says_the_way_out(pictures, parameters, error, says):
    """The error names what was given and what would do."""
    with pytest.raises(error, match=says):
        PretrainedFeatureExtractor(**parameters).fit_transform(pictures)


def test_weights_of_another_network_are_refused(pictures, tmp_path):
    """Wrong keys are an error that lists some of them, not a network with random layers."""
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"conv\.weight"):
        PretrainedFeatureExtractor(weights=tmp_path / "other.safetensors").fit(pictures)


def test_a_bad_picture_is_named_or_becomes_nan(paths):
    """on_error="raise" names position and path; "nan" keeps the others and warns."""
    bad = [*paths[:3], "missing.jpg"]
    with pytest.raises(ImageError, match=r"3.*missing\.jpg"):
        PretrainedFeatureExtractor().fit_transform(bad)
    with pytest.warns(ImageWarning, match=r"missing\.jpg"):
        features = PretrainedFeatureExtractor(on_error="nan").fit_transform(bad)
    assert np.isnan(features[3]).all()
    assert np.isfinite(features[:3]).all()


def test_verbose_prints_progress(pictures, capsys):
    """verbose=1 says how many pictures are done; by default nothing is printed."""
    PretrainedFeatureExtractor(cache=None).fit_transform(pictures)
    assert capsys.readouterr().out == ""
    PretrainedFeatureExtractor(cache=None, verbose=1).fit_transform(pictures)
    assert "[PretrainedFeatureExtractor] 10 of 10 images" in capsys.readouterr().out


class Recorder:
    """A callback of scikit-learn's protocol that notes the tasks it hears of."""

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        pass


def test_scikit_learns_callbacks_hear_of_fit_and_of_each_part(pictures):
    """A callback is set up, told of the parts of the pass, and torn down."""
    recorder = Recorder()
    extractor = PretrainedFeatureExtractor(cache=None).set_callbacks(recorder)
    extractor.fit(pictures)
    assert recorder.tasks == ["setup", "fit", "teardown"]
    recorder.tasks.clear()
    extractor.fit_transform(pictures)
    assert recorder.tasks == ["setup", "fit", *["images"] * 20, "teardown"]


def test_scikit_learns_progress_bar_shows_the_extractor_in_a_search(pictures, labels, capsys):
    """The progress bar works on the extractor, in a pipeline and inside a grid search."""
    pytest.importorskip("rich")
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression())
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None))
    assert search.fit(pictures, labels).best_score_ == 1
    shown = capsys.readouterr().out
    assert "GridSearchCV" in shown
    assert "PretrainedFeatureExtractor - fit" in shown


def test_worker_processes_share_a_directory(paths, labels, tmp_path):
    """A grid search in two processes leaves the features in the directory, where the next one finds them."""
    pipe = make_pipeline(PretrainedFeatureExtractor(cache=tmp_path / "cache"), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=2, n_jobs=2, refit=False, error_score="raise")
    assert search.fit(paths, labels).cv_results_["mean_test_score"].max() == 1
    stats = open_cache(tmp_path / "cache").stats()
    assert stats.entries == len(paths)


def test_a_fitted_extractor_serves_many_threads(paths):
    """One extractor, eight threads: each gets the features of its own pictures."""
    extractor = PretrainedFeatureExtractor(cache=None).fit(paths)
    expected = extractor.transform(paths)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda shift: extractor.transform(paths[shift:] + paths[:shift]), range(8)))
    for shift, got in enumerate(results):
        np.testing.assert_allclose(got, np.roll(expected, -shift, axis=0), rtol=1e-4, atol=1e-5)


def test_a_fitted_extractor_is_a_frozen_step_and_copies(paths, labels):
    """FrozenEstimator(extractor) in a pipeline keeps the fitted network; deepcopy gives the same features."""
    extractor = PretrainedFeatureExtractor(cache=None).fit(paths)
    pipe = make_pipeline(FrozenEstimator(extractor), LogisticRegression(max_iter=1000)).fit(paths, labels)
    assert pipe.score(paths, labels) == 1
    assert pipe[0].estimator.backbone_ is extractor.backbone_
    np.testing.assert_allclose(copy.deepcopy(extractor).transform(paths), extractor.transform(paths), rtol=1e-5)


def test_a_table_keeps_its_index(paths):
    """In a DataFrame with a shuffled index, each row keeps its own picture."""
    pd = pytest.importorskip("pandas")
    order = np.random.default_rng(0).permutation(len(paths))
    df = pd.DataFrame({"photo": paths}, index=[f"row{i}" for i in range(len(paths))])
    table = make_column_transformer((PretrainedFeatureExtractor(), "photo")).set_output(transform="pandas")
    straight, shuffled = table.fit_transform(df), table.fit_transform(df.iloc[order])
    assert list(shuffled.index) == list(df.index[order])
    np.testing.assert_allclose(shuffled.loc[df.index], straight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "flatten", "cls"])
def test_a_vision_transformer_has_every_pooling(pictures, pooling):
    """Tokens are pooled with their channels last, and the class token is one of them."""
    network = torchvision.models.VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16)
    size = {"resize_size": 32, "crop_size": 32}
    extractor = PretrainedFeatureExtractor(network, pooling=pooling, preprocessing=size, cache=None)
    assert extractor.fit_transform(pictures).shape == (10, 5 * 8 if pooling == "flatten" else 8)


def test_a_layer_that_is_named_twice_is_one_layer(pictures):
    """Names of features are unique."""
    extractor = PretrainedFeatureExtractor(layers=["layer4", -1]).fit(pictures)
    assert extractor.layers_ == ["layer4"]
    assert len(set(extractor.get_feature_names_out())) == extractor.transform(pictures).shape[1]


def test_after_a_failed_fit_it_is_not_fitted(pictures):
    """What a failed fit left behind is no fitted extractor."""
    extractor = PretrainedFeatureExtractor("resnet1")
    with pytest.raises(BackboneError):
        extractor.fit(pictures)
    with pytest.raises(NotFittedError):
        extractor.transform(pictures)


def test_bytes_and_files_with_one_content_share_their_features(pictures):
    """An encoded picture in memory is the same picture as the file."""
    buffers = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        buffers.append(buffer.getvalue())
    extractor = PretrainedFeatureExtractor(cache=None)
    np.testing.assert_allclose(extractor.fit_transform(buffers), extractor.fit_transform(pictures), rtol=1e-5)


def test_ants_and_bees_on_real_weights(shared_data):
    """MobileNetV2's features and a logistic regression tell ants from bees as well as published: 0.93 at least."""
    parts = {}
    for part in ("train", "val"):
        files = sorted((shared_data / "hymenoptera" / part).glob("*/*.jpg"))
        parts[part] = [str(file) for file in files], [file.parent.name for file in files]
    pipe = make_pipeline(
        PretrainedFeatureExtractor(
            "mobilenet_v2",
            weights=shared_data / "mobilenet_v2_imagenet" / "model.safetensors",
            preprocessing={"resize_size": 256},  # these weights are older than torchvision's default ones
            engine="torch",
        ),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=1000),
    )
    assert pipe.fit(*parts["train"]).score(*parts["val"]) >= 0.93
