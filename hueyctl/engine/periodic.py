"""A thread with a store connection of its own that does something now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from hueyctl.storage.store import Store


class Periodic:
    """Takes a turn at once, after each pause, and whenever it is woken; `failure` is what ended it, if anything did."""

    def __init__(self, name: str, *, pause_s: float, ended: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        self.pause_s = pause_s
        self.stopping = False
        self._ended = ended
        self._woken = threading.Event()
        self._name = name

    def turn(self, store: Store) -> None:
        """What is done each time. What it raises ends the thread."""
        raise NotImplementedError

    def start(self, store: Store) -> None:
        """Take the first turn now. The store is the thread's own, and closed at its end."""
        self._thread = threading.Thread(target=self._run, args=(store,), name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Take the next turn now."""
        self._woken.set()

    def stop(self) -> None:
        """End, after the turn under way."""
        self.stopping = True
        self._woken.set()
        self._thread.join()

    def _run(self, store: Store) -> None:
        try:
            with closing(store):
                while not self.stopping:
                    self.turn(store)
                    self._woken.wait(self.pause_s)
                    self._woken.clear()
        except BaseException as exc:
            self.failure = exc
        finally:
            self._ended()
