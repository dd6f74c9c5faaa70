"""
How deep to freeze?
===================

To fine-tune a network is to train its last stages and to leave the first ones as they are. Where to draw the line is an
ordinary hyper-parameter for sktl: ``freeze_depth`` stands in a grid like any other, and since what is frozen runs once
per picture for each depth, whatever the epochs and folds, the search costs little more than its training.
"""

# %%
# A thousand handwritten digits, and a network that has seen none
# ---------------------------------------------------------------
#
# ``sktl_mini`` was trained on photos of things. Its stages are these:

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from sktl import FineTunedClassifier
from sktl.backbones import describe_backbone
from sktl.inspection import FreezeDepthDisplay, LayerProbeDisplay, MisclassifiedDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, train_size=1000, stratify=y, random_state=0)
describe_backbone("sktl_mini")

# %%
# How transferable is each stage?
# -------------------------------
#
# Before anything is trained: a linear model on the features of each stage (Yosinski et al. 2014). Here the curve
# rises to the end: what the last stage has learnt about things serves digits too, and freezing all is a strong start.
# Where it falls towards the end, the last stages have specialised in something else, and have much to learn.

LayerProbeDisplay.from_estimator("sktl_mini", X_train, y_train)
plt.show()

# %%
# Search
# ------
#
# From the head alone to the last three stages, three folds each.

search = GridSearchCV(
    FineTunedClassifier(max_epochs=6, random_state=0), {"freeze_depth": ["all", -1, -2, -3]}, cv=3
).fit(X_train, y_train)

# sphinx_gallery_thumbnail_number = 2
FreezeDepthDisplay.from_search(search)
plt.show()

# %%
# The head alone takes almost no time: the probes above have asked for every stage, pooled, and so have filled the cache
# with all that ``"all"`` is trained on. Without them, its first fold would hold one pass over the pictures. What the
# last stage adds is in the picture, with its spread over the folds; further stages mostly add time, for a thousand
# pictures have little more to teach them.

best = search.best_estimator_
print(search.best_params_, f"{best.score(X_test, y_test):.3f} on {len(y_test)} other digits")
best.trainable_summary()

# %%
# What it gets wrong
# ------------------

MisclassifiedDisplay.from_estimator(best, X_test, y_test)
plt.show()
