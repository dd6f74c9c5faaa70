"""Pruning: networks with fewer weights, or with fewer filters."""

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
    """Leave out the weights or the filters of a network that matter least, and train what is left.

    Weights become zeros, which makes the file smaller and nothing faster. Filters are
    taken out of the network, through all sums and concatenations that they take part
    in: it becomes smaller and faster.

    Read more in the user guide, page "Compression".

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    amount : float, default=0.5
        The share that is left out, between 0 and 1: of the weights of all convolutions
        and linear layers behind ``freeze_depth``, exactly, but for the layer that gives
        the outputs; or of the filters of the convolutions there, see ``unit``.
    granularity : {"weight", "filter"}, default="weight"
        What is left out. ``"filter"`` needs the package torch-pruning.
    unit : {"count", "macs"}, default="count"
        What ``amount`` is a share of: the weights or filters; or, for filters, the
        multiply-accumulates behind ``freeze_depth``. Without half of all filters about
        a quarter of those is left.
    criterion : {"magnitude", "taylor", "random"}, default="magnitude"
        What matters least: small weights [1]_, weights whose absence changes the loss
        least, to first order [2]_, or any, to compare with. A filter matters as much as
        its weights together.
    scope : {"auto", "global", "layer"}, default="auto"
        Whether the weights (filters) of all layers are ranked together, or ``amount``
        is left out of each. ``"auto"`` ranks weights together, filters within their
        layer.
    n_rounds : int, default=1
        In how many rounds; each leaves out the same share of what is there, and trains.
        Several small steps lose less than a large one.
    freeze_depth : int or str, default=None
        How many stages stay as they are, as in `sktl.FineTunedClassifier`; 0 prunes the
        whole network. None: those that the estimator has frozen, whose output stays in
        its cache.
    max_epochs : int, default=5
        Epochs of training after each round, with the estimator's own optimizer, and
        with batch norms that learn. With 0 only these and the head's start are fitted
        to what is left.
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
        Seed of ``criterion="random"``, and of the estimator where it has none of its
        own.

    Attributes
    ----------
    estimator_ : estimator
        The classifier with the network that is left. It may be the ``backbone`` of
        other estimators.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        What the original and the pruned one cost.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, where the estimator has no network of sktl.
    CompressionError
        From `fit`, where the filters of the network cannot be followed, or it has none;
        the message says what works.
    MissingDependencyError
        From `fit`, where ``granularity="filter"`` and torch-pruning is not installed.

    See Also
    --------
    QuantizedClassifier : Fewer bits for each weight.
    LowRankClassifier : Fewer weights in each layer, all of them used.
    LotteryTicketClassifier : Sparse networks trained from their beginning.

    Notes
    -----
    Zeros stay zeros in all later training, also that of other compressors and of
    estimators that take the network as their ``backbone``.

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
    >>> model = PrunedClassifier(network, amount=0.9, max_epochs=2).fit(X[:300], y[:300])
    >>> bool(model.score(X[300:500], y[300:500]) > 0.8)
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
        """Leave out, train, and again."""
        trainer, data = self._prepare(inner, given)
        generator = torch.Generator().manual_seed(check_random_state(self.random_state).randint(2**31 - 1))
        whole = None
        for number in range(1, self.n_rounds + 1):
            forget_fit(self)  # from here until it is trained again, it is smaller in part
            # What is left shrinks by the same factor in each round, and is in the end what was asked for.
            share = 1 - (1 - self.amount) ** (number / self.n_rounds)
            if number > 1 and self.criterion == "taylor":  # what a loss had learnt it has forgotten after training
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
        """What can be left out of."""
        if self.granularity == "filter":
            return self._with_convolutions(compressible(network))  # it is found out later what goes together
        return require_layers(inner_layers(network), self.freeze_depth)

    def _with_convolutions(self, layers):
        """The layers, among which there has to be a convolution."""
        if not any(isinstance(layer, nn.Conv2d) for layer in layers.values()):
            raise CompressionError(
                f"freeze_depth={self.freeze_depth!r} leaves no convolution to take filters from. Freeze less, or use "
                "granularity='weight'."
            )
        return layers

    def _cut(self, inner, data, scores, share, whole):
        """Take filters out of the network, until ``share`` of the whole one is gone, which is returned."""
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
                f"amount={self.amount!r} is less than one filter of any layer: nothing can be taken out. Use a larger "
                "one, or granularity='weight'."
            )
        return whole

    def _check_parameters(self):
        super()._check_parameters()
        if self.granularity == "filter":  # before anything is fitted for hours
            import_torch_pruning()
        if self.unit == "macs" and self.granularity == "weight":
            raise InputError(
                "unit='macs' with granularity='weight': zeros are multiplied like other weights. Use "
                "granularity='filter' to save multiply-accumulates, or unit='count'."
            )

    def _resolve_scope(self):
        """What is ranked together."""
        if self.scope != "auto":
            return self.scope
        return "global" if self.granularity == "weight" else "layer"
