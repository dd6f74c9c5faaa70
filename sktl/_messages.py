"""Messages of a length that can be read, however long the path, label or parameter is that they quote."""

import contextlib
from collections.abc import Iterator
from typing import Any

LIMIT = 600  # characters of a message: about six lines


def shortened(text: str, limit: int = LIMIT) -> str:
    """Cut a long text in its middle: its beginning says what came, its end what to do.

    Parameters
    ----------
    text : str
        A text of at most ``limit`` characters is returned as it is.
    limit : int, default=600
        Number of characters that are returned at most. Below 100 little is left beside the mark that stands for the
        middle.
    """
    if len(text) <= limit:
        return text
    mark = " ... [{:,} characters left out] ... "
    n_kept = max(limit - len(mark.format(len(text))), 2)
    n_last = n_kept // 2
    return text[: n_kept - n_last] + mark.format(len(text) - n_kept) + text[-n_last:]


def shortened_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shorten the texts among the arguments of an exception, which share the limit."""
    return tuple(shortened(arg, LIMIT // len(args)) if isinstance(arg, str) else arg for arg in args)


@contextlib.contextmanager
def shortened_errors(
    kinds: type[Exception] | tuple[type[Exception], ...] = (ValueError, TypeError),
) -> Iterator[None]:
    """Shorten the message of an error that is raised inside; it stays the same error, of its type, with its traceback.

    It is for single calls into scikit-learn, whose messages quote values whole. What users wrote themselves, such as a
    teacher, is not called inside: its messages are not ours, and the middle of a long one may be what they need.

    Parameters
    ----------
    kinds : type or tuple of types, default=(ValueError, TypeError)
        Which errors.
    """
    try:
        yield
    except kinds as error:
        error.args = shortened_args(error.args)
        raise
