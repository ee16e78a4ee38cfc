"""Progress in a log file and on a terminal."""

import io

import pytest

from speechft import console
from speechft.console import Progress, duration, progress, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    show = Progress(stream).bar("training", start=40)
    for done in range(41, 101):
        now[0] += 1.0
        show(done, 100, "loss 1")
    lines = stream.getvalue().splitlines()
    assert lines == ["training: 70/100, about 30 s left loss 1", "training: 100/100, about 0 s left loss 1"]


def test_a_terminal_gets_a_bar_that_goes_away():
    stream = Terminal()
    with Progress(stream) as display:
        show = display.bar("features")
        show(1, 10)
        display._display.refresh()
        assert "features" in stream.getvalue()
        display.say("a [message] in between")
        show(10, 10)
        assert display._display is None  # the last bar is done
        show = display.bar("head")
        show(1, 10)
    assert "a [message] in between" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("\x1b[2K")  # the line is wiped
    assert "\x1b[?25h" in stream.getvalue()  # and the cursor is back


def test_an_error_leaves_the_terminal_clean(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(console.sys, "stderr", stream)
    with pytest.raises(ValueError), progress("training", 10) as advance:
        advance(1, "")
        say("hello")
        raise ValueError
    assert "hello" in stream.getvalue() and stream.getvalue().rstrip().endswith("\x1b[2K")
    say("after")
    assert stream.getvalue().endswith("after\n")


def test_durations():
    assert [duration(s) for s in (12.2, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 05 min"]
