"""Where a worker's threads wait for attempts.

Promises:
- What is given is taken by a thread that waits, so no more may be given than `free` says.
- What was given is taken at once: each thread that comes calls the next one, as long as there is something to take.
- What was given for `one` may be taken by one thread after the other: only one is called, until somebody says `hurry`.
  Python's threads run one at a time, and to wake one costs more than a short attempt does: so several of those are
  performed without a switch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from hueyctl.engine.attempt import Attempt


class Seats:
    """The threads that wait, and what was given and not taken yet. All but `take` is for who holds `lock`."""

    def __init__(self, lock: threading.Lock) -> None:
        self.free = 0
        """How many threads wait for which nothing was given."""
        self._lock = lock
        self._given: deque[Attempt] = deque()
        self._for_one = False
        self._closed = False
        self._asleep = 0
        self._called = False  # one that slept has been woken, and hasn't come yet
        self._turnstile = threading.Lock()  # let go of for one thread to pass
        self._turnstile.acquire()

    @property
    def reserved(self) -> bool:
        """Is there anything left of what was given for one?"""
        return self._for_one and bool(self._given)

    def take(self, before: Callable[[], None]) -> Attempt | None:
        """Wait for an attempt; None: there will be none any more. `before` is called before that, without the lock."""
        with self._lock:
            self.free += 1
            attempt = self._next()
        if attempt is None:
            before()
        while attempt is None:
            with self._lock:
                attempt = self._next()
                if attempt is not None:
                    break
                if self._closed:
                    self.free -= 1
                    self._call()
                    return None
                self._asleep += 1
            self._turnstile.acquire()
            with self._lock:
                self._asleep -= 1
                self._called = False
        return attempt

    def give(self, attempts: Sequence[Attempt], *, one: bool, here: bool) -> None:
        """For the next threads that come; at most as many as are free. `here`: the calling one is the first of them."""
        self.free -= len(attempts)
        self._given += attempts
        self._for_one = one
        if len(attempts) > here and not (one and here):
            self._call()

    def hurry(self) -> None:
        """Have each taken at once: they aren't as brief as was thought."""
        self._for_one = False
        if self._given:
            self._call()

    def take_back(self) -> list[Attempt]:
        """What no thread has taken."""
        left = [*self._given]
        self._given.clear()
        self.free += len(left)
        return left

    def close(self) -> None:
        """Nothing more will be given. Who waits goes, as soon as what was given is taken."""
        self._closed, self._for_one = True, False
        self._call()

    def _next(self) -> Attempt | None:
        if not self._given:
            return None
        attempt = self._given.popleft()
        attempt.thread = threading.current_thread()
        if self._closed or (self._given and not self._for_one):
            self._call()
        return attempt

    def _call(self) -> None:
        if self._asleep and not self._called:
            self._called = True
            self._turnstile.release()
