"""Own numbers from the global generators: those of a seed, whoever draws beside, and nothing is left of it."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from sktl._randomness import Randomness, helping, seeded_everywhere
from sktl.backbones import load_backbone


def of_seed(seed: int, n: int) -> torch.Tensor:
    """What torch draws after ``manual_seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.rand(n)


def test_it_goes_on_where_it_was_left():
    """Drawn in several parts it gives what torch gives after its seed, and the global generator does not move."""
    expected, own = of_seed(3, 6), Randomness(3)
    before = torch.get_rng_state()
    parts = []
    for _ in range(3):
        with own.drawn_from():
            parts.append(torch.rand(2))
    assert torch.equal(torch.cat(parts), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_within_another_disturbs_neither():
    """A training in a callback of a training: each draws its own numbers."""
    outer, inner = Randomness(1), Randomness(2)
    with outer.drawn_from():
        first = torch.rand(2)
        with inner.drawn_from():
            assert torch.equal(torch.rand(3), of_seed(2, 3))
        assert torch.equal(torch.cat([first, torch.rand(2)]), of_seed(1, 4))


def test_threads_take_turns():
    """Steps of several threads that follow each other in any order draw what each draws alone."""
    found: dict[int, torch.Tensor] = {}

    def work(seed):
        own, parts = Randomness(seed), []
        for _ in range(20):
            with own.drawn_from():
                parts += [torch.rand(1), torch.rand(1)]
        found[seed] = torch.cat(parts)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(found[seed], of_seed(seed, 40)) for seed in range(4))


def test_a_network_that_is_loaded_beside_takes_no_number():
    """Random first weights, which torch draws from the global generator, change no number of a training beside."""
    stop, own, drawn = threading.Event(), Randomness(5), []

    def load_all_the_time():
        while not stop.is_set():
            load_backbone("sktl_mini", weights=None, random_state=np.random.RandomState(0))

    thread = threading.Thread(target=load_all_the_time, daemon=True)
    thread.start()
    for _ in range(40):
        with own.drawn_from():
            drawn.append(nn.functional.dropout(torch.ones(50)))
    stop.set()
    thread.join(60)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        assert all(torch.equal(each, nn.functional.dropout(torch.ones(50))) for each in drawn)


def test_who_works_for_the_one_whose_turn_it_is_does_not_wait():
    """Threads that augment pictures for a batch draw while the training waits for them, one at a time."""

    def augment(number):
        with seeded_everywhere(number):
            return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    expected = [augment(number) for number in range(6)]
    with Randomness(0).drawn_from(), ThreadPoolExecutor(3) as pool:
        first = torch.rand(2)
        assert list(pool.map(helping(augment), range(6), timeout=60)) == expected
        assert torch.equal(torch.cat([first, torch.rand(2)]), of_seed(0, 4))


def test_all_generators_are_put_back():
    """Those of torch, NumPy and Python."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    with seeded_everywhere(4):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == repr(before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_helpers_of_one_within_another_do_not_wait():
    """A training in a callback of a training: the threads that augment for the inner one draw while it waits."""

    def augment(number):
        with seeded_everywhere(number):
            return torch.rand(1).item()

    outer, inner = Randomness(1), Randomness(2)
    with outer.drawn_from():
        pool = ThreadPoolExecutor(2)
        with inner.drawn_from():
            futures = [pool.submit(helping(augment), number) for number in range(3)]
            found = [future.result(30) for future in futures]
            assert torch.equal(torch.rand(2), of_seed(2, 2))
        assert torch.equal(torch.rand(2), of_seed(1, 2))
        pool.shutdown()
    assert found == [augment(number) for number in range(3)]
