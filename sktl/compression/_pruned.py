"""Classifier whose weights or filters are pruned."""

from numbers import Integral, Real

import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktl._estimators._fit_tasks import forget_fit
from sktl.compression._compressed import (
    COMPRESSION_CONSTRAINTS,
    CompressedClassifier,
    compressible,
    inner_layers,
    renew,
    require_layers,
)
from sktl.compression._filters import import_torch_pruning, measure_unpruned, prune_filters
from sktl.compression._masks import CRITERIA, importance, set_zeros, zero_masks
from sktl.exceptions import CompressionError, InputError


class PrunedClassifier(CompressedClassifier):
    """Prune the weights or filters of a trained network and fine-tune the rest.

    Pruned weights are set to zero, which makes the file smaller but not the network
    faster. Pruned filters are removed together with all channels that depend on them,
    through sums and concatenations [3]_, which makes the network smaller and faster.

    Read more in the :doc:`user guide </compression>`.

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    amount : float, default=0.5
        Share to prune, between 0 and 1. With ``granularity="weight"``, exactly this
        share of the weights of all convolutions and linear layers after the stages of
        ``freeze_depth``, except those of the output layer. With
        ``granularity="filter"``, this share of the filters or of the
        multiply-accumulates after these stages, see ``unit``.
    granularity : {"weight", "filter"}, default="weight"
        Whether to prune single weights or whole convolution filters. ``"filter"``
        requires the package torch-pruning.
    unit : {"count", "macs"}, default="count"
        Quantity that ``amount`` is a share of: the number of weights or filters
        (``"count"``), or the multiply-accumulates (``"macs"``, for filters only).
        Pruning half of all filters leaves about a quarter of the multiply-accumulates.
    criterion : {"magnitude", "taylor", "random"}, default="magnitude"
        Importance of a weight; the least important ones are pruned. ``"magnitude"``
        uses the size of the weight [1]_, ``"taylor"`` the change of the loss without
        the weight, to first order [2]_, and ``"random"`` serves as a baseline. The
        importance of a filter is that of all its weights together.
    scope : {"auto", "global", "layer"}, default="auto"
        Whether to rank the weights or filters of all layers together (``"global"``) or
        to prune the share ``amount`` of each layer (``"layer"``). ``"auto"`` means
        ``"global"`` for weights and ``"layer"`` for filters.
    n_rounds : int, default=1
        Number of rounds of pruning and training. Each round prunes the same share of
        what is left. Several small steps lose less accuracy than a single large one.
    freeze_depth : int or str, default=None
        Number of stages to leave unchanged, counted from the input, as in
        `sktl.FineTunedClassifier`; 0 compresses all stages. None leaves the frozen
        stages of the estimator unchanged, so that their cached output is reused.
    max_epochs : int, default=5
        Number of training epochs after each round, with the optimizer of the estimator.
        The running statistics of batch normalization layers are updated even if the
        estimator sets ``freeze_bn=True``. If 0, only these statistics and, with
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
        Seed of ``criterion="random"``, and of the estimator unless it has its own
        ``random_state``. Pass an int for reproducible results.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier with the pruned network. It can be the ``backbone`` of
        other estimators.
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
    CompressionError
        From `fit`, if the network has no layer to prune or its filters cannot be
        traced; the message lists alternatives.
    MissingDependencyError
        From `fit`, if ``granularity="filter"`` and torch-pruning is not installed.

    See Also
    --------
    QuantizedClassifier : Store weights with fewer bits.
    LowRankClassifier : Factorize layers into smaller ones.
    LotteryTicketClassifier : Train sparse networks from the start.

    Notes
    -----
    Pruned weights stay zero in all later training, including that of other compressors
    and of estimators that use the network as their ``backbone``.

    References
    ----------
    .. [1] Han et al., "Learning both Weights and Connections for Efficient Neural
           Networks", NIPS 2015.
    .. [2] Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR
           2019.
    .. [3] Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
    .. [4] Polino, Pascanu and Alistarh, "Model Compression via Distillation and
           Quantization", ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import PrunedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> network = FineTunedClassifier(max_epochs=2, random_state=0)
    >>> model = PrunedClassifier(network, amount=0.9, max_epochs=2)
    >>> model = model.fit(X[:300], y[:300])
    >>> model.score(X[300:500], y[300:500]) > 0.8
    True
    """

    _parameter_constraints: dict = {
        **COMPRESSION_CONSTRAINTS,
        "amount": [Interval(Real, 0, 1, closed="neither")],
        "granularity": [StrOptions({"weight", "filter"})],
        "unit": [StrOptions({"count", "macs"})],
        "criterion": [StrOptions(set(CRITERIA))],
        "scope": [StrOptions({"auto", "global", "layer"})],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        *,
        amount=0.5,
        granularity="weight",
        unit="count",
        criterion="magnitude",
        scope="auto",
        n_rounds=1,
        freeze_depth=None,
        max_epochs=5,
        lr=None,
        lr_decay=1.0,
        alpha=0.5,
        temperature=2.0,
        random_state=None,
    ):
        self.estimator = estimator
        self.amount = amount
        self.granularity = granularity
        self.unit = unit
        self.criterion = criterion
        self.scope = scope
        self.n_rounds = n_rounds
        self.freeze_depth = freeze_depth
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.alpha = alpha
        self.temperature = temperature
        self.random_state = random_state

    def _count_epochs(self):
        return self.n_rounds * self.max_epochs

    def _compress(self, inner, given, tasks):
        """Prune and train, ``n_rounds`` times."""
        trainer, data = self._prepare(inner, given)
        generator = torch.Generator().manual_seed(check_random_state(self.random_state).randint(2**31 - 1))
        whole = None
        for number in range(1, self.n_rounds + 1):
            forget_fit(self)  # not usable until it is trained again
            # The rest shrinks by the same factor in each round, down to 1 - amount.
            share = 1 - (1 - self.amount) ** (number / self.n_rounds)
            if number > 1 and self.criterion == "taylor":  # training has replaced the loss
                renew(inner, trainer, data)
            layers = self._layers(inner.net_.module_)
            scores = importance(inner.net_, data.rows, layers, self.criterion, generator)
            if self.granularity == "weight":
                set_zeros(layers, zero_masks(layers, scores, dict.fromkeys(layers, share), self._resolve_scope()))
            else:
                scores = {layers[path]: score for path, score in scores.items()}
                whole = self._cut(inner, data, scores, share, whole)
            self._retrain(inner, trainer, data, [tasks])

    def _layers(self, network):
        """Return the layers to prune by path."""
        if self.granularity == "filter":
            return self._with_convolutions(compressible(network))  # torch-pruning groups them later
        return require_layers(inner_layers(network), self.freeze_depth)

    def _with_convolutions(self, layers):
        """Check that at least one of the layers is a convolution and return them."""
        if not any(isinstance(layer, nn.Conv2d) for layer in layers.values()):
            raise CompressionError(
                f"freeze_depth={self.freeze_depth!r} leaves no convolution to prune. Freeze fewer stages, or use "
                "granularity='weight'."
            )
        return layers

    def _cut(self, inner, data, scores, share, whole):
        """Remove filters up to ``share`` of the unpruned network; return its size."""
        network = inner.net_.module_
        with torch.no_grad():
            example = network.normalization(data.rows.activations.batch([0], 0).to(inner.net_.device))
        before = sum(parameter.numel() for parameter in network.parameters())
        whole = whole or measure_unpruned(network, example)
        prune_filters(
            network,
            example,
            amount=share,
            unpruned=whole,
            unit=self.unit,
            scope=self._resolve_scope(),
            score=scores.__getitem__,
        )
        if self.n_rounds == 1 and before == sum(parameter.numel() for parameter in network.parameters()):
            raise CompressionError(
                f"amount={self.amount!r} is less than one filter in every layer, so there is nothing to prune. Use a "
                "larger amount, or granularity='weight'."
            )
        return whole

    def _check_parameters(self):
        super()._check_parameters()
        if self.granularity == "filter":  # before a long fit
            import_torch_pruning()
        if self.unit == "macs" and self.granularity == "weight":
            raise InputError(
                "unit='macs' cannot be used with granularity='weight', because zeros are multiplied like other "
                "weights. Use granularity='filter' to save multiply-accumulates, or unit='count'."
            )

    def _resolve_scope(self):
        """Return the scope, resolving ``"auto"``."""
        if self.scope != "auto":
            return self.scope
        return "global" if self.granularity == "weight" else "layer"
