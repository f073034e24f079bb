"""How attempts end in the store: what a transition made of a running run is written under its token, or refused.

All settlements of a transaction go together where they can. Where one comes too late or can't be stored, each goes by
itself, so that it takes no other with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from hueyctl.model import transition
from hueyctl.model.event import EventType
from hueyctl.model.outcome import Raised, describe
from hueyctl.model.run import Run
from hueyctl.model.transition import Change, Settlement, settle
from hueyctl.storage import ends, gates
from hueyctl.storage.database import Database, Unstorable
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, Row, micros, run_from

UNDER_TOKEN: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE n = ? AND token = ? AND state = 'running'"
BY_NUMBER: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE n = ?"

# The end of an attempt, whatever it is. A run that waits again has no worker; one that has ended keeps its last.
# Fenced: what the change was made from must still hold.
CHANGE: Final = """
UPDATE runs SET state = ?, retries_left = ?, losses = ?, due_at = ?, expires_at = ?, finished_at = ?, exit_code = ?,
    error = ?, reason = ?, result = ?, result_error = ?, worker = ?, token = NULL, revoking = 0, killing = 0
WHERE n = ? AND token = ? AND revoking = ?
"""

KEEP: Final = """
INSERT INTO outputs (n, attempt, stdout, stderr) VALUES (?, ?, ?, ?)
ON CONFLICT (n, attempt) DO UPDATE SET stdout = excluded.stdout, stderr = excluded.stderr
"""


class Overtaken(Exception):
    """A run isn't as it was when it was claimed: its token is another, or it was asked to be revoked."""


def settle_all(database: Database, settlements: Iterable[Settlement], now: datetime, log: Log) -> list[Settlement]:
    """Settle all; which of them came too late. Raises `Overtaken` where each has to be looked at."""
    alone, others = [], []
    for settlement in settlements:
        run = settlement.claimed
        # What nothing else follows from: as good as all of them, and one statement does.
        if run is None or run.schedule or run.pipeline or run.lock_key or run.job in log.hooks:
            others.append(settlement)
        else:
            alone.append((run, settle(run, settlement, now)))
    if alone and database.many(CHANGE, [_row(run, change) for run, change in alone]) < len(alone):
        raise Overtaken
    for run, change in alone:
        log.move(run.queue, run.job, run.state, change.state)
        log.drafts(run, change.events)
    return _in_order(database, others, now, log)


def settle_each(database: Database, settlements: Iterable[Settlement], now: datetime, whole: Log) -> list[Settlement]:
    """Settle each as if it were alone; which of them came too late. One that can't be stored ends `failed` with that
    cause."""
    stale = []
    for settlement in settlements:
        log = Log(whole.time, whole.by, whole.hooks)
        database.run("SAVEPOINT one")
        try:
            stale += _in_order(database, [settlement], now, log)
            log.write(database)
        except (Unstorable, ValueError, TypeError, OverflowError, msgspec.MsgspecError) as exc:
            database.run("ROLLBACK TO one")
            cause = Raised(f"its end can't be stored: {exc}")
            failed = msgspec.structs.replace(settlement, verdict=transition.Final(), outcome=cause, ended_at=now)
            log = Log(whole.time, whole.by, whole.hooks)
            stale += _in_order(database, [failed], now, log)
            log.write(database)
        database.run("RELEASE one")
        whole.opened |= log.opened
        whole.entered |= log.entered
        whole.occasions += log.occasions
    return stale


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


def keep_printed(database: Database, settlements: Iterable[Settlement]) -> None:
    """Keep the ends of what these attempts have printed, for those who look from other machines."""
    database.many(
        KEEP,
        [
            (settlement.n, _attempt_of(settlement.token), settlement.printed.stdout, settlement.printed.stderr)
            for settlement in settlements
            if settlement.printed is not None
        ],
    )


def _in_order(database: Database, settlements: Iterable[Settlement], now: datetime, log: Log) -> list[Settlement]:
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


def _row(run: Run, change: Change) -> Row:
    finished_at = change.finished_at
    return (
        change.state._value_,
        change.retries_left,
        change.losses,
        micros(change.due_at),
        None if change.expires_at is None else micros(change.expires_at),
        None if finished_at is None else micros(finished_at),
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


def _refuse(database: Database, settlement: Settlement, log: Log) -> None:
    data = {"attempt": _attempt_of(settlement.token), "token": settlement.token, "reason": describe(settlement.outcome)}
    row = database.one(BY_NUMBER, settlement.n)
    if row is None:
        log.other(EventType.STALE, data={**data, "n": settlement.n})
    else:
        run = run_from(row)
        log.run(run, EventType.STALE, run.state, data)


def _attempt_of(token: str) -> int | None:
    """The attempt that a token was made for."""
    number = token.partition("-")[0]
    return int(number) if number.isdecimal() else None
