"""Work done ahead of the one who waits for it: in order, bounded, and with errors where their results would be."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sktl._frozen._map_ahead import chunks, map_ahead
from sktl._randomness import Randomness


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, [])],
)
def test_chunks(n, size, expected):
    """Together they are all items in their order; none is longer than said."""
    parts = chunks(range(n), size)
    assert [len(part) for part in parts] == expected
    assert [item for part in parts for item in part] == list(range(n))


def test_results_come_in_order():
    """Though the first item takes the longest."""
    second_is_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_is_done.wait(30)
        if item == 1:
            second_is_done.set()
        return item**2

    with ThreadPoolExecutor(2) as pool:
        assert list(map_ahead(pool, work, range(6), n_ahead=2)) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_no_more_is_begun_than_said(n_ahead):
    """While one result is waited for or worked on, that many others are taken from what is left."""
    taken = []

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        for n_seen, _ in enumerate(map_ahead(pool, str, items(), n_ahead), start=1):
            assert len(taken) == min(n_seen + n_ahead, 10)
    assert taken == list(range(10))


def test_an_error_comes_in_the_place_of_its_result():
    """Those before it have been given out; after it there are none."""

    def work(item):
        if item == 2:
            raise OverflowError(item)
        return item

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, work, range(5), n_ahead=4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OverflowError):
            next(results)


def test_it_may_draw_while_this_one_has_the_generators():
    """A thread that works for one that has taken its turn with torch's generator need not wait for it to end."""
    with Randomness(0).drawn_from(), ThreadPoolExecutor(1) as pool:
        drawn = list(map_ahead(pool, nested_draw, [1, 2], n_ahead=1))
    assert drawn == [nested_draw(1), nested_draw(2)]


def nested_draw(seed):
    with Randomness(seed).drawn_from():
        return torch.rand(()).item()
