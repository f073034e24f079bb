"""Claiming: the best of what is queued and open, for the threads of a worker that wait.

What it costs depends on how many lines (queue, job) are waiting, never on how many runs stand in them: the heads of the
open lines are merged, and a line that is paused, or that the worker doesn't define, is passed over as a whole. A head
whose lock is taken leaves its line for a place behind the lock's gate (`storage.gates`).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from hueyctl.model.event import EventType
from hueyctl.model.instant import iso
from hueyctl.model.run import MESSAGE_VERSION, Run, RunState
from hueyctl.storage import gates, pipelines
from hueyctl.storage.database import Database
from hueyctl.storage.known import Known
from hueyctl.storage.limits import Limits
from hueyctl.storage.lines import HEADS, LINE
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, Row, instant, run_from
from hueyctl.storage.store import Claim, Want

# So many runs are looked at and can't be claimed (held from now on, or waiting for a lock); each is looked at once.
PASSED_MAX: Final = 1_000

CLAIM: Final = """
UPDATE runs SET state = 'running', attempt = ?, token = ?, worker = ?, started_at = ?, retries_left = ?,
    crash_limit = ?, on_worker_lost = ?, exit_code = NULL, error = NULL, reason = NULL
WHERE n = ?
"""

TOLD_OTHERS: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE n = ?1
    AND (SELECT type FROM events WHERE n = ?1 AND n IS NOT NULL ORDER BY seq DESC LIMIT 1) <> 'rate-limited'
"""

HOLD: Final = "UPDATE runs SET state = 'held', hold = 'misfit', reason = ? WHERE n = ?"


def claim(
    database: Database, known: Known, limits: Limits, log: Log, claims: list[Claim], *, durable: bool
) -> Literal["reclaim", "full"] | None:
    """Add to `claims` what `want` can take; why it stopped before that ("full": too many had to be passed over)."""
    want, passed = limits.want, 0
    if want.limit < 1:
        return None
    taken = _Taken(database)
    if log.entered or log.opened:
        known.line = None
    held_back: list[int] = []
    runs = _in_order(database, known, limits, taken, held_back)
    stopped: Literal["reclaim", "full"] | None = None
    while (run := next(runs, None)) is not None:
        misfit = _misfit(run, want)
        if misfit is not None:
            passed += 1
            taken.write()
            if _hold(database, run, misfit, log):
                # Who was let out may come before others of this lock that are at hand already.
                known.line = None
                runs = _in_order(database, known, limits, taken, held_back)
        elif run.attempt and not durable:
            # A run may crash the machine each time: that it was claimed must not come undone.
            stopped = "reclaim"
            break
        elif run.lock_key is not None and not _lock(database, run, taken, log):
            passed += 1
        else:
            claims.append(_take(database, run, want, taken, log))
            limits.count(run)
            if len(claims) == want.limit:
                break
        if passed == PASSED_MAX:
            stopped = "full"
            break
    taken.write()
    for n in dict.fromkeys(held_back):
        _tell_held_back(database, n, limits, log)
    return stopped


def _tell_held_back(database: Database, n: int, limits: Limits, log: Log) -> None:
    """Record once in each wait that it is this run's turn, and the rate limit of its job says later."""
    row = database.one(TOLD_OTHERS, n)
    if row is not None:
        run = run_from(row)
        limit, opens_at = limits.want.jobs[run.job].rate_limit, limits.throttled[run.job]
        data = {"limit": str(limit), "opens_at": iso(instant(opens_at))}
        log.run(run, EventType.RATE_LIMITED, RunState.QUEUED, data)


class _Taken:
    """Runs that were claimed, to be written together: before anything looks at a line or at who holds a lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secrets = ""
        self.rows: list[Row] = []

    def secret(self) -> str:
        """What makes a token unlike any other: 64 random bits."""
        if not self._secrets:
            self._secrets = os.urandom(64).hex()
        secret, self._secrets = self._secrets[:16], self._secrets[16:]
        return secret

    def write(self) -> None:
        if self.rows:
            self._database.many(CLAIM, self.rows)
            self.rows.clear()


def _lock(database: Database, run: Run, taken: _Taken, log: Log) -> bool:
    taken.write()
    return gates.take(database, run, log)


def _in_order(database: Database, known: Known, limits: Limits, taken: _Taken, held_back: list[int]) -> Iterator[Run]:
    """The queued runs that a worker may take, in the order of claiming. Each must have left its line, or be among the
    `taken`, when the next is asked for. Into `held_back` go the numbers of those whose turn a rate limit puts off."""
    want = limits.want
    fetched: dict[tuple[str, str], list[Row]] = {}
    if known.line is None:
        found = database.all(HEADS)
        if len(found) == 1:
            known.line = found[0][2:]
    else:  # its first are as quickly had as its very first
        rows = _line(database, *known.line, want.limit, taken)
        fetched[known.line] = rows
        found = [_head(row) for row in rows[-1:]]
    heads = [head for head in found if _open(head[2], head[3], limits)]
    heapq.heapify(heads)
    while heads:
        _, _, queue, job = heads[0]
        if not limits.allow(queue, job):
            if limits.put_off:
                held_back.append(heads[0][1])
            heapq.heappop(heads)
            continue
        rows = fetched.get((queue, job)) or _line(database, queue, job, want.limit, taken)
        yield run_from(rows.pop())
        rows = rows or _line(database, queue, job, want.limit, taken)
        if rows:
            fetched[queue, job] = rows
            heapq.heapreplace(heads, _head(rows[-1]))
        else:
            heapq.heappop(heads)


def _line(database: Database, queue: str, job: str, limit: int, taken: _Taken) -> list[Row]:
    """The first of a line, the very first last, to be popped."""
    taken.write()
    return database.all(LINE, queue, job, limit)[::-1]


def _head(row: Row) -> Row:
    """A row as `HEADS` gives it, which sorts, of one of `RUN_COLUMNS`."""
    return -row[5], row[0], row[4], row[2]


def _open(queue: str, job: str, limits: Limits) -> bool:
    """Is this line one that the worker serves and defines, and not paused?"""
    want, paused = limits.want, limits.paused
    return (
        job in want.jobs
        and (want.queues is None or queue in want.queues)
        and ("all", "") not in paused
        and ("queue", queue) not in paused
        and ("job", job) not in paused
    )


def _take(database: Database, run: Run, want: Want, taken: _Taken, log: Log) -> Claim:
    policy = want.jobs[run.job]
    retries_left = run.retries_left
    if retries_left is None:
        retries_left = policy.retries if run.message.retries is None else run.message.retries
    attempt = run.attempt + 1
    token = f"{attempt}-{taken.secret()}"
    taken.rows.append(
        (attempt, token, want.worker, log.time, retries_left, policy.crash_limit, policy.on_worker_lost, run.n)
    )
    running = msgspec.structs.replace(
        run,
        state=RunState.RUNNING,
        attempt=attempt,
        token=token,
        worker=want.worker,
        started_at=instant(log.time),
        retries_left=retries_left,
        crash_limit=policy.crash_limit,
        on_worker_lost=policy.on_worker_lost,
        exit_code=None,
        error=None,
        reason=None,
    )
    log.move(run.queue, run.job, RunState.QUEUED, RunState.RUNNING)
    log.run(running, EventType.EXECUTING, RunState.RUNNING)
    if run.pipeline is None:
        return Claim(running, token)
    whole = pipelines.begun(database, run.pipeline, log)
    return Claim(running, token, whole, pipelines.inputs(database, run))


def _hold(database: Database, run: Run, misfit: str, log: Log) -> bool:
    """Hold a run that can't be claimed; did that let out others, which waited for its lock?"""
    database.run(HOLD, misfit, run.n)
    log.move(run.queue, run.job, RunState.QUEUED, RunState.HELD)
    log.run(run, EventType.HELD, RunState.HELD, {"reason": misfit})
    log.hook(msgspec.structs.replace(run, state=RunState.HELD, reason=misfit))
    return gates.open_lock(database, run.lock_key, log)


def _misfit(run: Run, want: Want) -> str | None:
    if run.message.v != MESSAGE_VERSION:
        return f"its message can't be read by this hueyctl (message version {run.message.v})"
    try:
        return want.admit(run)
    except Exception as exc:  # a run that can't even be judged must not stop the claims of all others, time and again
        return f"its message can't be judged: {type(exc).__name__}: {exc}"
