"""Lottery tickets: sparse networks that train as well as the dense one, found by pruning and starting again."""

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
    """Find a sparse network that trains as well as the dense one from its very beginning.

    Train the network, take the smallest weights from it, put those that are left back
    to what they were in the beginning, and train again; and so on, with fewer weights
    in each round [1]_. Two controls, trained beside it, tell whether it is the
    beginning that matters (the same places, new values), and whether it is the places
    (the same values, other places).

    Read more in the user guide, page "Compression".

    Parameters
    ----------
    estimator : estimator
        What is trained: a `sktl.FineTunedClassifier` or a `sktl.DistilledClassifier`.
        It is cloned. A fitted one inside a `sklearn.frozen.FrozenEstimator` has no
        beginning any more, and is refused.
    prune_fraction : float, default=0.2
        The share of the weights that each round takes from those that are left, between
        0 and 1.
    n_rounds : int, default=5
        How many rounds. With a fifth taken in each, 33 % of the weights are left after
        5, 11 % after 10, 4 % after 15.
    rewind_epoch : int, default=0
        The epoch whose end the weights are put back to, and after which training goes
        on, with that epoch's order of rows, moments of the optimizer, learning rates
        and statistics of batch norms; 0 is the very beginning. Deep networks need some
        epochs [2]_.
    ticket : {"winning", "random_init", "random_mask"}, default="winning"
        What the classifier becomes in the end: the ticket that was found; the same
        zeros with newly drawn values; the same values with as many zeros in each layer,
        at random places.
    controls : bool, default=True
        Whether both controls are trained in each round, which takes three times as
        long.
    scope : {"layer", "global"}, default="layer"
        Whether each layer loses the same share (the one that gives the outputs half of
        it), as in [1]_ for fully connected networks, or the smallest weights of all
        layers together, as there for deep convolutional ones.
    freeze_depth : int or str, default=None
        How many stages stay as they are, as in `sktl.FineTunedClassifier`; None: as the
        estimator says.
    random_state : int, RandomState instance or None, default=None
        Seed of the controls, and of the estimator where it has none of its own. Each
        round trains with the same order of rows and the same dropout.

    Attributes
    ----------
    curve_ : LotteryCurve
        One row per trained network, the dense one first. It prints as a table;
        ``to_dict()`` and ``to_frame()`` give the columns ``ticket``, ``round``,
        ``weights_left`` and ``sparsity`` (shares of the weights of all convolutions and
        linear layers that can be pruned), ``score`` (accuracy after the last epoch, on
        ``X_val`` of `fit` or else on the estimator's ``validation_fraction`` of the
        rows) and ``early_stopping_epoch`` (after which the loss on them was the
        lowest).
    winning_ticket_ : estimator
        The ticket before it is trained: an unfitted copy of ``estimator`` whose network
        and head are sparse and have their first values. `fit` trains it, and its zeros
        stay.
    estimator_ : estimator
        The classifier with the network of the last round. It may be the ``backbone`` of
        other estimators.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        What the dense network and the last ticket cost.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, where the estimator is none whose training could begin again.
    ValueError
        From `fit`, where ``rewind_epoch`` is not before the last epoch, or a parameter
        is out of its range.

    See Also
    --------
    PrunedClassifier : Leaves weights out and goes on with those that were trained.
    sktl.inspection.LotteryTicketDisplay : Draws ``curve_``.

    Notes
    -----
    The beginning of a network that was pretrained is its pretrained state.
    ``random_init`` draws from what each layer of torch is initialised with, so that it
    also tells what pretraining gave.

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
    >>> lottery = LotteryTicketClassifier(network, n_rounds=2, controls=False).fit(X[:300], y[:300])
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
        """The ticket before it is trained, as an unfitted estimator."""
        inner = self._fitted()
        net = inner.net_.hollow()
        net.fill(unpack(self._ticket))
        name = network_parameter(inner)
        is_random = has_random_weights(inner, name)
        network = {
            name: adopted(inner, net.module_),
            "head": net.module_.head,
            "head_init": "random",  # it has the values that it began with
            "weights": "default",
            "freeze_bn": inner.freeze_bn and not is_random,
            "freeze_depth": inner.freeze_depth_,
        }
        return clone(inner).set_params(**network)

    def _count_epochs(self):
        n_again = sum(len(self._tickets(number)) for number in range(1, self.n_rounds + 1))
        return self.estimator.max_epochs + n_again * (self.estimator.max_epochs - self.rewind_epoch)

    def _check_parameters(self):
        """Say what has no beginning to go back to."""
        if not isinstance(self.estimator, NetworkClassifier):
            raise TypeError(
                shortened(
                    f"estimator={self.estimator!r}: a lottery ticket is a network at the beginning of its training. "
                    "Give a FineTunedClassifier or a DistilledClassifier; what was fitted before can be pruned by a "
                    "PrunedClassifier."
                )
            )
        self.estimator._validate_params()  # it is trained here, past its own `fit`
        if self.rewind_epoch >= max(self.estimator.max_epochs, 1):
            raise InputError(
                f"rewind_epoch={self.rewind_epoch} leaves nothing of max_epochs={self.estimator.max_epochs} of the "
                "estimator to train. Use a smaller one."
            )
        if self.rewind_epoch and self.estimator.unfreeze_every is not None:
            raise InputError(
                f"rewind_epoch={self.rewind_epoch} with unfreeze_every={self.estimator.unfreeze_every}: stages that "
                "are unfrozen later have no common beginning. Use unfreeze_every=None or rewind_epoch=0."
            )

    def _run(self, given, tasks):
        """Train, take weights away, begin again."""
        inner, trainer, data = self._begin_training(given)
        remember = Remember(self.rewind_epoch)
        self.__dict__.pop("_ticket", None)
        self._adopt(inner)  # callbacks may predict
        try:
            train_network(inner, trainer, data, callbacks=[("remember", remember), tasks])
        finally:  # where it diverged or was interrupted, there is the dense network and no ticket
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
        finally:  # also where a round diverged or was interrupted: those before it are whole
            self._keep(inner, trainer, data, start, masks, outcomes, points)

    def _keep(self, inner, trainer, data, start, masks, outcomes, points):
        """The last whole round as the result."""
        self.curve_ = LotteryCurve(points)
        self._ticket = pack(self._plant(inner, trainer, data, start, masks, "winning", 0).tensors())
        vars(inner).update(outcomes.get(self.ticket, outcomes["winning"]))
        adopt_network(inner)
        finish_training(inner, trainer, data)
        self._adopt(inner)

    def _round(self, inner, trainer, data, tasks, start, masks, number, seeds):
        """What comes of each ticket of a round, and its point of the curve."""
        found = {}
        for ticket in self._tickets(number):
            seed = int(seeds.randint(2**31 - 1))
            inner.net_ = self._plant(inner, trainer, data, start, masks, ticket, seed)
            train_network(inner, trainer, data, callbacks=[tasks], start=start)
            found[ticket] = _outcome(inner), self._point(inner, data, ticket, number)
        return found

    def _begin_training(self, given):
        """The estimator at its beginning, and the rows."""
        inner = self._seeded_clone()
        if self.freeze_depth is not None:
            inner.set_params(freeze_depth=self.freeze_depth)
        trainer, data = prepare_training(inner, given, is_new=True, set_aside_by=type(self).__name__)
        inner.net_ = trainer.build(inner.backbone_, data)
        require_layers(compressible(inner.net_.module_), inner.freeze_depth)
        inner.freeze_depth_ = data.depth
        return inner, trainer, data

    def _check_start(self, remember):
        """Where each round begins."""
        if not hasattr(remember, "checkpoint_"):
            raise InputError(
                f"rewind_epoch={self.rewind_epoch}, but training stopped before that epoch. Use a smaller one, or a "
                "larger n_iter_no_change of the estimator."
            )
        return remember.checkpoint_

    def _masks(self, net, data, number):
        """Where the weights are zero in a round, by what they have become in the one before."""
        layers = compressible(net.module_)
        last = last_linear(net.module_.head)
        halved = {path: self.scope == "layer" and layer is last for path, layer in layers.items()}
        shares = {path: 1 - (1 - self.prune_fraction / (1 + halved[path])) ** number for path in layers}
        scores = importance(net, data.rows, layers, "magnitude", torch.Generator())
        return zero_masks(layers, scores, shares, self.scope)

    def _tickets(self, number):
        """What is trained in a round, the winning ticket last: its net is what the next round looks at."""
        if self.controls:
            return ("random_init", "random_mask", "winning")
        is_asked = number == self.n_rounds and self.ticket != "winning"
        return (self.ticket, "winning") if is_asked else ("winning",)

    def _plant(self, inner, trainer, data, start, masks, ticket, seed):
        """A net that has not been trained since the beginning, without the weights that are masked."""
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
        """What came of a training."""
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
    """The attributes that a training leaves behind."""
    return {name: getattr(inner, name) for name in ("net_", "history_", "n_iter_", "best_epoch_")}


def draw_anew(net: TransferNet, seed: int) -> None:
    """Draw new values for all layers that learn, from what torch initialises each with; in place.

    Norms begin anew too, and have to learn: with the statistics of nothing, held on to,
    they would not normalise, and the control would lose for that reason.
    """
    net.module_.freeze_bn &= net.batch_size == 1  # one row has no variance
    adopt_statistics_quickly(net.module_)
    with Randomness(seed, net.device).drawn_from():
        for layer in [*net.module_.learning, *net.module_.head.modules()]:
            # torch's attention has another name for it.
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if callable(reset):
                reset()
