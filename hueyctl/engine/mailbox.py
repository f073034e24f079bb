"""What wakes a worker's main thread: signals, and messages of its other threads. It sleeps on one descriptor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections import deque
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Mailbox:
    """Letters, in the order of their arrival: a signal's number, or a thread's word."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._letters: deque[str] = deque()

    def listen_to_signals(self) -> None:
        """Take TERM, INT and HUP from now on; only in the main thread. Ignored ones are taken too: a worker under
        nohup still reloads, and its children start with default dispositions."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _noted)

    def ignore_signals(self) -> None:
        """Stop taking signals, at the very end."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)

    def post(self, letter: str) -> None:
        """Leave a letter; from any thread."""
        self._letters.append(letter)
        with contextlib.suppress(BlockingIOError):  # full: the reader wakes anyway
            os.write(self._write, b"\0")

    def next(self, timeout: float) -> str | None:
        """Wait up to `timeout` seconds for a letter and take it; signals come as `TERM`, `INT`, `HUP`."""
        if not self._letters:
            poller = select.poll()
            poller.register(self._read, select.POLLIN)
            poller.poll(max(0.0, timeout) * 1000)
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._read, 4096):
                if number:  # posted letters come with a zero
                    self._letters.append(signal.Signals(number).name.removeprefix("SIG"))
        return self._letters.popleft() if self._letters else None


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has the number; Python needs a handler for it to be written there."""
