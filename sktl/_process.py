"""What torch has one of for the whole process, and which thread may set it when.

======================  ==================================================  ========================================
mode                    what is set                                         who
======================  ==================================================  ========================================
`as_the_user_has_it`    nothing                                             a step of a training, a prediction
`in_plain_float32`      no TF32 in products and convolutions on a GPU       a frozen prefix there, in float32
`exporting`             what `torch.export` replaces while it runs: flags   one export at a time
                        that optimizers read, methods of all modules
======================  ==================================================  ========================================

Threads in one mode run at once; those that want another one wait until they have left it, which is one batch or one
export later. Whoever draws random numbers of its own (`sktl._randomness`) takes its turn there before it enters a mode.
"""

import contextlib

import torch

from sktl._locks import Modes

_MODES = Modes()


def as_the_user_has_it() -> contextlib.AbstractContextManager[None]:
    """Run a network with the flags as they are, and with none that another thread has set for itself."""
    return _MODES("user")


def in_plain_float32() -> contextlib.AbstractContextManager[None]:
    """Run a network on a GPU with products of float32 that are not rounded to TF32."""
    return _MODES("float32", begin=_forbid_tf32, end=_put_back)


def exporting() -> contextlib.AbstractContextManager[None]:
    """Run `torch.export`, which is not made for several threads, nor for networks that run beside it."""
    return _MODES("export", alone=True)


def _forbid_tf32() -> tuple[bool, str]:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    return before


def _put_back(before: tuple[bool, str]) -> None:
    torch.backends.cudnn.allow_tf32, precision = before
    torch.set_float32_matmul_precision(precision)
