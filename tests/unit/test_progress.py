"""What is shown of a long loop: a bar in a terminal, lines elsewhere, and nothing on stdout but what is said."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from epsilens import progress

LOOP = """
import sys, time
sys.path.insert(0, {src!r})
from epsilens import progress
progress.PATIENCE, progress.EVERY = 0.0, {every}
with progress.progress("score epsilon 8, seed 0", 40, "maps", begun=8, shown={shown}) as done:
    for number in range(16):
        time.sleep(0.02)
        done(2)
        if number == 8:
            progress.say("gradient  gini 0.5")
"""


STOPPED = """
import fcntl, sys, termios, time
sys.path.insert(0, {root!r})
from stages.common import run
from epsilens import progress
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # what is typed becomes a signal to this process
progress.PATIENCE = 0.1
def main():
    with progress.progress("epoch 1/6", 4000, "steps") as done:
        while True:
            time.sleep(0.02)
            done(1)
run(main)
"""


def loop(root: Path, *, every: float = 0.05, shown: bool = True) -> list[str]:
    return [sys.executable, "-c", LOOP.format(src=str(root / "src"), every=every, shown=shown)]


END = b"<the end>"


class Terminal:
    """A terminal of 24 rows and 100 columns: `child` is what a command gets, `written` what was written there."""

    def __init__(self) -> None:
        self.parent, self.child = pty.openpty()
        self.written = b""
        fcntl.ioctl(self.child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def until(self, sign: bytes) -> None:
        while sign not in self.written:
            self.written += os.read(self.parent, 4096)

    def close(self) -> str:
        """What was written. `child` stays open until all is read: what is still on its way when the last one closes it
        may be lost."""
        os.write(self.child, END)
        self.until(END)
        os.close(self.child)
        os.close(self.parent)
        return self.written.removesuffix(END).decode()


def terminal(command: list[str]) -> str:
    """What a command writes to a terminal."""
    shown = Terminal()
    process = subprocess.run(command, stdout=shown.child, stderr=shown.child, check=False)
    written = shown.close()
    assert process.returncode == 0, written
    return written


def test_a_terminal_has_a_bar_with_count_rate_and_time_left(root: Path) -> None:
    written = terminal(loop(root))
    assert re.search(r"\rscore epsilon 8, seed 0: +\d+%\|.*\| \d+/40 \[\d\d:\d\d<\d\d:\d\d, .* maps/s\]", written)
    assert "8/40" in written  # what had been done before
    assert "gradient  gini 0.5\r\n" in written
    assert written.rstrip("\r ").endswith("\r") or "\r" in written[-130:]  # the bar is wiped at the end


def test_elsewhere_there_are_whole_lines_with_count_and_time_left(root: Path) -> None:
    done = subprocess.run(loop(root), capture_output=True, text=True, check=True)
    assert done.stdout == "gradient  gini 0.5\n"
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert 2 <= len(lines) <= 16
    for line in lines:
        assert re.fullmatch(r"score epsilon 8, seed 0: \d+ of 40 maps, (\d\d:\d\d|\?) left", line), line
    counts = [int(line.split()[5]) for line in lines]
    assert counts == sorted(counts)
    assert counts[0] > 8  # what had been done before counts


def test_what_is_short_or_not_to_be_shown_says_nothing(root: Path) -> None:
    for command in (loop(root, every=60.0), loop(root, shown=False)):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""


def test_an_error_in_the_loop_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress.progress("what", 3, "things") as done:
        done(1 // 0)
    assert capsys.readouterr().out == ""


def screen(written: str) -> list[str]:
    """What is to be seen in the end: a carriage return goes back to the start of its line, over which is written."""
    lines = []
    for line in written.split("\n"):
        seen = ""
        for part in line.split("\r"):
            seen = part + seen[len(part) :]
        lines.append(seen.rstrip())
    return lines


def test_after_ctrl_c_the_bar_stays_and_the_message_has_a_line_of_its_own(root: Path) -> None:
    shown = Terminal()
    command = [sys.executable, "-c", STOPPED.format(root=str(root))]
    child = shown.child
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, start_new_session=True) as process:
        shown.until(b"steps/s")
        os.write(shown.parent, b"\x03")
    written = shown.close()
    assert process.returncode == 130, written
    assert "Traceback" not in written
    bar, *lines = screen(written)
    assert re.match(r"epoch 1/6: +\d+%\|.*\| \d+/4000 \[\d\d:\d\d<", bar)
    assert lines == ["stopped; `dvc repro` continues from here", ""]
