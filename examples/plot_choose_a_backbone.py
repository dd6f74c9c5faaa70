"""
Choose a backbone
=================

Which pretrained network, and which of its layers? To try each of them is to train a model on each. A score is had for
less: every network sees every picture once, and what its layers say of the pictures is held against the labels. sktl
does so with :class:`~sktl.selection.BackboneSelector`, and this example looks at how far that can be trusted.
"""

# %%
# Five digits, 20 pictures of each
# --------------------------------
#
# The task is to tell the digits from 5 to 9. A hundred pictures are there to learn from, and the others stay aside.

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl.inspection import EmbeddingDisplay, TransferabilityDisplay
from sktl.selection import BackboneSelector

digits, labels = load_digits(return_X_y=True)
digits, is_high = digits / 16, labels > 4
X, X_test, y, y_test = train_test_split(
    digits[is_high], labels[is_high], train_size=100, stratify=labels[is_high], random_state=0
)

# %%
# Four candidates
# ---------------
#
# The network that ships with sktl; the same with random weights; the same again, with pictures of 32 × 32 pixels
# instead of 64 × 64; and one that has gone on learning, of which only the last two stages have changed. That one is our
# own: it was fine-tuned to tell the digits from 0 to 4, and has never seen a 5. Inside a ``FrozenEstimator`` it is
# ranked as it is. With networks from torchvision, a list of their names would do.

own = FineTunedClassifier(freeze_depth=-2, max_epochs=5, random_state=0).fit(
    digits[~is_high][:300], labels[~is_high][:300]
)
candidates = {
    "sktl_mini": PretrainedFeatureExtractor("sktl_mini"),
    "random weights": PretrainedFeatureExtractor("sktl_mini", weights=None, random_state=0),
    "32 × 32 pixels": PretrainedFeatureExtractor("sktl_mini", preprocessing={"resize_size": 32, "crop_size": 32}),
    "knows 0 to 4": PretrainedFeatureExtractor(FrozenEstimator(own), layers=["layer3", "layer4"]),
}

# %%
# One pass, one table
# -------------------
#
# Every layer is a candidate by itself, the best one first. By default the score is LogME, the logarithm of how probable
# the labels are under a Bayesian linear model of the features.

selector = BackboneSelector(candidates).fit(X, y)
selector.ranking_

# %%
# Does it hold?
# -------------
#
# Here we can look, for the other pictures have labels: a linear model is fitted to the features of each candidate, and
# judged by them.

ranking = selector.ranking_.to_dict()
accuracy = {}
for name, layer in zip(ranking["backbone"], ranking["layer"], strict=True):
    extractor = clone(candidates[name]).set_params(layers=layer)
    model = make_pipeline(extractor, StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)).fit(X, y)
    accuracy[name, layer] = model.score(X_test, y_test)

# sphinx_gallery_thumbnail_number = 1
TransferabilityDisplay.from_ranking(selector.ranking_, accuracy, score_name="LogME")
plt.show()

# %%
# The order is nearly the same, and the best by the score is the best. Two things are worth a second look. Random
# weights are no zero: what ``layer4`` makes of digits with them beats early layers that have been trained, and the
# score knows. And where accuracies are high, a large difference of the score is a small one of accuracy, and some
# neighbours come in the other order.
#
# **A score ranks, and is no accuracy.** It says nothing across tasks, and nothing about whether the best candidate is
# good enough. It sees each candidate as a linear model would: what fine-tuning could make of it is not in the score.
# And it is a guess from the pictures given: by a hundred others, the first two might change places.

# %%
# See for yourself
# ----------------
#
# A map of pictures that none of the networks has learnt from, by t-SNE: those that a network takes for alike lie near
# each other. On the left the best candidate, on the right a poor one. The labels give no more than the colours.

fig, axes = plt.subplots(1, 2, figsize=(10, 4.4))
fig.subplots_adjust(left=0.04, right=0.92, bottom=0.07, top=0.93, wspace=0.28)
for ax, (name, layer) in zip(axes, [("knows 0 to 4", "layer4"), ("random weights", "layer1")], strict=True):
    EmbeddingDisplay.from_estimator(
        candidates[name], X_test, y_test, layer=layer, method="tsne", max_samples=400, thumbnail_size=20, ax=ax
    )
    ax.set_title(f"{name}, {layer}: accuracy {accuracy[name, layer]:.2f}", fontsize="medium")
plt.show()

# %%
# A step of a pipeline
# --------------------
#
# A fitted selector gives the features of its best candidate, so that it can stand where an extractor would, and its
# settings are parameters like others. A search compares two scores here, and asks how many pictures they need. For all
# of it no network runs again, since what it gave of each picture is in the cache.

pipe = make_pipeline(
    BackboneSelector(candidates, random_state=0), StandardScaler(), LogisticRegression(C=0.03, max_iter=1000)
)
grid = {"backboneselector__score_func": ["logme", "gbc"], "backboneselector__max_samples": [10, 20, None]}
search = GridSearchCV(pipe, grid, cv=5).fit(X, y)

results = search.cv_results_
for params, mean, spread in zip(results["params"], results["mean_test_score"], results["std_test_score"], strict=True):
    print(
        f"{params['backboneselector__score_func']:6s}"
        f"{params['backboneselector__max_samples'] or 'all':>4} pictures: {mean:.3f} ± {spread:.3f}"
    )

# %%
# Here 20 pictures say what all of them do, and LogME chooses better than GBC, the least reliable of the scores in our
# measurements too (:doc:`/choosing`). Such differences are hardly more than their spread: a fold has 20 pictures to
# judge by. What was chosen, and what it is worth on pictures that had no part in the choice:

best = search.best_estimator_[0]
print(best.ranking_.to_dict()["backbone"][0], best.layers_)
print(f"{search.score(X_test, y_test):.3f} on other digits")
