"""Modes of torch's process-wide settings, and the threads that may change them.

======================  ========================================  ======================
mode                    setting                                   used by
======================  ========================================  ======================
`as_the_user_has_it`    unchanged                                 a training step, a
                                                                  prediction
`in_plain_float32`      no TF32 in products and convolutions on   a frozen prefix in
                        a GPU                                     float32 on a GPU
`exporting`             patches of `torch.export` while it runs:  one export at a time
                        flags that optimizers read, methods of
                        all modules
======================  ========================================  ======================

Threads in the same mode run concurrently. Threads that need another mode wait until the
others have left theirs, which takes one batch or one export. A thread that draws random
numbers (`sktl._randomness`) takes its turn there before it enters a mode.
"""

import contextlib

import torch

from sktl._locks import Modes

_MODES = Modes()


def as_the_user_has_it() -> contextlib.AbstractContextManager[None]:
    """Run a network with the user's settings, without those of other threads."""
    return _MODES("user")


def in_plain_float32() -> contextlib.AbstractContextManager[None]:
    """Run a network on a GPU without rounding float32 products to TF32."""
    return _MODES("float32", begin=_forbid_tf32, end=_put_back)


def exporting() -> contextlib.AbstractContextManager[None]:
    """Run `torch.export`, which does not support concurrent threads."""
    return _MODES("export", alone=True)


def _forbid_tf32() -> tuple[bool, str]:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    return before


def _put_back(before: tuple[bool, str]) -> None:
    torch.backends.cudnn.allow_tf32, precision = before
    torch.set_float32_matmul_precision(precision)
