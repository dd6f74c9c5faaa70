"""Jobs that start together do nothing twice, wait for nobody who is gone, and never wait for each other."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sktl._frozen import _pass
from sktl._frozen._cache import Claims, DirectoryCache, MemoryCache, _base, _claims, open_cache
from sktl._frozen._cache._claims import LEASE_SECONDS, Claim, Owner, grant, process_start
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runners import get_runner
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import ImageFormat, Images
from sktl.backbones import load_backbone
from sktl.exceptions import CacheWarning

MIB = 1024**2
A, B, C = ([name, name + b"2"] for name in (b"a", b"b", b"c"))  # pictures with two layers each


ELSEWHERE = Owner(16 * b"x" + b"another-host", 2**22 + 1, 5)


@pytest.fixture(params=["memory", "directory"])
def cache(request, tmp_path):
    return MemoryCache(8 * MIB) if request.param == "memory" else DirectoryCache(tmp_path / "store", timeout=0.05)


def put(cache, *pictures):
    cache.put_many([(key, np.zeros(3)) for keys in pictures for key in keys])


def n_claims(cache) -> int:
    if isinstance(cache, MemoryCache):
        return len(cache._claims)
    return cache._attempt(lambda connection: connection.execute("SELECT count(*) FROM claims").fetchone()[0], None)


class TestGrant:
    @pytest.mark.parametrize(
        ("owner", "age", "is_free"),
        [
            (Owner.new(), 0, False),
            (Owner.new(), LEASE_SECONDS - 10, False),
            (Owner.new(), LEASE_SECONDS + 1, True),
            (Owner.new(), -LEASE_SECONDS - 10, True),
            (Owner.new()._replace(pid=2**22 + 1), 0, True),
            (Owner.new()._replace(started=-1), 0, True),
            (ELSEWHERE, 0, False),
            (ELSEWHERE, LEASE_SECONDS + 1, True),
        ],
        ids=[
            "fresh",
            "in time",
            "too old",
            "from the future",
            "no such process",
            "its number was used again",
            "of another machine",
            "of another machine, too old",
        ],
    )
    def test_a_claim_ends_with_its_process_or_its_lease(self, owner, age, is_free):
        """A claim holds while its process lives and renews it, and is nobody's otherwise.

        Whether a process of another machine lives cannot be looked up: its number may be anybody's here.
        """
        assert grant([A], set(), {b"a": Claim(owner, time.time() - age)}) == [is_free]

    def test_a_picture_is_granted_as_a_whole(self):
        """One claimed layer keeps the picture; one stored layer does not, but all of them do."""
        claims = {b"a2": Claim(Owner.new(), time.time())}
        assert grant([A, B, C], {b"b", b"c", b"c2"}, claims) == [False, True, False]

    def test_copies(self):
        """A copy of a picture that is granted is not computed beside it."""
        assert grant([A, A, B], set(), {}) == [True, False, True]
        assert grant([], set(), {}) == []

    def test_this_process_lives_and_its_dead_child_does_not(self):
        """A process that was killed is gone, also before anybody has asked for its exit status."""
        assert process_start(os.getpid()) == process_start(os.getpid()) is not None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert process_start(child.pid) is not None
        child.kill()
        if not Path("/proc/self/stat").exists():
            child.wait()
        for _ in range(100):
            if process_start(child.pid) is None:
                break
            time.sleep(0.1)
        assert process_start(child.pid) is None
        child.communicate()


class TestBothKinds:
    def test_what_one_job_claims_another_does_not_get(self, cache):
        """Claims hold until they are given up, and only the job's own are."""
        first, second = Claims(cache), Claims(cache)
        assert first.ask([A]) == [True]
        assert second.ask([A, B]) == [False, True]
        second.release()
        assert second.ask([A]) == [False]
        assert first.ask([A, B]) == [False, True]
        first.release()
        assert n_claims(cache) == 0
        assert second.ask([A, B]) == [True, True]

    def test_what_was_stored_since_the_look_up_is_not_granted(self, cache):
        """A job that was quicker has put its picture and given it up: nobody computes it again."""
        put(cache, A)
        assert Claims(cache).ask([A, B]) == [False, True]

    def test_renewed_claims_stay(self, cache, monkeypatch):
        """A job at work for longer than a lease keeps what it has; one that does not renew loses it."""
        at_work, asleep = Claims(cache), Claims(cache)
        assert at_work.ask([A]) == asleep.ask([B]) == [True]
        now = time.time()
        monkeypatch.setattr(_claims.time, "time", lambda: now + LEASE_SECONDS - 1)
        at_work.renew()
        monkeypatch.setattr(_claims.time, "time", lambda: now + LEASE_SECONDS + 1)
        assert Claims(cache).ask([A, B]) == [False, True]

    def test_a_forked_child_is_not_bound_by_what_its_parent_claims_in_memory(self, in_fork):
        """The child's memory is its own, and nobody in it would give the claims up."""
        cache = MemoryCache(MIB)
        Claims(cache).ask([A])
        assert in_fork(lambda: Claims(cache).ask([A]) == [True])

    def test_without_a_cache_all_is_granted(self):
        """Nothing is shared, nothing is claimed."""
        claims = Claims(None)
        assert claims.ask([A, A, B]) == [True, True, True]
        claims.renew()
        claims.release()


class TestWaiting:
    @pytest.fixture(autouse=True)
    def little_patience(self, monkeypatch):
        """None at all, that is; and whatever was said in this process before is forgotten."""
        monkeypatch.setattr(_claims, "PATIENCE_SECONDS", 0.0)
        monkeypatch.setattr(_base, "_WARNED", set())

    def test_what_does_not_come_is_taken_over(self, cache):
        """It is said who was waited for, and of how much, and then it is anybody's to compute."""
        silent, waiting, third = Claims(cache), Claims(cache), Claims(cache)
        silent.ask([A, B])
        waiting.wait([A, B, C])
        assert waiting.ask([A, B]) == [False, False]
        with pytest.warns(
            CacheWarning, match=r"another thread of this process claimed 2 of the images needed here but computed none"
        ):
            waiting.wait([A, B, C])
        assert waiting.ask([A]) == [True]
        assert third.ask([A, B]) == [False, True]

    def test_who_waits_for_other_things_each_time_takes_nothing(self, cache):
        """Images come, one after the other: somebody is at work."""
        busy, waiting = Claims(cache), Claims(cache)
        busy.ask([A, B, C])
        for wanted in ([A, B, C], [B, C], [C]):
            waiting.wait(wanted)
        assert Claims(cache).ask([A, B, C]) == [False] * 3

    def test_a_job_of_another_machine_is_named(self, tmp_path):
        """A directory that machines share: the warning says where to look."""
        cache = DirectoryCache(tmp_path / "store")
        cache.claim([A, B], ELSEWHERE)
        waiting = Claims(cache)
        waiting.wait([A, B])
        with pytest.warns(
            CacheWarning, match=rf"^cache='{tmp_path}/store': process {2**22 + 1} on another-host claimed"
        ):
            waiting.wait([A, B])
        assert waiting.ask([A, B]) == [True, True]

    def test_what_cannot_be_taken_is_computed_all_the_same(self, tmp_path):
        """A job that was stopped in the middle of writing holds its claims and the file's lock."""
        cache = DirectoryCache(tmp_path / "store", timeout=0.01)
        Claims(cache).ask([A])
        blocker = sqlite3.connect(next(cache.path.glob("*.sqlite")), isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        waiting = Claims(cache)
        waiting.wait([A])
        with pytest.warns(CacheWarning, match=r"claimed 1 of the images|was locked by other processes"):
            waiting.wait([A])
        assert waiting.ask([A]) == [True]
        waiting.release()
        blocker.close()


class TestDirectory:
    def test_trouble_with_the_disk_grants_everything(self, tmp_path):
        """Where no claim can be kept, everybody computes; it is said once and not tried again."""
        (tmp_path / "file").touch()
        claims = Claims(DirectoryCache(tmp_path / "file" / "store"))
        with pytest.warns(CacheWarning, match="Results are correct but not cached"):
            assert claims.ask([A, B]) == [True, True]
        assert claims.ask([A]) == [True]
        claims.release()

    def test_a_damaged_claim_is_none(self, tmp_path):
        """Whatever stands in the table, asking raises nothing."""
        cache = DirectoryCache(tmp_path / "store")
        Claims(cache).ask([A, B, C])
        for key, change in ((b"a", "pid = NULL, started = NULL"), (b"b", "renewed = 'x'"), (b"c", "token = NULL")):
            query = f"UPDATE claims SET {change} WHERE substr(key, 1, 1) = ?"
            cache._attempt(lambda connection, query=query, key=key: connection.execute(query, (key,)), None)
        assert Claims(cache).ask([A, B, C]) == [True, True, False]

    def test_claims_of_dead_jobs_do_not_pile_up(self, tmp_path, monkeypatch):
        """What was left behind long ago goes when another job ends."""
        cache = DirectoryCache(tmp_path / "store")
        Claims(cache).ask([A])
        now = time.time()
        monkeypatch.setattr(_claims.time, "time", lambda: now + LEASE_SECONDS + 1)
        later = Claims(cache)
        later.ask([B])
        later.release()
        assert n_claims(cache) == 0


# A job in another process, which says how many pictures went through its network.
CHILD = """
import sys, time
import numpy as np
from sktl._frozen import _pass
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import ImageFormat, Images
from sktl.backbones import load_backbone

real, count, pause = _pass.get_runner, [0], [0.0]

def get_runner(*args):
    runner = real(*args)
    class Counting:
        concurrent = False
        def __call__(self, pictures):
            count[0] += len(pictures)
            outputs = runner(pictures)
            time.sleep(pause[0])
            return outputs
    return Counting()

_pass.get_runner = get_runner

def run(pixels, cache, listeners=()):
    runtime = Runtime(engine="torch", batch_size=2, n_jobs=1, cache=cache)
    prefix = FrozenPrefix(PrefixSpec(load_backbone("sktl_mini"), ["layer2"]), runtime)
    return prefix.run(Images(pixels, ImageFormat("batch", channels="last"), 3), listeners)[0]

pixels = np.load(sys.argv[1])
run(pixels[:2], None)
count[0] = 0
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


def images(pixels) -> Images:
    return Images(pixels, ImageFormat("batch", channels="last"), 3)


def start(code, pixels, tmp_path, n_processes=1):
    """Processes that are loaded and wait for a line."""
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-c", CHILD + code, str(tmp_path / "pixels.npy"), str(tmp_path / "cache")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(n_processes)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * n_processes
    return children


def prefix_of(cache, **settings) -> FrozenPrefix:
    runtime = Runtime(**{"engine": "torch", "batch_size": 2, "n_jobs": 1, "cache": cache, **settings})
    return FrozenPrefix(PrefixSpec(load_backbone("sktl_mini"), ["layer2"]), runtime)


@pytest.fixture
def counted(monkeypatch):
    """Notes the pictures that each thread computes, slowly, so that others come in between."""
    counts: dict[int, int] = {}

    def counting(*args):
        runner = get_runner(*args)

        class Counting:
            concurrent = False

            def __call__(self, pictures):
                counts[threading.get_ident()] = counts.get(threading.get_ident(), 0) + len(pictures)
                time.sleep(0.01)
                return runner(pictures)

        return Counting()

    monkeypatch.setattr(_pass, "get_runner", counting)
    return counts


class TestJobs:
    def test_two_processes_compute_each_picture_once(self, pixels, tmp_path):
        """Two folds that share most pictures and start at once: no picture twice, both at work, both complete."""
        code = """
pause[0] = 0.05
first, last = map(int, sys.stdin.readline().split())
features = run(pixels[first:last], sys.argv[2])
print(count[0], flush=True)
np.save(f"{sys.argv[2]}-{first}.npy", features)
"""
        children = start(code, pixels, tmp_path, n_processes=2)
        for child, rows in zip(children, ("0 36", "4 40"), strict=True):
            child.stdin.write(f"\n{rows}\n")
            child.stdin.flush()
        counts = [int(child.communicate(timeout=120)[0]) for child in children]
        assert sum(counts) == 40
        assert min(counts) > 4  # more than what it alone was asked for
        expected = prefix_of(None).run(images(pixels))[0]
        for first in (0, 4):
            got = np.load(tmp_path / f"cache-{first}.npy")
            np.testing.assert_allclose(got, expected[first : first + 36], rtol=1e-5, atol=1e-6)
        assert n_claims(DirectoryCache(tmp_path / "cache")) == 0

    @pytest.mark.parametrize("kind", ["memory", "directory"])
    def test_two_threads_compute_each_picture_once(self, kind, pixels, tmp_path, counted):
        """The same within a process, as in joblib's threading backend, with either cache."""
        open_cache("auto").clear()
        cache = "auto" if kind == "memory" else tmp_path / "cache"
        expected = prefix_of(None).run(images(pixels))[0]
        counted.clear()
        with ThreadPoolExecutor(2) as pool:
            got = list(pool.map(lambda order: prefix_of(cache).run(images(pixels).take(order))[0], [range(40)] * 2))
        for features in got:
            np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
        assert sum(counted.values()) == 40
        assert len(counted) == 2

    def test_a_stopped_or_killed_job_is_taken_over(self, pixels, tmp_path, counted, monkeypatch):
        """What a process had claimed when it was stopped, or killed, is computed by the one that waited for it.

        The stopped one is waited for, named, and goes on unharmed when it is continued; the killed one is noticed.
        """
        code = """
def run_and_stop(directory):
    lines = iter(["at work"])
    def stop(n_done, n_pictures):
        if line := next(lines, None):
            print(line, flush=True)
            sys.stdin.readline()
    return run(pixels, directory, [stop])

np.save(f"{sys.argv[2]}.npy", run_and_stop(f"{sys.argv[2]}-1"))
run_and_stop(f"{sys.argv[2]}-2")
"""
        expected = prefix_of(None).run(images(pixels))[0]
        (child,) = start(code, pixels, tmp_path)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "at work\n"
        os.kill(child.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(_claims, "PATIENCE_SECONDS", 0.2)
            with pytest.warns(CacheWarning, match=rf"process {child.pid} on .* claimed \d+ of .* stopped or"):
                got = prefix_of(tmp_path / "cache-1").run(images(pixels))[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "at work\n"  # it has come to its second run
        np.testing.assert_allclose(np.load(tmp_path / "cache.npy"), expected, rtol=1e-5, atol=1e-6)
        counted.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(prefix_of(tmp_path / "cache-2").run, images(pixels))
            while sum(counted.values()) < 34 and not waiting.done():  # all but what the child has done and holds
                time.sleep(0.01)
            assert not waiting.done()
            child.kill()
            child.wait()
            got = waiting.result(timeout=120)[0]
        child.communicate()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_an_interrupted_job_gives_its_claims_up(self, error, cache, pixels):
        """Ctrl-C and errors leave nothing behind that others would wait for."""

        def interrupt(n_done, n_pictures):
            assert n_claims(cache) > 0
            raise error

        prefix = prefix_of(cache)
        with pytest.raises(error):
            prefix.run(images(pixels), [interrupt])
        assert n_claims(cache) == 0

    def test_what_the_cache_does_not_keep_is_computed_by_everybody(self, pixels, counted):
        """Entries that are too large for it, or thrown out at once, keep nobody waiting."""
        expected = prefix_of(None).run(images(pixels))[0]
        for max_bytes in (100, 2000):
            prefix = prefix_of(MemoryCache(max_bytes))
            with ThreadPoolExecutor(2) as pool:
                for got in pool.map(lambda _: prefix.run(images(pixels))[0], range(2)):
                    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

    def test_what_is_known_is_not_claimed(self, cache, pixels, monkeypatch):
        """Once everything is in the cache, no claim is made."""
        prefix = prefix_of(cache)
        first = prefix.run(images(pixels))[0]
        monkeypatch.setattr(type(cache), "claim", None)
        monkeypatch.setattr(type(cache), "release", None)
        np.testing.assert_array_equal(prefix.run(images(pixels))[0], first)
