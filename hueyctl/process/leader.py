"""The guard's own records: an attempt, the process that leads it, and the pipes that it prints into."""

from __future__ import annotations

import os
from collections import Counter

from hueyctl.model.outcome import AnyOutcome, Stopped, TimedOut
from hueyctl.process.channel import Channel
from hueyctl.process.kin import Process
from hueyctl.process.output import CappedFile
from hueyctl.process.spec import AttemptSpec

PIPE_MAX = 1024 * 1024  # /proc/sys/fs/pipe-max-size: no more can lie in a pipe
_PIECE = 64 * 1024
NAMES_MAX = 5  # of what an attempt left running


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

    def __init__(self, spec: AttemptSpec, leader: Leader, channel: Channel, now: float) -> None:
        self.spec = spec
        self.leader = leader
        self.channel = channel  # by which it came, and its end is told
        self.deadline = None if spec.timeout is None else now + spec.timeout
        self.cause: TimedOut | Stopped | None = None  # why it is being stopped
        self.kill_at: float | None = None
        self.outcome: AnyOutcome | None = None
        self.given_up_at = 0.0
        self._left: dict[tuple[int, int], str] = {}  # what it left running: names by pid and birth
        self.stdout = CappedFile(spec.stdout, spec.output_max)
        self.stderr = CappedFile(spec.stderr, spec.output_max)

    @property
    def running(self) -> bool:
        """Is its end still unknown?"""
        return self.outcome is None

    def leaves(self, process: Process) -> None:
        """What it had started and left running is being killed; the same may be told again."""
        if self.cause is None:  # otherwise all of it was to be killed
            self._left[process.pid, process.born] = process.name

    @property
    def remarks(self) -> dict[str, str]:
        """What is to be said of it besides its outcome: which of its output could not be kept, and why
        (`output_error`); what it left running, and was killed (`left_running`)."""
        remarks = {}
        streams = ("stdout", self.stdout), ("stderr", self.stderr)
        if errors := [f"{name}: {stream.error}" for name, stream in streams if stream.error]:
            remarks["output_error"] = f"not all of its output could be kept ({', '.join(errors)})"
        if self._left:
            counts = Counter(self._left.values())
            names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
            more = [f"{len(names) - NAMES_MAX} more"] if len(names) > NAMES_MAX else []
            remarks["left_running"] = f"what it left running was killed: {', '.join(names[:NAMES_MAX] + more)}"
        return remarks


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

    channel: Channel

    def __init__(self, pid: int, serial: int, stdout: int, stderr: int, *, definition: str) -> None:
        super().__init__(pid, serial, stdout, stderr)
        self.definition = definition
        self.served = 0
        self.fit = True  # for another attempt
        self.answered = False  # the attempt under way
