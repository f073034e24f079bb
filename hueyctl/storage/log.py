"""What a transaction writes at its end: the events of what it did, and the counts of the lines that it changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hueyctl.model.event import EventDraft, EventType
from hueyctl.model.hook import NO_HOOKS, Hook, Hooks, Occasion
from hueyctl.model.run import Run, RunState
from hueyctl.storage.database import Database
from hueyctl.storage.rows import Row, micros, to_json, utf8

INSERT_EVENT: Final = (
    "INSERT INTO events (time, type, state, n, run, job, attempt, worker, schedule, slot, pipeline, by, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


COUNT: Final = """
INSERT INTO lines (queue, job, state, count) VALUES (?, ?, ?, ?)
ON CONFLICT (queue, job, state) DO UPDATE SET count = lines.count + excluded.count
"""
# Where runs stand in a line. Those that run are few, and counted when asked for.
STANDING: Final = frozenset({RunState.WAITING, RunState.SCHEDULED, RunState.QUEUED, RunState.HELD})


class Log:
    """Events in their order, and moves between states; written by `write`, in the transaction that they are of."""

    def __init__(self, time: int, by: str | None, hooks: Hooks = NO_HOOKS) -> None:
        self.time = time
        self.by = None if by is None else utf8(by)
        self.hooks = hooks
        self.occasions: list[tuple[Hook, Occasion]] = []
        """What hooks are to follow, when this log is written (`hooks.follow`)."""
        self.opened = False
        """A run that waited for what this transaction has ended may be claimed now."""
        self.entered = False
        """A run stands in a line that didn't: it may wait for a time."""
        self._rows: list[Row] = []
        self._moves: dict[tuple[str, str, RunState], int] = {}

    def move(self, queue: str, job: str, old: RunState | None, new: RunState, *, count: int = 1) -> None:
        """A run of this line (or `count` of them) went from one state to another (from none: it is new)."""
        if old in STANDING:
            self._count(queue, job, old, -count)
        if new in STANDING:
            self.entered = True
            self._count(queue, job, new, count)

    def _count(self, queue: str, job: str, state: RunState, by: int) -> None:
        line = queue, job, state
        self._moves[line] = self._moves.get(line, 0) + by

    def run(self, run: Run, type: EventType, state: RunState | None, data: dict[str, Any] | None = None) -> None:
        """An event of `run`, whose state after it is `state`."""
        self._rows.append(
            (
                self.time,
                type._value_,  # `value` is a property in Python, which costs two calls in each event
                None if state is None else state._value_,
                run.n,
                run.id,
                run.job,
                run.attempt or None,
                run.worker,
                run.schedule,
                None if run.scheduled_at is None else micros(run.scheduled_at),
                run.pipeline,
                self.by if self.by is not None else run.worker,
                to_json(data) if data else None,
            )
        )

    def drafts(self, run: Run, drafts: tuple[EventDraft, ...]) -> None:
        """The events that a transition made."""
        for draft in drafts:
            self.run(run, draft.type, draft.state, draft.data)

    def row(
        self, subject: Sequence[Any], type: EventType, old: RunState, new: RunState, data: str | None = None
    ) -> None:
        """An event of the run that a row of `SUBJECT` is of, and its move; `data` is JSON."""
        n, id, queue, job, attempt, schedule, slot, pipeline = subject
        self.move(queue, job, old, new)
        run = (n, id, job, attempt or None, None, schedule, slot, pipeline)
        self._rows.append((self.time, type.value, new.value, *run, self.by, data))

    def hook(self, run: Run, *, or_else: str = "") -> None:
        """The hook of its job (or else of this name) is to follow what became of `run`, if there is one."""
        hook = self.hooks.get(run.job) or self.hooks.get(or_else)
        occasion = Occasion.of(run) if hook else None
        if hook and occasion:
            self.occasions.append((hook, occasion))

    def other(
        self,
        type: EventType,
        *,
        job: str | None = None,
        worker: str | None = None,
        schedule: str | None = None,
        slot: int | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """An event that is of no run."""
        texts = (None if text is None else utf8(text) for text in (job, worker, schedule))
        job, worker, schedule = texts
        json = to_json(data) if data else None
        self._rows.append(
            (self.time, type.value, None, None, None, job, None, worker, schedule, slot, None, self.by, json)
        )

    def write(self, database: Database) -> None:
        """Write all of it."""
        if self.entered or self.opened:
            database.tell(b"work")
        elif self._rows:
            database.tell(b"event")
        if self._rows:
            database.many(INSERT_EVENT, self._rows)
        counts = [(queue, job, state.value, count) for (queue, job, state), count in self._moves.items() if count]
        if counts:
            database.many(COUNT, counts)
