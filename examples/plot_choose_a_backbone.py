"""
Ranking backbones before training
=================================

Which pretrained network has the best features for a task, and which of its layers?
Training a model on each candidate takes time. Transferability scores such as LogME
estimate the answer from one pass over the images.
:class:`~sktl.selection.BackboneSelector` ranks the layers of several networks by such a
score. This example compares the ranking with the accuracy of models that are trained on
the features.
"""

# %%
# A folder of small images
# ------------------------
#
# The images are crops of the two sample images that ship with scikit-learn, with sides
# of 8 to 16 pixels, in six classes. We use 120 images for the ranking and 300 for
# testing.

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.datasets import load_image_folder, make_image_folder
from sktl.inspection import EmbeddingDisplay, TransferabilityDisplay
from sktl.selection import BackboneSelector

temporary = TemporaryDirectory()
folder = make_image_folder(f"{temporary.name}/images", n_samples=420, size=(8, 16))
X, y = load_image_folder(folder, return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, train_size=120, stratify=y, random_state=0)

# %%
# Four candidates
# ---------------
#
# The candidates are the network that ships with sktl, the same network with random
# weights, the same network with images of 32 × 32 instead of 64 × 64 pixels, and a copy
# whose last two stages are fine-tuned on handwritten digits. A
# :class:`~sklearn.frozen.FrozenEstimator` prevents the copy from being fitted again.
# For networks from torchvision or timm, a list of their names is enough.

digits, labels = load_digits(return_X_y=True)
fine_tuned = FineTunedClassifier(freeze_depth=-2, max_epochs=5, random_state=0).fit(digits[:300] / 16, labels[:300])
candidates = {
    "sktl_mini": PretrainedFeatureExtractor("sktl_mini"),
    "random weights": PretrainedFeatureExtractor("sktl_mini", weights=None, random_state=0),
    "32 × 32 pixels": PretrainedFeatureExtractor("sktl_mini", preprocessing={"resize_size": 32, "crop_size": 32}),
    "tuned on digits": PretrainedFeatureExtractor(FrozenEstimator(fine_tuned), layers=["layer3", "layer4"]),
}

# %%
# Ranking
# -------
#
# Each layer is a separate candidate. The default score, LogME, is the logarithm of the
# evidence of a Bayesian linear model.

selector = BackboneSelector(candidates).fit(X, y)
selector.ranking_

# %%
# Score and accuracy
# ------------------
#
# To check the ranking, we train a linear model on the features of each candidate and
# compute its accuracy on the test set.

ranking = selector.ranking_.to_dict()
accuracy = {}
for name, layer in zip(ranking["backbone"], ranking["layer"], strict=True):
    extractor = clone(candidates[name]).set_params(layers=layer)
    model = make_pipeline(extractor, StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)).fit(X, y)
    accuracy[name, layer] = model.score(X_test, y_test)

TransferabilityDisplay.from_ranking(selector.ranking_, accuracy, score_name="LogME")
plt.show()

# %%
# The ranking agrees well with the accuracy. The best candidate by LogME is also the
# most accurate, together with another layer of the same network: crops of at most 16
# pixels do not need images of 64 × 64 pixels. Fine-tuning on digits has hardly changed
# how useful the features are for these images. There is also an error: LogME ranks
# ``layer4`` of the random network fourth, but no layer of that network is as accurate
# as any layer of the others.
#
# A transferability score ranks candidates for one task. It cannot be compared between
# tasks, and it does not tell whether the best candidate is good enough. It evaluates
# frozen features, so it does not tell how much a candidate would gain from fine-tuning.

# %%
# Embedding of the test images
# ----------------------------
#
# t-SNE maps the features of the best candidate to two dimensions. Images with similar
# features are close to each other. The labels are used for the colors only.

# sphinx_gallery_thumbnail_number = 2
name, layer = ranking["backbone"][0], ranking["layer"][0]
fig, ax = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
EmbeddingDisplay.from_estimator(
    candidates[name], X_test, y_test, layer=layer, method="tsne", max_thumbnails=100, thumbnail_size=30, ax=ax
)
ax.set_title(f"{name}, {layer}: accuracy {accuracy[name, layer]:.2f}")
plt.show()

# %%
# Selection as a step of a pipeline
# ---------------------------------
#
# A fitted selector transforms images to the features of its best candidate, so it can
# replace a feature extractor in a pipeline. Its parameters can be tuned: this search
# compares two scores, computed on 20, 40 or all images. The features are cached, so the
# networks do not run again.

pipe = make_pipeline(
    BackboneSelector(candidates, random_state=0), StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
)
grid = {"backboneselector__score_func": ["logme", "gbc"], "backboneselector__max_samples": [20, 40, None]}
search = GridSearchCV(pipe, grid, cv=5).fit(X, y)

results = search.cv_results_
for params, mean, std in zip(results["params"], results["mean_test_score"], results["std_test_score"], strict=True):
    n_images = params["backboneselector__max_samples"] or "all"
    print(f"{params['backboneselector__score_func']:6s}{n_images:>4} images: {mean:.3f} ± {std:.3f}")

# %%
# LogME selects as well with 20 images as with all of them. GBC is less accurate, here
# and in our benchmarks (:doc:`/choosing`), but the differences are not much larger than
# their standard deviations: each fold has 24 test images. The selected candidate and
# its accuracy on the test set are:

best = search.best_estimator_[0]
print(best.ranking_.to_dict()["backbone"][0], best.layers_)
print(f"accuracy on the test set: {search.score(X_test, y_test):.3f}")

temporary.cleanup()
