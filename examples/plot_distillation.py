"""
Distilling a network
====================

Knowledge distillation trains a small network, the student, to reproduce the predictions
of a large network, the teacher. A pretrained teacher needs few labels, and the student
can learn from its predictions on unlabeled images. This example distills ``sktl_mini``
into a network with one hidden layer and repeats an experiment of Hinton et al. (2015).
"""

# %%
# 100 labeled and 1,100 unlabeled images
# --------------------------------------
#
# Of 1,200 training images of handwritten digits, the first hundred are labeled. The
# label -1 marks the other rows as unlabeled. The teacher is ``sktl_mini`` with a
# fine-tuned last stage; the student has one hidden layer on top of the 64 pixels. With
# ``unlabeled=-1``, :class:`~sktl.DistilledClassifier` fits the teacher on the labeled
# images and trains the student on all images.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from torch import nn

from sktl import DistilledClassifier, FineTunedClassifier
from sktl.inspection import DistillationDisplay

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, train_size=1200, stratify=y, random_state=0)
y_partly_labeled = np.where(np.arange(1200) < 100, y, -1)

teacher = FineTunedClassifier(max_epochs=20, random_state=0)


def small_network(seed):
    """Return a network with 64 hidden units and random weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


# parameters that train all layers from random weights, with one learning rate
from_scratch = {
    "freeze_depth": 0,
    "head_init": "random",
    "lr": 0.005,
    "lr_decay": 1.0,
    "in_channels": 1,
    "preprocessing": {"resize_size": 8, "crop_size": 8},
}

# %%
# As a baseline, we train the same network on the hundred labeled images alone. Its
# batches of 5 instead of 64 images give it about as many training steps as the student.
# Both are trained from three random initializations.

distilled, alone = [], []
for seed in range(3):
    training = {"max_epochs": 60, "random_state": seed, **from_scratch}
    student = DistilledClassifier(teacher, small_network(seed), unlabeled=-1, **training)
    distilled.append(student.fit(X, y_partly_labeled))
    student = FineTunedClassifier(small_network(seed), batch_size=5, **training)
    alone.append(student.fit(X[:100], y[:100]))

print(f"teacher            {distilled[0].teacher_.score(X_test, y_test):.3f}")
for name, students in {"without teacher": alone, "distilled": distilled}.items():
    scores = [student.score(X_test, y_test) for student in students]
    print(f"{name:18s} {np.mean(scores):.3f}  (from {min(scores):.3f} to {max(scores):.3f})")

# %%
# The distilled students are as accurate as the teacher and almost three points better
# than the same network without a teacher.
#
# Accuracy, size and time
# -----------------------
#
# The display compares the teacher, the distilled student and the student without a
# teacher. Both students are the same network, so the difference of their times is
# noise.

DistillationDisplay.from_estimator(distilled[0], X_test, y_test, alone=alone[0], n_repeats=20)
plt.show()

# %%
# The attribute ``footprint_`` is a table of the costs. Agreement is the share of images
# for which student and teacher predict the same class.

print(distilled[0].footprint_)

# %%
# Probabilities of the teacher
# ----------------------------
#
# A label names the class of an image. The probabilities of the teacher also tell which
# other classes the image resembles. At temperature 1, most of these probabilities are
# close to zero; a higher temperature gives them more weight in the loss of the student.
# The figure shows a teacher that was trained on all 1,200 labels: of six digits, the
# image that it classifies correctly with the lowest probability.

expert = FineTunedClassifier(random_state=0).fit(X, y)
logits = expert.decision_function(X_test)
probability = softmax(logits, axis=1)
is_right = logits.argmax(axis=1) == y_test
rows = [np.where(is_right & (y_test == digit), probability[:, digit], 2).argmin() for digit in [1, 3, 4, 7, 8, 9]]

# sphinx_gallery_thumbnail_number = 2
fig, axes = plt.subplots(2, 6, figsize=(9, 3.6), height_ratios=(1, 1.1), layout="constrained")
for (image_ax, bar_ax), row in zip(axes.T, rows, strict=True):
    image_ax.imshow(X_test[row].reshape(8, 8), cmap="gray_r")
    image_ax.set(xticks=[], yticks=[], title=f"class {y_test[row]}")
    bar_ax.bar(range(10), softmax(logits[row] / 4), width=0.9, color="C1", label="temperature 4")
    bar_ax.bar(range(10), softmax(logits[row]), width=0.4, color="C0", label="temperature 1")
    bar_ax.set(xticks=range(10), ylim=(0, 1))
    bar_ax.tick_params(labelsize=8)
    bar_ax.label_outer()
axes[1, 0].set_ylabel("probability")
fig.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
plt.show()

# %%
# A class without training images
# -------------------------------
#
# Hinton, Vinyals and Dean removed one digit from the training set of the student. Here,
# the student sees no image and no label of a 3. The teacher knows all ten digits, and
# its probabilities tell how much each image resembles a 3. The parameter ``classes`` of
# ``fit`` lists all ten classes. A :class:`~sklearn.frozen.FrozenEstimator` prevents the
# teacher from being fitted again on the rows without a 3.

is_not_three = y != 3
student = DistilledClassifier(
    FrozenEstimator(expert), small_network(0), max_epochs=60, random_state=0, **from_scratch
).fit(X[is_not_three], y[is_not_three], classes=expert.classes_)

# %%
# The student assigns a low probability to the class 3, so its bias for this class is
# too low. As in the paper, we increase the bias. Its value can be chosen without labels
# if the frequency of the class is known: we increase the bias until a tenth of the
# training images are classified as 3.

is_three = y_test == 3
biases = np.linspace(0, 10, 101)
logits = student.decision_function(X_test)
predictions = [(logits + bias * (student.classes_ == 3)).argmax(axis=1) for bias in biases]
recall_three = np.array([np.mean(predicted[is_three] == 3) for predicted in predictions])
recall_others = np.array([np.mean((predicted == y_test)[~is_three]) for predicted in predictions])

logits = student.decision_function(X)
shares = np.array([np.mean((logits + bias * (student.classes_ == 3)).argmax(axis=1) == 3) for bias in biases])
chosen = np.abs(shares - 0.1).argmin()
for index in (0, chosen):
    print(
        f"bias + {biases[index]:.1f}: recall {recall_three[index]:.2f} of 3, {recall_others[index]:.2f} of the others"
    )

fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(biases, recall_three, label="3, without training images")
ax.plot(biases, recall_others, label="other digits")
ax.axvline(biases[chosen], color="0.6", linestyle="--", linewidth=1)
ax.annotate("a tenth classified as 3", (biases[chosen], 0.03), (5, 0), textcoords="offset points", fontsize=9)
ax.set(xlabel="increase of the bias of class 3", ylabel="recall", ylim=(0, 1.03), xlim=(0, 10))
ax.legend(loc="center right")
plt.show()

# %%
# With this bias, the student finds all images of a 3 in the test set, and the recall of
# the other digits is hardly lower. A student that is trained on labels alone would
# never predict a 3.
#
# The user guide describes other kinds of knowledge and how to start:
# :doc:`/distillation`.
