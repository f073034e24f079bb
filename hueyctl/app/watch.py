"""Sleeping until something may have changed in the store."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from hueyctl.app.session import Session
from hueyctl.errors import StoreUnreachable
from hueyctl.storage.stores import open_bell

Answer = TypeVar("Answer")

BACKSTOP_S = 0.5
"""The bell is a hint that may be missed; the store itself is asked this often."""


class Watch:
    """Listens to the bell of a session's store. Made before the first look, it misses nothing after it.

    With `output`, the descriptor that what is found goes to, a wait ends as soon as nobody reads that any more:
    `hueyctl events -f | head -1` is over when head is, not at the next event. A wait also ends when there is something
    to be read from one of `wake`.
    """

    def __init__(self, session: Session, *, output: int | None = None, wake: Sequence[int] = ()) -> None:
        self._session = session
        self._bell = open_bell(session.place)
        self._poll = select.poll()
        self._poll.register(self._bell.fileno(), select.POLLIN)
        for fd in wake:
            self._poll.register(fd, select.POLLIN)
        self._output = output
        if output is not None:
            self._poll.register(output, 0)  # errors alone
        # A store that may only be read has no place for our socket: then it is looked at more often.
        self._backstop_s = BACKSTOP_S if self._bell.rings else BACKSTOP_S / 4

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, deadline: float | None = None, *, backstop_s: float | None = None) -> bool:
        """Sleep until the bell rings, something wakes us, or the backstop's time has passed; False once `deadline`
        (monotonic) has.

        Raises:
            BrokenPipeError: nobody reads the output any more.
            StoreReplaced: the store was deleted, moved or replaced meanwhile; nothing more would come of it.
        """
        pause = self._backstop_s if backstop_s is None else min(backstop_s, self._backstop_s)
        if deadline is not None:
            left = deadline - monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
        # Rounded up: a pause of 0.4 ms that becomes 0 would spin.
        heard = self._poll.poll(int(pause * 1000) + 1)
        if any(fd == self._output for fd, _ in heard):
            raise BrokenPipeError
        if heard:
            self._bell.drain()
        while not self._is_reached():
            if deadline is not None and monotonic() >= deadline:
                return False
        return True

    def ask(self, question: Callable[[], Answer], deadline: float | None = None) -> Answer:
        """What the store answers, as soon as it can be asked; by `deadline` (monotonic), its error is raised."""
        while True:
            try:
                return question()
            except StoreUnreachable:
                if not self.wait(deadline):
                    raise

    def _is_reached(self) -> bool:
        """Look at the store; False: its server can't be reached now. It may come back, and what is followed goes on."""
        try:
            self._session.reader().changed()
        except StoreUnreachable:
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        self._bell.close()
