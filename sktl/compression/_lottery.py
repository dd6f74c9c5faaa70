"""Classifier that searches for lottery tickets: sparse networks that train well."""

import copy
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._backbone_parameter import has_random_weights, network_parameter
from sktl._estimators._network_classifier import NetworkClassifier
from sktl._estimators._network_estimator import finish_training, prepare_training, train_network
from sktl._estimators._whole_copies import independent_copy
from sktl._messages import shortened
from sktl._randomness import Randomness
from sktl._training._checkpoint import Remember
from sktl._training._rest_network import adopt_statistics_quickly, last_linear
from sktl._training._skorch_net import TransferNet
from sktl.compression._codec import pack, unpack
from sktl.compression._compressed import (
    COMPRESSION_CONSTRAINTS,
    CompressedClassifier,
    adopt_network,
    adopted,
    compressible,
    require_layers,
)
from sktl.compression._lottery_curve import LotteryCurve, Point
from sktl.compression._masks import importance, set_zeros, shuffled, zero_masks
from sktl.exceptions import InputError

TICKETS = ("winning", "random_init", "random_mask")


class LotteryTicketClassifier(CompressedClassifier):
    """Find a sparse network that trains as well as the dense one from the start.

    The dense network is trained first. Each round then prunes the smallest weights of
    the trained network, resets the remaining weights to their initial values, and
    trains the sparse network again [1]_. The positions of the pruned weights are called
    the mask. Each round also trains two controls. One has the same mask with new random
    values, and shows whether the initial values matter. The other has the same values
    with a random mask, and shows whether the positions of the weights matter.

    Read more in the :doc:`user guide </compression_details>`.

    Parameters
    ----------
    estimator : estimator
        The classifier to train: a `sktl.FineTunedClassifier` or a
        `sktl.DistilledClassifier`. It is cloned. A fitted estimator inside a
        `sklearn.frozen.FrozenEstimator` raises an error, since its initial weights are
        not available.
    prune_fraction : float, default=0.2
        Share of the remaining weights to prune in each round, between 0 and 1.
    n_rounds : int, default=5
        Number of rounds of pruning and training. With ``prune_fraction=0.2``, 33 % of
        the weights are left after 5 rounds, 11 % after 10 and 4 % after 15.
    rewind_epoch : int, default=0
        Number of epochs after which the weights are saved; each round resets the
        weights to these values. 0 saves the initial weights. The order of rows,
        optimizer state, learning rates and batch normalization statistics are reset as
        well. Use a few epochs for deep networks [2]_.
    ticket : {"winning", "random_init", "random_mask"}, default="winning"
        Network of the last round to predict with: ``"winning"`` is the ticket that was
        found, ``"random_init"`` has the same mask with new random values, and
        ``"random_mask"`` has the same values with a random mask of the same sparsity in
        each layer.
    controls : bool, default=True
        Whether to train both controls in each round, which takes three times as long.
    scope : {"layer", "global"}, default="layer"
        Whether to prune the same share of each layer, as [1]_ does for fully connected
        networks, or the smallest weights of all layers together, as [1]_ does for deep
        convolutional networks. ``"layer"`` prunes half that share in the output layer.
    freeze_depth : int or str, default=None
        Number of stages to leave unchanged, counted from the input, as in
        `sktl.FineTunedClassifier`. None uses the ``freeze_depth`` of the estimator.
    random_state : int, RandomState instance or None, default=None
        Seed of the controls, and of the estimator unless it has its own
        ``random_state``. Pass an int for reproducible results. Every round uses the
        same order of rows and the same dropout.

    Attributes
    ----------
    curve_ : LotteryCurve
        One row per trained network, starting with the dense one. It prints as a table;
        ``to_dict()`` and ``to_frame()`` return the columns ``ticket``, ``round``,
        ``weights_left``, ``sparsity``, ``score`` and ``early_stopping_epoch``.
        ``weights_left`` and ``sparsity`` are shares of the weights of all convolutions
        and linear layers that can be pruned. ``score`` is the accuracy after the last
        epoch on the validation rows: ``X_val`` of `fit`, or the ``validation_fraction``
        of the estimator. ``early_stopping_epoch`` is the epoch with the lowest
        validation loss.
    winning_ticket_ : estimator
        The winning ticket before training: an unfitted copy of ``estimator`` whose
        network and head are sparse and have their initial values. Its `fit` trains the
        network, and pruned weights stay zero.
    estimator_ : estimator
        The fitted classifier with the network of the last round. It can be the
        ``backbone`` of other estimators.
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
        From `fit`, if the training of the estimator cannot be restarted.
    ValueError
        From `fit`, if ``rewind_epoch`` is not before the last epoch or a parameter is
        out of range.

    See Also
    --------
    PrunedClassifier : Prune weights and continue training with the others.
    sktl.inspection.LotteryTicketDisplay : Plot ``curve_``.

    Notes
    -----
    The initial values of a pretrained network are its pretrained weights.
    ``"random_init"`` draws from the default initialization of each torch layer, so its
    score also shows the effect of pretraining.

    References
    ----------
    .. [1] Frankle and Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable
           Neural Networks", ICLR 2019.
    .. [2] Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery
           Ticket Hypothesis", ICML 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import LotteryTicketClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> network = FineTunedClassifier(max_epochs=3, random_state=0)
    >>> lottery = LotteryTicketClassifier(network, n_rounds=2, controls=False)
    >>> lottery = lottery.fit(X[:300], y[:300])
    >>> [round(share, 2) for share in lottery.curve_.to_dict()["weights_left"]]
    [1.0, 0.8, 0.64]
    """

    _parameter_constraints: dict = {
        **{name: COMPRESSION_CONSTRAINTS[name] for name in ("estimator", "freeze_depth", "random_state")},
        "prune_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "rewind_epoch": [Interval(Integral, 0, None, closed="left")],
        "ticket": [StrOptions(set(TICKETS))],
        "controls": ["boolean"],
        "scope": [StrOptions({"layer", "global"})],
    }

    def __init__(
        self,
        estimator,
        *,
        prune_fraction=0.2,
        n_rounds=5,
        rewind_epoch=0,
        ticket="winning",
        controls=True,
        scope="layer",
        freeze_depth=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.prune_fraction = prune_fraction
        self.n_rounds = n_rounds
        self.rewind_epoch = rewind_epoch
        self.ticket = ticket
        self.controls = controls
        self.scope = scope
        self.freeze_depth = freeze_depth
        self.random_state = random_state

    @property
    def winning_ticket_(self):
        """The winning ticket before training, as an unfitted estimator."""
        inner = self._fitted()
        net = inner.net_.hollow()
        net.fill(unpack(self._ticket))
        name = network_parameter(inner)
        is_random = has_random_weights(inner, name)
        network = {
            name: adopted(inner, net.module_),
            "head": net.module_.head,
            "head_init": "random",  # keeps its initial values
            "weights": "default",
            "freeze_bn": inner.freeze_bn and not is_random,
            "freeze_depth": inner.freeze_depth_,
        }
        return clone(inner).set_params(**network)

    def _count_epochs(self):
        n_again = sum(len(self._tickets(number)) for number in range(1, self.n_rounds + 1))
        return self.estimator.max_epochs + n_again * (self.estimator.max_epochs - self.rewind_epoch)

    def _check_parameters(self):
        """Check that training can be restarted at ``rewind_epoch``."""
        if not isinstance(self.estimator, NetworkClassifier):
            raise TypeError(
                shortened(
                    "The 'estimator' parameter of LotteryTicketClassifier must be a FineTunedClassifier or a "
                    f"DistilledClassifier. Got {self.estimator!r} instead. Use PrunedClassifier to prune a fitted "
                    "classifier, whose training cannot be restarted."
                )
            )
        self.estimator._validate_params()  # its own `fit` is not called
        if self.rewind_epoch >= max(self.estimator.max_epochs, 1):
            raise InputError(
                "The 'rewind_epoch' parameter of LotteryTicketClassifier must be less than max_epochs="
                f"{self.estimator.max_epochs} of the estimator. Got {self.rewind_epoch} instead."
            )
        if self.rewind_epoch and self.estimator.unfreeze_every is not None:
            raise InputError(
                f"rewind_epoch={self.rewind_epoch} cannot be used with unfreeze_every={self.estimator.unfreeze_every} "
                "of the estimator, because the stages do not start training in the same epoch. Use "
                "unfreeze_every=None or rewind_epoch=0."
            )

    def _run(self, given, tasks):
        """Train, prune and restart, ``n_rounds`` times."""
        inner, trainer, data = self._begin_training(given)
        remember = Remember(self.rewind_epoch)
        self.__dict__.pop("_ticket", None)
        self._adopt(inner)  # callbacks may predict
        try:
            train_network(inner, trainer, data, callbacks=[("remember", remember), tasks])
        finally:  # after a divergence or an interrupt, keep the dense network without a ticket
            self._original = independent_copy(inner)
            self._adopt(inner)
        start = self._check_start(remember)
        points = [self._point(inner, data, "winning", 0)]
        seeds = check_random_state(self.random_state)
        outcomes, masks = {"winning": _outcome(inner)}, {}
        try:
            for number in range(1, self.n_rounds + 1):
                wanted = self._masks(outcomes["winning"]["net_"], data, number)
                found = self._round(inner, trainer, data, tasks, start, wanted, number, seeds)
                made = {ticket: outcome for ticket, (outcome, _) in found.items()}
                masks, outcomes, points = wanted, made, points + [point for _, point in found.values()]
        finally:  # after a divergence or an interrupt, keep the complete rounds
            self._keep(inner, trainer, data, start, masks, outcomes, points)

    def _keep(self, inner, trainer, data, start, masks, outcomes, points):
        """Store the result of the last complete round."""
        self.curve_ = LotteryCurve(points)
        self._ticket = pack(self._plant(inner, trainer, data, start, masks, "winning", 0).tensors())
        vars(inner).update(outcomes.get(self.ticket, outcomes["winning"]))
        adopt_network(inner)
        finish_training(inner, trainer, data)
        self._adopt(inner)

    def _round(self, inner, trainer, data, tasks, start, masks, number, seeds):
        """Train the tickets of a round; return the outcome and the point of each."""
        found = {}
        for ticket in self._tickets(number):
            seed = int(seeds.randint(2**31 - 1))
            inner.net_ = self._plant(inner, trainer, data, start, masks, ticket, seed)
            train_network(inner, trainer, data, callbacks=[tasks], start=start)
            found[ticket] = _outcome(inner), self._point(inner, data, ticket, number)
        return found

    def _begin_training(self, given):
        """Return the estimator with its initial network, its trainer and the rows."""
        inner = self._seeded_clone()
        if self.freeze_depth is not None:
            inner.set_params(freeze_depth=self.freeze_depth)
        trainer, data = prepare_training(inner, given, is_new=True, set_aside_by=type(self).__name__)
        inner.net_ = trainer.build(inner.backbone_, data)
        require_layers(compressible(inner.net_.module_), inner.freeze_depth)
        inner.freeze_depth_ = data.depth
        return inner, trainer, data

    def _check_start(self, remember):
        """Return the checkpoint from which each round starts."""
        if not hasattr(remember, "checkpoint_"):
            raise InputError(
                f"Training stopped early, before rewind_epoch={self.rewind_epoch}. Use a smaller rewind_epoch, or a "
                "larger n_iter_no_change of the estimator."
            )
        return remember.checkpoint_

    def _masks(self, net, data, number):
        """Return the masks of a round from the weights after the round before it."""
        layers = compressible(net.module_)
        last = last_linear(net.module_.head)
        halved = {path: self.scope == "layer" and layer is last for path, layer in layers.items()}
        shares = {path: 1 - (1 - self.prune_fraction / (1 + halved[path])) ** number for path in layers}
        scores = importance(net, data.rows, layers, "magnitude", torch.Generator())
        return zero_masks(layers, scores, shares, self.scope)

    def _tickets(self, number):
        """Return the tickets to train in a round, ending with the winning one."""
        if self.controls:
            return ("random_init", "random_mask", "winning")
        is_asked = number == self.n_rounds and self.ticket != "winning"
        return (self.ticket, "winning") if is_asked else ("winning",)

    def _plant(self, inner, trainer, data, start, masks, ticket, seed):
        """Return a net with the weights of ``start`` and the masks applied."""
        net = trainer.build(inner.backbone_, data, inner.net_)
        net.history = copy.deepcopy(start.history)
        start.rewind(net)
        layers = compressible(net.module_)
        generator = torch.Generator().manual_seed(seed)
        if ticket == "random_init":
            draw_anew(net, seed)
        set_zeros(layers, shuffled(masks, generator) if ticket == "random_mask" else masks)
        return net

    def _point(self, inner, data, ticket, number):
        """Return the point of the curve for a trained net."""
        weights = [layer.get_parameter("weight") for layer in compressible(inner.net_.module_).values()]
        left = sum(int(torch.count_nonzero(weight)) for weight in weights)
        losses = [epoch["valid_loss"] for epoch in inner.net_.history if "valid_loss" in epoch]
        return Point(
            ticket,
            number,
            left / sum(weight.numel() for weight in weights),
            inner.net_.score(data.valid),
            int(np.argmin(losses)) + 1 if losses else None,
        )


def _outcome(inner):
    """Return the attributes that training sets."""
    return {name: getattr(inner, name) for name in ("net_", "history_", "n_iter_", "best_epoch_")}


def draw_anew(net: TransferNet, seed: int) -> None:
    """Initialize all trained layers again, in place, as torch does by default.

    The statistics of normalization layers are reset and updated again: if they stayed
    at their initial values, the layers would not normalize, and the control would score
    lower for that reason.
    """
    net.module_.freeze_bn &= net.batch_size == 1  # one row has no variance
    adopt_statistics_quickly(net.module_)
    with Randomness(seed, net.device).drawn_from():
        for layer in [*net.module_.learning, *net.module_.head.modules()]:
            # torch.nn.MultiheadAttention names the method differently.
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if callable(reset):
                reset()
