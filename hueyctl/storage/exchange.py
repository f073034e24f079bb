"""The hot verb: settle what has ended, let time pass, and claim; one transaction, a few seeks for each run.

What a claim costs depends on how many lines (queue, job) are waiting, never on how many runs stand in them: the heads
of the open lines are merged, and a line that is paused, or that the worker doesn't define, is passed over as a whole.
A head whose lock is taken leaves its line for a place behind the lock's gate (`storage.gates`).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from hueyctl.errors import StoreBusy, StoreFull
from hueyctl.failpoints import failpoint
from hueyctl.model import transition
from hueyctl.model.event import EventType
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.instant import iso
from hueyctl.model.outcome import Raised, describe
from hueyctl.model.run import MESSAGE_VERSION, Run, RunState
from hueyctl.model.transition import Change, Settlement, settle
from hueyctl.storage import ends, gates, pipelines
from hueyctl.storage.database import Database, Unstorable
from hueyctl.storage.hooks import follow
from hueyctl.storage.known import Known
from hueyctl.storage.limits import Limits, bounds
from hueyctl.storage.lines import HEADS, LINE
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, SUBJECT, Row, instant, maybe_micros, micros, run_from
from hueyctl.storage.store import Claim, Exchange, Want

# So many runs become due, expire or are held at once; the rest in the next transaction: others want to write too.
BATCH: Final = 10_000
# So many runs are looked at and can't be claimed (held from now on, or waiting for a lock); each is looked at once.
PASSED_MAX: Final = 1_000

UNDER_TOKEN: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE n = ? AND token = ? AND state = 'running'"
BY_NUMBER: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE n = ?"

# The end of an attempt, whatever it is. A run that waits again has no worker; one that has ended keeps its last.
# Fenced: what the change was made from must still hold.
CHANGE: Final = """
UPDATE runs SET state = ?, retries_left = ?, losses = ?, due_at = ?, expires_at = ?, finished_at = ?, exit_code = ?,
    error = ?, reason = ?, result = ?, result_error = ?, worker = ?, token = NULL, revoking = 0, killing = 0
WHERE n = ? AND token = ? AND revoking = ?
"""

# One UPDATE, never read, deleted and inserted again: a run is at no moment nowhere.
PROMOTE: Final = f"""
UPDATE runs SET state = 'queued' WHERE n IN (
    SELECT n FROM runs WHERE state = 'scheduled' AND due_at <= ? ORDER BY due_at LIMIT {BATCH}
) RETURNING {SUBJECT}
"""

EXPIRING: Final = f"""
SELECT {RUN_COLUMNS} FROM runs
WHERE expires_at <= ? AND expires_at IS NOT NULL AND finished_at IS NULL AND state <> 'running'
ORDER BY expires_at LIMIT {BATCH}
"""

EXPIRE: Final = "UPDATE runs SET state = 'expired', finished_at = ?, reason = ? WHERE n = ?"

CLAIM: Final = """
UPDATE runs SET state = 'running', attempt = ?, token = ?, worker = ?, started_at = ?, retries_left = ?,
    crash_limit = ?, on_worker_lost = ?, exit_code = NULL, error = NULL, reason = NULL
WHERE n = ?
"""

KEEP: Final = """
INSERT INTO outputs (n, attempt, stdout, stderr) VALUES (?, ?, ?, ?)
ON CONFLICT (n, attempt) DO UPDATE SET stdout = excluded.stdout, stderr = excluded.stderr
"""

TOLD_OTHERS: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE n = ?1
    AND (SELECT type FROM events WHERE n = ?1 AND n IS NOT NULL ORDER BY seq DESC LIMIT 1) <> 'rate-limited'
"""

HOLD: Final = "UPDATE runs SET state = 'held', hold = 'misfit', reason = ? WHERE n = ?"


def exchange(
    database: Database,
    known: Known,
    settlements: Sequence[Settlement],
    want: Want | None,
    now: datetime,
    *,
    hooks: Hooks = NO_HOOKS,
    durable: bool,
) -> Exchange:
    """`Store.exchange`; `durable`: first claims are on the disk too when it returns, as re-claims always are."""
    try:
        done, reclaim = _exchange(database, known, settlements, want, now, hooks=hooks, durable=durable)
    except (_Overtaken, Unstorable, ValueError, TypeError, OverflowError, msgspec.MsgspecError):
        if not settlements:
            raise
        # One of them comes too late, or can't be stored. Each on its own, so that it takes no other with it.
        done, reclaim = _exchange(
            database, known, settlements, want, now, hooks=hooks, durable=durable, each_alone=True
        )
    if want is None or not reclaim:
        return done
    # How durable a transaction is must be known before it begins, and what was settled must not be reported as failed
    # by what comes after it: the claims that must be durable have a transaction of their own.
    rest = msgspec.structs.replace(want, limit=want.limit - len(done.claims))
    try:
        again, _ = _exchange(database, known, (), rest, now, hooks=hooks, durable=True)
    except (StoreBusy, StoreFull):
        if not settlements and not done.claims:
            raise
        return msgspec.structs.replace(done, next_due=now)
    claims, opened = done.claims + again.claims, done.opened or again.opened
    return msgspec.structs.replace(again, claims=claims, stale=done.stale, opened=opened)


def apply(database: Database, run: Run, change: Change, log: Log) -> bool:
    """Write what a transition made of a running run, and its events into the log; False, and nothing was written, where
    the run has another token by now, or was asked to be revoked."""
    if not database.run(CHANGE, *_row(run, change)):
        return False
    log.move(run.queue, run.job, run.state, change.state)
    log.drafts(run, change.events)
    gates.let_go(database, run.n, run.lock_key, log)
    if change.finished_at is not None and (run.schedule or run.pipeline or run.job in log.hooks):
        over = msgspec.structs.replace(
            run,
            state=change.state,
            finished_at=change.finished_at,
            exit_code=change.exit_code,
            error=change.error,
            reason=change.reason,
            result=change.result,
            result_error=change.result_error,
        )
        ends.ended(database, over, log)
    return True


def _row(run: Run, change: Change) -> Row:
    finished_at = change.finished_at
    return (
        change.state.value,
        change.retries_left,
        change.losses,
        micros(change.due_at),
        maybe_micros(change.expires_at),
        maybe_micros(finished_at),
        change.exit_code,
        change.error,
        change.reason,
        change.result,
        change.result_error,
        None if finished_at is None else run.worker,
        run.n,
        run.token,
        run.revoking,
    )


def expire(database: Database, log: Log) -> int:
    """End what is past its `expires_at` and never started, at most `BATCH` runs; how many they were."""
    runs = [run_from(row) for row in database.all(EXPIRING, log.time)]
    reason = "expired: it was not started in time"
    data = {"reason": reason}
    database.many(EXPIRE, [(log.time, reason, run.n) for run in runs])
    for run in runs:
        log.move(run.queue, run.job, run.state, RunState.EXPIRED)
        log.run(run, EventType.EXPIRED, RunState.EXPIRED, data)
    for run in runs:  # only when all of them are recorded: with the last of its steps a pipeline ends
        over = msgspec.structs.replace(run, state=RunState.EXPIRED, finished_at=instant(log.time), reason=reason)
        ends.ended(database, over, log)
    for lock_key in {run.lock_key for run in runs}:
        gates.open_lock(database, lock_key, log)
    return len(runs)


def _exchange(
    database: Database,
    known: Known,
    settlements: Sequence[Settlement],
    want: Want | None,
    now: datetime,
    *,
    hooks: Hooks,
    durable: bool,
    each_alone: bool = False,
) -> tuple[Exchange, bool]:
    """One transaction; and whether it stopped at a run that only a durable one may claim."""
    log = Log(micros(now), want.worker if want else None, hooks)
    claims: list[Claim] = []
    stopped = None
    limits = None
    with database.write(durable=durable):
        known.look()
        stale = (
            _settle_each(database, settlements, now, log) if each_alone else _settle(database, settlements, now, log)
        )
        if database.is_shared:
            _keep(database, [settlement for settlement in settlements if settlement not in stale])
            if want is not None and any(bounds(want, settlement.claimed) for settlement in settlements):
                database.tell(b"work")  # the end of one may let another machine's worker start the next
        due, more = _let_time_pass(database, known, log)
        if want is not None and not more and known.registered(want.worker):
            limits = Limits(database, want, log.time, paused=known.paused())
            stopped = _claim(database, known, limits, log, claims, durable=durable)
            due = min((at for at in (due, limits.opens_at) if at is not None), default=None)
        log.write(database)
        hooked = follow(database, log)
        if hooked:
            known.pending(again=True)  # such a run may expire
        if log.entered or log.opened:
            known.line = None
        failpoint("claim.before", claims)
        failpoint("settle.before", settlements)
    known.keep()
    failpoint("claim.after", claims)
    failpoint("settle.after", settlements)
    # More than one transaction should take: the rest of it at once. The runs of hooks came after the claims.
    next_due = now if more or hooked or stopped == "full" else None if due is None else instant(due)
    done = Exchange(
        claims=tuple(claims),
        stale=tuple(stale),
        next_due=next_due,
        throttled=limits is not None and limits.opens_at is not None,
        opened=log.opened,
    )
    return done, stopped == "reclaim"


class _Overtaken(Exception):
    """A run isn't as it was when it was claimed: its token is another, or it was asked to be revoked."""


def _settle(database: Database, settlements: Iterable[Settlement], now: datetime, log: Log) -> list[Settlement]:
    """Settle all; which of them came too late. Raises `_Overtaken` where each has to be looked at."""
    alone, others = [], []
    for settlement in settlements:
        run = settlement.claimed
        # What nothing else follows from: as good as all of them, and one statement does.
        if run is None or run.schedule or run.pipeline or run.lock_key or run.job in log.hooks:
            others.append(settlement)
        else:
            alone.append((run, settle(run, settlement, now)))
    if alone and database.many(CHANGE, [_row(run, change) for run, change in alone]) < len(alone):
        raise _Overtaken
    for run, change in alone:
        log.move(run.queue, run.job, run.state, change.state)
        log.drafts(run, change.events)
    return _settle_in_order(database, others, now, log)


def _settle_in_order(
    database: Database, settlements: Iterable[Settlement], now: datetime, log: Log
) -> list[Settlement]:
    stale = []
    for settlement in settlements:
        claimed = settlement.claimed
        if claimed is not None and apply(database, claimed, settle(claimed, settlement, now), log):
            continue
        row = database.one(UNDER_TOKEN, settlement.n, settlement.token)
        if row is None:
            stale.append(settlement)
            _refuse(database, settlement, log)
        else:
            run = run_from(row)
            apply(database, run, settle(run, settlement, now), log)
    return stale


def _settle_each(database: Database, settlements: Iterable[Settlement], now: datetime, whole: Log) -> list[Settlement]:
    stale = []
    for settlement in settlements:
        log = Log(whole.time, whole.by, whole.hooks)
        database.run("SAVEPOINT one")
        try:
            stale += _settle_in_order(database, [settlement], now, log)
            log.write(database)
        except (Unstorable, ValueError, TypeError, OverflowError, msgspec.MsgspecError) as exc:
            database.run("ROLLBACK TO one")
            cause = Raised(f"its end can't be stored: {exc}")
            failed = msgspec.structs.replace(settlement, verdict=transition.Final(), outcome=cause, ended_at=now)
            log = Log(whole.time, whole.by, whole.hooks)
            stale += _settle_in_order(database, [failed], now, log)
            log.write(database)
        database.run("RELEASE one")
        whole.opened |= log.opened
        whole.entered |= log.entered
        whole.occasions += log.occasions
    return stale


def _keep(database: Database, settlements: Iterable[Settlement]) -> None:
    database.many(
        KEEP,
        [
            (settlement.n, attempt_of(settlement.token), settlement.printed.stdout, settlement.printed.stderr)
            for settlement in settlements
            if settlement.printed is not None
        ],
    )


def _refuse(database: Database, settlement: Settlement, log: Log) -> None:
    data = {"attempt": attempt_of(settlement.token), "token": settlement.token, "reason": describe(settlement.outcome)}
    row = database.one(BY_NUMBER, settlement.n)
    if row is None:
        log.other(EventType.STALE, data={**data, "n": settlement.n})
    else:
        run = run_from(row)
        log.run(run, EventType.STALE, run.state, data)


def _let_time_pass(database: Database, known: Known, log: Log) -> tuple[int | None, bool]:
    """When the next run becomes due; whether more than one batch is due now."""
    due, expires = known.pending(again=log.entered)
    more = False
    if expires is not None and expires <= log.time:
        more = expire(database, log) == BATCH
        due, _ = known.pending(again=True)
    if due is not None and due <= log.time:
        promoted = database.all(PROMOTE, log.time)
        for row in sorted(promoted):
            log.row(row, EventType.ENQUEUED, RunState.SCHEDULED, RunState.QUEUED)
        more = more or len(promoted) == BATCH
        due, _ = known.pending(again=True)
    return due, more


def _claim(
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


def attempt_of(token: str) -> int | None:
    """The attempt that a token was made for."""
    number = token.partition("-")[0]
    return int(number) if number.isdecimal() else None
