"""Long messages are cut in their middle, and errors stay what they were."""

import copy
import pickle

import pytest

from sktl._messages import LIMIT, shortened, shortened_args, shortened_errors
from sktl.exceptions import InputError, MissingDependencyError, SktlError, SktlWarning, WeightsDownloadError

LONG = f"begins {'x' * 400_000} ends"


@pytest.mark.parametrize("text", ["", "short", "x" * LIMIT])
def test_a_short_text_stays(text):
    """Up to the limit nothing is changed."""
    assert shortened(text) is text


@pytest.mark.parametrize("limit", [60, 100, 101, 600])
@pytest.mark.parametrize("length", [601, 999, 1000, 10_000, 399_480])
def test_a_long_text_loses_its_middle(length, limit):
    """The limit holds, both ends are the text's, and the mark says how many characters are not there."""
    text = "".join(chr(0x4E00 + position % 20_000) for position in range(length))
    result = shortened(text, limit)
    first, rest = result.split(" ... [")
    number, last = rest.split(" characters left out] ... ")
    assert limit - 2 <= len(result) <= limit
    assert min(len(first), len(last)) >= 1
    assert (text[: len(first)], text[-len(last) :]) == (first, last)
    assert len(first) + len(last) + int(number.replace(",", "")) == length


def test_the_mark():
    """It is read as a remark and not as part of the text."""
    assert " ... [399,451 characters left out] ... " in shortened(LONG)


def test_a_limit_smaller_than_the_mark():
    """A character of either end is left."""
    assert shortened("begin" * 100 + "end", 10) == "b ... [501 characters left out] ... d"


def test_arguments_share_the_limit():
    """What is no text stays, and all texts together are no longer than one."""
    number, first, second = shortened_args((2, LONG, LONG))
    assert number == 2
    assert len(first) + len(second) <= LIMIT
    assert shortened_args(()) == ()


@pytest.mark.parametrize("cls", [SktlError, InputError, WeightsDownloadError, MissingDependencyError, SktlWarning])
@pytest.mark.parametrize("again", [lambda e: e, copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_exceptions_cut_their_message(cls, again):
    """Also after a copy and after the way to another process, which changes nothing more."""
    error = again(cls(LONG))
    assert error.args == (shortened(LONG),)
    assert str(error) == shortened(LONG)


def test_exceptions_with_several_arguments():
    """An OSError has its number and file, an ImportError its module, and both have a message of bounded length."""
    error = pickle.loads(pickle.dumps(WeightsDownloadError(2, LONG, "file")))
    assert (error.errno, error.filename) == (2, "file")
    assert len(str(error)) < LIMIT
    assert pickle.loads(pickle.dumps(MissingDependencyError(LONG, name="timm"))).name == "timm"


def test_an_exception_may_have_a_cause():
    """Which stays as it was."""
    cause = ValueError(LONG)
    with pytest.raises(InputError) as info:
        raise InputError(f"{LONG} because of {cause}") from cause
    assert info.value.__cause__ is cause
    assert str(cause) == LONG


@pytest.mark.parametrize("kind", [ValueError, TypeError, UnicodeError])
def test_shortened_errors(kind):
    """The error that is raised inside comes out, with a shorter message."""
    error = kind(LONG)
    with pytest.raises(kind) as info, shortened_errors():
        raise error
    assert info.value is error
    assert str(error) == shortened(LONG)


def test_other_errors_pass():
    """What is no ValueError or TypeError, or none of the kinds that are named, is let through as it is."""
    with pytest.raises(RuntimeError) as info, shortened_errors():
        raise RuntimeError(LONG)
    assert str(info.value) == LONG
    with pytest.raises(ValueError, match="begins") as info, shortened_errors(TypeError):
        raise ValueError(LONG)
    assert str(info.value) == LONG


def test_an_error_that_is_no_text():
    """Its arguments stay."""
    decode = UnicodeDecodeError("ascii", b"\xff", 0, 1, "reason")
    with pytest.raises(UnicodeDecodeError, match="'ascii' codec"), shortened_errors():
        raise decode
