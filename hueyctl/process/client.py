"""The worker's side of its guard.

Promises: `run` returns exactly one answer per attempt, whatever happens to the guard; an attempt is lost by a guard's
death only if that guard was asked to start it; `kill_descendants` takes what a dead guard left behind.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hueyctl.model.outcome import Lost, Stopped
from hueyctl.process import kin
from hueyctl.process.spec import AttemptSpec, Ended, StopReason
from hueyctl.process.wire import (
    READ_SIZE,
    Close,
    Over,
    Ready,
    Recycle,
    Start,
    Stop,
    Tick,
    Unpacker,
    decode_reply,
    pack,
)

START_TIMEOUT_S = 30.0
_THE_GUARD_DIED = "the guard died"


class GuardFailed(Exception):
    """The guard could not be started: its lock is held by another, or its interpreter doesn't work."""


class Guard:
    """One guard process. Any thread may call any method."""

    pid: int
    on_death: Callable[[], Guard | None] | None

    @classmethod
    def start(cls, *, argv: Sequence[str], on_death: Callable[[], Guard | None] | None = None) -> Guard:
        """Start `argv` (what `guard_argv` gives) with one end of a socket as its stdin, and wait until it holds its
        lock. `on_death` is called once, on a thread of this class, when the guard ends without `close`, and before
        any `run` returns because of that; the guard that it returns takes its place. Where it raises, because it can't
        start one, what is asked of the dead one from then on waits: for the end of this process, and its rescue.

        Raises:
            GuardFailed: it ended at once, or said nothing for 30 s.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: a Ctrl-C at the worker's terminal is not for the guard.
            process = subprocess.Popen(
                list(argv), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        guard = cls(process, ours)
        if not guard._ready.wait(START_TIMEOUT_S) or not guard._mourned_by(on_death):
            process.kill()
            process.wait()
            raise GuardFailed(f"the guard could not be started (exit status {process.returncode})")
        return guard

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.pid = process.pid
        self.on_death = None
        self._process, self._socket = process, sock
        self._lock = threading.Lock()  # of what is pending, and of the order in which it is said
        self._pending: dict[str, queue.SimpleQueue[Ended]] = {}
        self._ready = threading.Event()
        self._closing = False
        self._dead = False
        self._successor: Guard | None = None
        self._succeeded = threading.Event()  # it is dead, and known who takes its place
        self._reader = threading.Thread(target=self._read, name="GuardReader", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Can it still be asked?"""
        return not self._dead

    def run(self, spec: AttemptSpec) -> Ended:
        """Have an attempt made and wait for its end; `Lost` if the guard dies meanwhile. A dead one's successor makes
        it; without one, it is lost, or interrupted where the guard was closed."""
        answer: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        message = pack(Start(spec))
        with self._lock:
            dead = self._dead
            if not dead:
                self._pending[spec.token] = answer
                self._send(message)
        if not dead:
            return answer.get()
        # Not lost at once: while another guard starts, a queue of runs would be, with all that they may be lost.
        self._succeeded.wait()
        if self._successor is None:
            return self._unanswered(spec.token)
        return self._successor.run(spec)

    def stop(self, token: str, reason: StopReason) -> bool:
        """Stop an attempt: TERM, then KILL; its `run` returns when it has stopped. False where none is under way."""
        with self._lock:
            if token not in self._pending:
                return False
            self._send(pack(Stop(token, reason)))
            return True

    def tick(self) -> None:
        """Prove the worker alive. Never blocks: a guard that doesn't read has no use for another tick."""
        if self._lock.acquire(blocking=False):
            try:
                self._socket.send(pack(Tick()), socket.MSG_DONTWAIT)
            except OSError:
                return
            finally:
                self._lock.release()

    def recycle(self) -> None:
        """Have every warm child replaced before its next attempt."""
        with self._lock:
            self._send(pack(Recycle()))

    def close(self, timeout: float) -> None:
        """End it, and everything that it started; attempts under way end `Stopped("interrupted")`. After `timeout`
        seconds it is killed, with all that is left below it."""
        self._closing = True
        with self._lock:
            self._send(pack(Close()))
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            kill_descendants()
        self._reader.join()
        self._socket.close()

    def _send(self, message: bytes) -> None:
        # A dead guard is no error here: the reader sees it, and answers for all.
        with contextlib.suppress(OSError):
            self._socket.sendall(message)

    def _unanswered(self, token: str) -> Ended:
        return Ended(token=token, outcome=Stopped("interrupted") if self._closing else Lost(_THE_GUARD_DIED))

    def _mourned_by(self, on_death: Callable[[], Guard | None] | None) -> bool:
        """Have its death told from now on; False: it is dead already, and whoever started it knows."""
        with self._lock:
            if not self._dead:
                self.on_death = on_death
            return not self._dead

    def _read(self) -> None:
        unpacker = Unpacker()
        last_words: dict[str, Ended] = {}
        while True:
            try:
                piece = self._socket.recv(READ_SIZE)
            except OSError:
                break
            if not piece:
                break
            for payload in unpacker.feed(piece):
                match decode_reply(payload):
                    case Ready():
                        self._ready.set()
                    case Over(ended):
                        if isinstance(ended.outcome, Lost):
                            # It is about to end. Told now, the next attempt would be asked of it, and lost too.
                            last_words[ended.token] = ended
                        elif (answer := self._pending.pop(ended.token, None)) is not None:
                            answer.put(ended)
        with self._lock:
            self._dead = True
            orphaned, self._pending = self._pending, {}
        self._ready.set()
        if not self._closing:
            # It may still be killing what it started; only when it is gone is its end an end.
            self._process.wait()
        try:
            if self.on_death is not None and not self._closing:
                # Before anyone hears of it: what it left must be gone when its attempts are settled, or the next
                # attempt of a run would overlap with this one.
                self._successor = self.on_death()
            self._succeeded.set()
        except (OSError, GuardFailed):
            return  # who raised it knows
        finally:
            for token, answer in orphaned.items():
                answer.put(last_words.get(token) or self._unanswered(token))


def become_subreaper() -> bool:
    """Make this process the parent of every descendant whose own parent dies (Linux; elsewhere False): what a killed
    guard leaves behind then stays within reach of `kill_descendants`."""
    return kin.become_subreaper()


def kill_descendants() -> None:
    """Kill everything below this process, and return when it is gone."""
    kin.kill_everything_below()


def kill_what_outlived(guard_lock: Path, *, within_s: float = 5.0) -> bool:
    """Kill what a worker and its guard, both dead, have left running; False: not all of it is gone after `within_s`
    seconds."""
    return kin.kill_family(guard_lock, within_s=within_s)
