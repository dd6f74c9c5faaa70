"""Classifier whose layers are factorized into smaller ones."""

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions

from sktl.compression._compressed import COMPRESSION_CONSTRAINTS, CompressedClassifier, inner_layers
from sktl.compression._factors import METHODS, energy_within, factorize, full_rank
from sktl.exceptions import CompressionError, InputError

_SHARE = 0.5  # of all parameters, if neither rank nor energy is set


class LowRankClassifier(CompressedClassifier):
    """Factorize the layers of a trained network into smaller ones and fine-tune them.

    A matrix of low rank is the product of two thin matrices [3]_, so a linear layer is
    replaced by two smaller linear layers, and a convolution by two or three smaller
    ones. The network then has fewer parameters and multiply-accumulates but more
    layers, which makes it faster only if its layers are large. Compare the times in
    ``footprint_``.

    Read more in the :doc:`user guide </compression>`.

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    rank : int or float, default=None
        Size of the factorized layers. A float is the share of the parameters of all
        layers to keep, between 0 and 1; the ranks are chosen so that each layer keeps
        the same share of its energy. An int is the rank of all layers; layers whose
        full rank is not larger are left unchanged. None means 0.5, unless ``energy`` is
        set.
    energy : float, default=None
        Share of the energy of each layer to keep, greater than 0 and at most 1; an
        alternative to ``rank``. The energy is the sum of the squared weights, which
        equals the sum of the squared singular values. Each layer gets the smallest rank
        that keeps this share.
    method : {"spatial", "tucker"}, default="spatial"
        How to factorize convolutions with a kernel larger than 1 x 1. ``"spatial"``
        replaces them by a convolution of width 1 and one of height 1 [1]_. ``"tucker"``
        replaces them by a 1 x 1 convolution, a convolution with the original kernel
        size and fewer channels, and another 1 x 1 convolution [2]_; depthwise
        convolutions are left unchanged.
    freeze_depth : int or str, default=None
        Number of stages to leave unchanged, counted from the input, as in
        `sktl.FineTunedClassifier`; 0 compresses all stages. None leaves the frozen
        stages of the estimator unchanged, so that their cached output is reused.
    max_epochs : int, default=5
        Number of training epochs after factorization, with the optimizer of the
        estimator. The running statistics of batch normalization layers are updated even
        if the estimator sets ``freeze_bn=True``. If 0, only these statistics and, with
        ``head_init="probe"``, the last layer of the head are refitted.
    lr : float, default=None
        Learning rate of the training after compression. None uses the ``lr`` of the
        estimator.
    lr_decay : float, default=1.0
        Factor by which the learning rate shrinks from each stage to the one before it.
        The default uses the same rate everywhere, since compression changes all stages.
    alpha : float, default=0.5
        Weight of the distillation loss, between 0 and 1. The distillation loss compares
        the outputs with those of the network before compression [4]_. The loss of the
        estimator has the weight ``1 - alpha``.
    temperature : float, default=2.0
        Temperature of the distillation loss, as in `sktl.DistilledClassifier`.
    random_state : int, RandomState instance or None, default=None
        Seed of the estimator unless it has its own ``random_state``. Pass an int for
        reproducible results.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier with the factorized network. It can be the ``backbone`` of
        other estimators.
    ranks_ : dict of str to int or tuple of int
        Rank of each factorized layer by its path in the network. With
        ``method="tucker"``, a layer with three factors has a pair of ranks (outputs,
        inputs). Layers that would not become smaller are not factorized and not listed.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        Size, speed and agreement of the original and the compressed classifier.
        Measured on first access.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, if the estimator does not have an sktl network.
    InputError
        From `fit`, if both ``rank`` and ``energy`` are set.
    CompressionError
        From `fit`, if no layer would become smaller, for example because ``rank`` is
        not less than the rank of any layer.

    See Also
    --------
    PrunedClassifier : Prune weights or filters.
    QuantizedClassifier : Store weights with fewer bits.

    Notes
    -----
    All convolutions and linear layers after the stages of ``freeze_depth`` are
    factorized, except the output layer, which is small and whose full rank is needed to
    tell the classes apart. Factorization does not keep the zeros of a network whose
    weights were pruned before. Filters can be pruned before or after factorization.

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
    >>> model.score(X[300:500], y[300:500]) > 0.8
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
                "The 'rank' and 'energy' parameters of LowRankClassifier cannot both be set. Got "
                f"rank={self.rank!r} and energy={self.energy!r}. Set one of them to None."
            )

    def _compress(self, inner, given, tasks):
        """Factorize the layers and train the factors."""
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
        """Yield (path, factors) for each layer that becomes smaller."""
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
        """Name and value of the parameter that determines the ranks."""
        return ("energy", self.energy) if self.energy is not None else ("rank", self.rank or _SHARE)

    def _why_nothing_shrinks(self, layers):
        """Return the error message for layers that do not become smaller."""
        name, value = self._wanted_size
        if not layers:
            return (
                f"freeze_depth={self.freeze_depth!r} leaves no convolution or linear layer to factorize besides the "
                "output layer. Freeze fewer stages."
            )
        largest = max(layers, key=lambda path: full_rank(layers[path], self.method))
        rank = full_rank(layers[largest], self.method)
        where = f"the largest of {len(layers)} layers, {largest.removeprefix('stages.')!r}, has rank {rank}"
        if name == "rank" and value >= rank:
            return f"rank={value} is not smaller than the rank of any layer ({where}). Use a smaller rank."
        advice = "a larger rank or freeze fewer stages" if name == "rank" and value < 1 else f"a smaller {name}"
        return f"{name}={value} does not make any layer smaller ({where}). Use {advice}."


def _ranks(factors):
    """Return the rank of a factorized layer, or its ranks (outputs, inputs)."""
    inner = [factor.weight.shape[0] // getattr(factor, "groups", 1) for factor in factors[:-1]]
    return inner[0] if len(inner) == 1 else (inner[1], inner[0])
