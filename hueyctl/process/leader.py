"""The guard's own records: an attempt, the process that leads it, and the pipes that it prints into."""

from __future__ import annotations

import os
import socket

import msgspec

from hueyctl.model.outcome import AnyOutcome, Stopped, TimedOut
from hueyctl.process.output import CappedFile
from hueyctl.process.spec import AttemptSpec
from hueyctl.process.wire import Unpacker

PIPE_MAX = 1024 * 1024  # /proc/sys/fs/pipe-max-size: no more can lie in a pipe
_PIECE = 64 * 1024


class Pipe:
    """The reading end of a leader's stdout or stderr; `file` takes what comes (None: nobody does)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.file: CappedFile | None = None
        self.ended = False
        self.watched = False  # by the guard's selector

    def pump(self) -> int:
        """Read one piece, without waiting; returns its size, 0 when there is nothing (now, or any more: `ended`)."""
        try:
            data = os.read(self.fd, _PIECE)
        except BlockingIOError:
            return 0
        self.ended = not data
        if self.file is not None and data:
            self.file.write(data)
        return len(data)

    def drain(self) -> None:
        """Take what lies in it now, however fast somebody goes on writing."""
        left = PIPE_MAX
        while left > 0 and not self.ended and (size := self.pump()):
            left -= size


class Attempt:
    """An attempt under way. Its life: running, then `outcome` is known, then (nothing of it is left) over."""

    def __init__(self, spec: AttemptSpec, leader: Leader, now: float) -> None:
        self.spec = spec
        self.leader = leader
        self.deadline = None if spec.timeout is None else now + spec.timeout
        self.cause: TimedOut | Stopped | None = None  # why it is being stopped
        self.kill_at: float | None = None
        self.outcome: AnyOutcome | None = None
        self.given_up_at = 0.0
        self.stdout = CappedFile(spec.stdout, spec.output_max)
        self.stderr = CappedFile(spec.stderr, spec.output_max)

    @property
    def running(self) -> bool:
        """Is its end still unknown?"""
        return self.outcome is None


class Leader:
    """A process started by the guard, leading a group of its own: a program, or a warm child."""

    def __init__(self, pid: int, serial: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.serial = serial
        self.stdout, self.stderr = Pipe(stdout), Pipe(stderr)
        self.attempt: Attempt | None = None
        self.gone = False  # reaped: its pid may be another's by now
        self.kill_at: float | None = None


class WarmChild(Leader):
    """A Python process that serves attempts of one definition, one at a time."""

    def __init__(
        self, pid: int, serial: int, stdout: int, stderr: int, *, sock: socket.socket, definition: str
    ) -> None:
        super().__init__(pid, serial, stdout, stderr)
        self.socket = sock
        self.unpacker = Unpacker()
        self.definition = definition
        self.outbox = Outbox()
        self.served = 0
        self.fit = True  # for another attempt
        self.answered = False  # the attempt under way
        self.hung_up = False  # no word goes between us any more


class Outbox(msgspec.Struct):
    """Bytes that a socket hasn't taken yet."""

    rest: bytes = b""

    def send(self, sock: socket.socket, data: bytes) -> bool:
        """Send what goes without waiting; True when nothing is left. A peer that is gone takes everything."""
        data = self.rest + data if self.rest else data
        try:
            data = data[sock.send(data) :] if data else data
        except BlockingIOError:
            pass
        except OSError:
            data = b""
        self.rest = data
        return not data
