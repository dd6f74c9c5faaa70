"""What torch has one of for the process is set for those who want it, and for nobody who runs beside."""

import threading

import pytest
import torch

from sktl._process import as_the_user_has_it, exporting, in_plain_float32


@pytest.fixture(autouse=True)
def users_flags():
    """TF32, as a user may want it for a training."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    yield
    assert flags() == (True, "high")
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def flags():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_two_prefixes_and_a_training():
    """The flags are those of a prefix until the last one has run; a training's step waits, and has the user's."""
    seen, inside, leave = {}, [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def run(number):
        with in_plain_float32():
            inside[number].set()
            leave[number].wait(60)
            seen[number] = flags()

    def train():
        with as_the_user_has_it():
            seen["training"] = flags()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        assert inside[number].wait(60)
    training = threading.Thread(target=train, daemon=True)
    training.start()
    leave[0].set()
    threads[0].join(60)
    assert "training" not in seen
    leave[1].set()
    threads[1].join(60)
    training.join(60)
    assert seen == {0: (False, "highest"), 1: (False, "highest"), "training": (True, "high")}


def test_the_flags_come_back_after_an_error():
    """Whatever a network raises."""
    with pytest.raises(KeyError), in_plain_float32():
        raise KeyError


def test_nobody_runs_while_somebody_exports():
    """Exports come one by one, between the steps of others."""
    order, exported = [], threading.Event()

    def run():
        with as_the_user_has_it():
            order.append("ran")

    with exporting():
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(0.05)
        order.append("exported")
        exported.set()
    thread.join(60)
    assert order == ["exported", "ran"]
