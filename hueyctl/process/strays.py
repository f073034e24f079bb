"""Orphans: what descends from a leader and has come to the guard, a subreaper, because its own parent is dead."""

from __future__ import annotations

import signal
from collections.abc import Collection

from hueyctl.process import kin
from hueyctl.process.leader import Attempt

KILL_AGAIN_S = 0.02


class Strays:
    """The orphans there are, with the attempts that each may belong to: they die when none of those runs any more."""

    def __init__(self, family: str) -> None:
        self._mark = f"{family}."
        self._children = kin.Children()
        self._owners: dict[int, set[Attempt]] = {}  # by pid
        self._doomed: set[int] = set()  # those of them that have been killed, and aren't gone yet
        self._kill_again_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._owners)

    @property
    def can_be_known(self) -> bool:
        """Does this system say who descends from whom?"""
        return self._children.known

    def find(self, leaders: Collection[int], attempts: Collection[Attempt]) -> None:
        """See which there are: the children of this process that are none of `leaders`; `attempts` are under way."""
        listed = self._children.listed()
        if listed is None or len(listed) == len(leaders):
            self._owners.clear()
            self._doomed.clear()
            return
        known, self._owners = self._owners, {}
        anyone_running = any(each.running for each in attempts)
        for pid in listed:
            if pid in leaders:
                continue
            owners = known.get(pid)
            if owners is None:
                # Killed before the next is looked at: those of a fork storm live for less than a millisecond.
                owners = self._owners_of(pid, attempts) if anyone_running else set(attempts)
                if not any(each.running for each in owners):
                    self._kill(pid, owners)
            self._owners[pid] = owners
        self._doomed &= self._owners.keys()

    def kill(self, now: float) -> set[Attempt]:
        """Kill those that may not live, with all below them; returns the attempts that something is left of."""
        doomed = [pid for pid, owners in self._owners.items() if not any(each.running for each in owners)]
        if doomed and now >= self._kill_again_at:
            self._kill_again_at = now + KILL_AGAIN_S
            for pid in doomed:
                self._kill(pid, self._owners[pid])
            kin.kill_below(doomed)
        return {attempt for pid in doomed for attempt in self._owners[pid]}

    def reaped(self, pid: int) -> None:
        """That process is gone, whoever it was: its pid may be another's by now."""
        self._owners.pop(pid, None)
        self._doomed.discard(pid)

    def _kill(self, pid: int, owners: set[Attempt]) -> None:
        """KILL it; the first time its attempt is told, where that has ended by itself and it is sure which it is."""
        if pid not in self._doomed:
            self._doomed.add(pid)
            process = kin.look(pid)
            if process is not None and not process.dead and len(owners) == 1:
                for attempt in owners:
                    attempt.leaves(process)
        kin.signal_pid(pid, signal.SIGKILL)

    def _owners_of(self, pid: int, attempts: Collection[Attempt]) -> set[Attempt]:
        """The attempts that this orphan may belong to: the one whose mark it carries, or in whose group it is, and
        otherwise everyone that is under way now."""
        for part in (kin.variable(pid, kin.KIN) or "").split("/"):
            serial = part.removeprefix(self._mark)
            if part.startswith(self._mark) and serial.isdecimal():  # a job may have made anything of it
                return {attempt for attempt in attempts if str(attempt.leader.serial) == serial}
        process = kin.look(pid)
        if process is not None:
            for attempt in attempts:
                if attempt.leader.pid == process.group:
                    return {attempt}
        return set(attempts)
