"""Training loop: skorch's, with weighted rows and a learning rate per stage."""

import contextlib
import copy
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

_ROWS_OF_A_BLOCK = 16  # linear algebra libraries use blocks of 2 to 16 rows
_SOUNDED = 64  # number of rows whose outputs are checked after training
_SUSPICIOUS = 1e4  # from an output or a loss this large on, all rows are checked


class StopTraining(Exception):
    """Raised by a callback to stop training early."""


class TransferNet(NeuralNet, Net):
    """skorch net that trains the stages after the frozen ones, and the head.

    Rows have weights, each stage has its learning rate, and a generator passed to
    `learn` shuffles the rows. The net does not keep its training data, so its pickle is
    small.

    Parameters
    ----------
    module : RestNetwork
        The network to train.
    criterion : WeightedLoss
        The loss, called with outputs, targets and the columns of the batch.
    optimizer : str or type, default="adamw"
        A key of `OPTIMIZERS`, or an optimizer class of torch.
    lr_decay : float, default=1.0
        Factor of the learning rate from each stage to the one before it.
    weight_decay : float, default=0.0
        Weight decay. It is not applied to normalization layers and biases.
    **kwargs : object
        Further parameters of `skorch.NeuralNet`.
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
    kept_epoch_ = 0  # epoch of the history that the weights come from; 0 is the start
    _randomness: "Randomness | None" = None

    def initialize_module(self):
        """Use the module as it is, without a second reference in the pickle."""
        super().initialize_module()
        self.module = RestNetwork
        return self

    def initialize_optimizer(self):
        """Create the optimizer for the parameters that are not frozen."""
        _, kwargs = self.get_params_for_optimizer("optimizer", [])
        self.optimizer_ = self.optimizer(self.learning_groups(), **kwargs)
        return self

    def learning_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups that are not frozen."""
        own = {"lr": self.lr, "weight_decay": self.weight_decay}
        given = {name: value for name, value in self.get_params_for("optimizer").items() if name in own}
        groups = parameter_groups(self.module_, lr_decay=self.lr_decay, **{**own, **given})
        # Parameters of the loss (maps between feature spaces) are trained like the
        # head.
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
        """Train for some epochs, starting from the current weights.

        No argument is kept in the net after the call.

        Parameters
        ----------
        train : RowDataset
            Training rows.
        valid : RowDataset or None
            Rows on which to evaluate after each epoch.
        epochs : int
            Number of passes over the training rows.
        generator : torch.Generator
            Generator of the order of the rows.
        randomness : Randomness or None, default=None
            Random numbers for dropout and everything else that draws from the global
            generators during training.
        first, last : sequence of (str, skorch callback)
            Callbacks of this training that run before and after those of the net.
        soft_targets : SoftTargets or None, default=None
            How the soft targets of the training rows enter the loss.

        Raises
        ------
        DivergenceError
            If the loss becomes NaN or infinite.
        KeyboardInterrupt
            If training was interrupted with Ctrl-C. A note gives the number of complete
            epochs.
        """
        self._generator, self._valid, self._soft_targets = generator, valid, soft_targets
        self._randomness = randomness
        self._fused_size = 0  # folded layers cannot be trained
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
                del self.history[-1]  # an incomplete epoch
            self.module_.zero_grad(set_to_none=True)
            self.module_.eval()
            interruption, self._interruption = self._interruption, None
        if interruption is not None:
            interruption.add_note(f"Training was interrupted after {len(self.history)} complete epochs.")
            raise interruption

    @property
    def valid_rows(self) -> "RowDataset | None":
        """Validation rows of the running training."""
        return self._valid

    @property
    def row_generator(self) -> torch.Generator:
        """Generator of the order of the rows in the running training."""
        return self._generator

    def get_split_datasets(self, X, y=None, **fit_params):
        """Return the rows as given, since they were split before the frozen stages."""
        return X, self._valid

    def get_dataset(self, X, y=None):
        """Return a dataset of rows; arrays are taken as output of the frozen stages."""
        if isinstance(X, RowDataset):
            return X
        x = torch.as_tensor(X)
        return RowDataset(GivenActivations(x), torch.zeros(len(x)) if y is None else torch.as_tensor(y))

    def predict(self, X):
        """Return class indices or standardized targets, for skorch's scorers."""
        return self.criterion_.predict(self.predict_proba(X))

    def get_iterator(self, dataset, training=False):
        """Return batches: shuffled for training, in order for evaluation."""
        kwargs = self.get_params_for("iterator_train" if training else "iterator_valid")
        kwargs["num_workers"] = loader_workers(kwargs.get("num_workers", 0))
        batch_size = kwargs.pop("batch_size", self.batch_size)
        with shortened_errors():
            if training:
                return shuffled_loader(dataset, batch_size, self._generator, **kwargs)
            return ordered_loader(dataset, batch_size, **kwargs)

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Run skorch's loop, and tell early stopping from an interruption."""
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except StopTraining:
            pass
        except KeyboardInterrupt as interruption:
            # skorch would swallow it; `learn` raises it after cleaning up.
            self._interruption = interruption
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run skorch's epoch with the random numbers of this training."""

        def step(*args: Any, **kwargs: Any) -> Any:
            with self._own_numbers(), as_the_user_has_it():
                return step_fn(*args, **kwargs)

        batches = None if iterator is None else self._batches(iterator)
        super().run_single_epoch(batches, training, prefix, step, **fit_params)

    def _batches(self, iterator: Iterable) -> Iterator:
        """Yield the batches, fetching each with the random numbers of this training."""
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
        """Call the callbacks; at the end of an epoch, call all before stopping.

        skorch's `EarlyStopping` raises a KeyboardInterrupt to stop training. Any other
        KeyboardInterrupt comes from the user and takes precedence over the callbacks.
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
        """Return the outputs for the activations of a batch."""
        return super().infer(x["x"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the loss of a batch."""
        loss = self.criterion_(y_pred, y_true.to(self.device), X)
        if training and self._soft_targets is not None:
            loss = self._soft_targets.mix(loss, y_pred, X)
        if training and not torch.isfinite(loss):
            raise self.divergence(f"Training loss became {loss.item()}")
        return loss

    def train_step(self, batch, **fit_params):
        """Take an optimizer step; raise a DivergenceError if float32 overflows."""
        try:
            return super().train_step(batch, **fit_params)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise self.divergence("An optimizer step overflowed float32") from error

    def divergence(self, what: str) -> DivergenceError:
        """Return the error to raise after a divergence."""
        return DivergenceError(
            f"{what} in epoch {len(self.history)}. The learning rate (lr={self.lr}) is too large for this network, or "
            "its input is invalid. Fit again with a smaller lr, lr_decay or weight_decay."
        )

    def forget_training(self, *, keeps_moments: bool = False) -> None:
        """Drop what only training needs: parameters of the loss, and the moments.

        With ``keeps_moments``, training continues later and nothing is dropped.
        """
        if keeps_moments:
            return
        if self.criterion_.forget():
            # The old one refers to parameters of the loss that are gone.
            self.initialize_optimizer()
        else:
            self.optimizer_.state.clear()

    def put_back(self, epoch: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Restore the weights of an epoch; 0 is the start."""
        self.module_.load_state_dict(weights)
        self.kept_epoch_ = epoch

    def score(self, rows: RowDataset) -> float:
        """Return the estimator's score on some rows."""
        self.module_.eval()
        with torch.inference_mode():
            seen = [(self._logits(x), y, x["sample_weight"]) for x, y in self.get_iterator(rows, training=False)]
        parts = [torch.cat(column).cpu().numpy() for column in zip(*seen, strict=True)]
        return float(self.criterion_.score(*parts))

    def is_sound(self, rows: RowDataset, loss: float = float("nan"), seen: "torch.Tensor | None" = None) -> bool:
        """Check whether the outputs for training rows are finite in eval mode.

        A network may have finite outputs with the statistics of each batch and infinite
        ones with its running statistics. Only some rows are checked, unless their
        outputs are suspiciously large.

        Parameters
        ----------
        rows : RowDataset
            Training rows.
        loss : float, default=NaN
            Validation loss of the current weights. An ordinary loss makes the check
            unnecessary.
        seen : Tensor or None, default=None
            Activations of a few rows. If their outputs are ordinary, no other rows are
            fetched.
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
        """Yield the activations of some rows, in chunks of the batch size."""
        for start in range(0, len(positions), self.batch_size):
            yield rows.activations.batch(positions[start : start + self.batch_size].tolist(), rows.epoch)

    def _largest_output(self, chunks: Iterable[torch.Tensor]) -> float:
        """Return the largest absolute output for some activations, or NaN."""
        self.module_.eval()
        largest = torch.zeros(())
        with torch.inference_mode():
            for x in chunks:
                largest = torch.maximum(largest, self._logits({"x": x}).abs().amax().float().cpu())
        return float(largest)

    def run_fused(self, batch_size: int) -> None:
        """Predict with folded layers and small batches until the next training."""
        self._fused_size, self._fused = batch_size, []

    def _network(self) -> RestNetwork:
        """Return the network used for prediction."""
        if not self._fused_size:
            return self.module_
        # A list, because skorch would register a module as trainable.
        if not self._fused:
            self._fused = [self.module_.fused()]
        return self._fused[0]

    def __getstate__(self):
        """Leave out the folded network, which is rebuilt when needed."""
        return {**super().__getstate__(), "_fused": []}

    def __deepcopy__(self, memo):
        """Copy without pickling, during which torch would trace the graphs.

        Tracing would also affect the networks that other threads run.
        """
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy({**self.__dict__, "_fused": []}, memo))
        return other

    def _logits(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
        with as_the_user_has_it():
            outputs = self.infer(x)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Return outputs (n, n_outputs) in eval mode, bit-identical in any batch."""
        return self._by_chunk(activations, self._chunk_outputs)

    def features(self, activations: np.ndarray) -> np.ndarray:
        """Return inputs of the head in eval mode, bit-identical in any batch."""
        size = self._fused_size or self.batch_size
        return self._by_chunk(activations, lambda chunk: self._chunk_features(chunk, size))

    def _by_chunk(self, activations: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        self.module_.eval()
        size = self._fused_size or self.batch_size
        chunks = (activations[start : start + size] for start in range(0, len(activations), size))
        with torch.inference_mode():
            return torch.cat([function(torch.from_numpy(chunk)).float().cpu() for chunk in chunks]).numpy()

    def _chunk_outputs(self, chunk: torch.Tensor) -> torch.Tensor:
        """Return the outputs of some rows.

        torch uses other convolution algorithms for a single row than for several, and
        other summation orders for the last rows of an incomplete block. To round alike,
        no row is computed alone and all blocks are full.
        """
        # With channels last, rounding depends on the batch size as well: use a single
        # size.
        features = self._chunk_features(chunk, self._fused_size or max(2, len(chunk)))
        blocks = torch.nn.functional.pad(features, (0, 0, 0, -len(chunk) % _ROWS_OF_A_BLOCK))
        with as_the_user_has_it():
            return self.module_.head(blocks)[: len(chunk)]

    def _chunk_features(self, chunk: torch.Tensor, size: int) -> torch.Tensor:
        """Return the inputs of the head for some rows, computed as ``size`` rows."""
        n_rows = len(chunk)
        chunk = chunk if n_rows == size else chunk[torch.arange(size) % n_rows]
        with as_the_user_has_it():
            return self._network().features(chunk.to(self.device))[:n_rows]

    def count(self, backbone: Backbone) -> Counts:
        """Count parameters and operations of all stages and the head."""
        return count_parts(backbone.feature_graph(backbone.stages[-1].name), self.module_.head)

    def content(self) -> RestNetwork:
        """Return the network, because torch's files of it are not reproducible."""
        return self.module_

    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """Return the backbone without the trained stages, which this net holds."""
        held = self.module_.stages.state_dict()
        if not held:
            return backbone
        # Compute the fingerprint while the weights are there.
        backbone.fingerprint(backbone.stages[-1].name)
        return hollow(backbone, held)

    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """Return the backbone with the trained stages."""
        held = self.module_.stages.state_dict()
        return fill(backbone, held) if held else backbone

    def hollow(self) -> "TransferNet":
        """Return the same net with an empty network, to pickle it without tensors."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _fused=[])
        other.module_ = shadow(self.module_, hollow_tensor)
        for old, new in zip(self.module_.parameters(), other.module_.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        other.initialize_optimizer()
        return other

    def fill(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the tensors back into a hollow net."""
        for name, tensor in self.tensors().items():
            tensor.data = state[name].to(tensor.device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all parameters and buffers, shared ones once."""
        return {**dict(self.module_.named_parameters()), **dict(self.module_.named_buffers())}

    def linear_inputs(self, rows: RowDataset, positions: Sequence[int], linear: torch.nn.Linear) -> np.ndarray:
        """Return the inputs (n, n_features) of a linear layer of the head.

        The network runs in eval mode, and the result is float32.
        """
        self.module_.eval()
        # Allocated first, because small arrays between large freed ones fragment the
        # memory.
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
    """Check whether skorch's `EarlyStopping`, not the user, raised the interrupt."""
    *_, (frame, _) = traceback.walk_tb(interruption.__traceback__)
    return frame.f_code is EarlyStopping.on_epoch_end.__code__
