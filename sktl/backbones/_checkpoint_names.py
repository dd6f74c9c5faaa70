"""The names in a checkpoint, and those of the network in it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sktl.exceptions import WeightsMismatchError

StateDict = dict[str, Tensor]

# What torch.compile, FSDP and activation checkpointing put into names wherever they wrap a layer.
_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_N_ANCHORS = 3  # names by which a prefix is looked for: those of the first layer


def named_as(
    state: StateDict,
    expected: Sequence[str],
    adjust: Callable[[StateDict], StateDict],
    *,
    origin: str = "the checkpoint",
) -> StateDict:
    """The part of a checkpoint that has a network's names, without what stands in front of them.

    DataParallel (``module.``), torch.compile (``_orig_mod.``), Lightning and other training programs (``model.``,
    ``backbone.``, ``encoder.``) put names of their own in front of the network's, and the weights of other parts beside
    them. Where no part has all the names, the one that has most of them is returned, so that an error can say what is
    wrong with it.

    Parameters
    ----------
    state : dict of str to Tensor
        What is in the file.
    expected : sequence of str
        The names of the network.
    adjust : callable
        Brings the names of old files up to date.
    origin : str, default="the checkpoint"
        The file, for the error's message.

    Returns
    -------
    dict of str to Tensor
        With names adjusted.

    Raises
    ------
    WeightsMismatchError
        If several parts have all the names, and different numbers: the file does not say which one is meant.
    """
    whole = adjust(state)
    if not _n_wrong(whole, expected):
        return whole
    clean = {_without_infixes(name): tensor for name, tensor in state.items() if name != "n_averaged"}
    # A moving average comes last: what was trained is what a checkpoint is of.
    prefixes = sorted(_prefixes(clean, expected), key=lambda prefix: (_is_average(prefix), len(prefix)))
    parts = {
        prefix: adjust({name[len(prefix) :]: clean[name] for name in clean if name.startswith(prefix)})
        for prefix in prefixes
    }
    _check_one_fits(parts, expected, origin)
    return min([*parts.values(), whole], key=lambda part: _n_wrong(part, expected))


def _is_average(prefix: str) -> bool:
    """Whether a moving average of another part stands behind it, as MoCo names one too."""
    return "ema" in prefix.lower() or prefix.endswith("encoder_k.")


def _check_one_fits(parts: dict[str, StateDict], expected: Sequence[str], origin: str) -> None:
    """Refuse a file in which several parts have all the names, unless they are the same or averages of one."""
    fitting = [prefix for prefix, part in parts.items() if not _n_wrong(part, expected)]
    fitting = [prefix for prefix in fitting if not _is_average(prefix)] or fitting
    if any(_differ(parts[fitting[0]], parts[prefix]) for prefix in fitting[1:]):
        raise WeightsMismatchError(
            f"weights={origin!r} hold several networks with the same names, behind {', '.join(map(repr, fitting))}. "
            "Save the one that is meant alone: torch.save({name: tensor for name, tensor in state_dict.items() if "
            f"name.startswith({fitting[0]!r})}}, path)."
        )


def _differ(one: StateDict, other: StateDict) -> bool:
    names = (name for name in one.keys() & other.keys() if not name.endswith("num_batches_tracked"))
    return any(one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name]) for name in names)


def _without_infixes(name: str) -> str:
    for infix in _INFIXES:
        name = name.replace(infix, "")
    return name


def _prefixes(state: StateDict, expected: Sequence[str]) -> Iterator[str]:
    """What may stand in front of the network's names."""
    found = [
        name[: len(name) - len(anchor)]
        for anchor in expected[:_N_ANCHORS]
        for name in state
        if name == anchor or name.endswith(f".{anchor}")
    ]
    yield from dict.fromkeys(found)


def _n_wrong(state: StateDict, expected: Sequence[str]) -> int:
    """How many names are missing or too many, but for counts that norms keep and for the head, which may be absent."""
    names = {name for name in expected if not name.endswith("num_batches_tracked")}
    given = {name for name in state if not name.endswith("num_batches_tracked")}
    last = expected[-1].rpartition(".")[0] if expected else ""
    return sum(not name.startswith(f"{last}.") for name in names - given) + len(given - names)
