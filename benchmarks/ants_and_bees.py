"""Ants and bees: features, then logistic regression, against raw pixels and a random network.

Run: python benchmarks/ants_and_bees.py
"""

import numpy as np
from common import machine, pretrained, require_data, show
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktl import PretrainedFeatureExtractor


def photos(part: str) -> tuple[list[str], list[str]]:
    """Paths and labels."""
    paths = sorted((require_data() / "hymenoptera" / part).glob("*/*.jpg"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


def raw_pixels(paths) -> np.ndarray:
    """32 x 32 x 3 numbers per photo."""
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32))).ravel() / 255.0 for path in paths])


def main() -> None:
    """Print the accuracies on ``val``."""
    (X_train, y_train), (X_val, y_val) = photos("train"), photos("val")
    features = {
        "raw pixels, 32 x 32": FunctionTransformer(raw_pixels),
        "sktl_mini, random weights": PretrainedFeatureExtractor(weights=None, random_state=0),
        "sktl_mini": PretrainedFeatureExtractor(),
        **{
            name: PretrainedFeatureExtractor(name, **pretrained(name))
            for name in ("squeezenet1_1", "mobilenet_v3_small", "mobilenet_v2")
        },
    }
    rows = []
    for name, extractor in features.items():
        pipe = make_pipeline(extractor, StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        rows.append((name, f"{pipe.fit(X_train, y_train).score(X_val, y_val):.3f}"))
    show("Ants and bees, 244 to learn from, 153 to test on", ("features", "accuracy on val"), rows)


if __name__ == "__main__":
    print(machine())
    main()
