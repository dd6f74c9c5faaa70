"""
A small network that learns from a large one
============================================

A large network knows a subject from few labels, for it was trained on many pictures before. A small one, from scratch,
does not. But the large one can teach it: it looks at pictures that nobody has labelled, and says of each what it thinks
of it. The small one learns from that.
"""

# %%
# A hundred labels, eleven hundred pictures without
# -------------------------------------------------
#
# Of 1200 digits the first hundred have a label; of the others we know nothing. The teacher is ``sktl_mini`` with its
# last stage fine-tuned, the student a network with one hidden layer on the 64 pixels. With ``unlabeled=-1`` the teacher
# is fitted to the labelled pictures, and asked about all.

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
few = np.where(np.arange(1200) < 100, y, -1)

teacher = FineTunedClassifier(max_epochs=20, random_state=0)


def small_network(seed):
    """64 hidden neurons, with random weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


# all of it learns, at one rate, from a random start: unlike a pretrained network, which is only adapted
from_scratch = {
    "freeze_depth": 0,
    "head_init": "random",
    "lr": 0.005,
    "lr_decay": 1.0,
    "in_channels": 1,
    "preprocessing": {"resize_size": 8, "crop_size": 8},
}

# %%
# The student alone has the hundred labelled pictures, in batches of 5 where the other's are of 64: so both take about
# as many steps. Three random starts:

distilled, alone = [], []
for seed in range(3):
    training = {"max_epochs": 60, "random_state": seed, **from_scratch}
    student = DistilledClassifier(teacher, small_network(seed), unlabeled=-1, **training)
    distilled.append(student.fit(X, few))
    student = FineTunedClassifier(small_network(seed), batch_size=5, **training)
    alone.append(student.fit(X[:100], y[:100]))

print(f"teacher        {distilled[0].teacher_.score(X_test, y_test):.3f}")
for name, students in {"student alone": alone, "distilled": distilled}.items():
    scores = [student.score(X_test, y_test) for student in students]
    print(f"{name:14s} {np.mean(scores):.3f}, from {min(scores):.3f} to {max(scores):.3f}")

# %%
# How good, how large, how slow
# -----------------------------
#
# Both students are the same network: by what their times differ, the clock is wrong.

# sphinx_gallery_thumbnail_number = 1
DistillationDisplay.from_estimator(distilled[0], X_test, y_test, alone=alone[0], n_repeats=20)
plt.show()

# %%
# ``footprint_`` has it as a table. The agreement is the share of pictures of which student and teacher say the same.

print(distilled[0].footprint_)

# %%
# What the teacher's answers say
# ------------------------------
#
# A label says which digit it is. A teacher's probabilities also say what else it might be: which 9 looks like a 3, and
# which like a 7. At temperature 1 little is to be seen of that; the higher the temperature, the larger its part in
# what the student learns. Here are six pictures that another teacher, which had all 1200 labels, recognises: for each
# of six digits, the one of which it is least sure.

knowing = FineTunedClassifier(random_state=0).fit(X, y)
logits = knowing.decision_function(X_test)
probability = softmax(logits, axis=1)
is_right = logits.argmax(axis=1) == y_test
digits = [1, 3, 4, 7, 8, 9]
rows = [np.where(is_right & (y_test == digit), probability[:, digit], 2).argmin() for digit in digits]

fig, axes = plt.subplots(2, 6, figsize=(9, 3.6), height_ratios=(1, 1.1), layout="constrained")
for (picture, bars), row in zip(axes.T, rows, strict=True):
    picture.imshow(X_test[row].reshape(8, 8), cmap="gray_r")
    picture.set(xticks=[], yticks=[], title=f"a {y_test[row]}")
    bars.bar(range(10), softmax(logits[row] / 4), width=0.9, color="C1", label="temperature 4")
    bars.bar(range(10), softmax(logits[row]), width=0.4, color="C0", label="temperature 1")
    bars.set(xticks=range(10), ylim=(0, 1))
    bars.tick_params(labelsize=8)
    bars.label_outer()
axes[1, 0].set_ylabel("probability")
fig.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
plt.show()

# %%
# A digit that the student has never seen
# ---------------------------------------
#
# Hinton, Vinyals and Dean left a digit out of what the student learns from, to see what the other digits tell about it.
# Our student gets neither a picture nor a label of a 3. The teacher, which knows all ten, says of each picture how much
# of a 3 is in it, and ``classes=`` says that there are ten. Inside a ``FrozenEstimator`` the teacher above is used as
# it is; otherwise it would be fitted anew, to the rows without a 3.

no_threes = y != 3
student = DistilledClassifier(
    FrozenEstimator(knowing), small_network(0), max_epochs=60, random_state=0, **from_scratch
).fit(X[no_threes], y[no_threes], classes=knowing.classes_)

# %%
# To this student a 3 is unlikely: it has met none. So its bias for that class is too low. As the authors did, we raise
# it; how far can be told from pictures without labels, as long as we know how frequent a 3 is: until a tenth of them
# are called one.

is_three = y_test == 3
biases = np.linspace(0, 10, 101)
called = [(student.decision_function(X_test) + bias * (student.classes_ == 3)).argmax(axis=1) for bias in biases]
found = np.array([np.mean(digits[is_three] == 3) for digits in called])
others = np.array([np.mean((digits == y_test)[~is_three]) for digits in called])
logits = student.decision_function(X)
shares = [np.mean((logits + bias * (student.classes_ == 3)).argmax(axis=1) == 3) for bias in biases]
tenth = np.abs(np.array(shares) - 0.1).argmin()

print(f"threes recognised, bias as it is {found[0]:.2f}, raised by {biases[tenth]:.1f} {found[tenth]:.2f}")
print(f"other digits,      bias as it is {others[0]:.2f}, raised by {biases[tenth]:.1f} {others[tenth]:.2f}")

fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(biases, found, label="3, never seen")
ax.plot(biases, others, label="the other digits")
ax.axvline(biases[tenth], color="0.6", linestyle="--", linewidth=1)
ax.annotate("a tenth are called 3", (biases[tenth], 0.03), (5, 0), textcoords="offset points", fontsize=9)
ax.set(xlabel="added to the logit of 3", ylabel="share that is recognised", ylim=(0, 1.03), xlim=(0, 10))
ax.legend(loc="lower right")
plt.show()

# %%
# A student that learns from labels alone can never say 3.
#
# The user guide, :doc:`/distillation`, has the other kinds of knowledge, and what to try first.
