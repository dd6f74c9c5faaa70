"""Who is computing what at this moment: jobs that start together share the work, and do none of it twice.

Two folds of a grid search miss the same pictures at the same moment. So a job claims what it is about to compute, and
what another job has claimed it looks up later. A claim is a hint and no lock: whoever cannot claim (the disk is full)
computes, and a claim ends with its job, with the process that made it, or when it was not renewed for some minutes. A
job waits for others only while it holds no claim, so nobody waits in a circle.
"""

import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

LEASE_SECONDS = 300.0
_RENEW_SECONDS = 30.0

Keys = Sequence[bytes]  # of one picture: an entry for each layer


class Owner(NamedTuple):
    """A job, as it signs its claims: a random token, and the process that it runs in."""

    token: bytes
    pid: int
    started: int

    @classmethod
    def new(cls) -> "Owner":
        """A job of this process."""
        pid = os.getpid()
        return cls(uuid.uuid4().bytes, pid, process_start(pid) or 0)


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

    def ask(self, wanted: Sequence[Keys]) -> list[bool]:
        """Claim pictures: for each whether it is ours to compute.

        Parameters
        ----------
        wanted : sequence of sequences of bytes
            The keys of each picture's entries. A picture is granted as a whole or not at all.
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


def grant(wanted: Iterable[Keys], stored: set[bytes], claims: Mapping[bytes, Claim]) -> list[bool]:
    """Which pictures are free: not all of it is stored, and nobody at work has claimed any of it.

    What is stored is looked at here, in one step with the claims, because another job may have computed a picture and
    given up its claim since it was looked up.

    Parameters
    ----------
    wanted : iterable of sequences of bytes
        The keys of each picture's entries.
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
            taken.update(keys)  # two files that are the same picture
        answers.append(is_free)
    return answers


def _live(claims: Mapping[bytes, Claim]) -> Iterable[bytes]:
    """The keys whose claims hold: renewed in time (or in the future, by a clock that was set), by a live process."""
    now = time.time()
    processes = {(claim.owner.pid, claim.owner.started) for claim in claims.values()}
    alive = {(pid, started) for pid, started in processes if process_start(pid) == started}
    for key, claim in claims.items():
        if abs(now - claim.renewed) < LEASE_SECONDS and (claim.owner.pid, claim.owner.started) in alive:
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
