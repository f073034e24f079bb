"""The events of a transaction, written with what they tell of."""

from __future__ import annotations

from typing import Any, Final

from hueyctl.model.event import EventDraft, EventType
from hueyctl.model.run import Run, RunState
from hueyctl.storage.database import Database
from hueyctl.storage.rows import Row, maybe_micros, to_json, utf8

INSERT_EVENT: Final = (
    "INSERT INTO events (time, type, state, n, run, job, attempt, worker, schedule, slot, pipeline, by, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Log:
    """The events of one transaction, in order; written by its `write`, in that same transaction."""

    def __init__(self, time: int, by: str | None) -> None:
        self.time = time
        self.by = None if by is None else utf8(by)
        self._rows: list[Row] = []

    def run(self, run: Run, type: EventType, state: RunState | None, data: dict[str, Any] | None = None) -> None:
        """An event of `run`, whose state after it is `state`."""
        self._rows.append(
            (
                self.time,
                type.value,
                None if state is None else state.value,
                run.n,
                run.id,
                run.job,
                run.attempt or None,
                run.worker,
                run.schedule,
                maybe_micros(run.scheduled_at),
                run.pipeline,
                self.by if self.by is not None else run.worker,
                to_json(data) if data else None,
            )
        )

    def drafts(self, run: Run, drafts: tuple[EventDraft, ...]) -> None:
        """The events that a transition made."""
        for draft in drafts:
            self.run(run, draft.type, draft.state, draft.data)

    def row(self, subject: Row, type: EventType, state: RunState, data: str | None = None) -> None:
        """An event of the run that a row of `SUBJECT` is of; `data` is JSON."""
        n, id, job, attempt, schedule, slot, pipeline, *_ = subject
        self._rows.append(
            (
                self.time,
                type.value,
                state.value,
                n,
                id,
                job,
                attempt or None,
                None,
                schedule,
                slot,
                pipeline,
                self.by,
                data,
            )
        )

    def other(
        self,
        type: EventType,
        *,
        job: str | None = None,
        worker: str | None = None,
        schedule: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """An event that is of no run."""
        texts = (None if text is None else utf8(text) for text in (job, worker, schedule))
        job, worker, schedule = texts
        json = to_json(data) if data else None
        self._rows.append(
            (self.time, type.value, None, None, None, job, None, worker, schedule, None, None, self.by, json)
        )

    def write(self, database: Database) -> None:
        """Write them, in their order."""
        if self._rows:
            database.many(INSERT_EVENT, self._rows)
            self._rows = []
