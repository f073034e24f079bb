"""Ended runs brought back by users: the same id, its attempts counting on, retries and losses afresh."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.hook import Hooks
from hueyctl.model.run import TERMINAL, Run, RunState
from hueyctl.storage import changes, ends, pipelines
from hueyctl.storage.database import Database
from hueyctl.storage.hooks import follow
from hueyctl.storage.log import Log
from hueyctl.storage.rows import micros
from hueyctl.storage.store import Retried

# What waits for others expires when it is released, and not before.
RETRY: Final = """
UPDATE runs SET state = ?1, gate = NULL, retries_left = NULL, losses = 0, due_at = ?2,
    expires_at = CASE ?1 WHEN 'queued' THEN ?2 + expires_us END, started_at = NULL, finished_at = NULL, worker = NULL,
    exit_code = NULL, error = NULL, reason = NULL, result = NULL, result_error = NULL
WHERE n = ?3
"""


def retry(database: Database, ids: Sequence[str], *, by: str, now: datetime, hooks: Hooks) -> list[Retried]:
    """`Store.retry`."""
    log = Log(micros(now), by, hooks)
    retried = []
    back: set[str] = set()  # a step may have been brought back with another one
    with database.write(durable=True):
        for run in changes.found(database, ids):
            refusal = None if run.id in back else _refusal(database, run)
            if refusal is None and run.id not in back:
                back |= _bring_back(database, run, log)
            [after] = changes.found(database, [run.id])
            retried.append(Retried(after, refusal))
        log.write(database)
        follow(database, log)
        failpoint("retry.before")
    failpoint("retry.after")
    return retried


def _refusal(database: Database, run: Run) -> str | None:
    if run.state is RunState.SUCCEEDED:
        return "has succeeded"
    if run.state not in TERMINAL:
        return f"has not ended: it is {run.state.value}"
    row = database.one("SELECT unique_key FROM runs WHERE n = ?", run.n)
    live = changes.live_of_key(database, row[0]) if row else None
    if live is not None:
        return f"can't come back beside run {live.id}: that is live, and has the same unique key"
    return None


def _bring_back(database: Database, run: Run, log: Log) -> set[str]:
    """Let an ended run go on, one of a pipeline with what depends on it. Returns the ids of all that go on."""
    if run.pipeline is None:
        _again(database, run, RunState.QUEUED, log)
        return {run.id}
    back = pipelines.brought_back(database, run)
    for each in back:
        _again(database, each, RunState.WAITING, log)
    ends.begin(database, run.pipeline, log)
    return {each.id for each in back}


def _again(database: Database, run: Run, state: RunState, log: Log) -> None:
    database.run(RETRY, state.value, log.time, run.n)
    if not run.is_pipeline:
        log.move(run.queue, run.job, run.state, state)
    log.run(msgspec.structs.replace(run, worker=None), EventType.RETRIED, state, {"was": run.state.value})
