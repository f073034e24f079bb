"""The worker's side of its guard.

Promises: `run` returns exactly one answer per attempt, whatever happens to the guard; an attempt is lost by a guard's
death only if that guard was asked to start it; a guard that hangs is killed; `kill_descendants` takes what a dead guard
left behind.
"""

from __future__ import annotations

import contextlib
import math
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hueyctl.model.outcome import Lost, Stopped
from hueyctl.process import kin
from hueyctl.process.spec import AttemptSpec, Ended, StopReason
from hueyctl.process.wire import (
    READ_SIZE,
    Join,
    Recycle,
    Start,
    Stop,
    Tick,
    Unpacker,
    decode_over,
    pack,
)

START_TIMEOUT_S = 30.0
LAST_KILL_S = 2.0  # for what a killed guard has left
SAY_TIMEOUT_S = 0.5  # for another thread to have said what it is about to
# A guard hangs that has answered none of so many ticks, sent over so long a time. Both, for after a freeze of the whole
# machine time has passed and nobody was asked; and a disk may hold up for seconds who writes on it.
UNANSWERED_MAX = 6
HUNG_AFTER_S = 60.0
_THE_GUARD_DIED = "the guard died"
_THE_GUARD_HUNG = "the guard answered no more, and was killed"


class GuardFailed(Exception):
    """The guard could not be started: its lock is held by another, or its interpreter doesn't work."""


class StillRunning(Exception):
    """What a dead guard left can't be killed."""


class Guard:
    """One guard process. Any thread may call any method."""

    pid: int
    on_death: Callable[[], Guard | None] | None

    @classmethod
    def start(cls, *, argv: Sequence[str], on_death: Callable[[], Guard | None] | None = None) -> Guard:
        """Start `argv` (what `guard_argv` gives) with one end of a socket as its stdin, and wait until it holds its
        lock. `on_death` is called once, on a thread of this class, when the guard ends without `close`, and before
        any `run` returns because of that; the guard that it returns takes its place. Where it raises, because it can't
        start one, what is asked of the dead one from then on waits: for the end of this process, and its rescue. So
        does what is under way where it raises `StillRunning`: that isn't over.

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
        self._lock = threading.Lock()  # of what is said by the socket, and of who is told of a death
        self._own = threading.local()
        self._under_way: dict[str, _Channel] = {}
        self._ready = threading.Event()
        self._closing = self._outlived = False
        self._asked_at: list[float] = []  # the ticks that it hasn't answered (monotonic)
        self.hung = False
        """Was it killed, since it answered no more?"""
        self._closed = threading.Event()  # by us, and it is known whether it is outlived
        self._dead = False
        self._successor: Guard | None = None
        self._mourned = threading.Event()  # it is dead, nothing that it started is left, and `on_death` was called
        self._succeeded = threading.Event()  # and known who takes its place
        self._reader = threading.Thread(target=self._read, name="GuardReader", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Can it still be asked?"""
        return not self._dead

    def run(self, spec: AttemptSpec) -> Ended:
        """Have an attempt made and wait for its end; `Lost` if the guard dies meanwhile. A dead one's successor makes
        it; without one, it is lost, or interrupted where the guard was closed. Should the wait be broken off by an
        exception, it is killed first."""
        channel = self._channel()
        if channel is not None:
            try:
                with channel.turn:  # from here on it can be stopped, and that comes behind its start
                    self._under_way[spec.token] = channel
                    # Dead is looked at only now: a guard's death ends the wait of those that are under way.
                    asked = not self._dead and channel.ask(spec)
                if asked:
                    return self._answer(channel, spec.token)
            except BaseException:
                del self._own.channel
                channel.break_off()
                raise
            finally:
                self._under_way.pop(spec.token, None)
        # Not lost at once: while another guard starts, a queue of runs would be, with all that they may be lost.
        self._succeeded.wait()
        if self._successor is None:
            return self._unanswered(spec.token)
        return self._successor.run(spec)

    def stop(self, token: str, reason: StopReason) -> bool:
        """Stop an attempt: TERM, then KILL; its `run` returns when it has stopped. False where none is under way, or
        it can't be said now."""
        channel = self._under_way.get(token)
        return channel is not None and channel.say(Stop(token, reason))

    def tick(self) -> None:
        """Prove the worker alive, and see whether the guard is. Never blocks: one that doesn't read has no use for
        another tick. One that has answered none for long is killed: it would hold up every attempt and its timeout,
        and it alone can say that they are over. (What it starts may hang it, by a folder on a dead file system.)"""
        asked, now = self._asked_at, time.monotonic()
        if len(asked) >= UNANSWERED_MAX and now - asked[0] >= HUNG_AFTER_S and not self._dead:
            self.hung = True
            self._process.kill()
            return
        if self._lock.acquire(blocking=False):
            try:
                asked.append(now)
                self._socket.send(pack(Tick()), socket.MSG_DONTWAIT)
            except OSError:
                return
            finally:
                self._lock.release()

    def recycle(self) -> None:
        """Have every warm child replaced before its next attempt."""
        # A dead guard is no error here: the reader sees it.
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(pack(Recycle()))

    def close(self, timeout: float) -> bool:
        """End it, and everything that it started; attempts under way end `Stopped("interrupted")`. After `timeout`
        seconds it is killed, with all that is left below it.

        False: something is left that can't be killed (it waits for a dead disk, or is another user's). Attempts that
        were under way don't return then: they may not be over.
        """
        self._closing = True
        _shut_down(self._socket, socket.SHUT_WR)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._outlived = not kill_descendants(within_s=LAST_KILL_S)
        self._closed.set()
        self._reader.join()
        self._socket.close()
        return not self._outlived

    def _channel(self) -> _Channel | None:
        """This thread's channel; None where the guard is dead."""
        channel: _Channel | None = getattr(self._own, "channel", None)
        if channel is not None or self._dead:
            return channel
        ours, theirs = socket.socketpair()
        with theirs:
            channel = _Channel(ours)
            try:
                with self._lock:
                    socket.send_fds(self._socket, [pack(Join())], [theirs.fileno()])
            except OSError:
                return None
        self._own.channel = channel
        return channel

    def _answer(self, channel: _Channel, token: str) -> Ended:
        ended = channel.hear()
        if ended is not None and not isinstance(ended.outcome, Lost):
            return ended
        # Not before what it left is gone, or the next attempt of this run would overlap with it. If those were its last
        # words, it is about to end, and the next attempt would be asked of it, and lost too.
        self._mourned.wait()
        return ended or self._unanswered(token)

    def _unanswered(self, token: str) -> Ended:
        lost = Lost(_THE_GUARD_HUNG if self.hung else _THE_GUARD_DIED)
        return Ended(token=token, outcome=Stopped("interrupted") if self._closing else lost)

    def _mourned_by(self, on_death: Callable[[], Guard | None] | None) -> bool:
        """Have its death told from now on; False: it is dead already, and whoever started it knows."""
        with self._lock:
            if not self._dead:
                self.on_death = on_death
            return not self._dead

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(READ_SIZE):
                self._asked_at = []
                self._ready.set()  # all that it ever says here
        with self._lock:
            self._dead = True
        self._ready.set()
        # It may still be killing what it started; only when it is gone is its end an end.
        if self._closing:
            self._closed.wait()
        else:
            self._process.wait()
        if self._outlived:
            self._succeeded.set()  # for who has begun nothing
            return
        for channel in [*self._under_way.values()]:
            channel.shut()
        over = True
        try:
            if self.on_death is not None and not self._closing:
                # Before anyone hears of it: what it left must be gone when its attempts are settled, or the next
                # attempt of a run would overlap with this one.
                self._successor = self.on_death()
            self._succeeded.set()
        except StillRunning:
            over = False
        except (OSError, GuardFailed):
            return  # who raised it knows
        finally:
            if over:
                self._mourned.set()


class _Channel:
    """A thread's own way to the guard, closed with the thread: one attempt at a time, what stops it, and its answer.

    So whoever waits is woken by the answer itself, and no stop can overtake its start.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._unpacker = Unpacker()
        self.turn = threading.Lock()  # to say something
        self._env: dict[str, str] | None = None  # of the last start
        weakref.finalize(self, sock.close)

    def ask(self, spec: AttemptSpec) -> bool:
        """Have an attempt started, by whoever holds `turn`; False: nobody is there who could."""
        env = None if spec.env is self._env or spec.env == self._env else spec.env
        message = pack(Start(msgspec.structs.replace(spec, env={}), env))
        try:
            self._socket.sendall(message)
        except OSError:
            return False
        self._env = spec.env
        return True

    def say(self, stop: Stop) -> bool:
        """Have it stopped, which can be said by any thread; False: the guard takes nothing at the moment."""
        if not self.turn.acquire(timeout=SAY_TIMEOUT_S):
            return False
        try:
            message = pack(stop)
            sent = self._socket.send(message, socket.MSG_DONTWAIT)
            self._socket.sendall(message[sent:])  # so short a message goes as a whole, or not at all
            return True
        except OSError:
            return False
        finally:
            self.turn.release()

    def hear(self) -> Ended | None:
        """Wait for the answer; None: it has died, or ended without one."""
        while True:
            try:
                piece = self._socket.recv(READ_SIZE)
            except OSError:
                piece = b""
            if not piece:
                return None
            for payload in self._unpacker.feed(piece):
                return decode_over(payload).ended

    def break_off(self) -> None:
        """Have what is under way killed, and return when it is gone."""
        _shut_down(self._socket, socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while self._socket.recv(READ_SIZE):
                pass

    def shut(self) -> None:
        """Let whoever waits for an answer hear what has come, and then the end. (That the guard is gone isn't enough
        where a job in a thread has forked this process just when the channel was made.)"""
        _shut_down(self._socket, socket.SHUT_RDWR)


def _shut_down(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the other end is gone
        sock.shutdown(how)


def become_subreaper() -> bool:
    """Make this process the parent of every descendant whose own parent dies (Linux; elsewhere False): what a killed
    guard leaves behind then stays within reach of `kill_descendants`."""
    return kin.become_subreaper()


def kill_descendants(*, within_s: float = math.inf) -> bool:
    """Kill everything below this process, and return when it is gone; False: it isn't after `within_s` seconds."""
    return kin.kill_everything_below(within_s=within_s)


def kill_what_outlived(guard_lock: Path, *, within_s: float = 5.0) -> bool:
    """Kill what a worker and its guard, both dead, have left running; False: not all of it is gone after `within_s`
    seconds."""
    return kin.kill_family(guard_lock, within_s=within_s)
