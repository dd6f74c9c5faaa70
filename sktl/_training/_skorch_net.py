"""The one training loop: skorch's, over stored or live activations, with weighted rows and groups of parameters."""

import contextlib
import copy
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping

from sktl._frozen._activations import GivenActivations
from sktl._interrupts import counted_interrupts
from sktl._messages import shortened_errors
from sktl._process import as_the_user_has_it
from sktl._randomness import Randomness
from sktl._threads import loader_workers
from sktl._training._dataset import RowDataset, ordered_loader, shuffled_loader
from sktl._training._net import Counts, Net, count_parts
from sktl._training._rest_network import RestNetwork
from sktl._training._schedules import OPTIMIZERS, parameter_groups
from sktl._training._soft_targets import SoftTargets
from sktl.backbones import Backbone
from sktl.backbones._graph import shadow
from sktl.backbones._hollow import fill, hollow, hollow_tensor
from sktl.exceptions import DivergenceError

_ROWS_OF_A_BLOCK = 16  # rows; linear algebra goes by blocks of 2 to 16
_SOUNDED = 64  # rows whose outputs are looked at when training is over
_SUSPICIOUS = 1e4  # an output, or a loss, from which all rows are looked at


class StopTraining(Exception):
    """Raised by a callback when enough has been learnt."""


class TransferNet(NeuralNet, Net):
    """A skorch net that trains the rest of a network.

    Its rows come with weights, its parameters with a learning rate for each stage, its order of rows from a generator
    of its own. What a fit was given does not stay in it, so that it pickles small.

    Parameters
    ----------
    module : RestNetwork
        What is trained.
    criterion : WeightedLoss
        Called with outputs, targets and the columns of the batch.
    optimizer : str or type, default="adamw"
        A name in `OPTIMIZERS`, or a class of torch.
    lr_decay : float, default=1.0
        Factor of the learning rate from each stage to the one before.
    weight_decay : float, default=0.0
        Not of norms and biases.
    **kwargs : object
        All that `skorch.NeuralNet` takes.
    """

    def __init__(self, module, criterion, *, optimizer="adamw", lr_decay=1.0, weight_decay=0.0, **kwargs):
        optimizer, defaults = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else (optimizer, {})
        defaults = {f"optimizer__{name}": value for name, value in defaults.items()}
        super().__init__(module, criterion, optimizer=optimizer, train_split=None, **{**defaults, **kwargs})
        self.lr_decay = lr_decay
        self.weight_decay = weight_decay

    is_trainable = True
    _fused_size = 0
    _fused: Sequence[RestNetwork] = ()
    _soft_targets: "SoftTargets | None" = None
    _interruption: "KeyboardInterrupt | None" = None
    kept_epoch_ = 0  # after which epoch of the history the weights were what they are; 0 is the start
    _randomness: "Randomness | None" = None

    def initialize_module(self):
        """Take the network as it is, and refer to it once only, so that a pickle holds it once."""
        super().initialize_module()
        self.module = RestNetwork
        return self

    def initialize_optimizer(self):
        """Make the optimizer of the parameters that learn now."""
        _, kwargs = self.get_params_for_optimizer("optimizer", [])
        self.optimizer_ = self.optimizer(self.learning_groups(), **kwargs)
        return self

    def learning_groups(self) -> list[dict[str, Any]]:
        """The groups of the parameters that are not frozen now."""
        own = {"lr": self.lr, "weight_decay": self.weight_decay}
        given = {name: value for name, value in self.get_params_for("optimizer").items() if name in own}
        groups = parameter_groups(self.module_, lr_decay=self.lr_decay, **{**own, **given})
        # What the loss learns (maps from one network's space to another's) keeps pace with the head.
        maps = list(self.criterion_.parameters())
        return [*groups, {**groups[0], "params": maps, "stage": "loss"}] if maps else groups

    def learn(
        self,
        train: RowDataset,
        valid: "RowDataset | None",
        *,
        epochs: int,
        generator: torch.Generator,
        randomness: "Randomness | None" = None,
        first: Sequence[tuple[str, Any]] = (),
        last: Sequence[tuple[str, Any]] = (),
        soft_targets: "SoftTargets | None" = None,
    ) -> None:
        """Train for some epochs on, from the present weights; nothing of what is given here stays in the net.

        Parameters
        ----------
        train : RowDataset
            What to learn from.
        valid : RowDataset or None
            What to judge on after each epoch.
        epochs : int
            How many times to see each row.
        generator : torch.Generator
            Where the order of the rows comes from.
        randomness : Randomness or None, default=None
            What dropout, and whatever else draws from the global generators meanwhile, gets instead of them.
        first, last : sequence of (str, skorch callback)
            What happens in this training before and after the net's own callbacks.
        soft_targets : SoftTargets or None, default=None
            Answers beside the rows that are learnt from as well.

        Raises
        ------
        DivergenceError
            Where the loss is no finite number.
        KeyboardInterrupt
            Where Ctrl-C ended the training, with a note that says after how many epochs.
        """
        self._generator, self._valid, self._soft_targets = generator, valid, soft_targets
        self._randomness = randomness
        self._fused_size = 0  # what has been folded would not learn
        kept: list[tuple[str, Any]] = getattr(self, "callbacks_")  # noqa: B009, mypy does not know skorch's
        self.callbacks_ = [*first, *kept, *last]
        self.max_epochs = epochs
        interruption: KeyboardInterrupt | None = None
        try:
            self.partial_fit(train)
        finally:
            self.callbacks_ = kept
            del self._generator, self._valid
            self._soft_targets = self._randomness = None
            if self.history and "train_loss" not in self.history[-1]:
                del self.history[-1]  # an epoch that did not come to its end
            self.module_.zero_grad(set_to_none=True)
            self.module_.eval()
            interruption, self._interruption = self._interruption, None
        if interruption is not None:
            interruption.add_note(f"Training was interrupted after {len(self.history)} whole epochs.")
            raise interruption

    @property
    def valid_rows(self) -> "RowDataset | None":
        """What is judged on in the training that runs."""
        return self._valid

    @property
    def row_generator(self) -> torch.Generator:
        """Where the order of the rows comes from in the training that runs."""
        return self._generator

    def get_split_datasets(self, X, y=None, **fit_params):
        """The rows as they were given: they have been split before the frozen stages ran."""
        return X, self._valid

    def get_dataset(self, X, y=None):
        """Rows; what is none is taken for the output of the frozen stages, as `predict` and `forward` get it."""
        if isinstance(X, RowDataset):
            return X
        x = torch.as_tensor(X)
        return RowDataset(GivenActivations(x), torch.zeros(len(x)) if y is None else torch.as_tensor(y))

    def predict(self, X):
        """What the criterion makes of the outputs: class numbers, or standardised targets; for skorch's scorers."""
        return self.criterion_.predict(self.predict_proba(X))

    def get_iterator(self, dataset, training=False):
        """Batches in a new order to learn from, in the table's order to judge."""
        kwargs = self.get_params_for("iterator_train" if training else "iterator_valid")
        kwargs["num_workers"] = loader_workers(kwargs.get("num_workers", 0))
        batch_size = kwargs.pop("batch_size", self.batch_size)
        with shortened_errors():
            if training:
                return shuffled_loader(dataset, batch_size, self._generator, **kwargs)
            return ordered_loader(dataset, batch_size, **kwargs)

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """skorch's loop, which tells an early stop from an interruption."""
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except StopTraining:
            pass
        except KeyboardInterrupt as interruption:
            self._interruption = interruption  # skorch would keep it to itself: `learn` raises it when all is tidy
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """skorch's, with this training's own numbers for whatever draws from the global generators."""

        def step(*args: Any, **kwargs: Any) -> Any:
            with self._own_numbers(), as_the_user_has_it():
                return step_fn(*args, **kwargs)

        batches = None if iterator is None else self._batches(iterator)
        super().run_single_epoch(batches, training, prefix, step, **fit_params)

    def _batches(self, iterator: Iterable) -> Iterator:
        """The batches, each fetched as a step is done."""
        with self._own_numbers():
            rest = iter(iterator)
        nothing = object()
        while True:
            with self._own_numbers():
                batch = next(rest, nothing)
            if batch is nothing:
                return
            yield batch

    def _own_numbers(self) -> contextlib.AbstractContextManager:
        return self._randomness.drawn_from() if self._randomness is not None else contextlib.nullcontext()

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, at the end of an epoch all of them before training stops where one asks for it.

        A KeyboardInterrupt that skorch's `EarlyStopping` raises is its way to ask; every other one is the user's, and
        goes before what callbacks ask for.
        """
        stop: BaseException | None = None
        with self._own_numbers():
            if method_name != "on_epoch_end":
                super().notify(method_name, **cb_kwargs)
                return
            self.on_epoch_end(self, **cb_kwargs)
            for _, callback in self.callbacks_:
                with counted_interrupts() as interrupts:
                    try:
                        callback.on_epoch_end(self, **cb_kwargs)
                    except KeyboardInterrupt as interruption:
                        is_request = not interrupts.count and _is_request(interruption)
                        stop = (stop or StopTraining()) if is_request else interruption
                    except StopTraining as request:
                        stop = stop or request
        if stop is not None:
            raise stop

    def infer(self, x, **fit_params):
        """Outputs of a batch's activations; its other columns are the loss's affair."""
        return super().infer(x["x"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """The loss of a batch."""
        loss = self.criterion_(y_pred, y_true.to(self.device), X)
        if training and self._soft_targets is not None:
            loss = self._soft_targets.mix(loss, y_pred, X)
        if training and not torch.isfinite(loss):
            raise self.divergence(f"The loss became {loss.item()}")
        return loss

    def train_step(self, batch, **fit_params):
        """A step of the optimizer; one that is too large for float32 is an error of torch's own."""
        try:
            return super().train_step(batch, **fit_params)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise self.divergence("A step became no number of float32") from error

    def divergence(self, what: str) -> DivergenceError:
        """The error to raise where training has led to no finite numbers."""
        return DivergenceError(
            f"{what} in epoch {len(self.history)}: lr={self.lr} is too large for this network, or its input is broken. "
            "Fit again with a smaller lr, lr_decay or weight_decay."
        )

    def forget_training(self, *, keeps_moments: bool = False) -> None:
        """Forget what only training needed: what the loss learned for it and, unless it goes on, the moments."""
        if self.criterion_.forget():
            self.initialize_optimizer()  # it has moved what is no longer there
        elif not keeps_moments:
            self.optimizer_.state.clear()

    def put_back(self, epoch: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Go back to what the weights were after an epoch; 0 is the start."""
        self.module_.load_state_dict(weights)
        self.kept_epoch_ = epoch

    def score(self, rows: RowDataset) -> float:
        """The score on some rows, as scikit-learn gives it to the estimator."""
        self.module_.eval()
        with torch.inference_mode():
            seen = [(self._logits(x), y, x["sample_weight"]) for x, y in self.get_iterator(rows, training=False)]
        parts = [torch.cat(column).cpu().numpy() for column in zip(*seen, strict=True)]
        return float(self.criterion_.score(*parts))

    def is_sound(self, rows: RowDataset, loss: float = float("nan"), seen: "torch.Tensor | None" = None) -> bool:
        """Whether the outputs are finite numbers, in eval mode, for rows that have been learnt from.

        With statistics of its own batches a network may give numbers where it gives none with those that it keeps.
        Only some rows are looked at, unless their outputs are suspiciously large.

        Parameters
        ----------
        rows : RowDataset
            Rows of the training.
        loss : float, default=NaN
            The loss on validation rows with the present weights: a usual one says that all is well.
        seen : Tensor or None, default=None
            Activations of a few of the rows, which need not be fetched: so do usual outputs for these.
        """
        if loss < _SUSPICIOUS:
            return True
        if seen is not None and self._largest_output([seen]) < _SUSPICIOUS:
            return True
        some = np.linspace(0, len(rows) - 1, min(_SOUNDED, len(rows))).astype(int)
        largest = self._largest_output(self._chunks(rows, some))
        if largest < _SUSPICIOUS or len(some) == len(rows):
            return bool(np.isfinite(largest))
        return bool(np.isfinite(self._largest_output(self._chunks(rows, np.arange(len(rows))))))

    def _chunks(self, rows: RowDataset, positions: np.ndarray) -> Iterator[torch.Tensor]:
        """The activations of some rows, as many together as in a batch."""
        for start in range(0, len(positions), self.batch_size):
            yield rows.activations.batch(positions[start : start + self.batch_size].tolist(), rows.epoch)

    def _largest_output(self, chunks: Iterable[torch.Tensor]) -> float:
        """The largest absolute output for some activations; NaN where one is no number."""
        self.module_.eval()
        largest = torch.zeros(())
        with torch.inference_mode():
            for x in chunks:
                largest = torch.maximum(largest, self._logits({"x": x}).abs().amax().float().cpu())
        return float(largest)

    def run_fused(self, batch_size: int) -> None:
        """Predict from now on, until it is trained again, as a prefix does: folded, channels last, few at once."""
        self._fused_size, self._fused = batch_size, []

    def _network(self) -> RestNetwork:
        """What predicts."""
        if not self._fused_size:
            return self.module_
        if not self._fused:  # a list, since skorch would take a network for one that is to be trained
            self._fused = [self.module_.fused()]
        return self._fused[0]

    def __getstate__(self):
        """What was folded is folded again where it is needed."""
        return {**super().__getstate__(), "_fused": []}

    def __deepcopy__(self, memo):
        """A copy that is not made by pickling, where torch would trace graphs, and with them what other threads run."""
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy({**self.__dict__, "_fused": []}, memo))
        return other

    def _logits(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
        with as_the_user_has_it():
            outputs = self.infer(x)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Outputs (n, n_outputs) for rows of activations, in eval mode; each row's are its own, to the bit."""
        self.module_.eval()
        size = self._fused_size or self.batch_size
        chunks = (activations[start : start + size] for start in range(0, len(activations), size))
        with torch.inference_mode():
            return torch.cat([self._chunk_outputs(torch.from_numpy(chunk)) for chunk in chunks]).numpy()

    def _chunk_outputs(self, chunk: torch.Tensor) -> torch.Tensor:
        """Outputs for some rows.

        For a row alone, torch takes other convolutions than for several; in a linear layer, other sums for the rows
        that are left over from a block. They round otherwise: so no row is alone, and all blocks are full.
        """
        n_rows = len(chunk)
        # Channels last, a batch of another size may round otherwise too: there all have the same.
        wanted = self._fused_size or max(2, n_rows)
        chunk = chunk if n_rows == wanted else chunk[torch.arange(wanted) % n_rows]
        with as_the_user_has_it():
            features = self._network().features(chunk.to(self.device))
            blocks = torch.nn.functional.pad(features[:n_rows], (0, 0, 0, -n_rows % _ROWS_OF_A_BLOCK))
            return self.module_.head(blocks)[:n_rows].float().cpu()

    def count(self, backbone: Backbone) -> Counts:
        """What all stages, those that were trained among them, and the head have and compute."""
        return count_parts(backbone.feature_graph(backbone.stages[-1].name), self.module_.head)

    def content(self) -> RestNetwork:
        """The network; torch's files of the rest are not the same twice."""
        return self.module_

    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone without the stages that were trained, which it was lent."""
        held = self.module_.stages.state_dict()
        if not held:
            return backbone
        backbone.fingerprint(backbone.stages[-1].name)  # known before what it is of is not there
        return hollow(backbone, held)

    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone with the stages that were trained."""
        held = self.module_.stages.state_dict()
        return fill(backbone, held) if held else backbone

    def hollow(self) -> "TransferNet":
        """The same net with a network that takes no room, to be pickled beside what is in it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _fused=[])
        other.module_ = shadow(self.module_, hollow_tensor)
        for old, new in zip(self.module_.parameters(), other.module_.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        other.initialize_optimizer()
        return other

    def fill(self, state: Mapping[str, torch.Tensor]) -> None:
        """Give a hollow net what was in it."""
        for name, tensor in self.tensors().items():
            tensor.data = state[name].to(tensor.device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that the network holds, shared tensors once."""
        return {**dict(self.module_.named_parameters()), **dict(self.module_.named_buffers())}

    def linear_inputs(self, rows: RowDataset, positions: Sequence[int], linear: torch.nn.Linear) -> np.ndarray:
        """What reaches a linear layer of the head, in eval mode, for some rows: (n, n_features), float32."""
        self.module_.eval()
        # Made at once: small arrays kept between large ones that are freed would hold on to the memory of all.
        inputs = np.empty((len(positions), linear.in_features), np.float32)
        seen: list[torch.Tensor] = []
        handle = linear.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            with torch.inference_mode():
                for start in range(0, len(positions), self.batch_size):
                    chunk = positions[start : start + self.batch_size]
                    batch = rows.activations.batch(chunk, rows.epoch).to(self.device)
                    with as_the_user_has_it():
                        self.module_(batch)
                    inputs[start : start + len(chunk)] = seen.pop().float().cpu().numpy()
        finally:
            handle.remove()
        return inputs


def _is_request(interruption: KeyboardInterrupt) -> bool:
    """Whether it is skorch's `EarlyStopping` that asks in skorch's way, and not the user, who may interrupt it too."""
    *_, (frame, _) = traceback.walk_tb(interruption.__traceback__)
    return frame.f_code is EarlyStopping.on_epoch_end.__code__
