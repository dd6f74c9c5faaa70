"""What is said about progress."""

from sktl._engine._progress import PrintedProgress


class Estimator:
    pass


def test_the_last_line_is_always_printed_and_the_others_once_a_second(capsys):
    """A quick job prints one line, with the count, not one per batch."""
    progress = PrintedProgress(Estimator())
    for done in range(1, 101):
        progress(done, 100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("[Estimator] 100 of 100 pictures, ")


def test_a_slow_job_says_how_long_it_will_take(capsys):
    """Between the first and the last picture, the line estimates the rest."""
    progress = PrintedProgress(Estimator())
    progress._start -= 10
    progress._last -= 10
    progress(50, 100)
    assert capsys.readouterr().out == "[Estimator] 50 of 100 pictures, 5 per second, 10 s left\n"
