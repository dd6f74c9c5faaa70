"""Who is computing what at this moment: jobs that start together share the work, and do none of it twice.

Two folds of a grid search miss the same images at the same moment. So a job claims what it is about to compute, and
what another job has claimed it looks up later. A claim is a hint and no lock: whoever cannot claim (the disk is full)
computes, and a claim ends with its job, with the process that made it, or when it was not renewed for some minutes. A
job waits for others only while it holds no claim, so nobody waits in a circle; and where they give nothing for some
seconds, as a process that was stopped by Ctrl-Z, it takes over what they claimed.
"""

import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

LEASE_SECONDS = 300.0
_RENEW_SECONDS = 30.0
_POLL_SECONDS = 0.02  # between two looks at what other jobs are computing
PATIENCE_SECONDS = 10.0  # for a batch of somebody else; a slow one is computed twice, which costs time and nothing else

Keys = Sequence[bytes]  # of one image: an entry for each layer


class Owner(NamedTuple):
    """A job, as it signs its claims: a token (16 random bytes, then the machine's name) and the process it runs in."""

    token: bytes
    pid: int
    started: int

    @property
    def host(self) -> str:
        """The name of the machine."""
        return self.token[16:].decode(errors="replace")

    @classmethod
    def new(cls) -> "Owner":
        """A job of this process."""
        pid = os.getpid()
        return cls(uuid.uuid4().bytes + platform.node().encode(), pid, process_start(pid) or 0)

    def __str__(self) -> str:
        if (self.host, self.pid) == (platform.node(), os.getpid()):
            return "another thread of this process"
        return f"process {self.pid} on {self.host or 'this machine'}"


class Claim(NamedTuple):
    """Whose a key is, and since when (in seconds of the system's clock, which processes share)."""

    owner: Owner
    renewed: float


class Registry(Protocol):
    """Where claims are kept: a cache."""

    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool] | None:
        """Claim what is free, see `grant`; None where claims cannot be kept."""

    def renew(self, owner: Owner) -> None:
        """Say that the job is at work."""

    def release(self, owner: Owner) -> None:
        """Give up all claims of the job."""

    def claimed(self, keys: Sequence[bytes]) -> "Mapping[bytes, Claim]":
        """The claims of these keys."""

    def warn(self, trouble: str, kind: "str | None" = None) -> None:
        """Say what is wrong, each kind once."""


class Claims:
    """The claims of one job.

    Parameters
    ----------
    registry : Cache or None
        Where they are kept. Without one, and from the first trouble on, all is granted.
    """

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry
        self._owner = Owner.new()
        self._renewed = 0.0
        self._may_hold = False
        self._awaited: Sequence[Keys] = ()
        self._waits_since = 0.0

    def ask(self, wanted: Sequence[Keys]) -> list[bool]:
        """Claim images: for each whether it is ours to compute.

        Parameters
        ----------
        wanted : sequence of sequences of bytes
            The keys of each image's entries. An image is granted as a whole or not at all.
        """
        held, self._may_hold = self._may_hold, True  # a Ctrl-C may come between the claim and the answer
        answers = self._registry.claim(wanted, self._owner) if self._registry else None
        if answers is None:
            self._registry = None
            return [True] * len(wanted)
        self._may_hold = held or any(answers)
        return answers

    def renew(self) -> None:
        """Keep what is claimed; called at any rate, it does so every half minute."""
        if self._registry and time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._registry.renew(self._owner)

    def release(self) -> None:
        """Give up all claims: what was computed is in the cache, and the rest is anybody's."""
        if self._registry and self._may_hold:
            self._registry.release(self._owner)
            self._may_hold = False

    def wait(self, wanted: Sequence[Keys]) -> None:
        """Wait a moment for what others compute; called again and again, it takes over what does not come.

        Parameters
        ----------
        wanted : sequence of sequences of bytes
            All that is waited for. Where it is the same for `PATIENCE_SECONDS`, nobody is at work.
        """
        if self._awaited != wanted:
            self._awaited, self._waits_since = wanted, time.monotonic()
        elif self._registry and time.monotonic() - self._waits_since > PATIENCE_SECONDS:
            self._take_over(self._registry, wanted)
        time.sleep(_POLL_SECONDS)

    def _take_over(self, registry: Registry, wanted: Sequence[Keys]) -> None:
        """End the claims of whoever gives nothing, for everybody: what it claimed is ours, or another one's, to do."""
        keys = [key for keys in wanted for key in keys]
        claims = registry.claimed(keys)
        for owner in sorted({claims[key].owner for key in _live(claims)}):
            n_images = sum(any(key in claims and claims[key].owner == owner for key in keys) for keys in wanted)
            registry.warn(
                f"{owner} began to compute {n_images} of the images that are needed here, and gave none of them for "
                f"{PATIENCE_SECONDS:g} s: it is stopped or slow. They are computed here as well. Results are right.",
                kind=str(owner),
            )
            registry.release(owner)
        if any(True for _ in _live(registry.claimed(keys))):
            self._registry = None  # the file is locked too: compute, and claim nothing more
        self._awaited = ()


def grant(wanted: Iterable[Keys], stored: set[bytes], claims: Mapping[bytes, Claim]) -> list[bool]:
    """Which images are free: not all of it is stored, and nobody at work has claimed any of it.

    What is stored is looked at here, in one step with the claims, because another job may have computed an image and
    given up its claim since it was looked up.

    Parameters
    ----------
    wanted : iterable of sequences of bytes
        The keys of each image's entries.
    stored : set of bytes
        Which of the keys are in the cache.
    claims : mapping of bytes to Claim
        All claims of the keys.
    """
    taken = set(_live(claims))
    answers: list[bool] = []
    for keys in wanted:
        is_free = taken.isdisjoint(keys) and not stored.issuperset(keys)
        if is_free:
            taken.update(keys)  # two files that are the same image
        answers.append(is_free)
    return answers


def _live(claims: Mapping[bytes, Claim]) -> Iterable[bytes]:
    """The keys whose claims hold: renewed in time (or in the future, by a clock that was set), by a live process.

    Of another machine only the time is known.
    """
    now, here = time.time(), platform.node()
    owners = {claim.owner for claim in claims.values()}
    alive = {owner for owner in owners if owner.host != here or process_start(owner.pid) == owner.started}
    for key, claim in claims.items():
        if abs(now - claim.renewed) < LEASE_SECONDS and claim.owner in alive:
            yield key


def process_start(pid: int) -> int | None:
    """When a process started, so that a number that is used again is told apart; None where there is none of it.

    Only Linux says when. Elsewhere it is 0 for every process that lives, and on Windows, where asking is not harmless,
    for every one: claims end by their lease there.
    """
    if os.path.exists("/proc/self/stat"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, *fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if state in (b"Z", b"X") else int(fields[18])  # a zombie is dead, though its parent did not look
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # somebody else's
            return 0
    return 0
