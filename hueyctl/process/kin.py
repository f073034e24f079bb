"""Who descends from this process, and how to end them: /proc on Linux; elsewhere only process groups are known.

A direct child's pid is safe to signal until it is reaped, and only this process reaps its own; further down, a pid is
looked at again right before it is signalled (32,768 pids come round within seconds on a busy machine).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

KIN = "HUEYCTL_KIN"  # the variable by which descendants of a leader are known, guards within guards included

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_VMSTAT = "/proc/vmstat"
CLEAR_AGAIN_S = 0.02
_SURELY_WHOLE = 3000  # bytes: a read of /proc ends at a page


class Process(NamedTuple):
    """A line of /proc/PID/stat; `born` (clock ticks since boot) tells it from a later owner of its pid. `name` has 15
    bytes of its program's file name, which it may have changed to anything."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    born: int

    @property
    def dead(self) -> bool:
        """Has it ended, and waits to be reaped?"""
        return self.state in "ZX"


def become_subreaper() -> bool:
    """Let orphaned descendants become children of this process; False where the system has no such thing."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """What `ps` and `top` show as this process's name, where that can be set (15 bytes)."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


class Children:
    """The children of this process, the dead that nobody has reaped included."""

    def __init__(self) -> None:
        self.known = os.path.exists("/proc/self/stat")
        self._fd = -1
        with contextlib.suppress(OSError):  # a kernel without CONFIG_PROC_CHILDREN
            self._fd = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)

    def listed(self) -> list[int] | None:
        """Their pids; None where the system doesn't tell.

        The kernel's list is exact here: only a reaped child leaves it, and this (single-threaded) process reaps none
        meanwhile.
        """
        if not self.known:
            return None
        if self._fd < 0:
            me = os.getpid()
            return [each.pid for each in table().values() if each.parent == me]
        text = piece = os.pread(self._fd, 65536, 0)
        while len(piece) > _SURELY_WHOLE:
            piece = os.pread(self._fd, 65536, len(text))
            text += piece
        return list(map(int, text.split()))


def look(pid: int) -> Process | None:
    """The process of that pid now."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses and spaces too.
    begin, end = text.index(b"(") + 1, text.rindex(b")")
    name, fields = text[begin:end].decode(errors="replace"), text[end + 2 :].split()
    return Process(pid, name, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def table() -> dict[int, Process]:
    """Every process there is, as far as /proc tells."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return {}
    return {pid: process for pid in pids if (process := look(pid)) is not None}


def below(roots: Collection[int]) -> list[Process]:
    """Every descendant of `roots` (themselves left out), parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in table().values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    level = [child for root in roots for child in children.get(root, ())]
    while level:
        found += level
        level = [child for process in level for child in children.get(process.pid, ())]
    return found


def variable(pid: int, name: str) -> str | None:
    """An environment variable as it was when that process was made; None if unset, or not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read()
    except OSError:
        return None
    prefix = os.fsencode(name) + b"="
    return next((os.fsdecode(each[len(prefix) :]) for each in text.split(b"\0") if each.startswith(prefix)), None)


def kill_below(roots: Collection[int]) -> None:
    """KILL every descendant of `roots` once. What they fork meanwhile becomes, when they die, a child of this process
    (a subreaper), and is the caller's to see."""
    for process in below(roots):
        again = look(process.pid)
        if again is not None and again.born == process.born:
            signal_pid(process.pid, signal.SIGKILL)


def kill_everything_below(leaders: Iterable[int] = (), *, within_s: float = math.inf) -> bool:
    """KILL every descendant of this process, and the process groups of `leaders`, children of it; returns when there
    is none left. False: after `within_s` seconds some still is there.

    Each wait ends with a death, and each death hands its orphans up to here: so it comes to an end, fork storms
    included. But the kernel can't end a process that waits for a dead disk, and we none of another user.
    """
    for leader in leaders:
        signal_group(leader, signal.SIGKILL)
        signal_pid(leader, signal.SIGKILL)
    me, deadline = os.getpid(), time.monotonic() + within_s
    with contextlib.suppress(ChildProcessError):
        while True:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            # The nearest first, at once: those of a storm fork and end within the time that a scan takes.
            for pid in _own_children():
                signal_pid(pid, signal.SIGKILL)
            kill_below([me])
            while not os.waitpid(-1, 0 if within_s == math.inf else os.WNOHANG)[0]:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(CLEAR_AGAIN_S)
    return True


def family(lock: Path) -> str:
    """What the guard that holds `lock` marks its family with, in `KIN`. By the lock's whole path: a copy of a store
    has workers of the same names, and their families are not its business."""
    return hashlib.blake2b(os.fsencode(os.path.realpath(lock)), digest_size=8).hexdigest()


def kill_family(lock: Path, *, within_s: float) -> bool:
    """KILL what is left of the family of the guard that held `lock`, and see it gone; False: some of it still is there.

    For the case that a worker and its guard were killed at the same instant: then nobody is left who would have done
    it. It is the mark that tells, and descent from someone marked; so on Linux alone, and a daemon that has cleared
    its environment is not found.
    """
    mark = f"/{family(lock)}-"
    deadline = time.monotonic() + within_s
    left: dict[int, Process] = {}
    while True:
        for pid in _marked(mark):
            for process in (look(pid), *below([pid])):
                if process is not None:
                    left[process.pid] = process
        left = {pid: process for pid, process in left.items() if _lives(process)}
        if not left:
            return True
        for pid in left:
            signal_pid(pid, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return False
        time.sleep(CLEAR_AGAIN_S)


def _marked(mark: str) -> list[int]:
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    me = os.getpid()
    return [pid for pid in pids if pid != me and mark in (variable(pid, KIN) or "")]


def _lives(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.born == process.born and not now.dead


def _own_children() -> list[int]:
    """The children of all threads of this process, as far as /proc tells."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def signal_pid(pid: int, number: int) -> None:
    """Send a signal; one who has gone, or isn't ours to signal (setuid), is let be."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def group_of(pid: int) -> int | None:
    """The process group of that process; None where it has gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def signal_group(group: int, number: int) -> None:
    """The same, to a process group. Its leader must not have been reaped yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since boot; None where it doesn't say."""
    with contextlib.suppress(OSError):
        with open(_VMSTAT, "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
        with open("/sys/fs/cgroup/memory.events", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    return None
