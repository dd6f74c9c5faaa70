"""Side by side with embetter's ``TimmEncoder``: timm's mobilenetv2_100, the same real weights, the same photos.

embetter downloads timm's weights when it is built; here ``timm.create_model`` is handed the local file instead (timm's
and torchvision's MobileNetV2 have the same tensors in the same order). Nothing else of embetter is touched, except in
the row that says so: it leaves the network in training mode, and is shown once as it is and once in eval mode.

Run: pip install embetter timm && python benchmarks/against_embetter.py
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from common import imagenet_paths, machine, paired, show, weights_path
from embetter.vision import ImageLoader, TimmEncoder
from PIL import Image
from safetensors.torch import load_file, save_file

from sktl import PretrainedFeatureExtractor

NAME = "mobilenetv2_100"
N = 128
create_model = timm.create_model


def timm_state_dict() -> dict[str, torch.Tensor]:
    """The local MobileNetV2 weights under timm's names."""
    names = create_model(NAME).state_dict()
    # Files of safetensors are sorted by name: go by torchvision's own order.
    source = load_file(weights_path("mobilenet_v2"))
    values = [source[key] for key in torchvision.models.mobilenet_v2().state_dict()]
    return {
        name: value.float() if value.is_floating_point() else value for name, value in zip(names, values, strict=True)
    }


def local_model(state: dict[str, torch.Tensor], name: str, pretrained: bool = False, num_classes: int = 1000):
    """``timm.create_model``, with the local file where it would download."""
    model = create_model(name, num_classes=1000)
    model.load_state_dict(state)
    model.reset_classifier(num_classes)
    return model


def main() -> None:
    """Print photos per second and the distance to an eval-mode forward."""
    paths, state = imagenet_paths(N), timm_state_dict()
    timm.create_model = partial(local_model, state)
    as_it_is, in_eval_mode = TimmEncoder(NAME), TimmEncoder(NAME)
    timm.create_model = create_model
    in_eval_mode.model.eval()
    reference = create_model(NAME, num_classes=0).eval()
    reference.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier")})
    transform = in_eval_mode.transform_img
    with torch.inference_mode():
        expected = np.concatenate([reference(transform(Image.open(p).convert("RGB"))[None]).numpy() for p in paths])

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mobilenetv2_100.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, file)
        ours = PretrainedFeatureExtractor(f"timm:{NAME}", weights=file, cache=None).fit(paths)
        for name, encoder in (("embetter as it is", as_it_is), ("embetter, put in eval mode", in_eval_mode)):
            # Not in a Pipeline: scikit-learn 1.9 takes embetter's stateless steps for unfitted ones.
            rival = partial(embetter_features, encoder, paths)
            t = paired(rival, lambda: ours.transform(paths))
            rows.append((name, N / t["rival"], f"{difference(rival(), expected):.1e}", t["ratio"]))
        rows.append(("sktl", N / t["ours"], f"{difference(ours.transform(paths), expected):.1e}", 1.0))
    show(f"{N} photos, {NAME}", ("library", "photos per second", "rel. diff. to eval mode", "sktl is faster by"), rows)


def embetter_features(encoder: TimmEncoder, paths: list[str]) -> np.ndarray:
    """What embetter's two steps do one after the other."""
    return encoder.transform(ImageLoader().transform(paths))


def difference(features: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest feature."""
    return float(np.abs(features - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    print(machine())
    main()
