"""Rows of the page "Works with" that no other file tests. Tools that are not installed are skipped."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, IsolationForest, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder

NO_NUMBERS = "could not convert string to float"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images") / "photos", n_samples=24)


@pytest.fixture(scope="module")
def table(folder):
    """A DataFrame with a column of paths, and labels."""
    return load_image_folder(folder, as_frame=True, return_X_y=True)


@pytest.fixture(scope="module")
def model():
    """An unfitted classifier that trains in a fraction of a second."""
    return FineTunedClassifier(freeze_depth="all", max_epochs=1, random_state=0)


def features(*steps):
    """A pipeline that extracts features for the given steps."""
    return make_pipeline(PretrainedFeatureExtractor(), *steps)


def regression():
    return LogisticRegression(max_iter=300)


# --- scikit-learn -----------------------------------------------------------------------------------------------------

SEARCHES = {
    "random": lambda model: RandomizedSearchCV(model, {"lr": [0.001, 0.01]}, n_iter=2, cv=2, random_state=0),
    "halving of rows": lambda model: HalvingGridSearchCV(
        model, {"lr": [0.001, 0.01]}, cv=2, min_resources=12, random_state=0
    ),
    "halving of epochs": lambda model: HalvingGridSearchCV(
        model, {"lr": [0.001, 0.01]}, cv=2, resource="max_epochs", min_resources=1, max_resources=2, factor=2
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_searches(table, model, name):
    """A search finds a learning rate, from a table or from a list of paths."""
    X, y = table
    X = X if name == "random" else X["image"].tolist()
    found = SEARCHES[name](model).fit(X, y)
    assert found.best_params_["lr"] in (0.001, 0.01)
    assert found.score(X, y) == 1


@pytest.mark.parametrize(
    "make", [FixedThresholdClassifier, lambda model: TunedThresholdClassifierCV(model, cv=2)], ids=["fixed", "tuned"]
)
def test_thresholds(table, model, make):
    """Decision thresholds are set for a network with two classes."""
    X, y = table
    labels = np.where(y.isin(["flower", "leaf", "tree"]), "plant", "other")
    assert make(model).fit(X, labels).score(X, labels) > 0.9


def test_several_outputs(table, model):
    """MultiOutputClassifier trains one network per column of labels."""
    X, y = table
    Y = np.column_stack([y, y.isin(["flower", "leaf", "tree"]).map({True: "plant", False: "other"})])
    assert (MultiOutputClassifier(model).fit(X, Y).predict(X) == Y).mean() > 0.9


def test_curves(table, model):
    """A network is scored for each size of the training set and for each value of a parameter."""
    sizes, _, scores = learning_curve(model, *table, cv=2, train_sizes=[0.5, 1.0], shuffle=True, random_state=0)
    assert sizes.tolist() == [6, 12]
    assert scores.shape == (2, 2)
    curve = validation_curve(model, *table, cv=2, param_name="lr", param_range=[0.001, 0.01])
    assert [scores.shape for scores in curve] == [(2, 2), (2, 2)]


def test_union_of_layers(table):
    """FeatureUnion joins the features of two extractors."""
    union = make_union(PretrainedFeatureExtractor(layers=-1), PretrainedFeatureExtractor(layers=-2))
    assert union.fit_transform(table[0]).shape == (24, 512 + 128)


@pytest.mark.parametrize("selector", [RFE, SelectFromModel])
def test_selection_of_features(table, model, selector):
    """Selectors work after an extractor. A network has no coefficient per column."""
    X, y = table
    keep = {"n_features_to_select": 8, "step": 0.5} if selector is RFE else {"max_features": 8, "threshold": -np.inf}
    chosen = features(selector(regression(), **keep), regression()).fit(X, y)
    assert chosen[-1].coef_.shape == (6, 8)
    with pytest.raises(ValueError, match="coef_"):
        selector(model).fit(np.zeros((24, 64)), y).get_support()


ON_FEATURES = {
    "k-means": lambda: KMeans(6, n_init=3, random_state=0),
    "HDBSCAN": lambda: HDBSCAN(min_cluster_size=3, copy=True),
    "spectral": lambda: SpectralClustering(6, affinity="nearest_neighbors", n_neighbors=5, random_state=0),
    "isolation forest": lambda: IsolationForest(random_state=0),
}


@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
@pytest.mark.parametrize("name", ON_FEATURES)
def test_tools_without_labels(table, name):
    """Clusterers and outlier detectors work after an extractor; most clusters are classes."""
    found = features(Normalizer(), ON_FEATURES[name]()).fit_predict(table[0])
    assert name == "isolation forest" or normalized_mutual_info_score(table[1], found) > 0.7


def test_nearest_neighbors(table):
    """The neighbors of an image have its label."""
    X, y = table
    rows = PretrainedFeatureExtractor().fit_transform(X)
    neighbors = NearestNeighbors(n_neighbors=1, metric="cosine").fit(rows).kneighbors(return_distance=False)
    assert (y.to_numpy()[neighbors[:, 0]] == y).mean() > 0.8


def test_importance_of_an_image_column(table):
    """permutation_importance compares the column of images with the other columns."""
    X, y = table
    X = X.assign(price=np.arange(24.0))
    columns = make_column_transformer((PretrainedFeatureExtractor(), ["image"]), (StandardScaler(), ["price"]))
    fitted = make_pipeline(columns, regression()).fit(X, y)
    image, price = permutation_importance(fitted, X, y, n_repeats=2, random_state=0).importances_mean
    assert image > 0.5 > price + 0.4


ON_NUMBERS = {
    "one against one": OneVsOneClassifier,
    "chain": ClassifierChain,
    "self-training": SelfTrainingClassifier,
}


@pytest.mark.parametrize("name", ON_NUMBERS)
def test_tools_that_convert_X_to_numbers(table, model, name):
    """They work after an extractor and around a network of pixel rows, but not around a network of paths."""
    X, y = table
    labels = np.array(y, dtype=object)
    if name == "chain":
        labels = np.column_stack([y == "flower", y.isin(["flower", "leaf"])]).astype(int)
    elif name == "self-training":
        labels[::4] = -1
    assert features(ON_NUMBERS[name](regression())).fit(X, labels).predict(X).shape == labels.shape
    with pytest.raises(ValueError, match=NO_NUMBERS):
        ON_NUMBERS[name](model).fit(X, labels)
    if name != "chain":  # a chain appends labels to the rows, which are not images anymore
        pixels = np.random.RandomState(0).rand(24, 64)
        assert ON_NUMBERS[name](model).fit(pixels, labels).predict(pixels).shape == labels.shape


# --- tables and datasets ----------------------------------------------------------------------------------------------


def test_pandas(table, model):
    """Columns, Arrow strings and categorical labels are accepted; features come as a DataFrame."""
    X, y = table
    expected = clone(model).fit(X, y).predict(X)
    arrow = X.astype({"image": "string"})
    for data, labels in ((X["image"], y), (arrow, y.astype("category"))):
        assert (clone(model).fit(data, labels).predict(data) == expected).all()
    frame = PretrainedFeatureExtractor().set_output(transform="pandas").fit_transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert (frame.index == X.index).all()


def test_polars(table, model):
    """A DataFrame and a Series of polars work in searches, ensembles and column transformers."""
    pl = pytest.importorskip("polars")
    y = pl.Series(table[1].tolist())
    X = pl.DataFrame({"image": table[0]["image"].tolist(), "price": np.arange(24.0)})
    for data in (X[["image"]], X["image"]):
        assert GridSearchCV(model, {"lr": [0.001, 0.01]}, cv=2).fit(data, y).score(data, y) == 1
    assert BaggingClassifier(model, n_estimators=2, random_state=0).fit(X[["image"]], y).score(X[["image"]], y) > 0.9
    columns = make_column_transformer((PretrainedFeatureExtractor(), ["image"]), (StandardScaler(), ["price"]))
    rows = columns.set_output(transform="polars").fit_transform(X)
    assert isinstance(rows, pl.DataFrame)
    assert rows.shape == (24, 513)


def test_hugging_face_datasets(folder, model):
    """A column of images works in cross-validation; `to_pandas` makes a table for ensembles; `map` adds features."""
    datasets = pytest.importorskip("datasets")
    files = sorted(str(path) for path in folder.glob("*/*.png"))
    labels = [re.split(r"[/\\]", path)[-2] for path in files]
    dataset = datasets.Dataset.from_dict({"image": files, "label": labels}).cast_column("image", datasets.Image())
    assert cross_val_score(model, dataset["image"], dataset["label"], cv=2).mean() > 0.5
    frame = dataset.to_pandas()
    bagging = BaggingClassifier(model, n_estimators=2, random_state=0).fit(frame[["image"]], frame["label"])
    assert bagging.score(frame[["image"]], frame["label"]) > 0.9
    extractor = PretrainedFeatureExtractor().fit(dataset["image"])
    added = dataset.map(lambda batch: {"features": extractor.transform(batch["image"])}, batched=True)
    np.testing.assert_allclose(added["features"][:], extractor.transform(files), atol=1e-5)


# --- other libraries --------------------------------------------------------------------------------------------------


def test_imbalanced_learn(table, model):
    """Paths are resampled before a network, features before a classifier; SMOTE needs features."""
    over_sampling = pytest.importorskip("imblearn.over_sampling")
    from imblearn.ensemble import BalancedBaggingClassifier
    from imblearn.pipeline import make_pipeline as make_sampling_pipeline

    rows = np.r_[0:8, 8:10]  # two images of the third class
    X, y = table[0].iloc[rows], table[1].iloc[rows]
    assert y.value_counts().tolist() == [4, 4, 2]
    smote = over_sampling.SMOTE(k_neighbors=1, random_state=0)
    pipelines = (
        make_sampling_pipeline(over_sampling.RandomOverSampler(random_state=0), model),
        make_sampling_pipeline(PretrainedFeatureExtractor(), smote, regression()),
    )
    for pipeline in pipelines:
        assert pipeline.fit(X, y).score(X, y) == 1
    assert cross_val_score(pipelines[0], X, y, cv=2).mean() > 0.5
    balanced = BalancedBaggingClassifier(model, n_estimators=2, random_state=0).fit(X, y)
    assert balanced.score(X, y) > 0.5
    with pytest.raises(ValueError, match=NO_NUMBERS):
        make_sampling_pipeline(smote, model).fit(X, y)


def test_optuna(table, model):
    """A study tunes a network, and stops a bad trial between two calls of partial_fit."""
    optuna = pytest.importorskip("optuna")
    X, y = table
    train, test = slice(0, None, 2), slice(1, None, 2)

    def objective(trial):
        tuned = clone(model).set_params(lr=trial.suggest_float("lr", 1e-6, 1e-2, log=True))
        for epoch in range(3):
            tuned.partial_fit(X[train], y[train], classes=y.unique())
            trial.report(tuned.score(X[test], y[test]), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return tuned.score(X[test], y[test])

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=2, n_warmup_steps=1))
    study.enqueue_trial({"lr": 0.01})
    study.optimize(objective, n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["PRUNED"]
    assert sorted(study.trials[0].intermediate_values) == [0, 1]
    study.pruner = optuna.pruners.NopPruner()
    study.enqueue_trial({"lr": 0.01})
    study.optimize(objective, n_trials=1)
    assert study.best_params == {"lr": 0.01}


def test_cleanlab(table, model):
    """Wrong labels are found from cross-validated probabilities."""
    cleanlab = pytest.importorskip("cleanlab.filter")
    X, codes = table[0], pd.factorize(table[1], sort=True)[0]
    codes[0] = 1
    probabilities = cross_val_predict(model, X, codes, cv=2, method="predict_proba")
    assert 0 in cleanlab.find_label_issues(codes, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)


def test_skrub(table, model):
    """TableVectorizer and ApplyToCols use an extractor for the column of images, SelectCols a network."""
    skrub = pytest.importorskip("skrub")
    X, y = table
    mixed = X.assign(price=np.arange(24.0), country=["fr", "de"] * 12)
    vectorizer = skrub.TableVectorizer(specific_transformers=[(PretrainedFeatureExtractor(), ["image"])])
    assert make_pipeline(vectorizer, StandardScaler(), regression()).fit(mixed, y).score(mixed, y) == 1
    assert skrub.ApplyToCols(PretrainedFeatureExtractor(), cols=["image"]).fit_transform(mixed).shape == (24, 514)
    assert make_pipeline(skrub.SelectCols("image"), model).fit(mixed, y).score(mixed, y) == 1


def test_frozen_members(table, model):
    """Fitted networks are combined without another training."""
    X, y = table
    members = [
        ("net", FrozenEstimator(clone(model).fit(X, y))),
        ("features", FrozenEstimator(features(regression()).fit(X, y))),
    ]
    votes = VotingClassifier(members, voting="soft").fit(X, y)
    assert votes.estimators_[0].estimator.net_ is members[0][1].estimator.net_
    assert votes.score(X, y) == 1
