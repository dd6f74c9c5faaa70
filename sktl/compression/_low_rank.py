"""Low rank: layers that are a product of smaller ones."""

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions

from sktl.compression._compressed import COMPRESSION_CONSTRAINTS, CompressedClassifier, inner_layers
from sktl.compression._factors import METHODS, energy_within, factorize, full_rank
from sktl.exceptions import CompressionError, InputError

_SHARE = 0.5  # of a layer's parameters, where nothing is asked for


class LowRankClassifier(CompressedClassifier):
    """Replace the layers of a network by sequences of smaller layers, and train these.

    A matrix of a low rank is the product of two thin ones, and so a linear layer is two
    smaller ones; a convolution is two or three. The network has fewer parameters and
    multiply-accumulates. It has more layers, so that it is faster only where its layers
    are large: measure it with ``footprint_``.

    Read more in the user guide, page "Compression".

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    rank : int or float, default=None
        A float is the share of the parameters of all layers that may be left, between 0
        and 1: the layers keep as much of their energy as that allows, each the same
        share of its own. An integer is the rank of all layers; one whose own rank is
        not above it stays as it is. None is 0.5, where ``energy`` is None as well.
    energy : float, default=None
        In place of ``rank``: each layer gets the smallest rank that keeps this share of
        the sum of its weights' squares (of its squared singular values), above 0 and up
        to 1.
    method : {"spatial", "tucker"}, default="spatial"
        What becomes of convolutions whose kernel is larger than 1 x 1: one of width 1
        and one of height 1 [1]_; or one of 1 x 1, the kernel between fewer channels,
        and one of 1 x 1 [2]_, which leaves depthwise ones as they are.
    freeze_depth : int or str, default=None
        How many stages stay as they are, as in `sktl.FineTunedClassifier`; 0 makes the
        whole network smaller. None: those that the estimator has frozen, whose output
        stays in its cache.
    max_epochs : int, default=5
        Epochs of training the smaller network, with the estimator's own optimizer, and
        with batch norms that learn. With 0 only these and the head's start are fitted
        to it.
    lr : float, default=None
        Learning rate of that; None takes the estimator's.
    lr_decay : float, default=1.0
        Factor of that from each stage to the one before. By default all learn alike:
        all have lost something.
    alpha : float, default=0.5
        Share of the loss, from 0 to 1, that asks for the answers that the network gave
        before it became smaller [4]_; the rest is the estimator's own loss.
    temperature : float, default=2.0
        What softens these answers, as in `sktl.DistilledClassifier`.
    random_state : int, RandomState instance or None, default=None
        Seed of the estimator where it has none of its own.

    Attributes
    ----------
    estimator_ : estimator
        The classifier with the smaller network. It may be the ``backbone`` of other
        estimators.
    ranks_ : dict of str to int or tuple of int
        The rank of each layer that has become a sequence, by its path in the network;
        of two (outputs, inputs) where `method="tucker"` made it of two. A layer that is
        not here would not have become smaller.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        What the original and the smaller one cost.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, where the estimator has no network of sktl.
    InputError
        From `fit`, where both ``rank`` and ``energy`` are given.
    CompressionError
        From `fit`, where no layer would become smaller, such as with a rank above all
        of theirs.

    See Also
    --------
    PrunedClassifier : Fewer weights or filters.
    QuantizedClassifier : Fewer bits for each weight.

    Notes
    -----
    Layers behind ``freeze_depth`` and those of the head are treated, but for the one
    that gives the outputs: it is small, and each direction it lost would be one that
    classes could no longer be told apart by. Zeros of a network whose weights were
    pruned before are gone, as factors have none; filters may be pruned before or after.

    References
    ----------
    .. [1] Jaderberg, Vedaldi, Zisserman, "Speeding up Convolutional Neural Networks
           with Low Rank Expansions", BMVC 2014.
    .. [2] Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and
           Low Power Mobile Applications", ICLR 2016.
    .. [3] Denton et al., "Exploiting Linear Structure Within Convolutional Networks for
           Efficient Evaluation", NIPS 2014.
    .. [4] Polino, Pascanu and Alistarh, "Model Compression via Distillation and
           Quantization", ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import LowRankClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> network = FineTunedClassifier(max_epochs=2, random_state=0)
    >>> model = LowRankClassifier(network, rank=0.3, max_epochs=2).fit(X[:300], y[:300])
    >>> bool(model.score(X[300:500], y[300:500]) > 0.8)
    True
    >>> list(model.ranks_)
    ['layer4.conv1', 'layer4.conv2', 'layer4.shortcut.0']
    """

    _parameter_constraints: dict = {
        **COMPRESSION_CONSTRAINTS,
        "rank": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither"), None],
        "energy": [Interval(Real, 0, 1, closed="right"), None],
        "method": [StrOptions(set(METHODS))],
    }

    def __init__(
        self,
        estimator,
        *,
        rank=None,
        energy=None,
        method="spatial",
        freeze_depth=None,
        max_epochs=5,
        lr=None,
        lr_decay=1.0,
        alpha=0.5,
        temperature=2.0,
        random_state=None,
    ):
        self.estimator = estimator
        self.rank = rank
        self.energy = energy
        self.method = method
        self.freeze_depth = freeze_depth
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.alpha = alpha
        self.temperature = temperature
        self.random_state = random_state

    def _check_parameters(self):
        super()._check_parameters()
        if self.rank is not None and self.energy is not None:
            raise InputError(
                f"rank={self.rank!r} and energy={self.energy!r} both say how large the layers are. Give one of them."
            )

    def _compress(self, inner, given, tasks):
        """Replace the layers, and train what they have become."""
        trainer, data = self._prepare(inner, given)
        network = inner.net_.module_
        layers: dict[str, Any] = inner_layers(network)
        self.ranks_ = {}
        for path, factors in self._factorize(layers):
            network.set_submodule(path, factors)
            self.ranks_[path.removeprefix("stages.")] = _ranks(factors)
        if not self.ranks_:
            raise CompressionError(self._why_nothing_shrinks(layers))
        self._retrain(inner, trainer, data, [tasks])

    def _factorize(self, layers):
        """(path, sequence of smaller layers) of each layer that has one."""
        name, value = self._wanted_size
        if name == "rank" and value < 1:
            name, value = "energy", energy_within(layers.values(), self.method, value)
        if value is not None:
            for path, layer in layers.items():
                factors = factorize(layer, method=self.method, **{name: value})
                if factors is not None:
                    yield path, factors

    @property
    def _wanted_size(self):
        """The parameter that says how large the layers are, and its value."""
        return ("energy", self.energy) if self.energy is not None else ("rank", self.rank or _SHARE)

    def _why_nothing_shrinks(self, layers):
        """What is wrong with what was asked for, and what would be right."""
        name, value = self._wanted_size
        if not layers:
            return (
                f"freeze_depth={self.freeze_depth!r} leaves no convolution and no linear layer to make smaller, but "
                "for the one that gives the outputs. Freeze less."
            )
        largest = max(layers, key=lambda path: full_rank(layers[path], self.method))
        rank = full_rank(layers[largest], self.method)
        where = f"that of {largest.removeprefix('stages.')!r}, which is the largest of {len(layers)} layers, is {rank}"
        if name == "rank" and value >= rank:
            return f"rank={value} is not below the rank of any layer: {where}. Use a smaller one."
        advice = "a larger share or freeze less" if name == "rank" and value < 1 else f"a smaller {name}"
        return f"{name}={value} makes no layer smaller ({where}). Use {advice}."


def _ranks(factors):
    """The rank, or the ranks (of outputs and inputs) of Tucker's."""
    inner = [factor.weight.shape[0] // getattr(factor, "groups", 1) for factor in factors[:-1]]
    return inner[0] if len(inner) == 1 else (inner[1], inner[0])
