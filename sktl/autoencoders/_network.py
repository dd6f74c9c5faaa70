"""Network of an autoencoder: a linear code and decoder, plus a network for each.

The linear part starts as PCA and the last layers of the networks start at zero, so that
the whole starts as PCA and departs from it if that is better.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sktl._randomness import Randomness
from sktl._training._rest_network import RestNetwork
from sktl.autoencoders._noise import gaussian, hidden_entries, salt_and_pepper
from sktl.autoencoders._start import Start

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
}


_UNUSUAL = 0.01  # share of training codes beyond each end of the range of usual codes
_LARGEST = 1e15  # standardized value, so that float32 sums of products are finite


class Bottleneck(nn.Module):
    """Code and decoder of an autoencoder, the head of its network.

    The input of the autoencoder is flattened, centered and divided by one common scale.
    Codes have the unit of the input, as those of PCA.

    Parameters
    ----------
    shape : tuple of int
        Shape of the input of the autoencoder, without the axis of the rows.
    n_components : int
        Number of numbers in a code.
    encoder : nn.Module or None
        Network whose output is added to the linear code of the same row, from features
        to codes. None adds nothing.
    decoder : nn.Module or None
        Network whose output is added to that of the linear decoder, from codes to
        flattened inputs. None adds nothing.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    n_observed: Tensor
    damping: Tensor
    least_code: Tensor
    greatest_code: Tensor

    def __init__(
        self, shape: Sequence[int], n_components: int, encoder: "nn.Module | None", decoder: "nn.Module | None"
    ):
        super().__init__()
        self.shape = tuple(shape)
        n_values = torch.Size(shape).numel()
        self.linear_code = nn.Linear(n_values, n_components, bias=False)
        self.linear_decoder = nn.Linear(n_components, n_values, bias=False)
        self.encoder, self.decoder = encoder, decoder
        # In float64, because the mean may be much larger than the deviations from it.
        self.register_buffer("mean", torch.zeros(n_values, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("low", torch.zeros(n_values))
        self.register_buffer("high", torch.zeros(n_values))
        self.register_buffer("n_observed", torch.tensor(float(n_values)))
        self.register_buffer("damping", torch.tensor(torch.inf))
        self.register_buffer("least_code", torch.full((n_components,), -torch.inf))
        self.register_buffer("greatest_code", torch.full((n_components,), torch.inf))

    def begin(self, start: Start) -> None:
        """Set the mean and the scale, and start as PCA if the start has axes."""
        for name in ("mean", "scale", "low", "high", "n_observed", "damping"):
            getattr(self, name).copy_(torch.as_tensor(getattr(start, name)))
        if not len(start.axes):
            return
        with torch.no_grad():
            axes = torch.from_numpy(start.axes.copy())
            self.linear_code.weight.copy_(axes)
            self.linear_decoder.weight.copy_(axes.T)
            for network in (self.encoder, self.decoder):
                if network is not None:
                    last = _linear_layers(network)[-1]
                    last.weight.zero_()
                    last.bias.zero_()
            if self.decoder is not None:  # principal components have very different sizes
                first = _linear_layers(self.decoder)[0].weight
                first.div_(torch.from_numpy(start.spread.copy()).to(first.device))

    def limit(self, codes: np.ndarray) -> None:
        """Set the range of usual codes from codes (n, n_components) of some rows."""
        for limit, quantile in ((self.least_code, _UNUSUAL), (self.greatest_code, 1 - _UNUSUAL)):
            limit.copy_(torch.from_numpy(np.quantile(codes, quantile, axis=0)))

    def usual(self, code: Tensor) -> Tensor:
        """Clip codes to the range of usual codes."""
        return torch.clip(code, self.least_code, self.greatest_code)

    def standardized(self, values: Tensor) -> Tensor:
        """Center and scale inputs (n, ...), and flatten them; NaN stays."""
        return ((values.flatten(1) - self.mean) / self.scale).clip(-_LARGEST, _LARGEST).float()

    def restored(self, values: Tensor) -> Tensor:
        """Undo `standardized`, in float64."""
        return (values * self.scale + self.mean).unflatten(1, self.shape)

    def filled(self, values: Tensor, observed: Tensor) -> Tensor:
        """Fill entries that are not observed with the damped mean of their row."""
        own = torch.where(observed, values, 0.0)
        mean = own.sum(1, keepdim=True) / (observed.sum(1, keepdim=True) + self.damping)
        return torch.where(observed, values, mean)

    def encode(self, values: Tensor, features: Tensor) -> Tensor:
        """Return codes (n, n_components) for standardized inputs and their features."""
        code = self.linear_code(values)
        if self.encoder is not None:
            code = code + self.encoder(features)
        return code * self.scale.float()

    def forward(self, code: Tensor) -> Tensor:
        """Return standardized inputs, flattened, for codes."""
        code = code / self.scale.float()
        values = self.linear_decoder(code)
        return values if self.decoder is None else values + self.decoder(code)


class AutoencoderNetwork(RestNetwork):
    """Network that encodes and reconstructs what arrives at the cut.

    The head is a `Bottleneck`, and the input of the head is the code.

    Parameters
    ----------
    *args : object
        Positional arguments of `RestNetwork`.
    noise : str or None
        One of `NOISES`: noise on the input of `forward`, but not of `features`.
    noise_level : float
        Amount of noise.
    **kwargs : object
        Keyword arguments of `RestNetwork`.
    """

    head: Bottleneck

    def __init__(self, *args, noise: "str | None", noise_level: float, **kwargs):
        super().__init__(*args, **kwargs)
        self._noise = noise
        self._noise_level = noise_level

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared errors of rows (n, 1), and their codes, with noise.

        Errors are in units of the common scale, summed over the observed entries and
        divided by the mean number of observed entries. With masking, only the hidden
        entries count. In eval mode, the noise is the same in each call.
        """
        given = self.head.standardized(self.cut(x))
        observed = ~torch.isnan(given)
        target = torch.where(observed, given, 0.0)
        # Epochs are compared on the validation rows with the same noise.
        generator = None if self.training else torch.Generator(target.device).manual_seed(0)
        values, counted = self.with_noise(target, observed, self._noise, self._noise_level, generator)
        code = self._code(values)
        # Selected before squaring, so that missing entries have a gradient of zero.
        difference = torch.where(counted, self.head(code) - target, 0.0)
        n_counted = self.head.n_observed * (self._noise_level if self._noise == "masking" else 1.0)
        return difference.square().sum(1, keepdim=True) / n_counted, code / self.head.scale.float()

    def features(self, x: Tensor) -> Tensor:
        """Return the codes, (n, n_components), without noise."""
        given = self.head.standardized(self.cut(x))
        observed = ~torch.isnan(given)
        return self._code(self.head.filled(torch.where(observed, given, 0.0), observed))

    def with_noise(
        self, target: Tensor, observed: Tensor, noise: "str | None", level: float, generator: "torch.Generator | None"
    ) -> tuple[Tensor, Tensor]:
        """Return the input of the encoder, and which entries it has to reconstruct."""
        if noise == "masking":
            hidden = hidden_entries(target, level, generator)
            return self.head.filled(target, observed & ~hidden), observed & hidden
        values = self.head.filled(target, observed)
        if noise == "gaussian":
            values = gaussian(values, level, generator)
        if noise == "salt_and_pepper":
            values = salt_and_pepper(values, level, self.head.low, self.head.high, generator)
        return values, observed

    def reconstruction(self, code: Tensor) -> Tensor:
        """Return what codes (n, n_components) are decoded to, in float64.

        Pixels are clipped to 0-1.
        """
        values = self.head.restored(self.head(code))
        return values.clip(0, 1) if self._has_pixels else values

    def cut(self, x: Tensor) -> Tensor:
        """Return what is reconstructed: pixels of 0-1, channels first, or the input."""
        return x.permute(0, 3, 1, 2).float() / 255 if self._has_pixels else x

    @property
    def _has_pixels(self) -> bool:
        return not isinstance(self.normalization, nn.Identity)

    def _code(self, values: Tensor) -> Tensor:
        if not self._parts:
            return self.head.encode(values, values)
        x = self.head.restored(values).float()
        if self._has_pixels:
            x = (255 * x).permute(0, 2, 3, 1)
        return self.head.encode(values, self._run(x)[0])


def make_bottleneck(
    shape: Sequence[int],
    n_components: int,
    *,
    hidden: Sequence[int],
    maps: Sequence[Sequence[int]],
    n_features: int,
    activation: str,
    seed: int,
) -> Bottleneck:
    """Return a bottleneck with random weights.

    Parameters
    ----------
    shape : sequence of int
        Shape of the input of the autoencoder.
    n_components : int
        Number of numbers in a code.
    hidden : sequence of int
        Widths of the hidden layers of an encoder of rows; the decoder has them in
        reverse order.
    maps : sequence of (channels, height, width)
        Shapes of the outputs of the trained stages, which the decoder has in reverse
        order. Empty if no stage is trained.
    n_features : int
        Number of features after the last stage, flattened.
    activation : str
        A key of `ACTIVATIONS`.
    seed : int
        Seed of the weights.
    """
    with Randomness(seed).drawn_from():
        if maps:
            encoder: nn.Module | None = nn.Linear(n_features, n_components)
            decoder: nn.Module | None = _mirrored(n_components, [*maps[::-1], shape], ACTIVATIONS[activation])
        else:
            n_values = torch.Size(shape).numel()
            encoder = _dense([n_values, *hidden, n_components], ACTIVATIONS[activation])
            decoder = _dense([n_components, *hidden[::-1], n_values], ACTIVATIONS[activation])
        return Bottleneck(shape, n_components, encoder, decoder)


def _dense(widths: Sequence[int], activation: Callable[[], nn.Module]) -> "nn.Module | None":
    """Return linear layers with activations between them; None for one linear layer."""
    if len(widths) == 2:
        return None  # the linear part is one already
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


def _mirrored(n_components: int, maps: Sequence[Sequence[int]], activation: Callable[[], nn.Module]) -> nn.Module:
    """Return a decoder through these maps: nearest upsampling and 3 x 3 convolutions.

    References
    ----------
    Odena et al., "Deconvolution and Checkerboard Artifacts", Distill, 2016.
    """
    layers: list[nn.Module] = [nn.Linear(n_components, torch.Size(maps[0]).numel()), nn.Unflatten(1, tuple(maps[0]))]
    for (n_in, *_), (n_out, height, width) in pairwise(maps):
        layers += [activation(), nn.Upsample((height, width)), nn.Conv2d(n_in, n_out, 3, padding=1)]
    return nn.Sequential(*layers, nn.Flatten())


def _linear_layers(network: nn.Module) -> list:
    """Return the linear layers and convolutions of a network, in order."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
