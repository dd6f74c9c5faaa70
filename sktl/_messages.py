"""Limits for the length of messages that quote long paths, labels or parameters."""

import contextlib
from collections.abc import Iterator
from typing import Any

LIMIT = 600  # characters of a message: about six lines


def shortened(text: str, limit: int = LIMIT) -> str:
    """Cut the middle out of a long text.

    Parameters
    ----------
    text : str
        The text. If it has at most ``limit`` characters, it is returned unchanged.
    limit : int, default=600
        Maximum number of characters, including those of the mark in place of the
        middle.
    """
    if len(text) <= limit:
        return text
    mark = " ... [{:,} characters left out] ... "
    n_kept = max(limit - len(mark.format(len(text))), 2)
    n_last = n_kept // 2
    return text[: n_kept - n_last] + mark.format(len(text) - n_kept) + text[-n_last:]


def shortened_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shorten the strings in the arguments of an exception, which share the limit."""
    return tuple(shortened(arg, LIMIT // len(args)) if isinstance(arg, str) else arg for arg in args)


@contextlib.contextmanager
def shortened_errors(
    kinds: type[Exception] | tuple[type[Exception], ...] = (ValueError, TypeError),
) -> Iterator[None]:
    """Shorten the messages of errors that are raised inside.

    The errors keep their type and traceback. Use it for single calls into scikit-learn,
    whose messages quote whole values. Do not use it for code of users, such as a
    teacher, whose messages may need their middle.

    Parameters
    ----------
    kinds : type or tuple of types, default=(ValueError, TypeError)
        Types of errors.
    """
    try:
        yield
    except kinds as error:
        error.args = shortened_args(error.args)
        raise
