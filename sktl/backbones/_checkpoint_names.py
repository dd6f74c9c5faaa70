"""Extraction of a network's state dict from a checkpoint."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sktl.exceptions import WeightsMismatchError

StateDict = dict[str, Tensor]

# Inserted into names by torch.compile, FSDP and activation checkpointing.
_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_N_ANCHORS = 3  # first names of the network, by which prefixes are found


def named_as(
    state: StateDict,
    expected: Sequence[str],
    adjust: Callable[[StateDict], StateDict],
    *,
    origin: str = "the checkpoint",
) -> StateDict:
    """Return the part of a checkpoint with a network's names, without their prefix.

    DataParallel (``module.``), torch.compile (``_orig_mod.``), Lightning and other
    training programs (``model.``, ``backbone.``, ``encoder.``) add prefixes to the
    names and save the weights of other modules as well. If no part has all the names,
    the best match is returned, so that the error can name the difference.

    Parameters
    ----------
    state : dict of str to Tensor
        Content of the file.
    expected : sequence of str
        Names of the network.
    adjust : callable
        Function that converts the names of old files.
    origin : str, default="the checkpoint"
        File name for the error message.

    Returns
    -------
    dict of str to Tensor
        The weights by their converted names.

    Raises
    ------
    WeightsMismatchError
        If several parts have all the names but different values, so that it is
        ambiguous which one is meant.
    """
    whole = adjust(state)
    if not _n_wrong(whole, expected):
        return whole
    clean = {_without_infixes(name): tensor for name, tensor in state.items() if name != "n_averaged"}
    # Moving averages come last: the trained weights take precedence.
    prefixes = sorted(_prefixes(clean, expected), key=lambda prefix: (_is_average(prefix), len(prefix)))
    parts = {
        prefix: adjust({name[len(prefix) :]: clean[name] for name in clean if name.startswith(prefix)})
        for prefix in prefixes
    }
    _check_one_fits(parts, expected, origin)
    return min([*parts.values(), whole], key=lambda part: _n_wrong(part, expected))


def _is_average(prefix: str) -> bool:
    """Check whether a prefix is that of a moving average (of MoCo, too)."""
    return "ema" in prefix.lower() or prefix.endswith("encoder_k.")


def _check_one_fits(parts: dict[str, StateDict], expected: Sequence[str], origin: str) -> None:
    """Raise an error if several parts fit that are neither equal nor averages."""
    fitting = [prefix for prefix, part in parts.items() if not _n_wrong(part, expected)]
    fitting = [prefix for prefix in fitting if not _is_average(prefix)] or fitting
    if any(_differ(parts[fitting[0]], parts[prefix]) for prefix in fitting[1:]):
        raise WeightsMismatchError(
            f"weights={origin!r} contains several networks with the same names and the prefixes "
            f"{', '.join(map(repr, fitting))}. Save only one of them: torch.save({{name: tensor for name, tensor in "
            f"state_dict.items() if name.startswith({fitting[0]!r})}}, path)."
        )


def _differ(one: StateDict, other: StateDict) -> bool:
    names = (name for name in one.keys() & other.keys() if not name.endswith("num_batches_tracked"))
    return any(one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name]) for name in names)


def _without_infixes(name: str) -> str:
    for infix in _INFIXES:
        name = name.replace(infix, "")
    return name


def _prefixes(state: StateDict, expected: Sequence[str]) -> Iterator[str]:
    """Yield the possible prefixes of the network's names."""
    found = [
        name[: len(name) - len(anchor)]
        for anchor in expected[:_N_ANCHORS]
        for name in state
        if name == anchor or name.endswith(f".{anchor}")
    ]
    yield from dict.fromkeys(found)


def _n_wrong(state: StateDict, expected: Sequence[str]) -> int:
    """Count missing and unexpected names.

    The head may be missing, and the batch counts of batch normalization do not count.
    """
    names = {name for name in expected if not name.endswith("num_batches_tracked")}
    given = {name for name in state if not name.endswith("num_batches_tracked")}
    last = expected[-1].rpartition(".")[0] if expected else ""
    return sum(not name.startswith(f"{last}.") for name in names - given) + len(given - names)
