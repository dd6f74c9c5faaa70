"""What all estimators that train a network share: the parameters, the flow of a fit, and how predictions are made."""

import contextlib
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sktl._engine._activations import fetch_activations
from sktl._engine._augment import AUGMENT_CONSTRAINTS, make_augmentation
from sktl._engine._backbone_parameter import BACKBONE_CONSTRAINTS, resolve_backbone
from sktl._engine._callbacks import EpochTasks
from sktl._engine._net import TransferNet
from sktl._engine._network import POOLINGS, pooled_shape
from sktl._engine._prefix import PREFIX_CONSTRAINTS, FrozenPrefix
from sktl._engine._probe import PROBE_ROWS, Probe
from sktl._engine._progress import PrintedProgress
from sktl._engine._rest import RestNetwork, last_linear, make_head
from sktl._engine._rows import Rows
from sktl._engine._schedules import OPTIMIZERS, SCHEDULES
from sktl._engine._threads import bounded_threads
from sktl._engine._training import GLOBAL_GENERATOR, train
from sktl._images import Images, check_images

_BLOCK = 512  # pictures that are predicted together, so that memory stays bounded

# Of skorch's parameters: what is trained, on what and how long.
_NOT_THE_USERS = {"module", "criterion", "train_split", "max_epochs", "warm_start"}

_PREFIX = ("engine", "precision", "device", "n_jobs")

TRANSFER_CONSTRAINTS: dict = {
    **BACKBONE_CONSTRAINTS,
    **AUGMENT_CONSTRAINTS,
    **{name: PREFIX_CONSTRAINTS[name] for name in ("cache", *_PREFIX)},
    "freeze_depth": [Integral, str],
    "head": [str, list, tuple, torch.nn.Module],
    "head_init": [StrOptions({"probe", "random"})],
    "pooling": [StrOptions(set(POOLINGS) - {"none"})],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither")],
    "lr_decay": [Interval(Real, 0, None, closed="neither")],
    "lr_schedule": [StrOptions(set(SCHEDULES))],
    "optimizer": [StrOptions(set(OPTIMIZERS)), type],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "freeze_bn": ["boolean"],
    "unfreeze_every": [Interval(Integral, 1, None, closed="left"), None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "net_params": [dict, None],
    "verbose": ["verbose"],
}


class Table(NamedTuple):
    """Checked rows: pictures, encoded targets, weights."""

    images: Images
    y: np.ndarray
    weight: np.ndarray

    def take(self, positions: np.ndarray) -> "Table":
        """Some of the rows."""
        return Table(self.images.take(positions), self.y[positions], self.weight[positions])


class TransferEstimator(CallbackSupportMixin, BaseEstimator):
    """Trains the rest of a network behind its frozen stages.

    Subclass contract: a subclass has all parameters of `TRANSFER_CONSTRAINTS`, and says what is learnt by

    * ``_check_targets(y, weight, reset, classes)``: the encoded targets and the weights; sets what is learnt from them,
    * ``_n_outputs``: how many outputs the head has,
    * ``_make_criterion()``: the loss,
    * ``_probe(features, y, weight)``: a linear map to start the head with,
    * ``_stratification(y)``: what a validation split is stratified by, or None.
    """

    def _fit(self, X, y, sample_weight, validation=None, *, reset, classes=None):
        """Check the data, split it, build the net, and train it.

        ``reset`` starts anew; else what has been learnt is gone on from. Without ``validation`` it is a step of
        `partial_fit`: one epoch of the net as it is, with constant rates, judged by nobody.
        """
        is_partial = validation is None
        if reset:
            self.__dict__.pop("net_", None)  # should this fit fail, what is left of the last one is no fitted estimator
        previous = getattr(self, "net_", None)
        context = self._init_callback_context(max_subtasks=1 if is_partial else self.max_epochs)
        data = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight} if sample_weight is not None else {}}
        context.call_on_fit_task_begin(estimator=self, **data)
        with bounded_threads():
            table = self._check(X, y, sample_weight, reset=reset, classes=classes)
            learning, judging = (table, None) if is_partial else self._split(table, validation)
            if reset:
                self.backbone_ = resolve_backbone(self)
            if reset or not is_partial:
                self.freeze_depth_ = self.backbone_.stage_index(self.freeze_depth)
            seed = int(self._random_state.randint(2**31 - 1))
            rows = self._rows(learning, seed, is_training=True)
            valid = self._rows(judging, seed) if judging is not None else None
            if reset or not is_partial:
                self.net_ = self._make_net(rows, learning, seed, previous)
            self._train(rows, valid, seed, is_partial, EpochTasks(self, context, data, self._reconstruct))
        context.call_on_fit_task_end(estimator=self, **data)
        return self

    def _check(self, X, y, sample_weight, *, reset, classes=None):
        """The table that ``X``, ``y`` and the weights are; rows of weight zero are left out."""
        if reset:
            self._random_state = check_random_state(self.random_state)
        images = check_images(self, X, reset=reset)
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        check_consistent_length(range(len(images)), y)
        weight = _check_sample_weight(sample_weight, np.empty(len(images)), dtype=np.float64, ensure_non_negative=True)
        kept = np.flatnonzero(weight)
        y = np.asarray(y)[kept] if not hasattr(y, "iloc") else y.iloc[kept]
        y, weight = self._check_targets(y, weight[kept], reset=reset, classes=classes)
        table = Table(images.take(kept), y, weight)
        return _distinct(table.take(np.flatnonzero(weight)))  # a class may weigh nothing too

    def _split(self, table, validation):
        """What to learn from, and what to judge on, where anything is judged."""
        X_val, y_val, weight_val = validation
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val come together: give both or neither.")
        if X_val is not None:
            return table, self._check(X_val, y_val, weight_val, reset=False)
        if not self.early_stopping:
            return table, None
        seed = self._random_state.randint(2**31 - 1)
        strata = self._stratification(table.y)
        n_rows = len(table.y)
        n_valid = int(np.ceil(self.validation_fraction * n_rows))
        if n_valid >= n_rows:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n_rows} rows leaves nothing to learn from. Give "
                "more rows, a smaller validation_fraction, or early_stopping=False."
            )
        if strata is None:
            learning, judging = train_test_split(np.arange(n_rows), test_size=n_valid, random_state=seed)
            return table.take(np.sort(learning)), table.take(np.sort(judging))
        learning, judging = _stratified_split(strata, n_valid, seed)
        return table.take(learning), table.take(judging)

    def _rows(self, table, seed, is_training=False):
        """The output of the frozen stages for a table, with its targets and weights."""
        augmentation = make_augmentation(self.augment, seed=self._view_seed(seed), backbone=self.backbone_)
        if not is_training:
            augmentation = None
        n_views = self.n_views if augmentation is not None else None
        is_stored = self.cache is not None and (augmentation is None or n_views is not None)
        with GLOBAL_GENERATOR if n_views is not None else contextlib.nullcontext():
            activations = fetch_activations(
                self._prefix(self.cache if is_stored else None),
                table.images,
                stored=is_stored,
                augmentation=augmentation,
                n_views=n_views if is_stored else None,
                listeners=[PrintedProgress(self)] if self.verbose and is_stored else [],
            )
        y = torch.from_numpy(table.y)
        # A mean of one, over all rows: see WeightedLoss.
        return Rows(activations, y, weight=torch.from_numpy(table.weight / table.weight.mean()).float())

    def _view_seed(self, seed):
        """What augmented views depend on: the same in all folds and candidates, where ``random_state`` is a number."""
        return int(self.random_state) if isinstance(self.random_state, Integral) else seed

    def _prefix(self, cache):
        """The frozen stages; with all of them frozen, pooled."""
        stages = [stage.name for stage in self.backbone_.stages]
        return FrozenPrefix(
            self.backbone_,
            stages[self.freeze_depth_ - 1 : self.freeze_depth_] if self.freeze_depth_ else (),
            pooling=self.pooling if self.freeze_depth_ == len(stages) else "none",
            cache=cache,
            **{name: getattr(self, name) for name in _PREFIX},
        )

    def _make_net(self, rows, table, seed, previous=None):
        """A net with a new head, started as ``head_init`` says; with the head and the history of a previous net."""
        last = self.backbone_.stages[-1]
        (n_features,) = pooled_shape(last.output_shape, self.pooling, last.channel_axis)
        head = self.head if previous is None else previous.module_.head
        head = make_head(head, n_features, self._n_outputs, dropout=self.dropout, generator_seed=seed)
        network = RestNetwork(self.backbone_, self.freeze_depth_, head, pooling=self.pooling, freeze_bn=self.freeze_bn)
        net = self._new_net(network)
        if previous is not None:
            net.history = previous.history
        elif self.head_init == "probe":
            self._start_from_probe(net, rows, table, seed)
        return net

    def _new_net(self, network):
        """The parameters here, and what ``net_params`` adds to them or says otherwise, as a skorch net."""
        net_params = dict(self.net_params or {})
        taken = sorted(net_params.keys() & _NOT_THE_USERS)
        if taken:
            raise ValueError(f"net_params cannot set {taken}: that is what {type(self).__name__} is there for.")
        params = {
            "optimizer": self.optimizer,
            "lr": self.lr,
            "lr_decay": self.lr_decay,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "device": str(self._prefix(None).device),
            "verbose": self.verbose,
            **({} if self.verbose else {"callbacks__print_log": None}),
            **net_params,
            "callbacks": [*(self.callbacks or []), *(net_params.get("callbacks") or [])],
        }
        try:
            return TransferNet(network, self._make_criterion(), **params).initialize()
        except (TypeError, ValueError) as error:
            if not net_params:
                raise
            raise ValueError(f"net_params={net_params!r} is not what skorch.NeuralNet takes: {error}") from error

    def _start_from_probe(self, net, rows, table, seed):
        """Fit the head's last layer to what reaches it from the untouched network."""
        head = net.module_.head
        linear = last_linear(head)
        if linear is None:
            raise ValueError(
                f"head_init='probe' starts the head's last linear layer, and {type(head).__name__} is no sequence that "
                "ends with one. Use head_init='random', or an nn.Sequential with an nn.Linear at its end."
            )
        positions = np.arange(len(rows))
        if len(positions) > PROBE_ROWS:
            positions = np.sort(np.random.default_rng(seed).choice(positions, PROBE_ROWS, replace=False))
        features = net.linear_inputs(rows, positions.tolist(), linear)
        probe: Probe = self._probe(features.double().numpy(), table.y[positions], table.weight[positions])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(probe.weight))
            if linear.bias is not None:
                linear.bias.copy_(torch.from_numpy(probe.bias))

    def _train(self, rows, valid, seed, is_partial, tasks):
        """Train the net, and note what came of it."""
        try:
            best = train(
                self.net_,
                rows,
                valid,
                epochs=1 if is_partial else self.max_epochs,
                seed=seed,
                schedule="constant" if is_partial else self.lr_schedule,
                unfreeze_every=self.unfreeze_every,
                depth=self.freeze_depth_,
                patience=self.n_iter_no_change if valid is not None and self.early_stopping else None,
                callbacks=[("epoch_tasks", tasks)],
            )
        finally:  # also after a divergence: the net has its last good weights
            self.history_ = self.net_.history
            self.n_iter_ = len(self.history_)
            self._lend_backbone()
        if not is_partial:  # a later step of partial_fit begins anew: moments are twice as large as what they belong to
            self.net_.optimizer_.state.clear()
        self.best_epoch_ = best.best_epoch_ if best is not None else self.n_iter_

    def _lend_backbone(self):
        """The network with what was learnt, for whoever takes this estimator as its backbone."""
        if self.freeze_depth_ < len(self.backbone_.stages):
            self.backbone_ = self.backbone_.with_weights(self.net_.module_.stages.state_dict())

    def _reconstruct(self, net):
        """The fitted attributes in the middle of a fit, for scikit-learn's callbacks."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("__")}

    def _outputs(self, X):
        """The head's outputs, ndarray (n, n_outputs), float32; the frozen stages run once per picture here too."""
        check_is_fitted(self, "net_")
        images = check_images(self, X, reset=False)
        with bounded_threads():
            prefix = self._prefix(self.cache)
            blocks = [range(start, min(start + _BLOCK, len(images))) for start in range(0, len(images), _BLOCK)]
            outputs = [self.net_.outputs(prefix.run(images.take(block))[0]) for block in blocks]
        return np.concatenate(outputs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


def _distinct(table: Table) -> Table:
    """Equal pictures with equal targets as one row, with their weights added, in an order that their content gives.

    So what a fit learns depends on neither the order of the rows nor on whether a row is repeated or weighted, a copy
    is never learnt from and judged on at once, and an oversampled table costs what the pictures in it cost.
    """
    first: dict[bytes, int] = {}
    keys = [table.images.digest(row) + b"|" + table.y[row].tobytes() for row in range(len(table.y))]
    group = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    weight = np.bincount(group, weights=table.weight, minlength=len(keys))
    rows = np.array(sorted(first.values(), key=keys.__getitem__))
    return Table(table.images.take(rows), table.y[rows], weight[rows])


def _stratified_split(strata: np.ndarray, n_valid: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to learn from and to judge on; a class with one row is learnt, not judged."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(counts[index] == 1)
    others = np.flatnonzero(counts[index] > 1)
    n_classes = int((counts > 1).sum())
    if not n_classes:
        raise ValueError(
            "early_stopping=True needs a class with at least two rows to judge on. Give more rows, X_val and y_val, or "
            "early_stopping=False."
        )
    # scikit-learn wants a row of each class on either side.
    n_valid = min(max(n_valid, n_classes), len(others) - n_classes)
    learning, judging = train_test_split(others, test_size=n_valid, random_state=seed, stratify=strata[others])
    return np.sort(np.concatenate([alone, learning])), np.sort(judging)
