"""The hot verb: settle what has ended, let time pass, and claim; one transaction, a few seeks for each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from hueyctl.errors import StoreBusy, StoreFull
from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.run import RunState
from hueyctl.model.transition import Settlement
from hueyctl.storage import ends, gates
from hueyctl.storage.claiming import claim
from hueyctl.storage.database import Database, Unstorable
from hueyctl.storage.hooks import follow
from hueyctl.storage.known import Known
from hueyctl.storage.limits import Limits, bounds
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, SUBJECT, instant, micros, run_from
from hueyctl.storage.settling import Overtaken, keep_printed, settle_all, settle_each
from hueyctl.storage.store import Claim, Exchange, Want

# So many runs become due, expire or are held at once; the rest in the next transaction: others want to write too.
BATCH: Final = 10_000

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
    except (Overtaken, Unstorable, ValueError, TypeError, OverflowError, msgspec.MsgspecError):
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
            settle_each(database, settlements, now, log) if each_alone else settle_all(database, settlements, now, log)
        )
        if database.is_shared:
            keep_printed(database, [settlement for settlement in settlements if settlement not in stale])
            # The end of one may let another machine's worker start the next. Who claims nothing at the moment doesn't
            # say by which limits.
            if settlements and (want is None or any(bounds(want, settlement.claimed) for settlement in settlements)):
                database.tell(b"work")
        more = _let_time_pass(database, known, log)
        opens_at = None
        if want is not None and not more and known.registered(want.worker):
            limits = Limits(database, want, log.time, paused=known.paused())
            stopped = claim(database, known, limits, log, claims, durable=durable)
            opens_at = limits.opens_at
        # What was claimed expires no more.
        times = *known.pending(again=any(each.run.expires_at is not None for each in claims)), opens_at
        due = min((at for at in times if at is not None), default=None)
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


def _let_time_pass(database: Database, known: Known, log: Log) -> bool:
    """End what has expired, and let what is due into its line; is there more of it than one batch?"""
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
        known.pending(again=True)
    return more


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
