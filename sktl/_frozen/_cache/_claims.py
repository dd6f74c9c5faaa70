"""Claims: which job is computing which image, so that concurrent jobs share the work.

Two folds of a grid search need the same images at the same time. A job claims what it
is about to compute, and looks up later what others have claimed. A claim is a hint, not
a lock. A job that cannot claim (the disk is full) computes, and a claim ends with its
job, with the process of the job, or when it is not renewed for some minutes. A job
waits for others only while it holds no claim, so jobs cannot deadlock. If others
produce nothing for some seconds, for example because they were stopped with Ctrl-Z, the
job takes over their claims.
"""

import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

LEASE_SECONDS = 300.0
_RENEW_SECONDS = 30.0
_POLL_SECONDS = 0.02  # time between two checks for results of other jobs
# For a batch of another job; computing it twice only costs time.
PATIENCE_SECONDS = 10.0

Keys = Sequence[bytes]  # keys of one image, one per layer


class Owner(NamedTuple):
    """Job that owns claims.

    The token consists of 16 random bytes and the name of the machine. The pid and the
    start time identify the process.
    """

    token: bytes
    pid: int
    started: int

    @property
    def host(self) -> str:
        """Name of the machine."""
        return self.token[16:].decode(errors="replace")

    @classmethod
    def new(cls) -> "Owner":
        """Return a new job of this process."""
        pid = os.getpid()
        return cls(uuid.uuid4().bytes + platform.node().encode(), pid, process_start(pid) or 0)

    def __str__(self) -> str:
        if (self.host, self.pid) == (platform.node(), os.getpid()):
            return "another thread of this process"
        return f"process {self.pid} on {self.host or 'this machine'}"


class Claim(NamedTuple):
    """Owner of a key, and the time of the last renewal (seconds, system clock)."""

    owner: Owner
    renewed: float


class Registry(Protocol):
    """Store of claims: a cache."""

    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool] | None:
        """Claim free images, see `grant`; None if claims cannot be kept."""

    def renew(self, owner: Owner) -> None:
        """Renew the claims of the job."""

    def release(self, owner: Owner) -> None:
        """Release all claims of the job."""

    def claimed(self, keys: Sequence[bytes]) -> "Mapping[bytes, Claim]":
        """Return the claims of these keys."""

    def warn(self, trouble: str, kind: "str | None" = None) -> None:
        """Warn about the registry, once for each kind of trouble."""


class Claims:
    """Claims of one job.

    Parameters
    ----------
    registry : Cache or None
        The store of the claims. Without one, or after trouble with it, everything is
        granted.
    """

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry
        self._owner = Owner.new()
        self._renewed = 0.0
        self._may_hold = False
        self._awaited: Sequence[Keys] = ()
        self._waits_since = 0.0

    def ask(self, wanted: Sequence[Keys]) -> list[bool]:
        """Claim images. Return for each image whether this job computes it.

        Parameters
        ----------
        wanted : sequence of sequences of bytes
            Keys of each image's entries. An image is granted as a whole or not at all.
        """
        # Ctrl-C may come before the next line returns.
        held, self._may_hold = self._may_hold, True
        answers = self._registry.claim(wanted, self._owner) if self._registry else None
        if answers is None:
            self._registry = None
            return [True] * len(wanted)
        self._may_hold = held or any(answers)
        return answers

    def renew(self) -> None:
        """Renew the claims, at most every half minute."""
        if self._registry and time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._registry.renew(self._owner)

    def release(self) -> None:
        """Release all claims. Computed images are in the cache, others are free."""
        if self._registry and self._may_hold:
            self._registry.release(self._owner)
            self._may_hold = False

    def wait(self, wanted: Sequence[Keys]) -> None:
        """Wait a moment for other jobs; repeated calls take over what is overdue.

        Parameters
        ----------
        wanted : sequence of sequences of bytes
            Keys of all awaited images. If they do not change for `PATIENCE_SECONDS`,
            other jobs are considered stopped.
        """
        if self._awaited != wanted:
            self._awaited, self._waits_since = wanted, time.monotonic()
        elif self._registry and time.monotonic() - self._waits_since > PATIENCE_SECONDS:
            self._take_over(self._registry, wanted)
        time.sleep(_POLL_SECONDS)

    def _take_over(self, registry: Registry, wanted: Sequence[Keys]) -> None:
        """Release the claims of stopped jobs, which frees the images for any job."""
        keys = [key for keys in wanted for key in keys]
        claims = registry.claimed(keys)
        for owner in sorted({claims[key].owner for key in _live(claims)}):
            n_images = sum(any(key in claims and claims[key].owner == owner for key in keys) for keys in wanted)
            registry.warn(
                f"{owner} claimed {n_images} of the images needed here but computed none of them for "
                f"{PATIENCE_SECONDS:g} s, so it is stopped or slow. They are computed here as well. Results are "
                "correct.",
                kind=str(owner),
            )
            registry.release(owner)
        if any(True for _ in _live(registry.claimed(keys))):
            self._registry = None  # the file is locked as well: compute without claims
        self._awaited = ()


def grant(wanted: Iterable[Keys], stored: set[bytes], claims: Mapping[bytes, Claim]) -> list[bool]:
    """Decide which images are free: not fully stored, and not claimed by a live job.

    Stored keys are checked together with the claims, because another job may have
    stored an image and released its claim since the image was looked up.

    Parameters
    ----------
    wanted : iterable of sequences of bytes
        Keys of each image's entries.
    stored : set of bytes
        Keys that are in the cache.
    claims : mapping of bytes to Claim
        All claims of the keys.
    """
    taken = set(_live(claims))
    answers: list[bool] = []
    for keys in wanted:
        is_free = taken.isdisjoint(keys) and not stored.issuperset(keys)
        if is_free:
            taken.update(keys)  # another file may be the same image
        answers.append(is_free)
    return answers


def _live(claims: Mapping[bytes, Claim]) -> Iterable[bytes]:
    """Yield the keys whose claims are valid: renewed in time, by a live process.

    For processes on another machine, only the time is known. Times in the future, from
    a changed clock, count as well.
    """
    now, here = time.time(), platform.node()
    owners = {claim.owner for claim in claims.values()}
    alive = {owner for owner in owners if owner.host != here or process_start(owner.pid) == owner.started}
    for key, claim in claims.items():
        if abs(now - claim.renewed) < LEASE_SECONDS and claim.owner in alive:
            yield key


def process_start(pid: int) -> int | None:
    """Return the start time of a process, or None if the process does not exist.

    The start time tells a process from a later one with the same pid. Only Linux
    provides it. Elsewhere, the result is 0 for every live process, and on Windows,
    which has no harmless check, for every pid: claims then end when they expire.
    """
    if os.path.exists("/proc/self/stat"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, *fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        # Zombies count as dead.
        return None if state in (b"Z", b"X") else int(fields[18])
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # a process of another user
            return 0
    return 0
