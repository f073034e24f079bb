"""A view on the whole of a terminal, until q or Ctrl-C.

Promises: whatever ends it, the terminal is then as it was before; Ctrl-Z leaves it so too, and `fg` brings the view
back. What doesn't fit is cut, and nothing wraps. What users or jobs wrote is harmless there, as everywhere.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from hueyctl.cli.answer import Answer, Line, Table, View
from hueyctl.cli.drawing import console_on, grid
from hueyctl.cli.harmless import one_line

# From so many lines on, one is left free between two tables.
ROOMY = 24
MOST_NOTES = 3


def live(view: View, stdout: TextIO) -> None:
    """Show the newest frame of `view` until somebody types q or Ctrl-C."""
    console = console_on(stdout)
    with _Asked() as asked, closing(view.frames(asked.fds)) as frames:
        while not asked.to_end:
            asked.to_stop = False
            with (
                _unechoed(asked.keyboard),
                Live(
                    console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
                ) as on,
            ):
                for frame in frames:
                    asked.listen()
                    if asked.to_end or asked.to_stop:
                        break
                    # Of the terminal each time: it may have another size, which the environment wouldn't say.
                    console.size = _size(stdout)
                    on.update(fitted(frame, *console.size), refresh=True)
            if asked.to_stop:
                os.kill(os.getpid(), signal.SIGSTOP)


def fitted(answer: Answer, width: int, height: int) -> Group:
    """As much of an answer as there is room for: lines and notes, and of each table some rows at least."""
    lines = [Text(f"{one_line(block.text)}  q quits", "bold") for block in answer.blocks if isinstance(block, Line)]
    lines += [Text(one_line(note), "yellow") for note in answer.notes[:MOST_NOTES]]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    tables = [block for block in answer.blocks if isinstance(block, Table)]
    gap = [Text()] if height >= ROOMY else []
    room = height - len(lines) - (1 + len(gap)) * len(tables)
    rows = shares([len(table.rows) for table in tables], room)
    grids = (grid(_cut(table, share), width) for table, share in zip(tables, rows, strict=True))
    drawn: list[RenderableType] = [*lines]
    for drawing in grids:
        drawn += [*gap, drawing]
    return Group(*drawn)


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How much of `room` each gets: what it wants, or else as much as any other (one more, if it comes first)."""
    for level in range(max(wanted, default=0), -1, -1):
        got = [min(each, level) for each in wanted]
        left = room - sum(got)
        if left >= 0:
            # Less than one for each that still wants some: the first have it.
            more = [number for number, each in enumerate(wanted) if each > level][:left]
            return [share + (number in more) for number, share in enumerate(got)]
    return [0 for _ in wanted]


class _Asked:
    """What was asked for by keys and signals: `to_end` it, `to_stop` it for a while. Whatever it is, and if the window
    has another size, there is something to be read from one of `fds` until it was listened to."""

    def __init__(self) -> None:
        self.to_end = False
        self.to_stop = False
        self.keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._woken, self._wake = os.pipe()
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)
        }

    @property
    def fds(self) -> tuple[int, ...]:
        return (self._woken,) if self.keyboard is None else (self._woken, self.keyboard)

    def listen(self) -> None:
        """Read what there is."""
        for fd in select.select(self.fds, (), (), 0)[0]:
            said = os.read(fd, 1024)
            if fd == self.keyboard:
                # Nothing: there is no terminal any more. A key without a letter may have a q in its sequence.
                self.to_end |= not said or (b"q" in said.lower() and not said.startswith(b"\x1b"))

    def __enter__(self) -> _Asked:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Noted, and not raised: nothing is left half drawn, and the terminal not half restored.
        if number in (signal.SIGINT, signal.SIGTERM):
            if self.to_end:
                raise KeyboardInterrupt  # asked twice: whatever it waits for isn't waited for
            self.to_end = True
        elif number == signal.SIGTSTP:
            self.to_stop = self._before[signal.SIGTSTP] is not signal.SIG_IGN  # nobody would let it go on
        os.write(self._wake, b"\0")


@contextmanager
def _unechoed(keyboard: int | None) -> Iterator[None]:
    """In the block keys come as they are typed, and aren't shown."""
    if keyboard is None:
        yield
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _size(stdout: TextIO) -> tuple[int, int]:
    columns, lines = os.get_terminal_size(stdout.fileno())
    return columns or 80, lines or 24  # some terminals don't know


def _cut(table: Table, share: int) -> Table:
    """The first rows; the title stands where the first column's name would, to spare a line, and says what is cut."""
    title = table.title or table.columns[0]
    if share < len(table.rows):
        title += f" {share}/{len(table.rows)}"
    return Table((title, *table.columns[1:]), table.rows[:share])
