"""How tensors are stored: back to the bit, in the shortest form, without looking at everything many times."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from sktl.compression import _codec
from sktl.compression._codec import decode, encode, pack, unpack

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
INTEGERS = [getattr(torch, name) for name in ("uint8", "int8", "int16", "uint16", "int32", "int64", "uint64")]
DTYPES = [*FLOATS, *INTEGERS, torch.complex64, torch.complex128, torch.bool]

LAYOUTS = {
    "0-d": lambda t: t[0],
    "empty": lambda t: t[:0],
    "flat": lambda t: t,
    "one": lambda t: t[:1].reshape(1, 1, 1),
    "one of two": lambda t: t[:2][::2],
    "empty in 3-d": lambda t: t[:0].reshape(2, 0, 3),
    "4-d": lambda t: t.reshape(4, 6, 5, 3),
    "transposed": lambda t: t.reshape(18, 20).T,
    "permuted": lambda t: t.reshape(4, 6, 5, 3).permute(2, 0, 3, 1),
    "channels last": lambda t: t.reshape(6, 60, 1, 1).contiguous(memory_format=torch.channels_last),
    "every other": lambda t: t[::2],
    "columns": lambda t: t.reshape(18, 20)[:, 3:7],
    "rows of the transpose": lambda t: t.reshape(18, 20)[:, 3:7].T,
    "repeated": lambda t: t[:4].reshape(4, 1).expand(4, 3),
}


def bits(tensor: torch.Tensor) -> np.ndarray:
    """All bits of a tensor's numbers, in the order of its indices."""
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy()


def check(tensor: torch.Tensor, encoded=None) -> None:
    """Encoded, pickled and decoded, it is the same: bits, shape, dtype, and order in memory."""
    encoded = encode(tensor) if encoded is None else encoded
    found = decode(pickle.loads(pickle.dumps(encoded)))
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    np.testing.assert_array_equal(bits(found), bits(tensor))
    assert found.stride() == tensor.clone().stride() or tensor.numel() == 0
    assert found.is_contiguous() == tensor.clone().is_contiguous()


@pytest.mark.parametrize("content", ["any bits", "zeros", "few", "sparse", "sparse and few", "ones"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_back_to_the_bit(dtype, content):
    """Every dtype in every layout, with numbers of any bits (so also those that are none), comes back as it was."""
    rng = np.random.default_rng(0)
    few, zeros = rng.integers(0, 5, 360), rng.uniform(size=360) < 0.8
    words = rng.integers(0, 256, (360, dtype.itemsize), dtype=np.uint8)
    if dtype == torch.bool:
        words %= 2
    words = words[few] if "few" in content else words
    words[zeros if "sparse" in content else slice(360 if content != "zeros" else None)] *= content not in (
        "few",
        "zeros",
    )
    words = {"zeros": np.zeros_like, "ones": np.ones_like}.get(content, np.copy)(words)
    flat = torch.from_numpy(words.reshape(-1)).view(dtype)
    for make in LAYOUTS.values():
        check(make(flat))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_that_are_hard_to_store(dtype):
    """Half precision and masks lose nothing: not the sign of a zero, no NaN's bits, nothing too large or too small."""
    hard = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 65504.0, 65520.0, 1e30, 6e-8, 5e-8, 1e-40, 1 / 3, 1.0]
    tensor = torch.tensor(hard, dtype=dtype)
    word = torch.int32 if dtype == torch.float32 else torch.int64
    tensor = torch.cat([tensor, (tensor[4:5].view(word) + 1).view(dtype), (tensor[4:5].view(word) ^ 7).view(dtype)])
    for n_zeros in (0, 5000):
        for n_halves in (0, 5000):
            halves = (torch.arange(n_halves) / 8).to(dtype)
            check(torch.cat([tensor, torch.zeros(n_zeros, dtype=dtype), halves]))
            for value in tensor:  # each by itself may take the short form
                check(torch.cat([value[None], torch.zeros(n_zeros, dtype=dtype), halves]))


def test_a_zero_with_a_sign_is_kept():
    """Among zeros that are left out, one below zero comes back below zero."""
    tensor = torch.zeros(10_000)
    tensor[[3, 77]] = -0.0
    encoded = encode(tensor)
    assert encoded.nbytes < 200
    assert decode(encoded).signbit().nonzero().ravel().tolist() == [3, 77]


def normal(n: int, dtype=torch.float32) -> torch.Tensor:
    """Numbers as a layer's weights are."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).to(dtype)


def pruned(tensor: torch.Tensor, share: float) -> torch.Tensor:
    """The same with a share of the numbers, the smallest, set to zero."""
    return tensor.masked_fill(tensor.abs() <= tensor.abs().quantile(share), 0.0)


def shared(tensor: torch.Tensor, n_codes: int) -> torch.Tensor:
    """The nearest of a few numbers for each; zeros stay."""
    codes = torch.linspace(-2.9, 3.1, n_codes)
    return torch.where(tensor == 0, 0.0, codes[torch.bucketize(tensor, (codes[1:] + codes[:-1]) / 2)])


def entropy(tensor: torch.Tensor) -> float:
    """Bits of a number, were the code perfect."""
    share = np.unique(tensor.numpy(), return_counts=True)[1] / tensor.numel()
    return float(-(share * np.log2(share)).sum())


N = 200_000
WEIGHTS = normal(N)


@pytest.mark.parametrize(
    ("tensor", "bits_each"),
    [
        (WEIGHTS, 32),
        (WEIGHTS.double(), 64),
        (WEIGHTS.half().float(), 16),
        (WEIGHTS.half().double(), 16),
        (WEIGHTS.half(), 16),
        (torch.zeros(N), 0.02),
        (torch.full((N,), torch.pi), 0.02),
        (pruned(WEIGHTS, 0.5), 1 + 16),
        (pruned(WEIGHTS, 0.9), 0.48 + 3.2),
        (pruned(WEIGHTS, 0.99), 0.13 + 0.32),
        (pruned(WEIGHTS, 0.9).half().float(), 0.48 + 1.6),
        ((WEIGHTS > 0), 1),
        ((WEIGHTS > 2), 0.21),
    ],
    ids=lambda value: None if isinstance(value, torch.Tensor) else str(value),
)
def test_the_form_that_fits(tensor, bits_each):
    """What was made sparse, half or both takes what that is worth, and what was not takes what it takes anyway."""
    assert encode(tensor).nbytes * 8 / N <= bits_each * 1.003
    check(tensor)


@pytest.mark.parametrize("n_codes", [2, 3, 4, 8, 15, 16, 17, 32, 100, 256])
def test_few_values_take_their_entropy(n_codes):
    """Indices of a codebook take at most what packed bits would, and next to no more than Shannon's bound."""
    tensor = shared(WEIGHTS, n_codes)
    n_bits = encode(tensor).nbytes * 8 / N
    assert n_bits <= 1.035 * entropy(tensor) + 0.06  # the codebook itself is up to 0.04
    assert n_bits <= np.ceil(np.log2(n_codes)) + 0.06
    check(tensor)


@pytest.mark.parametrize(
    ("share", "n_codes", "bound"), [(0.9, 15, 1.05), (0.9, 32, 1.06), (0.5, 3, 1.05), (0.99, 15, 1.6)]
)
def test_zeros_and_few_values_at_once(share, n_codes, bound):
    """A pruned layer with shared weights takes about the entropy of both."""
    tensor = shared(pruned(WEIGHTS, share), n_codes)
    assert encode(tensor).nbytes * 8 / N <= bound * entropy(tensor) + 0.01
    check(tensor)


def test_random_indices_take_their_bits():
    """Where no code is more frequent than another, an index takes its bits and no more."""
    for n_bits in (1, 2, 3, 4, 8):
        tensor = normal(2**n_bits)[torch.randint(2**n_bits, (N,), generator=torch.Generator().manual_seed(0))]
        assert encode(tensor).nbytes * 8 / N <= n_bits + 0.06


def test_it_is_the_shortest():
    """With a mask or without one, as codes, halves or words: none of the other five would be shorter."""
    for tensor in (
        WEIGHTS[:500],
        pruned(WEIGHTS[:500], 0.3),
        shared(WEIGHTS[:70], 9),
        pruned(WEIGHTS, 0.1).half().float(),
    ):
        words = tensor.numpy().view(np.uint32)
        kept = words != 0
        sizes = []
        for values, mask in ((words, 0), (words[kept], _codec._deflate(np.packbits(kept)).nbytes)):
            codes = np.unique(values)
            floats = values.view(np.float32)
            sizes.append(mask + values.nbytes)
            if (floats.astype(np.float16) == floats).all():
                sizes.append(mask + values.nbytes // 2)
            if len(codes) <= 256:
                sizes.append(mask + codes.nbytes + _codec._pack_indices(values, codes).nbytes)
        assert encode(tensor).nbytes == min(sizes)


def test_what_comes_late_is_seen(monkeypatch):
    """A last number that no half says, or that is one too many for a codebook, is found, wherever the blocks end."""
    monkeypatch.setattr(_codec, "_NUMBERS_TOGETHER", 64)
    monkeypatch.setattr(_codec, "_SAMPLE", 16)
    for n in (1, 15, 16, 17, 79, 80, 81, 640, 1000):
        for n_codes in (1, 2, 4, 7, 256):
            tensor = torch.arange(n).remainder(n_codes).float()
            check(tensor)
            for last in (0.1, 1e9, float("nan")):
                tensor[-1] = last
                check(tensor)


def test_a_dense_tensor_is_recognised_by_a_sample(monkeypatch):
    """Of a tensor of different numbers, a few thousand are looked at for half precision and for a codebook."""
    seen = []
    union1d = np.union1d
    monkeypatch.setattr(np, "union1d", lambda found, block: seen.append(len(block)) or union1d(found, block))
    dense = normal(3_000_000)
    encode(dense)
    assert sum(seen) == _codec._SAMPLE


def test_memory():
    """Nothing is copied of what is stored as it is, and nothing twice of what is not."""
    dense = normal(4_000_000)
    nbytes = dense.nelement() * 4
    for tensor, bound in ((dense, 0.3), (dense.half().float(), 0.9), (pruned(dense[:10_000], 0.5).repeat(400), 1.3)):
        tracemalloc.start()
        encoded = encode(tensor)
        assert tracemalloc.get_traced_memory()[1] < bound * nbytes
        tracemalloc.reset_peak()
        kept = tracemalloc.get_traced_memory()[0]
        decode(encoded)
        assert tracemalloc.get_traced_memory()[1] - kept < 2.1 * nbytes
        tracemalloc.stop()


def test_decoded_memory_is_its_own():
    """What was decoded can be written to, and changes neither the form nor the tensor that was encoded."""
    for tensor in (WEIGHTS.clone(), pruned(WEIGHTS, 0.5), shared(WEIGHTS, 16), torch.zeros(5)):
        before, encoded = tensor.clone(), encode(tensor)
        decode(encoded).add_(1.0)
        assert torch.equal(decode(encoded), before)
        assert torch.equal(tensor, before)


def test_parameters_and_lazy_conjugates():
    """A parameter gives a plain tensor; a conjugate that torch has not computed yet is stored as its numbers."""
    found = decode(encode(torch.nn.Parameter(torch.ones(3))))
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    check(torch.view_as_complex(normal(20).reshape(-1, 2)).conj())


def test_state_of_a_module():
    """All tensors of a module come back under their names, also the number of batches that a norm has seen."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = module.state_dict()
    found = unpack(pickle.loads(pickle.dumps(pack(state))))
    assert list(found) == list(state)
    for name, tensor in state.items():
        check(tensor, encode(found[name]))
    module.load_state_dict(found)


def test_shared_tensors_once():
    """A weight under two names is written once and read as one; a part of it, or its transpose, is another tensor."""
    weight = normal(10_000).reshape(100, 100)
    state = {"in": weight, "out": weight.detach(), "turned": weight.T, "row": weight[0], "copy": weight.clone()}
    packed = pickle.dumps(pack({"in": weight, "out": weight.detach()}))
    assert len(packed) < 1.1 * weight.nbytes
    found = unpack(pickle.loads(pickle.dumps(pack(state))))
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert found["in"] is found["out"]
    assert len({tensor.data_ptr() for tensor in found.values()}) == 4
